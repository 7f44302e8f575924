// What a task's programs need of its node: the node fills in the table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <migrate/program/protocol.hpp>
#include <migrate/task/services.hpp>
#include <migrate/task/usage.hpp>

namespace migrate::detail {

enum class program_state : std::uint8_t {
  starting, // it may yet turn out that it cannot be started
  running,
  failed,   // it could not be started
  ended,
  given_up, // killed, so that its task can move: to be run again from its beginning
};

struct program_order {
  keeping::program_start how;
  std::string name;         // for messages
  std::vector<int> given;   // the node's descriptors that go along, one for each of how.targets
  std::vector<int> ends;    // of pipes to the program, which the node owns from now on
  bool restartable = false;
  std::int64_t wall = 0;    // nanoseconds; 0: no limit
  std::int64_t grace = 0;
};

struct program_view {
  program_state state = program_state::starting;
  bool timed_out = false;
  std::int32_t process = 0;
  std::int32_t status = 0; // of `ended`: of wait(2); of `failed`: an errno
  keeping::stage where = keeping::stage::process;
  task_usage used;
};

struct program_services {
  failure (*start)(const program_order& order, std::uint64_t& serial);
  // Does not wait. The serial number means something on this node only.
  bool (*look)(std::uint64_t serial, program_view& into) noexcept;
  // False: this node has no such program. The running task is woken by every change.
  int (*end_of_pipe)(std::uint64_t serial, std::size_t index) noexcept; // -1: closed
  void (*close_pipe)(std::uint64_t serial, std::size_t index) noexcept;
  void (*signal)(std::uint64_t serial, int number) noexcept; // to its group
  void (*end)(std::uint64_t serial) noexcept;                // kills it with all its descendants
  void (*forget)(std::uint64_t serial) noexcept;             // the same if it still runs; then there is no such program
  bool (*held_back)() noexcept;
  // Whether the node is being vacated and starts nothing; the running task is woken when that is over.

  std::uint64_t (*ask_input)(std::uint64_t number, std::size_t bytes);
  bool (*take_input)(std::uint64_t call, std::int64_t& status, std::string& into);
  void (*drop_input)(std::uint64_t call) noexcept;
  // A request to home's standard input, as stream_services::read but without waiting; the task is woken by the answer.
};
inline constinit const program_services* the_programs = nullptr;

} // namespace migrate::detail
