// Families of tasks: children whose end is waited for, exit, process groups and sessions.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

#include <sys/wait.h>

#include <migrate/error.hpp>
#include <migrate/home/process_services.hpp>
#include <migrate/task/ending.hpp>
#include <migrate/task/spawn.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate {

template <class F, class... A>
  requires std::invocable<std::decay_t<F>, std::decay_t<A>...>
task_id start_child(const spawn_options& options, F&& function, A&&... arguments) {
  detail::self();
  using made = detail::child_closure<std::decay_t<F>, std::decay_t<A>...>;
  return detail::launch<made>(options, detail::next_request(), function, arguments...);
}

template <class F, class... A>
  requires std::invocable<std::decay_t<F>, std::decay_t<A>...>
task_id start_child(F&& function, A&&... arguments) {
  return start_child(spawn_options{}, std::forward<F>(function), std::forward<A>(arguments)...);
}
// Runs function(arguments...) in a new task whose end is kept at home until its parent, the calling task, collects it
// by one of the waits below. What the function returns is its exit status when it converts to int, of which the lowest
// eight bits count; else that is 0. An exception that it does not catch ends it as SIGABRT does. The rest is as with
// spawn(), whose tasks are for a handle to join or detach and are never seen by a wait. Only in a task.

class child_status {
public:
  child_status(task_id child, int status, const task_usage& used) noexcept
      : child_(child), status_(status), used_(used) {}

  task_id id() const noexcept { return child_; }
  bool exited() const noexcept { return WIFEXITED(status_); }
  int exit_code() const noexcept { return WEXITSTATUS(status_); } // 0 to 255
  bool killed() const noexcept { return WIFSIGNALED(status_); }
  bool stopped() const noexcept { return WIFSTOPPED(status_); }
  bool continued() const noexcept { return WIFCONTINUED(status_); }
  int signal() const noexcept { return stopped() ? WSTOPSIG(status_) : killed() ? WTERMSIG(status_) : 0; }
  // What killed or stopped it. SIGKILL as well when its node was lost, SIGSEGV after a fault.
  int status() const noexcept { return status_; } // for the macros of <sys/wait.h>
  const task_usage& used() const noexcept { return used_; } // by the child and those it waited for

private:
  task_id child_;
  int status_;
  task_usage used_;
};

struct wait_options {
  bool ended = true;
  bool stopped = false;   // report children that were stopped, too
  bool continued = false; // or continued
  bool keep = false;      // leave what is reported to be reported again
};

namespace detail {

inline int to_waitid(const wait_options& options) noexcept {
  return (options.ended ? WEXITED : 0) | (options.stopped ? WSTOPPED : 0) | (options.continued ? WCONTINUED : 0) |
         (options.keep ? WNOWAIT : 0);
}

[[noreturn]] inline void throw_errno(int reason, const char* what) {
  throw std::system_error(reason, std::generic_category(), what);
}

inline std::optional<child_status> wait_or_throw(const wait_selection& selection, int options, std::error_code* code) {
  self();
  safe_point();
  wait_report got;
  int reason = the_processes->wait(selection, options, got);
  if (code != nullptr)
    *code = {reason, std::generic_category()};
  else if (reason != 0)
    throw_errno(reason, reason == ECHILD ? "wait: the task has no such child" : "wait");
  if (!got.child) return std::nullopt;
  return child_status(got.child, got.status, got.used);
}

inline wait_selection only(task_id child) noexcept { return {wait_selection::of::task, child}; }
inline wait_selection in_group(task_id group) noexcept { return {wait_selection::of::group, group}; }

struct family_place {
  task_id group, session, parent;
};

inline family_place place_of(task_id task, std::error_code& code) {
  self();
  safe_point();
  family_place found;
  int reason = the_processes->where_is(task, found.group, found.session, found.parent);
  code = {reason, std::generic_category()};
  return reason == 0 ? found : family_place{};
}

inline family_place place_of(task_id task, const char* what) {
  std::error_code code;
  family_place found = place_of(task, code);
  if (code) throw_errno(code.value(), what);
  return found;
}

} // namespace detail

inline child_status wait_child(wait_options options = {}) {
  return *detail::wait_or_throw({}, detail::to_waitid(options), nullptr);
}
inline child_status wait_child(task_id child, wait_options options = {}) {
  return *detail::wait_or_throw(detail::only(child), detail::to_waitid(options), nullptr);
}
inline child_status wait_group(task_id group, wait_options options = {}) {
  return *detail::wait_or_throw(detail::in_group(group), detail::to_waitid(options), nullptr);
}
// Waits until a child, that child, or a child in that process group has something to report, wherever it and the caller
// are then. Throws std::system_error: ECHILD when there is no such child (any more), EINTR when a signal's handler ran
// first, EHOSTUNREACH when home cannot be reached. Each end is reported once. The caller may have moved.

inline std::optional<child_status> try_wait_child(wait_options options = {}) {
  return detail::wait_or_throw({}, detail::to_waitid(options) | WNOHANG, nullptr);
}
inline std::optional<child_status> try_wait_child(task_id child, wait_options options = {}) {
  return detail::wait_or_throw(detail::only(child), detail::to_waitid(options) | WNOHANG, nullptr);
}
inline std::optional<child_status> try_wait_group(task_id group, wait_options options = {}) {
  return detail::wait_or_throw(detail::in_group(group), detail::to_waitid(options) | WNOHANG, nullptr);
}
// The same at once: nothing when there are such children and none has anything to report.

inline std::optional<child_status> wait_child(wait_options options, std::error_code& code) {
  return detail::wait_or_throw({}, detail::to_waitid(options), &code);
}
inline std::optional<child_status> wait_child(task_id child, wait_options options, std::error_code& code) {
  return detail::wait_or_throw(detail::only(child), detail::to_waitid(options), &code);
}
inline std::optional<child_status> wait_group(task_id group, wait_options options, std::error_code& code) {
  return detail::wait_or_throw(detail::in_group(group), detail::to_waitid(options), &code);
}
inline std::optional<child_status> try_wait_group(task_id group, wait_options options, std::error_code& code) {
  return detail::wait_or_throw(detail::in_group(group), detail::to_waitid(options) | WNOHANG, &code);
}
inline std::optional<child_status> try_wait_child(wait_options options, std::error_code& code) {
  return detail::wait_or_throw({}, detail::to_waitid(options) | WNOHANG, &code);
}
inline std::optional<child_status> try_wait_child(task_id child, wait_options options, std::error_code& code) {
  return detail::wait_or_throw(detail::only(child), detail::to_waitid(options) | WNOHANG, &code);
}

inline task_id group_of(task_id task) { return detail::place_of(task, "group_of").group; }
inline task_id group_of(task_id task, std::error_code& code) { return detail::place_of(task, code).group; }
inline task_id session_of(task_id task) { return detail::place_of(task, "session_of").session; }
inline task_id session_of(task_id task, std::error_code& code) { return detail::place_of(task, code).session; }
// A group's or session's id is that of the task that began it. ESRCH when there is no such task; zombies count.

inline void set_group(task_id task, task_id group, std::error_code& code) {
  detail::self();
  detail::safe_point();
  code = {detail::the_processes->set_group(task, group), std::generic_category()};
}
inline void set_group(task_id task, task_id group) {
  std::error_code code;
  set_group(task, group, code);
  if (code) detail::throw_errno(code.value(), "set_group");
}
// Puts the calling task or a child of its session into a group of that session, or into a new one of its own when
// group == task. setpgid(2) has the errors.

namespace this_task {

inline task_id parent() { return detail::place_of(id(), "parent").parent; }
// init_task(home()) when it has none, or none any more.
inline task_id process_group() { return group_of(id()); }
inline task_id session() { return session_of(id()); }

inline task_id begin_session(std::error_code& code) {
  detail::self();
  detail::safe_point();
  code = {detail::the_processes->set_session(), std::generic_category()};
  return code ? task_id{} : id();
}
inline task_id begin_session() {
  std::error_code code;
  task_id made = begin_session(code);
  if (code) detail::throw_errno(code.value(), "begin_session");
  return made;
}
// A new session and group of its own. EPERM when it leads a group already.

inline task_usage children_usage() {
  detail::self();
  detail::safe_point();
  task_usage used;
  if (int reason = detail::the_processes->children_usage(used); reason != 0)
    detail::throw_errno(reason, "children_usage");
  used += detail::self().control->process.programs_used;
  return used;
}
// By the children that it has waited for, by those that they waited for, and by the programs that it has run.

template <std::invocable F> void at_exit(F&& handler) {
  detail::exit_list*& list = detail::self().control->process.at_exit;
  detail::safe_point();
  if (list == nullptr) list = new detail::exit_list;
  list->handlers.emplace_back(std::forward<F>(handler));
}
// Calls handler() when the task ends by returning or by exit(), the last one first.

[[noreturn]] inline void exit(int code) {
  detail::self();
  detail::safe_point();
  detail::end_task(detail::exited_with(code), detail::exit_handlers::run);
}
[[noreturn]] inline void quick_exit(int code) {
  detail::self();
  detail::safe_point();
  detail::end_task(detail::exited_with(code), detail::exit_handlers::skip);
}
// Ends the task at once, with what at_exit() was given or without. As with std::exit no automatic object is destroyed:
// the task's memory goes as a whole, and its files are closed. Return from its function to have them destroyed. Who
// joins the task gets migrate::error with errc::task_exited.

} // namespace this_task
} // namespace migrate
