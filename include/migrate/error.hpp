// What can go wrong, and how it is reported.
#pragma once

#include <string>
#include <system_error>

namespace migrate {

enum class errc {
  ok = 0,
  region_exhausted,     // a task's region, or the cluster's supply of regions, is used up
  stack_overflow,       // a task ran off its stack
  vacated_access,       // a task touched memory of a task that is not on this node
  address_space,        // the address plan cannot be reserved in this process
  store_missing,        // the store's directory is not there
  store_full,           // the store has no room, or a quota is used up
  store_read_only,      // the store cannot be written
  store_owner,          // the store belongs to somebody else or others may write to it
  store_mismatch,       // the directory is not a store, or not this cluster's
  store_io,             // the operating system reported an error on the store
  image_missing,        // no such image
  image_truncated,      // an image is shorter than its manifest says
  image_damaged,        // a checksum does not hold
  image_foreign,        // an image of another task or another cluster
  image_version,        // an image written by a newer version of the library
  not_compatible,       // two nodes differ in build, layout, processor or store
  not_authenticated,    // a peer has no valid credentials
  protocol,             // a peer sent something that makes no sense
  node_unreachable,     // no connection to a node, or it does not answer
  home_unreachable,     // the same of a task's home
  node_lost,            // the task was on a node that has died
  no_such_node,         // a node id that the cluster does not know
  no_such_task,         // a task id that home does not know, or that has ended
  move_in_progress,     // the task is being moved already
  move_refused,         // the target would not take the task
  not_movable,          // the task holds something that cannot move
  not_in_task,          // a call that only a task can make
  node_missing,         // a call that needs a node in this process
  shutting_down,        // the node is being stopped
  timed_out,            // a time limit passed
  message_too_large,    // a message over the protocol's limit
  task_failed,          // the joined task ended by an exception that has no type here
  cancelled,            // the operation was given up
  task_exited,          // the joined task called exit()
  region_occupied,      // a copy of the task (see fork) has the same addresses on that node
  not_permitted,        // the caller may not do that to the task
  node_leaving,         // the node is being evicted from its host, and takes no tasks
};

inline const std::error_category& error_category() noexcept;

inline std::error_code make_error_code(errc code) noexcept {
  return {static_cast<int>(code), error_category()};
}

class error : public std::system_error {
public:
  error(errc code, const std::string& what) : std::system_error(make_error_code(code), what), what_(what) {}
  error(std::error_code code, const std::string& what) : std::system_error(code, what), what_(what) {}

  const char* what() const noexcept override { return what_.c_str(); }

private:
  std::string what_;
};
// Thrown by every operation of the library that has no std::error_code& parameter. what() says what
// was asked, what happened and what to do; code() is one of errc, or the operating system's own.

namespace detail {

class error_category_type final : public std::error_category {
public:
  const char* name() const noexcept override { return "migrate"; }
  std::string message(int code) const override {
    switch (static_cast<errc>(code)) {
    case errc::ok: return "no error";
    case errc::region_exhausted: return "region exhausted";
    case errc::stack_overflow: return "stack overflow";
    case errc::vacated_access: return "access to a vacated region";
    case errc::address_space: return "address plan not available";
    case errc::store_missing: return "store missing";
    case errc::store_full: return "store full";
    case errc::store_read_only: return "store read-only";
    case errc::store_owner: return "store owned by someone else";
    case errc::store_mismatch: return "not this cluster's store";
    case errc::store_io: return "store input/output error";
    case errc::image_missing: return "image missing";
    case errc::image_truncated: return "image truncated";
    case errc::image_damaged: return "image damaged";
    case errc::image_foreign: return "image of another task or cluster";
    case errc::image_version: return "image of a newer version";
    case errc::not_compatible: return "nodes not compatible";
    case errc::not_authenticated: return "peer not authenticated";
    case errc::protocol: return "protocol error";
    case errc::node_unreachable: return "node unreachable";
    case errc::home_unreachable: return "home unreachable";
    case errc::node_lost: return "node lost";
    case errc::no_such_node: return "no such node";
    case errc::no_such_task: return "no such task";
    case errc::move_in_progress: return "move in progress";
    case errc::move_refused: return "move refused";
    case errc::not_movable: return "task not movable";
    case errc::not_in_task: return "not called from a task";
    case errc::node_missing: return "no node in this process";
    case errc::shutting_down: return "node shutting down";
    case errc::timed_out: return "timed out";
    case errc::message_too_large: return "message too large";
    case errc::task_failed: return "task failed";
    case errc::region_occupied: return "region occupied by a copy";
    case errc::not_permitted: return "not permitted";
    case errc::cancelled: return "cancelled";
    case errc::task_exited: return "task exited";
    case errc::node_leaving: return "node leaving";
    }
    return "unknown error " + std::to_string(code);
  }
};

} // namespace detail

namespace detail {
inline const error_category_type the_error_category;
// Not a function's static: its first use may be in a task.
} // namespace detail

inline const std::error_category& error_category() noexcept { return detail::the_error_category; }

} // namespace migrate

template <> struct std::is_error_code_enum<migrate::errc> : std::true_type {};
