// What tasks need of their node, as the task layer sees it: the layers above fill in the table.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <system_error>

#include <migrate/id.hpp>
#include <migrate/memory/address_plan.hpp>
#include <migrate/task/control_block.hpp>
#include <migrate/task/outcome.hpp>
#include <migrate/task/residual.hpp>
#include <migrate/task/resident.hpp>
#include <migrate/task/transfer.hpp>

namespace migrate::detail {

using steady_point = std::chrono::steady_clock::time_point;

struct birth {
  task_id id;
  region_number region;
  std::uint64_t epoch = 0;
  bool zeroed = false; // the region's memory was never written
};
// What home gives out for a new task. Its region is open on this node.

struct failure {
  std::error_code code;
  std::string what;
};

struct forked {
  task_id copy; // invalid in the copy itself
  failure why;
};

enum class after_signals : std::uint8_t {
  none,      // no handler has run
  restart,   // handlers have run that want interrupted calls to go on (SA_RESTART)
  interrupt, // one has run that wants them to end
};

struct services {
  node_id (*here)() noexcept;
  std::uint64_t (*incarnation)() noexcept; // differs between any two node processes

  birth (*conceive)(task_id parent, region_class kind, std::uint64_t awaited_as);
  // `awaited_as`: the parent's number for a child whose end it will ask for by wait(); zero: for any other.
  // Throws migrate::error when home has no more regions or does not answer.
  void (*cancel)(const birth& unborn) noexcept;
  resident& (*enter)(const birth& born, control_block& control);
  void (*start)(resident& task, node_id where);

  outcome (*join)(task_id task);
  bool (*wait_until)(task_id task, steady_point deadline); // true: it has ended
  void (*detach)(task_id task) noexcept;
  node_id (*locate)(task_id task);
  failure (*move)(task_id task, node_id target, transfer how);
  // Returns when the task runs on the target, or with the reason why it does not.
  failure (*move_me)(node_id target, transfer how);
  // As the running task.
  bool (*moves_in_rounds)(const resident& task, std::uint64_t random) noexcept;
  // Whether the task would go on for a while when it is to be moved.
  void (*move_soon)(node_id target) noexcept;
  // The running task, which goes on meanwhile. Nobody hears what comes of it.
  bool (*residual)(residual_dependency& on);
  // Of the running task; false: none.
  failure (*checkpoint)(task_id task);
  // Returns when the task's home knows of its new image, or with the reason why there is none.
  failure (*checkpoint_me)(bool& restarted);
  // As the running task, which may return from it in two lives.
  forked (*fork_me)();
  void (*start_node)(std::uint64_t call);
  // Another node on this machine; the call is answered when the cluster has a new node.

  void (*settle)() noexcept;
  // Waits until nothing that the running task began is under way: its last library call.

  void (*wake_at)(resident& task, steady_point when);
  void (*forget_wake)(resident& task) noexcept;
  std::size_t (*nodes)(node_id* into, std::size_t most) noexcept; // how many there are
  node_id (*random_node)(std::uint64_t random) noexcept; // of those alive
  void (*report)(const char* text) noexcept;             // a line for the node's operator

  bool (*signal_waits)(const resident& task) noexcept; // one that its mask lets through
  after_signals (*take_signals)();
  // Does what the running task's signals want: runs handlers, stops the task until it is continued, or ends it, and
  // then does not return. A safe point; the task may have moved when it returns.
};
// Functions, not an object: a task may be on another node when a call returns, where nothing of this
// node's memory is. Those that wait (conceive, join, wait_until, locate, move, move_me) keep no pointer
// to node memory across the wait.

inline constinit const services* the_services = nullptr;

[[gnu::noinline]] inline const services& node_services() {
  const services* table = the_services;
  if (table == nullptr)
    throw error(errc::node_missing, "this process has no node; construct migrate::node, or use migrate::run");
  return *table;
}

} // namespace migrate::detail
