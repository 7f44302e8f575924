// getpid(2) and its family, setpgid(2), setsid(2), exit(3): of the calling task.
#pragma once

#include <cerrno>
#include <new>

#include <migrate/posix/types.hpp>
#include <migrate/process.hpp>

namespace migrate::posix {

namespace detail {

[[gnu::noinline]] inline int fail_with(int reason) noexcept {
  errno = reason;
  return -1;
}
// Not inlined: errno is that of the thread that the task is on now, whose address a caller may know from before a wait.

inline bool in_task() noexcept {
  if (migrate::detail::current_task() != nullptr) return true;
  fail_with(ENOSYS);
  return false;
}

inline int result_of(int reason) noexcept { return reason == 0 ? 0 : fail_with(reason); }

inline bool find_place(pid_t task, migrate::detail::family_place& found) {
  if (!in_task()) return false;
  migrate::detail::safe_point();
  task_id which = task == 0 ? this_task::id() : task_id(static_cast<std::uint64_t>(task));
  int reason = task < 0 ? EINVAL
                        : migrate::detail::the_processes->where_is(which, found.group, found.session, found.parent);
  return result_of(reason) == 0;
}

inline pid_t to_pid(task_id task) noexcept { return static_cast<pid_t>(task.bits()); }
inline task_id to_task(pid_t task) noexcept { return task_id(static_cast<std::uint64_t>(task)); }

} // namespace detail

// Each works wherever the task is, which may have moved when it returns. On a thread that runs no task: -1 and ENOSYS.
// EHOSTUNREACH: the home that has to be asked cannot be reached.

inline pid_t getpid() {
  if (!detail::in_task()) return -1;
  migrate::detail::safe_point();
  return detail::to_pid(this_task::id());
}
inline pid_t gettid() { return getpid(); }

inline pid_t getppid() {
  migrate::detail::family_place found;
  return detail::find_place(0, found) ? detail::to_pid(found.parent) : -1;
}
// Home's init_task when the parent has ended, or was none.

inline pid_t getpgid(pid_t task) {
  migrate::detail::family_place found;
  return detail::find_place(task, found) ? detail::to_pid(found.group) : -1;
}
inline pid_t getpgrp() { return getpgid(0); }

inline pid_t getsid(pid_t task) {
  migrate::detail::family_place found;
  return detail::find_place(task, found) ? detail::to_pid(found.session) : -1;
}

inline int setpgid(pid_t task, pid_t group) {
  if (!detail::in_task()) return -1;
  migrate::detail::safe_point();
  if (group < 0) return detail::result_of(EINVAL);
  task_id which = task == 0 ? this_task::id() : detail::to_task(task);
  return detail::result_of(
      migrate::detail::the_processes->set_group(which, group == 0 ? which : detail::to_task(group)));
}
inline int setpgrp() { return setpgid(0, 0); }

inline pid_t setsid() {
  if (!detail::in_task()) return -1;
  migrate::detail::safe_point();
  return detail::result_of(migrate::detail::the_processes->set_session()) == 0 ? getpid() : -1;
}

[[noreturn]] inline void exit(int status) { this_task::exit(status); }
[[noreturn]] inline void _exit(int status) { this_task::quick_exit(status); }
[[noreturn]] inline void _Exit(int status) { this_task::quick_exit(status); }
// They end the task, not its node. On a thread that runs no task they throw errc::not_in_task.

inline int atexit(void (*function)()) {
  if (!detail::in_task()) return -1;
  try {
    this_task::at_exit(function);
    return 0;
  } catch (const std::bad_alloc&) {
    return detail::fail_with(ENOMEM);
  }
}

} // namespace migrate::posix
