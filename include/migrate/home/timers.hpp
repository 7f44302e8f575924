// Interval timers of a task. They lie in its region, so that they move with it, and fire at its safe points.
#pragma once

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <migrate/home/signal_services.hpp>
#include <migrate/home/signal_state.hpp>
#include <migrate/task/this_task.hpp>
#include <migrate/task/wait.hpp>

namespace migrate::detail {

struct interval_timer {
  bool used = false;
  bool signals = true;        // false: it can only be read (SIGEV_NONE)
  int clock = 1;              // CLOCK_MONOTONIC
  std::int64_t next = 0;      // nanoseconds of the task's clock (task_now()); zero: it is not armed
  std::int64_t interval = 0;  // nanoseconds; zero: once
  signal_info sends;
  std::int32_t missed = 0;    // expirations since the signal that is pending
  std::int32_t overrun = 0;   // of the signal that was last taken
};

struct timer_list {
  static constexpr std::size_t alarm = 0; // alarm(2) and ITIMER_REAL
  static constexpr std::size_t most = 256;
  std::vector<interval_timer> timers{1};
};
// In the task's heap. The number of a timer made by timer_create() is its place.

inline std::int64_t task_nanoseconds() noexcept { return task_now().time_since_epoch().count(); }

[[gnu::noinline]] inline void fire_timers_slowly(resident& me, timer_list& list) {
  std::int64_t now = task_nanoseconds();
  std::int64_t earliest = std::numeric_limits<std::int64_t>::max();
  node_heap_scope scope;
  steady_point wake_when{};
  bool change = false;
  {
    held guard(me.lock);
    if (me.signals == nullptr) me.signals = new signal_inbox;
    signal_inbox& box = *me.signals;
    for (interval_timer& each : list.timers) {
      if (each.next == 0 || !each.signals) continue;
      if (each.next <= now) {
        std::int64_t times = each.interval > 0 ? (now - each.next) / each.interval + 1 : 1;
        std::size_t before = box.pending.size();
        bool waits = each.sends.code == SI_TIMER &&
                     std::any_of(box.pending.begin(), box.pending.end(), [&](const signal_info& other) {
                       return other.code == SI_TIMER && other.status == each.sends.status;
                     });
        if (!waits) box.add(each.sends);
        std::int64_t unsent = times - (box.pending.size() > before ? 1 : 0);
        each.missed = static_cast<std::int32_t>(
            std::min<std::int64_t>(each.missed + unsent, std::numeric_limits<std::int32_t>::max()));
        each.next = each.interval > 0 ? each.next + times * each.interval : 0;
      }
      if (each.next != 0) earliest = std::min(earliest, each.next);
    }
    change = earliest != std::numeric_limits<std::int64_t>::max() && box.wakes_at != earliest;
    if (change) box.wakes_at = earliest;
    wake_when = steady_point(std::chrono::nanoseconds(earliest - me.control->clock_offset - clock_skew));
  }
  if (change) the_signals->wake_at(me, wake_when);
}

inline timer_list* own_timers(const control_block& control) noexcept {
  return control.process.signals == nullptr ? nullptr : control.process.signals->timers;
}

inline void fire_timers(resident& me) {
  // Makes the signals of what is due pending, and has the node wake the task for what is not.
  if (timer_list* list = own_timers(*me.control)) fire_timers_slowly(me, *list);
}

inline void note_overrun(const control_block& control, signal_info& got) noexcept {
  // `got` has just been taken.
  timer_list* list = own_timers(control);
  auto which = static_cast<std::size_t>(got.status);
  if (got.code != SI_TIMER || list == nullptr || which >= list->timers.size()) return;
  interval_timer& timer = list->timers[which];
  timer.overrun = got.overrun = std::exchange(timer.missed, 0);
}

struct timer_setting {
  std::int64_t left = 0;     // nanoseconds until it fires; zero: it is not armed
  std::int64_t interval = 0; // nanoseconds
};

inline timer_setting read_timer(const interval_timer& timer) noexcept {
  if (timer.next == 0) return {0, timer.interval};
  std::int64_t left = timer.next - task_nanoseconds();
  if (left <= 0 && !timer.signals && timer.interval > 0) left += (-left / timer.interval + 1) * timer.interval;
  if (left <= 0 && !timer.signals) return {0, timer.interval};
  return {std::max<std::int64_t>(left, 1), timer.interval};
}

inline timer_setting set_timer(interval_timer& timer, const timer_setting& to) {
  timer_setting before = read_timer(timer);
  timer.next = to.left > 0 ? task_nanoseconds() + to.left : 0;
  timer.interval = to.interval;
  timer.missed = 0;
  fire_timers(self());
  return before;
}

} // namespace migrate::detail
