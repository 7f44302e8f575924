// getrusage(2), times(2), clock(3), getpriority(2), setpriority(2), nice(2).
#pragma once

#include <cerrno>
#include <cstdint>
#include <ctime>

#include <sys/resource.h>
#include <sys/times.h>
#include <unistd.h>

#include <migrate/posix/call.hpp>
#include <migrate/posix/time.hpp>
#include <migrate/posix/wait.hpp>
#include <migrate/usage.hpp>

namespace migrate::posix {

// What a task has used is counted from the first time that it asks (see this_task::usage).

inline int getrusage(int who, ::rusage* into) noexcept {
  return detail::call(-1, [&] {
    switch (who) {
    case RUSAGE_SELF:
    case RUSAGE_THREAD: *into = detail::to_rusage(this_task::usage()); return 0;
    case RUSAGE_CHILDREN: *into = detail::to_rusage(this_task::children_usage()); return 0;
    default: throw std::system_error(EINVAL, std::generic_category());
    }
  });
}

inline clock_t times(::tms* into) noexcept {
  return detail::call<clock_t>(-1, [&] {
    std::int64_t tick = detail::second / ::sysconf(_SC_CLK_TCK);
    task_usage own = this_task::usage();
    task_usage children = this_task::children_usage();
    *into = {own.user / tick, own.system / tick, children.user / tick, children.system / tick};
    return static_cast<clock_t>(detail::read(detail::time_source::steady) / tick);
  });
}

inline clock_t clock() noexcept {
  return detail::call<clock_t>(-1, [] {
    task_usage own = this_task::usage();
    return static_cast<clock_t>((own.user + own.system) / (detail::second / CLOCKS_PER_SEC));
  });
}

inline int getpriority(int which, pid_t who) noexcept {
  return detail::call(-1, [&] {
    if (which != PRIO_PROCESS && which != PRIO_PGRP && which != PRIO_USER)
      throw std::system_error(EINVAL, std::generic_category());
    int mine = this_task::priority();
    if (who != 0 && (which != PRIO_PROCESS || who != getpid())) throw std::system_error(ESRCH, std::generic_category());
    return mine;
  });
}

inline int setpriority(int which, pid_t who, int priority) noexcept {
  return detail::call(-1, [&] {
    if (which != PRIO_PROCESS) throw std::system_error(EINVAL, std::generic_category());
    if (who != 0 && who != getpid()) throw std::system_error(ESRCH, std::generic_category());
    this_task::priority(priority);
    return 0;
  });
}
// Of the calling task only: another's is that task's own.

inline int nice(int more) noexcept {
  return detail::call(-1, [&] {
    this_task::priority(this_task::priority() + more);
    return this_task::priority();
  });
}

} // namespace migrate::posix
