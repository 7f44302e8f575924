// Signals with the manual pages' names, arguments, results and errno: signal(7), sigaction(2), timer_create(2).
#pragma once

#include <cstring>
#include <ctime>
#include <type_traits>

#include <signal.h>
#include <sys/time.h>
#include <ucontext.h>

#include <migrate/clock.hpp>
#include <migrate/home/signal_delivery.hpp>
#include <migrate/home/timers.hpp>
#include <migrate/posix/errno.hpp>
#include <migrate/posix/types.hpp>

// The C library's headers make macros of these members' names, such as si_pid for _sifields._kill.si_pid. The types
// below have the same paths with a wider si_pid, so that code written with the names compiles against either.
#pragma push_macro("sa_handler")
#pragma push_macro("sa_sigaction")
#pragma push_macro("si_pid")
#pragma push_macro("si_uid")
#pragma push_macro("si_timerid")
#pragma push_macro("si_overrun")
#pragma push_macro("si_value")
#pragma push_macro("si_status")
#pragma push_macro("si_utime")
#pragma push_macro("si_stime")
#undef sa_handler
#undef sa_sigaction
#undef si_pid
#undef si_uid
#undef si_timerid
#undef si_overrun
#undef si_value
#undef si_status
#undef si_utime
#undef si_stime

namespace migrate::posix {

using ::sigset_t;
using ::sigval;
using ::stack_t;

struct siginfo_t {
  int si_signo;
  int si_errno;
  int si_code;
  struct fields {
    struct {
      pid_t si_pid;
      uid_t si_uid;
    } _kill;
    struct {
      int si_tid;
      int si_overrun;
    } _timer;
    struct {
      sigval si_sigval;
    } _rt;
    struct {
      int si_status;
      long si_utime;
      long si_stime;
    } _sigchld;
  } _sifields;
};

struct sigaction {
  union {
    void (*sa_handler)(int);
    void (*sa_sigaction)(int, siginfo_t*, void*);
  } __sigaction_handler;
  sigset_t sa_mask;
  int sa_flags;
};

using sighandler_t = void (*)(int);

} // namespace migrate::posix

#pragma pop_macro("sa_handler")
#pragma pop_macro("sa_sigaction")
#pragma pop_macro("si_pid")
#pragma pop_macro("si_uid")
#pragma pop_macro("si_timerid")
#pragma pop_macro("si_overrun")
#pragma pop_macro("si_value")
#pragma pop_macro("si_status")
#pragma pop_macro("si_utime")
#pragma pop_macro("si_stime")

namespace migrate::posix {

namespace detail_signal {

using namespace migrate::detail;

inline int fail(int with) noexcept {
  errno = with;
  return -1;
}

inline bool in_task() noexcept { return current_task() != nullptr; }

inline signal_bits bits_of(const sigset_t& set) noexcept {
  signal_bits bits = 0;
  std::memcpy(&bits, &set, sizeof bits); // Linux's layout: bit n - 1 is signal n
  return bits;
}

inline void to_set(signal_bits bits, sigset_t* set) noexcept {
  ::sigemptyset(set);
  std::memcpy(set, &bits, sizeof bits);
}

inline siginfo_t info_of(const signal_info& got) noexcept {
  siginfo_t made{};
  made.si_signo = got.number;
  made.si_code = got.code;
  if (got.code == SI_TIMER) {
    made.si_timerid = got.status;
    made.si_overrun = got.overrun;
  } else {
    made.si_pid = static_cast<pid_t>(got.sender.bits());
    made.si_uid = got.user;
    made.si_status = got.status;
  }
  std::memcpy(&made.si_value, &got.value, sizeof got.value);
  return made;
}

inline void invoke_plain(void (*function)(), const signal_info& got, signal_bits&) {
  reinterpret_cast<void (*)(int)>(function)(got.number);
}

inline void invoke_with_info(void (*function)(), const signal_info& got, signal_bits& mask_after) {
  siginfo_t info = info_of(got);
  ucontext_t context{};
  to_set(mask_after, &context.uc_sigmask);
  reinterpret_cast<void (*)(int, siginfo_t*, void*)>(function)(got.number, &info, &context);
  mask_after = bits_of(context.uc_sigmask);
}
// Of the context only uc_sigmask is there: the mask to go on with. Registers are the library's own, as the handler was
// called from a safe point.

inline int send(pid_t to, const signal_info& what) {
  if (what.number != 0 && !is_signal(what.number)) return fail(EINVAL);
  if (the_signals == nullptr) return fail(ENOSYS);
  safe_point();
  int failed = send_signal(to, what);
  return failed == 0 ? 0 : fail(failed);
}

inline signal_info from_here(int number, int code) noexcept {
  signal_info what;
  what.number = number;
  what.code = code;
  if (resident* me = current_task()) what.sender = me->id;
  what.user = ::getuid();
  return what;
}

inline signal_action action_of(const struct sigaction& given) noexcept {
  signal_action made;
  made.flags = given.sa_flags;
  made.mask = bits_of(given.sa_mask);
  auto plain = given.sa_handler;
  if (plain == SIG_IGN) {
    made.what = signal_action::kind::ignore;
  } else if (plain != SIG_DFL) {
    made.what = signal_action::kind::call;
    made.function = reinterpret_cast<void (*)()>(plain);
    made.invoke = (given.sa_flags & SA_SIGINFO) != 0 ? invoke_with_info : invoke_plain;
  }
  return made;
}

inline struct sigaction shown(const signal_action& action) noexcept {
  struct sigaction made{};
  made.sa_flags = action.flags;
  to_set(action.mask, &made.sa_mask);
  switch (action.what) {
  case signal_action::kind::standard: made.sa_handler = SIG_DFL; break;
  case signal_action::kind::ignore: made.sa_handler = SIG_IGN; break;
  case signal_action::kind::call:
    made.sa_handler = action.function != nullptr ? reinterpret_cast<void (*)(int)>(action.function)
                                                 : SIG_DFL; // on_signal()'s callables are no functions
    break;
  }
  return made;
}

constexpr std::int64_t second = 1'000'000'000;

inline std::int64_t nanoseconds_of(const timespec& time) noexcept { return time.tv_sec * second + time.tv_nsec; }
inline timespec to_timespec(std::int64_t nanoseconds) noexcept {
  return {static_cast<time_t>(nanoseconds / second), static_cast<long>(nanoseconds % second)};
}
inline bool is_time(const timespec& time) noexcept {
  return time.tv_sec >= 0 && time.tv_nsec >= 0 && time.tv_nsec < second;
}

} // namespace detail_signal

// --- sets

inline int sigemptyset(sigset_t* set) { return ::sigemptyset(set); }
inline int sigfillset(sigset_t* set) { return ::sigfillset(set); }
inline int sigaddset(sigset_t* set, int number) { return ::sigaddset(set, number); }
inline int sigdelset(sigset_t* set, int number) { return ::sigdelset(set, number); }
inline int sigismember(const sigset_t* set, int number) { return ::sigismember(set, number); }

// --- sending

inline int kill(pid_t to, int number) { return detail_signal::send(to, detail_signal::from_here(number, SI_USER)); }
// Once the receiver's home has it, the signal is delivered exactly once, wherever the receiver is and goes. A task
// that signals itself has had its handler run when this returns. May be called from any thread of a node.
// EHOSTUNREACH: the receiver's home does not answer, and it is not known whether it has the signal.

inline int killpg(pid_t group, int number) {
  if (group < 0) return detail_signal::fail(EINVAL);
  return kill(group == 0 ? 0 : -group, number);
}

inline int raise(int number) {
  if (!detail_signal::in_task()) return detail_signal::fail(ENOSYS);
  return kill(static_cast<pid_t>(detail_signal::self().id.bits()), number);
}

inline int sigqueue(pid_t to, int number, const sigval value) {
  if (to <= 0) return detail_signal::fail(EINVAL);
  signal_info what = detail_signal::from_here(number, SI_QUEUE);
  std::memcpy(&what.value, &value, sizeof what.value);
  return detail_signal::send(to, what);
}

// --- actions and masks

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" // the structure and the function have one name, as in POSIX
inline int sigaction(int number, const struct sigaction* action, struct sigaction* old) {
#pragma GCC diagnostic pop
  using namespace detail_signal;
  if (!in_task()) return fail(ENOSYS);
  if (!is_signal(number) || (action != nullptr && (signal_bit(number) & never_blocked) != 0)) return fail(EINVAL);
  safe_point();
  if (action == nullptr) {
    if (old != nullptr) *old = shown(own_signals().actions[static_cast<std::size_t>(number - 1)]);
    return 0;
  }
  struct sigaction before = shown(replace_action(number, action_of(*action)));
  if (old != nullptr) *old = before;
  return 0;
}

inline sighandler_t signal(int number, sighandler_t handler) {
  struct sigaction action{};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  struct sigaction old{};
  return sigaction(number, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
}

inline int sigprocmask(int how, const sigset_t* set, sigset_t* old) {
  using namespace detail_signal;
  if (!in_task()) return fail(ENOSYS);
  safe_point();
  signal_bits before = own_mask(*self().control);
  if (set != nullptr) {
    signal_bits given = bits_of(*set);
    if (how == SIG_BLOCK)
      given |= before;
    else if (how == SIG_UNBLOCK)
      given = before & ~given;
    else if (how != SIG_SETMASK)
      return fail(EINVAL);
    set_mask(given);
  }
  if (old != nullptr) to_set(before, old);
  return 0;
}

inline int pthread_sigmask(int how, const sigset_t* set, sigset_t* old) {
  return posix::sigprocmask(how, set, old) == 0 ? 0 : errno;
}

inline int sigpending(sigset_t* set) {
  using namespace detail_signal;
  if (!in_task()) return fail(ENOSYS);
  safe_point();
  fire_timers(self());
  to_set(pending_signals(self()) & own_mask(*self().control), set);
  return 0;
}

inline int sigaltstack(const stack_t* given, stack_t* old) {
  // Kept and reported. Handlers run on the task's own stack, as they are called at safe points, where it is sound.
  using namespace detail_signal;
  if (!in_task()) return fail(ENOSYS);
  safe_point();
  signal_stack& kept = own_signals().stack;
  stack_t before{};
  before.ss_sp = reinterpret_cast<void*>(kept.address);
  before.ss_size = kept.bytes;
  before.ss_flags = kept.flags;
  if (given != nullptr) {
    if ((given->ss_flags & ~SS_DISABLE) != 0) return fail(EINVAL);
    bool off = given->ss_flags == SS_DISABLE;
    if (!off && given->ss_size < 2048) return fail(ENOMEM);
    kept = off ? signal_stack{}
               : signal_stack{reinterpret_cast<std::uint64_t>(given->ss_sp), given->ss_size, given->ss_flags};
  }
  if (old != nullptr) *old = before;
  return 0;
}

// --- waiting

inline int sigsuspend(const sigset_t* mask) {
  using namespace detail_signal;
  if (!in_task()) return fail(ENOSYS);
  safe_point();
  wait_for_handler(bits_of(*mask));
  return fail(EINTR);
}

inline int pause() {
  using namespace detail_signal;
  if (!in_task()) return fail(ENOSYS);
  wait_for_handler(own_mask(*self().control));
  return fail(EINTR);
}

inline int sigtimedwait(const sigset_t* set, siginfo_t* info, const timespec* limit) {
  using namespace detail_signal;
  if (!in_task()) return fail(ENOSYS);
  if (limit != nullptr && !is_time(*limit)) return fail(EINVAL);
  safe_point();
  steady_point deadline{};
  if (limit != nullptr) deadline = task_now() + std::chrono::nanoseconds(nanoseconds_of(*limit));
  signal_info got;
  switch (wait_for_signal(bits_of(*set) & ~never_blocked, got, limit != nullptr ? &deadline : nullptr)) {
  case signal_wait::interrupted: return fail(EINTR);
  case signal_wait::late: return fail(EAGAIN);
  case signal_wait::got: break;
  }
  if (info != nullptr) *info = info_of(got);
  return got.number;
}

inline int sigwaitinfo(const sigset_t* set, siginfo_t* info) { return posix::sigtimedwait(set, info, nullptr); }

inline int sigwait(const sigset_t* set, int* number) {
  // Returns the error itself. Handlers of other signals run meanwhile.
  for (;;) {
    int got = posix::sigtimedwait(set, nullptr, nullptr);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    *number = got;
    return 0;
  }
}

// --- timers

inline int setitimer(int which, const itimerval* given, itimerval* old) {
  // ITIMER_REAL. ITIMER_VIRTUAL and ITIMER_PROF are refused with ENOTSUP.
  using namespace detail_signal;
  if (!in_task()) return fail(ENOSYS);
  if (which != ITIMER_REAL) return fail(which == ITIMER_VIRTUAL || which == ITIMER_PROF ? ENOTSUP : EINVAL);
  auto parse = [](const timeval& time) { return time.tv_sec * second + time.tv_usec * 1000; };
  auto show = [](std::int64_t left) {
    return timeval{static_cast<time_t>(left / second), static_cast<suseconds_t>(left % second / 1000)};
  };
  auto is_valid = [](const timeval& time) { return time.tv_sec >= 0 && time.tv_usec >= 0 && time.tv_usec < 1'000'000; };
  if (given != nullptr && (!is_valid(given->it_value) || !is_valid(given->it_interval))) return fail(EINVAL);
  safe_point();
  interval_timer& timer = alarm_timer();
  timer_setting before = given != nullptr ? set_timer(timer, {parse(given->it_value), parse(given->it_interval)})
                                          : read_timer(timer);
  if (old != nullptr) *old = {show(before.interval), show(before.left)};
  return 0;
}

inline int getitimer(int which, itimerval* value) { return posix::setitimer(which, nullptr, value); }

inline unsigned alarm(unsigned seconds) {
  // Zero on a thread that runs no task, where it does nothing.
  using namespace detail_signal;
  if (!in_task()) return 0;
  safe_point();
  std::int64_t left = set_timer(alarm_timer(), {seconds * second, 0}).left;
  return left == 0 ? 0 : static_cast<unsigned>(std::max<std::int64_t>((left + second / 2) / second, 1));
}

inline useconds_t ualarm(useconds_t microseconds, useconds_t interval) {
  using namespace detail_signal;
  if (!in_task()) return 0;
  safe_point();
  return static_cast<useconds_t>(
      set_timer(alarm_timer(), {std::int64_t{microseconds} * 1000, std::int64_t{interval} * 1000}).left / 1000);
}

using timer_t = int;

inline int timer_create(clockid_t clock, const sigevent* how, timer_t* timer) {
  // CLOCK_REALTIME and CLOCK_MONOTONIC, SIGEV_SIGNAL and SIGEV_NONE; other clocks and SIGEV_THREAD are refused with
  // ENOTSUP.
  using namespace detail_signal;
  if (!in_task()) return fail(ENOSYS);
  if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC)
    return fail(clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID ? ENOTSUP : EINVAL);
  interval_timer made;
  made.used = true;
  made.clock = clock;
  made.sends.number = SIGALRM;
  made.sends.code = SI_TIMER;
  if (how != nullptr) {
    if (how->sigev_notify == SIGEV_THREAD) return fail(ENOTSUP);
    if (how->sigev_notify != SIGEV_SIGNAL && how->sigev_notify != SIGEV_NONE) return fail(EINVAL);
    made.signals = how->sigev_notify == SIGEV_SIGNAL;
    if (made.signals && !is_signal(how->sigev_signo)) return fail(EINVAL);
    made.sends.number = how->sigev_signo;
    std::memcpy(&made.sends.value, &how->sigev_value, sizeof made.sends.value);
  }
  safe_point();
  int number = add_timer(made);
  if (number < 0) return fail(EAGAIN);
  if (how == nullptr) find_timer(number)->sends.value = static_cast<std::uint64_t>(number);
  *timer = number;
  return 0;
}

inline int timer_settime(timer_t number, int flags, const itimerspec* given, itimerspec* old) {
  using namespace detail_signal;
  if (!in_task()) return fail(ENOSYS);
  safe_point();
  interval_timer* timer = find_timer(number);
  if (timer == nullptr || given == nullptr || !is_time(given->it_value) || !is_time(given->it_interval))
    return fail(EINVAL);
  timer_setting to{nanoseconds_of(given->it_value), nanoseconds_of(given->it_interval)};
  if ((flags & TIMER_ABSTIME) != 0 && to.left != 0) {
    auto now = timer->clock == CLOCK_REALTIME ? migrate::clock::now().time_since_epoch()
                                              : migrate::steady_clock::now().time_since_epoch();
    to.left = std::max<std::int64_t>(to.left - std::chrono::nanoseconds(now).count(), 1);
  }
  timer_setting before = set_timer(*timer, to);
  if (old != nullptr) *old = {to_timespec(before.interval), to_timespec(before.left)};
  return 0;
}

inline int timer_gettime(timer_t number, itimerspec* value) {
  using namespace detail_signal;
  if (!in_task()) return fail(ENOSYS);
  safe_point();
  interval_timer* timer = find_timer(number);
  if (timer == nullptr) return fail(EINVAL);
  timer_setting now = read_timer(*timer);
  *value = {to_timespec(now.interval), to_timespec(now.left)};
  return 0;
}

inline int timer_getoverrun(timer_t number) {
  using namespace detail_signal;
  if (!in_task()) return fail(ENOSYS);
  interval_timer* timer = find_timer(number);
  return timer == nullptr ? fail(EINVAL) : timer->overrun;
}

inline int timer_delete(timer_t number) {
  using namespace detail_signal;
  if (!in_task()) return fail(ENOSYS);
  safe_point();
  interval_timer* timer = find_timer(number);
  if (timer == nullptr) return fail(EINVAL);
  *timer = {};
  return 0;
}

} // namespace migrate::posix
