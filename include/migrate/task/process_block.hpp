// What a task has as a process beside its memory: each part belongs to the layer that defines it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <migrate/task/usage.hpp>

#include <migrate/id.hpp>

namespace migrate::detail {

struct control_block;
struct signal_state;  // home/: dispositions, mask; what is pending is the node's until the task takes it
struct time_state;    // home/: home's clock as the task knows it, timers
struct surroundings;  // file/: working directory, umask, environment, identity
struct file_table;    // file/: descriptors
struct exit_list;     // task/: what exit() calls
struct stream_state;  // file/: standard streams
struct program_list;  // program/: what runs for it

struct process_block {
  signal_state* signals = nullptr;
  time_state* time = nullptr;
  surroundings* around = nullptr;
  file_table* files = nullptr;
  exit_list* at_exit = nullptr;
  stream_state* streams = nullptr;
  program_list* programs = nullptr;
  task_usage used;            // so far
  task_usage programs_used;   // by programs that it has run
  bool accounted = false;     // somebody wants `used` to be right
  int status = 0;             // how it ended, in the form of wait(2)
  std::uint64_t requests = 0; // numbers those of its requests that home must not serve twice
  std::uint64_t first_number = 0; // where such numbers begin: none that was used before its last restart is used again
};
// In the control block; the parts lie in the task's heap, made when they are first needed, so that they move with the
// task's memory and a task that is no more than a computation pays for none. What of a part is the kernel's, such as
// an open descriptor, a carrier takes along (see transfer/carrier.hpp).

struct process_part {
  void (*inherit)(control_block& parent, control_block& child) = nullptr;
  // As the parent, with the child's heap current and before the child's first instruction. May throw and may send, but
  // must not wait.
  void (*copied)(control_block& child, task_id original) = nullptr;
  // On the child's node before its first instruction, when it is a copy by fork(): undoes what a copy does not inherit.
  // Not as a task; must not wait.
  void (*ending)() noexcept = nullptr;
  // As the task, after its function: its last library calls, which may wait. Not for a task that a fault ended.
};

class process_parts {
public:
  void add(const process_part& part) { entries_.at(count_++) = part; }
  void clear() noexcept { count_ = 0; }
  void inherit(control_block& parent, control_block& child) const {
    for (std::size_t i = 0; i < count_; ++i)
      if (entries_[i].inherit != nullptr) entries_[i].inherit(parent, child);
  }
  void copied(control_block& child, task_id original) const {
    for (std::size_t i = 0; i < count_; ++i)
      if (entries_[i].copied != nullptr) entries_[i].copied(child, original);
  }
  void ending() const noexcept {
    for (std::size_t i = count_; i-- > 0;)
      if (entries_[i].ending != nullptr) entries_[i].ending();
  }

private:
  std::array<process_part, 16> entries_{};
  std::size_t count_ = 0;
};

inline constinit process_parts the_process_parts{};
// Filled by the node before its first task.

} // namespace migrate::detail
