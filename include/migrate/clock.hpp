// Home's time, wherever the task is.
#pragma once

#include <chrono>
#include <cstdint>
#include <utility>

#include <migrate/home/home_clock.hpp>

namespace migrate {

struct clock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<clock>;
  static constexpr bool is_steady = false;

  static time_point now() noexcept {
    return time_point(duration(detail::read_home_clock<detail::home_clock::wall>()));
  }
  // The wall clock of the running task's home, since the epoch of std::chrono::system_clock. At home it is read; away
  // it is reckoned from the node's own clock and costs about as much. Never less than it was in this task before,
  // however often that moved: when home's clock is set back it stands still until that has caught up. The first call on a node
  // waits for home, as does one after ten seconds without any. Goes on, with a growing error_bound(), while home does
  // not answer. The task may have moved when it returns. On a thread that runs no task: the node's own.

  static duration error_bound() noexcept { return duration(detail::home_clock_bound()); }
  // How far now() may be from home's clock at this moment: half the round trip of the measurement, usually of less than
  // a second ago, and 1 ms for each second since. Zero at home; duration::max() when home was never heard of here.

  static time_point now_exactly() {
    detail::failure failed;
    time_point time = ask(failed);
    if (failed.code) throw error(failed.code, failed.what);
    return time;
  }
  static time_point now_exactly(std::error_code& code) {
    detail::failure failed;
    time_point time = ask(failed);
    code = failed.code;
    return time;
  }
  // Asks home, as Sprite did. errc::home_unreachable when it does not answer.

  static bool exact(bool always) {
    detail::self();
    static_cast<void>(now());
    return std::exchange(detail::self().control->process.time->exact, always);
  }
  // From now on every reading by the running task, and by its later children, asks home, but for those that home does
  // not answer. Returns what it was before. Throws migrate::error (errc::not_in_task).

  static std::chrono::sys_time<duration> to_sys(time_point time) noexcept {
    return std::chrono::sys_time<duration>(time.time_since_epoch());
  }
  static time_point from_sys(std::chrono::sys_time<duration> time) noexcept {
    return time_point(time.time_since_epoch());
  }

private:
  static time_point ask(detail::failure& failed) {
    detail::safe_point();
    if (detail::current_task() == nullptr) return now();
    return time_point(duration(detail::read_exactly(detail::home_clock::wall, failed)));
  }
};
// Meets the standard's requirements of a TrivialClock.

struct steady_clock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<steady_clock>;
  static constexpr bool is_steady = true;

  static time_point now() noexcept {
    return time_point(duration(detail::read_home_clock<detail::home_clock::steady>()));
  }
};
// The same of home's steady clock. this_task::sleep_until() takes its time points and those of migrate::clock, and ends
// on time by home's clock wherever the task is then.

} // namespace migrate
