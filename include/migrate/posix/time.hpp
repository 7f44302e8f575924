// clock_gettime(2), gettimeofday(2), time(2), nanosleep(2), clock_nanosleep(2), sleep(3), usleep(3).
#pragma once

#include <cstdint>
#include <ctime>

#include <sys/time.h>
#include <unistd.h>

#include <migrate/clock.hpp>
#include <migrate/posix/call.hpp>
#include <migrate/usage.hpp>

namespace migrate::posix {

// The clocks are those of the task's home (see migrate::clock); on a thread that runs no task the node's own.

namespace detail {

inline constexpr std::int64_t second = 1'000'000'000;

inline timespec to_timespec(std::int64_t nanoseconds) noexcept {
  return {static_cast<time_t>(nanoseconds / second), static_cast<long>(nanoseconds % second)};
}

inline bool valid(const timespec& time) noexcept {
  return time.tv_sec >= 0 && time.tv_nsec >= 0 && time.tv_nsec < second;
}

inline std::int64_t to_nanoseconds(const timespec& time) noexcept {
  constexpr std::int64_t most = INT64_MAX / second - 1; // 292 years
  return (time.tv_sec > most ? most : std::int64_t{time.tv_sec}) * second + time.tv_nsec;
}

enum class time_source : std::uint8_t { wall, steady, used, none };

inline time_source source_of(clockid_t which) noexcept {
  switch (which) {
  case CLOCK_REALTIME:
  case CLOCK_REALTIME_COARSE: return time_source::wall;
  case CLOCK_MONOTONIC:
  case CLOCK_MONOTONIC_COARSE:
  case CLOCK_MONOTONIC_RAW:
  case CLOCK_BOOTTIME: return time_source::steady;
  case CLOCK_PROCESS_CPUTIME_ID:
  case CLOCK_THREAD_CPUTIME_ID: return time_source::used;
  default: return time_source::none;
  }
}

inline std::int64_t read(time_source which) noexcept {
  using migrate::detail::home_clock;
  return which == time_source::wall ? migrate::detail::read_home_clock<home_clock::wall>()
                                    : migrate::detail::read_home_clock<home_clock::steady>();
}

inline bool sleep_until(time_source which, std::int64_t deadline) noexcept {
  // False when a signal's handler ran instead.
  for (;;) {
    if (migrate::detail::signal_waits() &&
        migrate::detail::the_services->take_signals() != migrate::detail::after_signals::none)
      return false; // but a task that was stopped and continued sleeps on
    std::int64_t left = deadline - read(which);
    if (left <= 0) return true;
    if (migrate::detail::current_task() == nullptr) {
      timespec time = to_timespec(left);
      if (::nanosleep(&time, nullptr) != 0) return false;
      continue;
    }
    // A clock that may be set is looked at again at times.
    std::int64_t step = which == time_source::wall && left > second ? second : left;
    migrate::detail::park_until(migrate::detail::task_now() + std::chrono::nanoseconds(step));
  }
}

} // namespace detail

inline int clock_gettime(clockid_t which, timespec* into) noexcept {
  detail::time_source source = detail::source_of(which);
  if (source == detail::time_source::none) {
    detail::set_error(EINVAL);
    return -1;
  }
  if (source == detail::time_source::used)
    return detail::call(-1, [&] {
      task_usage own = this_task::usage();
      *into = detail::to_timespec(own.user + own.system);
      return 0;
    });
  *into = detail::to_timespec(detail::read(source));
  return 0;
}
// CLOCK_REALTIME and CLOCK_MONOTONIC, with their coarse and raw forms and CLOCK_BOOTTIME for the same;
// CLOCK_PROCESS_CPUTIME_ID for what the task has used (see this_task::usage).

inline int clock_getres(clockid_t which, timespec* into) noexcept {
  if (detail::source_of(which) == detail::time_source::none) {
    detail::set_error(EINVAL);
    return -1;
  }
  if (into != nullptr) *into = {0, 1};
  return 0;
}

inline int gettimeofday(timeval* into, void* = nullptr) noexcept {
  std::int64_t now = detail::read(detail::time_source::wall);
  *into = {static_cast<time_t>(now / detail::second), static_cast<suseconds_t>(now % detail::second / 1000)};
  return 0;
}

inline time_t time(time_t* into = nullptr) noexcept {
  auto now = static_cast<time_t>(detail::read(detail::time_source::wall) / detail::second);
  if (into != nullptr) *into = now;
  return now;
}

inline int clock_nanosleep(clockid_t which, int flags, const timespec* wanted, timespec* left) noexcept {
  detail::time_source source = detail::source_of(which);
  if (source == detail::time_source::used) return ENOTSUP;
  if (source == detail::time_source::none || !detail::valid(*wanted)) return EINVAL;
  bool absolute = (flags & TIMER_ABSTIME) != 0;
  if (!absolute) source = detail::time_source::steady; // setting the clock has no effect on a length of time
  std::int64_t now = detail::read(source);
  std::int64_t until = detail::to_nanoseconds(*wanted);
  if (!absolute) until = until > INT64_MAX - now ? INT64_MAX : now + until;
  if (detail::sleep_until(source, until)) return 0;
  if (!absolute && left != nullptr) {
    std::int64_t rest = until - detail::read(source);
    *left = detail::to_timespec(rest > 0 ? rest : 0);
  }
  return EINTR;
}

inline int nanosleep(const timespec* wanted, timespec* left) noexcept {
  int problem = posix::clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, left);
  if (problem == 0) return 0;
  detail::set_error(problem);
  return -1;
}
// The worker runs other tasks meanwhile. Begun on one node it ends on time on another, by home's clock.

inline unsigned sleep(unsigned seconds) noexcept {
  timespec wanted{static_cast<time_t>(seconds), 0};
  timespec left{};
  if (posix::nanosleep(&wanted, &left) == 0) return 0;
  return static_cast<unsigned>(left.tv_sec + (left.tv_nsec > 0 ? 1 : 0));
}

inline int usleep(useconds_t microseconds) noexcept {
  timespec wanted = detail::to_timespec(std::int64_t{microseconds} * 1000);
  return posix::nanosleep(&wanted, nullptr);
}

} // namespace migrate::posix
