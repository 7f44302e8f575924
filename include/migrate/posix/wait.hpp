// wait(2), waitid(2), wait4(2): for the children of the calling task that start_child() or fork() made.
#pragma once

#include <cerrno>
#include <csignal>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <migrate/posix/identity.hpp>
#include <migrate/posix/process.hpp>
#include <migrate/posix/signal.hpp>

namespace migrate::posix {

namespace detail {

inline ::timeval to_timeval(std::int64_t nanoseconds) noexcept {
  return {static_cast<time_t>(nanoseconds / 1'000'000'000),
          static_cast<suseconds_t>(nanoseconds % 1'000'000'000 / 1000)};
}

inline ::rusage to_rusage(const task_usage& used) noexcept {
  ::rusage result{};
  result.ru_utime = to_timeval(used.user);
  result.ru_stime = to_timeval(used.system);
  result.ru_maxrss = used.most_resident / 1024;
  result.ru_minflt = used.minor_faults;
  result.ru_majflt = used.major_faults;
  result.ru_nvcsw = used.voluntary_switches;
  result.ru_nivcsw = used.involuntary_switches;
  return result;
}

inline siginfo_t to_siginfo(const migrate::detail::wait_report& got) noexcept {
  siginfo_t info{};
  if (!got.child) return info;
  info.si_signo = SIGCHLD;
  info.si_pid = to_pid(got.child);
  info.si_uid = getuid(); // all tasks of a home are one user's
  if (WIFSTOPPED(got.status)) {
    info.si_code = CLD_STOPPED;
    info.si_status = WSTOPSIG(got.status);
  } else if (WIFCONTINUED(got.status)) {
    info.si_code = CLD_CONTINUED;
    info.si_status = SIGCONT;
  } else {
    info.si_code = WIFEXITED(got.status) ? CLD_EXITED : CLD_KILLED;
    info.si_status = WIFEXITED(got.status) ? WEXITSTATUS(got.status) : WTERMSIG(got.status);
  }
  info.si_utime = got.used.user / (1'000'000'000 / ::sysconf(_SC_CLK_TCK));
  info.si_stime = got.used.system / (1'000'000'000 / ::sysconf(_SC_CLK_TCK));
  return info;
}

inline int wait_for(const migrate::detail::wait_selection& selection, int options, migrate::detail::wait_report& got) {
  if (!in_task()) return -1;
  migrate::detail::safe_point();
  return result_of(migrate::detail::the_processes->wait(selection, options, got));
}

} // namespace detail

inline pid_t wait4(pid_t which, int* status, int options, ::rusage* used) {
  using of = migrate::detail::wait_selection::of;
  if ((options & ~(WNOHANG | WUNTRACED | WCONTINUED)) != 0) return detail::result_of(EINVAL);
  migrate::detail::wait_selection selection;
  if (which > 0)
    selection = {of::task, detail::to_task(which)};
  else if (which == 0)
    selection = {of::own_group, {}};
  else if (which < -1)
    selection = {of::group, detail::to_task(-which)};
  migrate::detail::wait_report got;
  if (detail::wait_for(selection, options | WEXITED, got) != 0) return -1;
  if (got.child && status != nullptr) *status = got.status;
  if (got.child && used != nullptr) *used = detail::to_rusage(got.used);
  return detail::to_pid(got.child);
}
// `which`: a child; 0: of the caller's group; -1: any; less: of group -which. The macros of <sys/wait.h> take the
// status apart. A wait that a signal's handler interrupts: EINTR, unless home had given a child out to it already.

inline pid_t waitpid(pid_t which, int* status, int options) { return wait4(which, status, options, nullptr); }
inline pid_t wait(int* status) { return wait4(-1, status, 0, nullptr); }
inline pid_t wait3(int* status, int options, ::rusage* used) { return wait4(-1, status, options, used); }

inline int waitid(idtype_t type, pid_t which, siginfo_t* info, int options) {
  using of = migrate::detail::wait_selection::of;
  constexpr int changes = WEXITED | WSTOPPED | WCONTINUED;
  if ((options & changes) == 0 || (options & ~(changes | WNOHANG | WNOWAIT)) != 0 || which < 0)
    return detail::result_of(EINVAL);
  migrate::detail::wait_selection selection;
  if (type == P_PID && which != 0)
    selection = {of::task, detail::to_task(which)};
  else if (type == P_PGID)
    selection = which == 0 ? migrate::detail::wait_selection{of::own_group, {}}
                           : migrate::detail::wait_selection{of::group, detail::to_task(which)};
  else if (type != P_ALL)
    return detail::result_of(EINVAL);
  migrate::detail::wait_report got;
  if (detail::wait_for(selection, options, got) != 0) return -1;
  if (info != nullptr) *info = detail::to_siginfo(got);
  return 0;
}
// P_PID, P_PGID (0: the caller's group) or P_ALL; a group's or child's id has the width of pid_t. With WNOHANG and
// nothing to report all of `info` is zero.

} // namespace migrate::posix
