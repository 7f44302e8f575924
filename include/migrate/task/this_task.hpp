// What a task may ask and do about itself.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <migrate/error.hpp>
#include <migrate/id.hpp>
#include <migrate/task/scheduler.hpp>
#include <migrate/task/services.hpp>
#include <migrate/task/wait.hpp>

namespace migrate {

namespace detail {

struct torture_setting {
  std::uint32_t period = 0; // every how many library calls a task moves; 0: never
  std::uint64_t seed = 0;
};
inline constinit torture_setting torture;

[[noreturn, gnu::cold, gnu::noinline]] inline void throw_not_in_task() {
  throw error(errc::not_in_task, "this_task: the calling thread runs no task");
}

inline resident& self() {
  resident* task = current_task();
  if (task == nullptr) [[unlikely]]
    throw_not_in_task();
  // A stack must not run out inside the library, where locks are held.
  if (processor::stack_pointer() < task->control->stack_reserve) [[unlikely]]
    *static_cast<volatile char*>(task->control->region.base()) = 0;
  return *task;
}

[[gnu::noinline]] inline void torture_step(resident& task) {
  control_block& control = *task.control;
  if (++control.library_calls % torture.period != 0) return;
  std::uint64_t x = torture.seed ^ (task.id.bits() * 0x9e37'79b9'7f4a'7c15u) ^ control.library_calls;
  x = (x ^ (x >> 30)) * 0xbf58'476d'1ce4'e5b9u; // splitmix64
  x = (x ^ (x >> 27)) * 0x94d0'49bb'1331'11ebu;
  node_id target = the_services->random_node(x ^ (x >> 31));
  if (target == the_services->here()) return;
  if (the_services->moves_in_rounds(task, x ^ (x >> 27)))
    the_services->move_soon(target);
  else
    static_cast<void>(the_services->move_me(target, transfer::by_default));
}

[[gnu::noinline]] inline void safe_point_slowly() {
  worker* here = this_worker();
  if (here == nullptr || here->current() == nullptr) return;
  resident& task = *here->current();
  if (task.pins.load(std::memory_order_relaxed) != 0) return;
  if (task.wants.load(std::memory_order_relaxed) != 0)
    this_scheduler->serve_me(*here);
  else if (torture.period != 0 && !task.signalled.load(std::memory_order_relaxed))
    torture_step(task);
  // It may be on another node: nothing above is valid any more. What came on the way there has woken nobody.
  if (current_task()->signalled.load(std::memory_order_relaxed)) the_services->take_signals();
}

[[gnu::always_inline]] inline void safe_point() {
  if (attention.load(std::memory_order_relaxed) != 0) [[unlikely]]
    safe_point_slowly();
}
// Where a task can be frozen. Every call into the library passes one.

} // namespace detail

class pin_scope {
public:
  pin_scope() : task_(&detail::self()) { task_->pins.fetch_add(1, std::memory_order_relaxed); }
  ~pin_scope() { task_->pins.fetch_sub(1, std::memory_order_relaxed); }
  pin_scope(const pin_scope&) = delete;
  pin_scope& operator=(const pin_scope&) = delete;

private:
  detail::resident* task_;
};
// While it lives the task stays on its node, and takes no signal: both wait until the next safe point after.

namespace this_task {

inline task_id id() { return detail::self().id; }
inline node_id home() { return id().home(); }
inline std::string name() { return detail::self().control->name; }

inline node_id node() {
  detail::self();
  return detail::the_services->here();
}
// Where the task is now: the next safe point may change it.

inline std::optional<residual_dependency> residual() {
  detail::self();
  residual_dependency on;
  if (!detail::node_services().residual(on)) return std::nullopt;
  return on;
}
// On which other node the calling task still has memory, and how much: until the pages that transfer::on_reference has
// left behind have followed. None: it depends on no node but this one (and its home). No safe point.

inline std::uint64_t moves() { return detail::self().control->moves; }
// How often the task has moved so far.

[[gnu::always_inline]] inline void poll() { detail::safe_point(); }
// A safe point and nothing else, for long computations; about a nanosecond when nothing is asked.
// Does nothing on a thread that runs no task.

[[gnu::always_inline]] inline void yield() {
  detail::safe_point();
  detail::worker* here = detail::this_worker();
  detail::resident* self = here == nullptr ? nullptr : here->current();
  if (self == nullptr) {
    ::sched_yield();
    return;
  }
  detail::scheduler::yield(*here, *self);
}
// Lets the worker's other runnable tasks go first.

template <class Clock, class Duration>
void sleep_until(const std::chrono::time_point<Clock, Duration>& deadline) {
  detail::self();
  if constexpr (std::is_same_v<Clock, std::chrono::steady_clock>) {
    do {
      detail::safe_point();
    } while (detail::park_until(std::chrono::time_point_cast<std::chrono::nanoseconds>(deadline)));
  } else {
    for (auto now = Clock::now(); now < deadline; now = Clock::now()) {
      detail::safe_point();
      detail::park_until(detail::task_now() +
                         std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - now));
    }
  }
}
// The worker runs other tasks meanwhile. A sleep begun on one node ends on time on another.

template <class Rep, class Period> void sleep_for(const std::chrono::duration<Rep, Period>& duration) {
  sleep_until(detail::task_now() + std::chrono::duration_cast<std::chrono::nanoseconds>(duration));
}

inline void migrate_to(node_id target, transfer how, std::error_code& code) {
  detail::self();
  code = detail::the_services->move_me(target, how).code;
}

inline void migrate_to(node_id target, std::error_code& code) { migrate_to(target, transfer::by_default, code); }

inline void migrate_to(node_id target, transfer how = transfer::by_default) {
  detail::self();
  detail::failure failed = detail::the_services->move_me(target, how);
  if (failed.code) throw error(failed.code, failed.what);
}
// Returns on the target. A task that moves itself waits for it, so pre-copy and pre-flush have nothing to overlap with and
// are full copy and flush. When the move cannot be made the task goes on where it was, and the reason is
// thrown as migrate::error, or stored in `code`. A move to the node it is on does nothing.

inline void recoverable(bool wanted = true) { detail::self().control->recoverable = wanted; }
// Whether the task's home restarts it when its node dies, from the last checkpoint that was made while it was wanted.
// Counts from the next checkpoint on. As spawn_options::recover.

inline bool checkpoint(std::error_code& code) {
  detail::self();
  bool restarted = false;
  code = detail::the_services->checkpoint_me(restarted).code;
  return restarted;
}

inline bool checkpoint() {
  detail::self();
  bool restarted = false;
  detail::failure failed = detail::the_services->checkpoint_me(restarted);
  if (failed.code) throw error(failed.code, failed.what);
  return restarted;
}
// Commits an image of the task to the store and returns false when its home knows of it. Those that a node makes by
// itself, or that others ask for, are made while the task goes on. Returns true when the task goes on from that image, as
// after setjmp(3): its node has died since, it was recoverable, and its home has restarted it elsewhere. Such a task has lost everything since, and does it
// once more; what others have seen of it stays seen:
//   - what it has printed, sent, signalled, spawned and written to files since is there, and comes again;
//   - messages, signals, standard input, joins and ends of children that it has taken since are gone. Those that its node
//     had not confirmed come again;
//   - files are opened again at the offsets that they had. What they hold now is not what they held.
// Never do two of it run: only a node whose process is known to have ended is restarted from. errc::not_movable, with the
// name of what is in the way: a pipe, a socket or device, a lock, an unlinked file, an offset shared with a child, a
// running program, a pin_scope, whatever refuses a move, and a task that has forked or was. errc::store_full and the like,
// and errc::home_unreachable: the checkpoint before it stands.

inline std::uint64_t restarts() { return detail::self().control->restarts; }
// How often it was restarted so far.

} // namespace this_task
} // namespace migrate
