// Signals as the task that gets them sees them: taken at its safe points and in its waits.
#pragma once

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <optional>
#include <utility>

#include <migrate/home/process_services.hpp>
#include <migrate/home/signal_services.hpp>
#include <migrate/home/signal_state.hpp>
#include <migrate/home/timers.hpp>
#include <migrate/task/ending.hpp>
#include <migrate/task/this_task.hpp>
#include <migrate/task/wait.hpp>

namespace migrate::detail {

// Everything here is called by the task itself. It may be on another node after whatever runs a handler or waits, so
// the resident is looked up anew then; the signal_state lies in the region and stays.

inline signal_state& own_signals() {
  control_block& control = *self().control;
  if (control.process.signals == nullptr) control.process.signals = new signal_state;
  return *control.process.signals;
}

inline signal_bits own_mask(const control_block& control) noexcept {
  return control.process.signals == nullptr ? 0 : control.process.signals->mask;
}

inline std::optional<signal_info> take_pending(resident& task, signal_bits allowed) noexcept {
  std::optional<signal_info> got;
  {
    held guard(task.lock);
    if (task.signals != nullptr) got = task.signals->take(allowed);
  }
  if (got) note_overrun(*task.control, *got);
  return got;
}

inline signal_bits pending_signals(resident& task) noexcept {
  held guard(task.lock);
  return task.signals == nullptr ? 0 : task.signals->waiting;
}

inline void drop_pending(signal_bits which) noexcept {
  resident& me = self();
  held guard(me.lock);
  if (me.signals != nullptr) me.signals->drop(which);
}

inline interval_timer& alarm_timer() {
  signal_state& state = own_signals();
  if (state.timers == nullptr) {
    state.timers = new timer_list;
    interval_timer& alarm = state.timers->timers[timer_list::alarm];
    alarm.sends.number = SIGALRM;
    alarm.sends.code = SI_KERNEL;
  }
  return state.timers->timers[timer_list::alarm];
}

inline interval_timer* find_timer(int number) noexcept {
  // One of timer_create().
  timer_list* list = own_timers(*self().control);
  auto at = static_cast<std::size_t>(number);
  if (list == nullptr || at == timer_list::alarm || at >= list->timers.size() || !list->timers[at].used) return nullptr;
  return &list->timers[at];
}

inline int add_timer(interval_timer timer) {
  // Its number, or -1 when the task has too many.
  alarm_timer();
  std::vector<interval_timer>& all = own_signals().timers->timers;
  auto place = std::find_if(all.begin() + 1, all.end(), [](const interval_timer& each) { return !each.used; });
  if (place == all.end() && all.size() > timer_list::most) return -1;
  timer.sends.status = static_cast<std::int32_t>(place - all.begin());
  if (place == all.end())
    all.push_back(timer);
  else
    *place = timer;
  return timer.sends.status;
}

inline void post_to_self(const signal_info& what) {
  // Pending at once, without a word to home.
  resident& me = self();
  {
    node_heap_scope scope;
    held guard(me.lock);
    if (me.signals == nullptr) me.signals = new signal_inbox;
    me.signals->add(what);
  }
  raise_attention(me);
}

inline bool is_over(const control_block& control) noexcept { return control.outcome != outcome_kind::none; }
// The task's function has returned: signals find it as they would a zombie.

[[gnu::noinline]] inline void stop_by_signal(int number) {
  // Parked until SIGCONT or SIGKILL comes: a stopped task can be moved, and stays stopped.
  if (!the_signals->tell_change(signal_change::stopped, number)) return;
  own_signals().stopped_by = number;
  if (self().control->process.programs != nullptr) the_signals->pass_stop_on(number);
  for (;;) {
    resident& me = self();
    bool goes_on = false;
    {
      held guard(me.lock);
      goes_on = me.signals != nullptr &&
                (me.signals->continued || (me.signals->waiting & signal_bit(SIGKILL)) != 0);
    }
    if (goes_on) break;
    lower_attention(me);
    park();
  }
  own_signals().stopped_by = 0;
  the_signals->tell_change(signal_change::continued, SIGCONT);
}

[[gnu::noinline]] inline after_signals run_handler(signal_state& state, const signal_info& got) {
  struct masked {
    signal_state& state;
    signal_bits after;
    ~masked() {
      state.mask = after & ~never_blocked;
      raise_attention(self()); // what was blocked meanwhile is looked at, even when the handler has thrown
    }
  };
  signal_action& slot = state.actions[static_cast<std::size_t>(got.number - 1)];
  const signal_action action = slot;
  if ((action.flags & static_cast<int>(SA_RESETHAND)) != 0) {
    slot = {};
    slot.flags = action.flags & ~SA_SIGINFO;
  }
  masked scope{state, state.mask};
  state.mask |= action.mask & ~never_blocked;
  if ((action.flags & SA_NODEFER) == 0) state.mask |= signal_bit(got.number);
  if (action.object != nullptr)
    (*action.object)(got);
  else
    action.invoke(action.function, got, scope.after);
  return (action.flags & SA_RESTART) != 0 ? after_signals::restart : after_signals::interrupt;
}

inline bool is_ignored(const signal_state* state, int number) noexcept {
  signal_action::kind what =
      state == nullptr ? signal_action::kind::standard : state->actions[static_cast<std::size_t>(number - 1)].what;
  if ((signal_bit(number) & never_blocked) != 0) return false;
  return what == signal_action::kind::ignore ||
         (what == signal_action::kind::standard && default_of(number) == default_action::ignore);
}

inline after_signals act_on(const signal_info& got) {
  if (self().control->process.programs != nullptr && default_of(got.number) != default_action::stop &&
      the_signals->pass_on(got))
    return after_signals::none;
  signal_state* state = self().control->process.signals;
  if (is_ignored(state, got.number)) return after_signals::none;
  if (state != nullptr) {
    const signal_action& action = state->actions[static_cast<std::size_t>(got.number - 1)];
    bool about_stops = got.number == SIGCHLD && (got.code == CLD_STOPPED || got.code == CLD_CONTINUED);
    if (about_stops && (action.flags & SA_NOCLDSTOP) != 0) return after_signals::none;
    if (action.what == signal_action::kind::call) return run_handler(*state, got);
  }
  if (default_of(got.number) == default_action::end) end_task(killed_by(got.number), exit_handlers::skip);
  stop_by_signal(got.number);
  return after_signals::none;
}

[[gnu::noinline]] inline int current_errno() noexcept { return errno; }
[[gnu::noinline]] inline void set_current_errno(int number) noexcept { errno = number; }
// Of the thread that the task is on: compilers keep errno's address across waits.

[[gnu::noinline]] inline after_signals take_signals() {
  int error_before = current_errno();
  after_signals all = after_signals::none;
  for (;;) {
    resident& me = self();
    if (is_over(*me.control)) {
      lower_attention(me);
      break;
    }
    lower_attention(me); // before it looks: what comes later raises it again
    fire_timers(me);
    std::optional<signal_info> got = take_pending(me, ~own_mask(*me.control));
    if (!got) break;
    all = std::max(all, act_on(*got));
  }
  set_current_errno(error_before);
  return all;
}

inline bool signal_waits_for(const resident& task) noexcept {
  // Only its own task asks, or it could be gone.
  resident& me = const_cast<resident&>(task);
  fire_timers(me);
  const control_block& control = *me.control;
  signal_bits open = pending_signals(me) & ~own_mask(control);
  while (open != 0) {
    int number = __builtin_ctzll(open) + 1;
    if (!is_ignored(control.process.signals, number)) return true;
    open &= open - 1;
  }
  return false;
}

inline signal_action replace_action(int number, signal_action by) {
  // Returns the one before. May wait: home reaps the children of a task that does not want to hear of them.
  signal_state& state = own_signals();
  auto policy = [](const signal_action& action) {
    return std::pair(action.what == signal_action::kind::ignore || (action.flags & SA_NOCLDWAIT) != 0,
                     (action.flags & SA_NOCLDSTOP) != 0);
  };
  auto wanted = policy(by);
  signal_action before = std::exchange(state.actions[static_cast<std::size_t>(number - 1)], std::move(by));
  if (is_ignored(&state, number)) drop_pending(signal_bit(number));
  if (number == SIGCHLD && wanted != policy(before)) the_processes->set_child_policy(wanted.first, wanted.second);
  return before;
}

// --- waiting for signals

inline void set_mask(signal_bits mask) {
  own_signals().mask = mask & ~never_blocked;
  take_signals(); // at least one of those that wait is delivered before the call returns
}

inline void wait_for_handler(signal_bits mask) {
  // sigsuspend(2): with that mask until a handler has run, then with the one before.
  signal_state& state = own_signals();
  signal_bits before = std::exchange(state.mask, mask & ~never_blocked);
  while (take_signals() == after_signals::none) park();
  state.mask = before;
  take_signals();
}

enum class signal_wait : std::uint8_t { got, interrupted, late };

inline signal_wait wait_for_signal(signal_bits wanted, signal_info& into, const steady_point* deadline) {
  // sigtimedwait(2). What has a handler and is not wanted runs it, and ends the wait.
  bool in_time = true;
  for (;;) {
    if (std::optional<signal_info> got = take_pending(self(), wanted)) {
      into = *got;
      return signal_wait::got;
    }
    if (take_signals() != after_signals::none) return signal_wait::interrupted;
    if (std::optional<signal_info> got = take_pending(self(), wanted)) { // it came while the task was stopped
      into = *got;
      return signal_wait::got;
    }
    if (!in_time) return signal_wait::late;
    if (deadline == nullptr)
      park();
    else
      in_time = park_until(*deadline);
  }
}

inline int send_signal(std::int64_t to, const signal_info& what) {
  // kill(2), for tasks and threads.
  resident* me = current_task();
  if (me == nullptr || to != static_cast<std::int64_t>(me->id.bits())) {
    int failed = the_signals->send(to, what);
    if (current_task() != nullptr) take_signals(); // the caller may be one of a group
    return failed;
  }
  if (what.number != 0) {
    post_to_self(what);
    take_signals();
  }
  return 0;
}

inline bool sleep_until_signal(steady_point deadline) {
  // True when the time is over, false when a handler has run before. What is left is deadline - task_now().
  for (;;) {
    if (take_signals() != after_signals::none) return false;
    if (!park_until(deadline)) return true;
  }
}

// --- the part of a task

inline void inherit_signals(control_block& parent, control_block& child) {
  // A child has its parent's actions and mask; what is pending, timers and the signal stack are not handed on, nor are
  // handlers that are objects of the parent's heap: the child has the default action instead.
  const signal_state* from = parent.process.signals;
  if (from == nullptr) return;
  auto* made = new signal_state;
  for (std::size_t i = 0; i < made->actions.size(); ++i)
    if (from->actions[i].object == nullptr) made->actions[i] = from->actions[i];
  made->mask = from->mask;
  child.process.signals = made;
}

inline void forget_timers(control_block& copy, task_id) noexcept {
  if (timer_list* list = own_timers(copy))
    for (interval_timer& each : list->timers) each = {.sends = each.sends};
}
// fork(2): a copy has the mask, the actions and the signal stack, but no timer, and nothing is pending for it.

inline constexpr process_part signals_part{.inherit = inherit_signals, .copied = forget_timers};

} // namespace migrate::detail
