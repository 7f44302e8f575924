// Signals between tasks. The POSIX names are in posix/signal.hpp.
#pragma once

#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include <unistd.h>

#include <migrate/home/signal_delivery.hpp>
#include <migrate/home/timers.hpp>

namespace migrate {

class signal_set {
public:
  constexpr signal_set() noexcept = default;
  constexpr signal_set(std::initializer_list<int> numbers) {
    for (int each : numbers) insert(each);
  }
  static constexpr signal_set all() noexcept { return from_bits(~std::uint64_t{0}); }
  static constexpr signal_set from_bits(std::uint64_t bits) noexcept {
    signal_set made;
    made.bits_ = bits;
    return made;
  }

  constexpr void insert(int number) { bits_ |= detail::signal_bit(checked(number)); }
  constexpr void erase(int number) { bits_ &= ~detail::signal_bit(checked(number)); }
  constexpr bool contains(int number) const { return (bits_ & detail::signal_bit(checked(number))) != 0; }
  constexpr bool empty() const noexcept { return bits_ == 0; }
  constexpr std::uint64_t bits() const noexcept { return bits_; }
  friend constexpr bool operator==(signal_set, signal_set) noexcept = default;

private:
  static constexpr int checked(int number) {
    if (!detail::is_signal(number))
      throw error(std::make_error_code(std::errc::invalid_argument), "there is no signal " + std::to_string(number));
    return number;
  }
  std::uint64_t bits_ = 0;
};
// Signals 1 to 64; others throw migrate::error with std::errc::invalid_argument.

struct signal_options {
  bool restart = true;  // a call of posix:: that the handler interrupts goes on; false: it fails with EINTR
  bool once = false;    // back to the default when the handler begins
  bool nested = false;  // the signal is not blocked while its handler runs
  bool stops = true;    // for SIGCHLD: children that stop or continue count
  bool zombies = true;  // for SIGCHLD: children that end wait to be waited for
  signal_set blocked{}; // as well, while the handler runs
};

using signal_handler = std::function<void(const signal_info&)>;

namespace detail {

inline void require_signal(int number, const char* call) {
  if (!is_signal(number))
    throw error(std::make_error_code(std::errc::invalid_argument),
                std::string(call) + ": there is no signal " + std::to_string(number));
}

inline void set_action(int number, signal_action action, const char* call) {
  require_signal(number, call);
  if ((signal_bit(number) & never_blocked) != 0)
    throw error(std::make_error_code(std::errc::invalid_argument),
                std::string(call) + ": what SIGKILL and SIGSTOP do cannot be changed");
  safe_point();
  replace_action(number, std::move(action));
}

inline std::error_code send_with(std::int64_t to, int number, int code, std::uint64_t value) {
  safe_point();
  node_services();
  if (number != 0 && !is_signal(number)) return std::make_error_code(std::errc::invalid_argument);
  signal_info what;
  what.number = number;
  what.code = code;
  what.user = ::getuid();
  what.value = value;
  if (resident* me = current_task()) what.sender = me->id;
  int failed = to != 0 ? send_signal(to, what) : ESRCH;
  return {failed, std::generic_category()};
}

inline void throw_unsent(const std::error_code& code, task_id to, int number) {
  if (code)
    throw error(code, "sending signal " + std::to_string(number) + " to task " + to_string(to) + ": " + code.message());
}

} // namespace detail

// --- sending

inline void send_signal(task_id to, int number, std::error_code& code) {
  code = detail::send_with(static_cast<std::int64_t>(to.bits()), number, SI_USER, 0);
}
inline void send_signal(task_id to, int number) {
  std::error_code code;
  send_signal(to, number, code);
  detail::throw_unsent(code, to, number);
}
// The receiver gets it exactly once, wherever it is and goes. Number 0 only looks whether the task is there. From any
// thread of a node; a task may have moved when it returns. std::errc::no_such_process, or host_unreachable when the
// receiver's home does not answer. As kill(2).

inline void queue_signal(task_id to, int number, std::uint64_t value, std::error_code& code) {
  code = detail::send_with(static_cast<std::int64_t>(to.bits()), number, SI_QUEUE, value);
}
inline void queue_signal(task_id to, int number, std::uint64_t value) {
  std::error_code code;
  queue_signal(to, number, value, code);
  detail::throw_unsent(code, to, number);
}
// The same with a value. Signals from 32 on are delivered as often as they were sent, in order. As sigqueue(3).

inline void signal_group(task_id group, int number, std::error_code& code) {
  code = detail::send_with(-static_cast<std::int64_t>(group.bits()), number, SI_USER, 0);
}
inline void signal_group(task_id group, int number) {
  std::error_code code;
  signal_group(group, number, code);
  detail::throw_unsent(code, group, number);
}
// To each member of a process group, wherever it is. As killpg(3).

inline void raise_signal(int number) { send_signal(detail::self().id, number); }
// To the task itself: its handler has run when this returns, unless the signal is blocked.

// --- receiving

inline void on_signal(int number, signal_handler handler, const signal_options& how = {}) {
  detail::self();
  detail::signal_action action;
  action.what = detail::signal_action::kind::call;
  action.object = std::make_shared<const signal_handler>(std::move(handler));
  action.mask = how.blocked.bits();
  action.flags = (how.restart ? SA_RESTART : 0) | (how.once ? static_cast<int>(SA_RESETHAND) : 0) |
                 (how.nested ? SA_NODEFER : 0) | (how.stops ? 0 : SA_NOCLDSTOP) |
                 (how.zombies ? 0 : SA_NOCLDWAIT);
  detail::set_action(number, std::move(action), "on_signal");
}
// Has the handler run, as part of the task, at the next safe point after such a signal has come, or while the task
// waits. It may do what the task may. A handler that throws throws from the call in which it ran. Children of the task
// begin with the default action instead.

inline void ignore_signal(int number) {
  detail::self();
  detail::signal_action action;
  action.what = detail::signal_action::kind::ignore;
  detail::set_action(number, std::move(action), "ignore_signal");
}

inline void default_signal(int number) {
  detail::self();
  detail::set_action(number, {}, "default_signal");
}

inline signal_set blocked_signals() { return signal_set::from_bits(detail::own_mask(*detail::self().control)); }

inline signal_set pending_signals() {
  detail::safe_point();
  detail::fire_timers(detail::self());
  return signal_set::from_bits(detail::pending_signals(detail::self()) & detail::own_mask(*detail::self().control));
}
// Those that are blocked and have come.

class signal_block {
public:
  explicit signal_block(signal_set which) : before_(blocked_signals()) {
    detail::safe_point();
    detail::set_mask(before_.bits() | which.bits());
  }
  ~signal_block() {
    detail::own_signals().mask = before_.bits();
    detail::raise_attention(detail::self());
  }
  signal_block(const signal_block&) = delete;
  signal_block& operator=(const signal_block&) = delete;

private:
  signal_set before_;
};
// Blocks signals while it lives; SIGKILL and SIGSTOP stay as they are. What has come meanwhile is delivered at the next
// safe point after.

inline signal_info wait_for_signal(signal_set which) {
  detail::safe_point();
  signal_info got;
  while (detail::wait_for_signal(which.bits() & ~detail::never_blocked, got, nullptr) != detail::signal_wait::got) {}
  return got;
}

template <class Rep, class Period>
std::optional<signal_info> wait_for_signal(signal_set which, const std::chrono::duration<Rep, Period>& limit) {
  detail::safe_point();
  auto deadline = detail::task_now() + std::chrono::duration_cast<std::chrono::nanoseconds>(limit);
  signal_info got;
  for (;;) {
    switch (detail::wait_for_signal(which.bits() & ~detail::never_blocked, got, &deadline)) {
    case detail::signal_wait::got: return got;
    case detail::signal_wait::late: return std::nullopt;
    case detail::signal_wait::interrupted: break;
    }
  }
}
// Takes one of these signals, which should be blocked, without running its handler. Handlers of others run meanwhile.

inline void wait_for_handler(signal_set blocked) {
  detail::safe_point();
  detail::wait_for_handler(blocked.bits());
}
// With only these signals blocked, until a handler has run, as sigsuspend(2).

inline void set_foreground_group(task_id group, std::error_code& code) {
  detail::self();
  detail::safe_point();
  code = {detail::the_signals->set_foreground_group(group), std::generic_category()};
}
inline void set_foreground_group(task_id group) {
  std::error_code code;
  set_foreground_group(group, code);
  if (code) throw error(code, "set_foreground_group: task group " + to_string(group) + ": " + code.message());
}
// Has the signals that reach the home node's process from outside go to that group of the caller's session, wherever
// its members are: Ctrl-C at the terminal, SIGTERM, SIGWINCH and so on, if the node runs with --migrate-signals. As
// tcsetpgrp(3).

inline task_id foreground_group(std::error_code& code) {
  detail::self();
  detail::safe_point();
  task_id group;
  code = {detail::the_signals->foreground_group(group), std::generic_category()};
  return group;
}
inline task_id foreground_group() {
  std::error_code code;
  task_id group = foreground_group(code);
  if (code) throw error(code, "foreground_group: " + code.message());
  return group;
}
// None: no group is in the foreground.

class signal_timer {
public:
  explicit signal_timer(int number, std::uint64_t value = 0) {
    detail::self();
    detail::require_signal(number, "signal_timer");
    detail::interval_timer timer;
    timer.used = true;
    timer.sends.number = number;
    timer.sends.code = SI_TIMER;
    timer.sends.value = value;
    number_ = detail::add_timer(timer);
    if (number_ < 0)
      throw error(std::make_error_code(std::errc::resource_unavailable_try_again),
                  "signal_timer: the task has 256 timers already");
  }
  ~signal_timer() { *detail::find_timer(number_) = {}; }
  signal_timer(const signal_timer&) = delete;
  signal_timer& operator=(const signal_timer&) = delete;

  template <class Rep, class Period> void fire_in(const std::chrono::duration<Rep, Period>& delay) {
    set(nanoseconds(delay), 0);
  }
  template <class Rep, class Period> void fire_every(const std::chrono::duration<Rep, Period>& interval) {
    set(nanoseconds(interval), nanoseconds(interval));
  }
  void cancel() { set(0, 0); }

private:
  template <class Rep, class Period> static std::int64_t nanoseconds(const std::chrono::duration<Rep, Period>& time) {
    return std::max<std::int64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(time).count(), 1);
  }
  void set(std::int64_t left, std::int64_t interval) {
    detail::safe_point();
    detail::set_timer(*detail::find_timer(number_), {left, interval});
  }
  int number_ = 0;
};
// Sends the task that made it a signal once, or again and again. It moves with the task, whose clock it goes by, and
// ends with it or with this object.

} // namespace migrate
