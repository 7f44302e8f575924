// Workers, and how tasks get on and off them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <migrate/error.hpp>
#include <migrate/memory/current_heap.hpp>
#include <migrate/task/context.hpp>
#include <migrate/task/control_block.hpp>
#include <migrate/task/node_clock.hpp>
#include <migrate/task/resident.hpp>
#include <migrate/task/run_queue.hpp>
#include <migrate/task/usage.hpp>

namespace migrate::detail {

class scheduler;

enum class leaving : std::uint8_t {
  yield,  // a task, or the worker's loop; the worker is inside its queue until the next arrival
  park,   // a task that waits
  serve,  // a task at a safe point that something is wanted of
  finish, // a task that ran its last instruction
};

struct worker {
  context* left = nullptr;     // whose context the next arrival stores
  resident* left_task = nullptr;
  leaving why = leaving::yield; // another reason lasts until the arrival, or until the loop has seen to it
  std::atomic<bool> accounts{false}; // what tasks use of the thread is counted
  std::uint32_t turns = turns_in_a_row; // left until the loop looks at what comes from other threads
  thread_state thread{};
  locale_t asked_locale = LC_GLOBAL_LOCALE; // stands for the thread's slot where that is not known
  context loop;
  run_queue queue;
  scheduler* owner = nullptr;
  bool first_is_asked = false; // something is wanted of the queue's first task: the loop sees to it
  alignas(64) std::atomic<std::uint32_t> signal{0}; // futex: 1 wakes the sleeper
  bool idle = false;                                // guarded by the scheduler's idle lock
  std::size_t last_victim = 0;
  std::atomic<std::int64_t> idle_mark{0}; // nanoseconds idle so far; while it idles, less the time since it began
  resident* charged = nullptr;                      // whose use of the thread is counted since `used_before`
  task_usage used_before;
  std::thread os_thread;

  static constexpr std::uint32_t turns_in_a_row = 64;

  static constexpr std::size_t rescue_bytes = 64 * 1024;
  std::unique_ptr<std::byte[]> signal_stack; // for the handler of faults
  std::unique_ptr<std::byte[]> rescue_stack; // for leaving a task whose stack is used up
  errc fault = errc::ok;                     // why the running task must end
  char fault_text[512] = {};
  bool describing = false; // fault_text is being written

  resident* current() const noexcept { return queue.running(); }
  // The task on this worker; null in the worker's own loop.
};

[[gnu::used]] inline constinit thread_local worker* this_worker_of_thread asm("migrate_this_worker") = nullptr;

[[gnu::always_inline]] inline worker* this_worker() noexcept {
  worker* here;
  MIGRATE_READ_THREAD_LOCAL("migrate_this_worker", here);
  return here;
}
// The calling thread's worker, or null. To be asked again after every switch.

inline resident* current_task() noexcept {
  worker* here = this_worker();
  return here == nullptr ? nullptr : here->current();
}
// The running task, or null on a thread that is no worker.

inline constinit std::atomic<std::uint32_t> attention{0};
// How many reasons there are, in this process, for a safe point to look closer: tasks something is
// wanted of, and torture mode.

inline constinit scheduler* this_scheduler = nullptr;
// The process's scheduler while it has a node.

class scheduler {
public:
  struct hooks {
    void* owner = nullptr;
    void (*serve)(void* owner, resident& task) noexcept = nullptr;
    // On a worker's loop, with the task frozen: does what its `wants` ask. Whoever holds the task when it
    // is done calls thaw() or retires it.
    void (*finished)(void* owner, resident& task) noexcept = nullptr;
    // On a worker's loop, after the task's last instruction.
    void (*faulted)(void* owner, resident& task, errc why, const char* text) noexcept = nullptr;
    // The same for a task that was ended by a fault.
  };

  explicit scheduler(hooks calls) : hooks_(calls) {}
  ~scheduler() {
    stop();
    this_scheduler = nullptr;
  }
  scheduler(const scheduler&) = delete;
  scheduler& operator=(const scheduler&) = delete;

  void start(unsigned workers);
  void stop() noexcept;
  // Returns when every worker has left its loop; tasks that still exist stay suspended for ever. Other threads
  // may go on to wake them until the scheduler is destroyed.

  void start_task(resident& task) noexcept {
    task.state.store(run_state::ready, std::memory_order_relaxed);
    enqueue(task);
  }
  // A task that never ran, or came from another node.

  void thaw(resident& task) noexcept { start_task(task); }
  // A frozen task goes on.

  void serve_later(resident& task) noexcept {
    if ((task.wants.fetch_or(want_move) & want_move) == 0) attention.fetch_add(1); // answered() takes it back
    enqueue(task);
  }
  // Has a worker serve a task that is frozen and stays so.

  [[gnu::always_inline]] void start_unparked(resident& task) noexcept { enqueue(task); }
  // After unpark().

  static bool unpark(resident& task) noexcept {
    auto expected = run_state::parked;
    return task.state.compare_exchange_strong(expected, run_state::ready);
  }
  // True: the task was parked, and is the caller's until it starts it.

  void wake(resident& task) noexcept;
  // Ends the task's park, or its next one. Any thread; a wake for nothing does no harm.

  void ask(resident& task, want what) noexcept;
  // Has the task served at its next safe point, at once when it waits or is queued. Any thread.

  static void answered(resident& task, want what) noexcept;
  // Takes back what was asked.

  // From a task only:
  static void yield(worker& here, resident& self) noexcept;
  static void park(worker& here) noexcept;
  // Returns after a wake(), after a move, or for nothing.
  void serve_me(worker& here) noexcept;
  [[noreturn]] void abandon(worker& here) noexcept;
  // Leaves the running task's stack for good, as if it had run its last instruction.
  boost::context::fiber leave_finished(worker& here) noexcept;
  // The context to go on with from the end of a task's entry function.

  static void begin(boost::context::fiber&& last) noexcept;
  // The first thing that a new context does.

  void account_usage(worker& here) noexcept;
  // Counts from now on what tasks use, and brings the running task's count up to date.
  void account_usage() noexcept;
  // The same before any task is running, or not from a task.

  std::size_t worker_count() const noexcept { return workers_.size(); }

  std::size_t runnable() const noexcept;
  // How many tasks run or could run: a hint, for anybody.
  std::vector<const resident*> running() const;
  // The records of those that run: a hint, too. To be compared only.

  struct times {
    std::int64_t idle = 0;      // nanoseconds in which a worker had nothing to run
    std::int64_t processor = 0; // nanoseconds that the workers had of the machine's processors
  };
  times measure() const noexcept;
  // Of all workers since the start. A system call for each worker. Any thread, until stop().

private:
  void enqueue(resident& task) noexcept;
  void inject(resident& task) noexcept;
  void run(worker& here) noexcept;
  resident* next(worker& here) noexcept;
  resident* take_injected() noexcept;
  resident* steal(worker& here) noexcept;
  bool anything_queued() const noexcept;
  void idle(worker& here) noexcept;
  void wake_one() noexcept;
  static void arrive(boost::context::fiber&& last) noexcept;
  static void arrived_from_task(worker& here) noexcept;
  static bool came_too_early(const resident& task) noexcept;
  static void switch_to(worker& here, context& from, context& to) noexcept;
  static void switch_the_long_way(worker& here, context& from, context& to) noexcept;
  static void note_locale(worker& here) noexcept;
  static void charge(worker& here) noexcept;
  static void yield_the_long_way(worker& here) noexcept;
  static void yield_to_loop(worker& here, resident* next) noexcept;
  static void park_the_long_way(worker& here) noexcept;
  using switching = void (*)(worker& here, context& from, context& to) noexcept;
  template <switching Switch> static void yield_inside(worker& here, resident& self) noexcept;
  template <switching Switch> static void park_inside(worker& here, resident& self) noexcept;
  static void park_to_loop(worker& here, resident* next) noexcept;
  static void leave_to_loop(worker& here, leaving why) noexcept;
  static void stay(worker& here) noexcept;

  hooks hooks_;
  std::vector<std::unique_ptr<worker>> workers_;
  std::atomic<bool> stopping_{false};
  alignas(64) spin_lock injected_lock_;
  resident* injected_head_ = nullptr;
  resident* injected_tail_ = nullptr;
  std::atomic<std::size_t> injected_{0};
  alignas(64) spin_lock idle_lock_;
  std::vector<worker*> idle_; // the last to fall asleep wakes first
  std::atomic<std::uint32_t> idle_count_{0};
  std::atomic<bool> sentinel_{false};
};

// ---------------------------------------------------------------------------------------------------

inline void scheduler::note_locale(worker& here) noexcept {
  if (here.thread.locale == &here.asked_locale) [[unlikely]]
    here.asked_locale = ::uselocale(nullptr);
}

[[gnu::always_inline]] inline void scheduler::arrive(boost::context::fiber&& last) noexcept {
  worker& here = *this_worker(); // not the worker that this context left
#ifdef MIGRATE_ASAN
  context& mine = here.current() != nullptr ? here.current()->control->suspended : here.loop;
  __sanitizer_finish_switch_fiber(mine.fake_stack, &here.left->stack_bottom, &here.left->stack_bytes);
#endif
  // Made anew: the fiber of a context that ran is empty and needs no end.
  new (&here.left->fiber) boost::context::fiber(std::move(last));
  if (here.why == leaving::yield) [[likely]]
    here.queue.leave();
  else
    arrived_from_task(here);
}

inline bool scheduler::came_too_early(const resident& task) noexcept {
  // Whether something that should end the park that has just begun came when its wake still saw the task in a queue, or
  // running: such a wake changed the state before, and what it announces is seen now. An order to be served is looked
  // for before the task runs, and a letter by a receiver that holds no lock.
  if (task.wants.load() != 0 && task.pins.load(std::memory_order_relaxed) == 0) return true;
  return task.awaits.load(std::memory_order_relaxed) != 0 && task.anything_in.load();
}

MIGRATE_CHANGES_THREAD_WORDS inline void scheduler::arrived_from_task(worker& here) noexcept {
  if (here.why == leaving::park) {
    here.why = leaving::yield;
    resident& task = *here.left_task;
    auto expected = run_state::running;
    if (!task.state.compare_exchange_strong(expected, run_state::parked)) { // woken meanwhile
      task.state.store(run_state::ready, std::memory_order_relaxed);
      here.queue.push(&task);
    } else if (came_too_early(task) && unpark(task)) {
      here.queue.push(&task);
    }
  } else if (here.why == leaving::finish) {
    note_locale(here);
    here.loop.load(here.thread, *here.thread.locale);
  }
  // What has to be served, or has ended, the loop sees to.
}

[[gnu::noinline]] inline void scheduler::charge(worker& here) noexcept {
  rusage now{};
  ::getrusage(RUSAGE_THREAD, &now);
  auto nanoseconds = [](const timeval& time) {
    return std::int64_t{time.tv_sec} * 1'000'000'000 + std::int64_t{time.tv_usec} * 1000;
  };
  task_usage used{nanoseconds(now.ru_utime), nanoseconds(now.ru_stime), 0,           now.ru_minflt,
                  now.ru_majflt,             now.ru_nvcsw,              now.ru_nivcsw};
  if (here.charged != nullptr) {
    task_usage& its = here.charged->control->process.used;
    its += used;
    its -= here.used_before;
    its.most_resident = std::max(its.most_resident,
                                 static_cast<std::int64_t>(here.charged->control->heap.reserved_bytes()));
  }
  here.used_before = used;
  here.charged = here.current();
}

inline void scheduler::account_usage() noexcept {
  for (auto& each : workers_) {
    each->accounts.store(true);
    each->queue.take_the_long_way();
  }
}

inline void scheduler::account_usage(worker& here) noexcept {
  if (!here.accounts.load(std::memory_order_relaxed)) account_usage();
  charge(here);
}

[[gnu::always_inline]] inline void scheduler::switch_to(worker& here, context& from, context& to) noexcept {
  const thread_state thread = here.thread; // in registers
  from.save(thread);
  here.left = &from;
#ifdef MIGRATE_TSAN
  from.sanitizer_fiber = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.sanitizer_fiber, 0);
#endif
#ifdef MIGRATE_ASAN
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_bottom, to.stack_bytes);
#endif
  to.load(thread, from.locale);
  boost::context::fiber last = std::move(to.fiber).resume();
  arrive(std::move(last));
}

[[gnu::always_inline]] inline void scheduler::switch_the_long_way(worker& here, context& from,
                                                                  context& to) noexcept {
  if (here.accounts.load(std::memory_order_relaxed)) charge(here);
  note_locale(here);
  switch_to(here, from, to);
}

MIGRATE_CHANGES_THREAD_WORDS inline void scheduler::begin(boost::context::fiber&& last) noexcept {
  arrive(std::move(last));
}

MIGRATE_CHANGES_THREAD_WORDS inline void scheduler::leave_to_loop(worker& here, leaving why) noexcept {
  resident* task = here.current();
  here.left_task = task;
  here.why = why;
  here.queue.enter();
  if (why == leaving::yield) {
    here.queue.rotate_to_loop();
  } else {
    here.queue.drop_to_loop();
    here.queue.leave();
  }
  switch_the_long_way(here, task->control->suspended, here.loop);
}

[[gnu::always_inline]] inline void scheduler::yield(worker& here, resident& self) noexcept {
  if (--here.turns == 0 || !here.queue.try_enter()) [[unlikely]]
    yield_the_long_way(here);
  else
    yield_inside<switch_to>(here, self);
}

MIGRATE_CHANGES_THREAD_WORDS inline void scheduler::yield_the_long_way(worker& here) noexcept {
  if (here.turns == 0) {
    here.turns = worker::turns_in_a_row;
    leave_to_loop(here, leaving::yield);
  } else {
    here.queue.enter();
    yield_inside<switch_the_long_way>(here, *here.current());
  }
}

template <scheduler::switching Switch>
[[gnu::always_inline]] inline void scheduler::yield_inside(worker& here, resident& self) noexcept {
  resident* next = run_queue::behind(self);
  if (next == &self || next->wants.load(std::memory_order_relaxed) != 0) [[unlikely]] {
    here.queue.leave();
    yield_to_loop(here, next);
    return;
  }
  next->state.store(run_state::running, std::memory_order_relaxed);
  here.queue.rotate(&self, next);
  Switch(here, self.control->suspended, next->control->suspended);
}

MIGRATE_CHANGES_THREAD_WORDS inline void scheduler::yield_to_loop(worker& here, resident* next) noexcept {
  here.first_is_asked = next != here.current();
  if (here.first_is_asked || here.owner->injected_.load(std::memory_order_relaxed) != 0)
    leave_to_loop(here, leaving::yield); // else there is nobody to go first
}

inline void scheduler::stay(worker& here) noexcept {
  resident& task = *here.current();
  task.state.store(run_state::running, std::memory_order_relaxed);
  // Whoever woke it may want it moved, and whoever parks again at once passes no safe point.
  if (task.wants.load(std::memory_order_relaxed) != 0 && task.pins.load(std::memory_order_relaxed) == 0)
    leave_to_loop(here, leaving::serve);
}

[[gnu::always_inline]] inline void scheduler::park(worker& here) noexcept {
  resident* task = here.current();
  if (task->state.load(std::memory_order_relaxed) == run_state::woken) [[unlikely]] {
    stay(here);
    return;
  }
  if (--here.turns == 0 || !here.queue.try_enter()) [[unlikely]]
    park_the_long_way(here);
  else
    park_inside<switch_to>(here, *task);
}

MIGRATE_CHANGES_THREAD_WORDS inline void scheduler::park_the_long_way(worker& here) noexcept {
  if (here.turns == 0) {
    here.turns = worker::turns_in_a_row;
    leave_to_loop(here, leaving::park);
  } else {
    here.queue.enter();
    park_inside<switch_the_long_way>(here, *here.current());
  }
}

template <scheduler::switching Switch>
[[gnu::always_inline]] inline void scheduler::park_inside(worker& here, resident& self) noexcept {
  resident* next = run_queue::behind(self);
  if (next == &self || next->wants.load(std::memory_order_relaxed) != 0) [[unlikely]] {
    here.queue.leave();
    park_to_loop(here, next);
    return;
  }
  here.queue.drop_and_run(next);
  here.queue.leave();
  next->state.store(run_state::running, std::memory_order_relaxed);
  here.left_task = &self;
  here.why = leaving::park;
  Switch(here, self.control->suspended, next->control->suspended);
}

MIGRATE_CHANGES_THREAD_WORDS inline void scheduler::park_to_loop(worker& here, resident* next) noexcept {
  here.first_is_asked = next != here.current();
  leave_to_loop(here, leaving::park);
}

inline void scheduler::serve_me(worker& here) noexcept { leave_to_loop(here, leaving::serve); }

inline boost::context::fiber scheduler::leave_finished(worker& here) noexcept {
  here.left_task = here.current();
  here.left = &here.left_task->control->suspended;
  here.why = leaving::finish;
  here.queue.enter();
  here.queue.drop_to_loop();
  here.queue.leave();
  if (here.accounts.load(std::memory_order_relaxed)) charge(here);
#ifdef MIGRATE_TSAN
  __tsan_switch_to_fiber(here.loop.sanitizer_fiber, 0);
#endif
#ifdef MIGRATE_ASAN
  __sanitizer_start_switch_fiber(nullptr, here.loop.stack_bottom, here.loop.stack_bytes);
#endif
  return std::move(here.loop.fiber); // the frames below still return: the loop loads its own state
}

inline void scheduler::abandon(worker& here) noexcept {
  boost::context::fiber loop = leave_finished(here);
  std::move(loop).resume();
  __builtin_unreachable();
}

inline void scheduler::wake(resident& task) noexcept {
  auto state = task.state.load(std::memory_order_relaxed);
  for (;;) {
    switch (state) {
    case run_state::parked:
      if (task.state.compare_exchange_weak(state, run_state::ready)) {
        enqueue(task);
        return;
      }
      break;
    case run_state::running:
      if (task.state.compare_exchange_weak(state, run_state::woken)) return;
      break;
    default: {
      // Nothing to do, but what the waker wrote before must be seen by whoever next changes the state.
      if (task.state.compare_exchange_weak(state, state)) return;
      break;
    }
    }
  }
}

inline void scheduler::ask(resident& task, want what) noexcept {
  if ((task.wants.fetch_or(what) & what) == 0) attention.fetch_add(1);
  wake(task);
}

inline void scheduler::answered(resident& task, want what) noexcept {
  if ((task.wants.fetch_and(static_cast<std::uint8_t>(~what)) & what) != 0) attention.fetch_sub(1);
}

inline void scheduler::enqueue(resident& task) noexcept {
  worker* here = this_worker();
  if (here == nullptr || here->owner != this) [[unlikely]] {
    inject(task);
    return;
  }
  here->queue.push(&task);
  if (here->queue.size() < 2) return; // this worker is about to take it, or the sentinel will
  asymmetric_barrier::frequent();
  if (idle_count_.load() > 0) wake_one();
}

[[gnu::noinline]] inline void scheduler::inject(resident& task) noexcept {
  {
    held lock(injected_lock_);
    task.next = nullptr;
    if (injected_head_ == nullptr)
      injected_head_ = &task;
    else
      injected_tail_->next = &task;
    injected_tail_ = &task;
    injected_.fetch_add(1);
  }
  if (idle_count_.load() > 0) wake_one();
}

inline resident* scheduler::take_injected() noexcept {
  if (injected_.load(std::memory_order_relaxed) == 0) return nullptr;
  held lock(injected_lock_);
  resident* task = injected_head_;
  if (task != nullptr) {
    injected_head_ = task->next;
    injected_.fetch_sub(1);
  }
  return task;
}

inline resident* scheduler::steal(worker& here) noexcept {
  std::size_t count = workers_.size();
  std::size_t first = ++here.last_victim;
  for (std::size_t i = 0; i < count; ++i) {
    worker& victim = *workers_[(first + i) % count];
    if (&victim == &here) continue;
    if (resident* task = victim.queue.steal(here.queue)) return task;
  }
  return nullptr;
}

inline bool scheduler::anything_queued() const noexcept {
  if (injected_.load() > 0) return true;
  for (const auto& each : workers_)
    if (each->queue.size() > 0) return true;
  return false;
}

inline resident* scheduler::next(worker& here) noexcept {
  if (!std::exchange(here.first_is_asked, false))
    if (resident* task = take_injected()) return task;
  if (resident* task = here.queue.pop()) return task;
  return steal(here);
}

inline void scheduler::run(worker& here) noexcept {
  while (!stopping_.load(std::memory_order_relaxed)) {
    resident* task = next(here);
    if (task == nullptr) {
      idle(here);
      continue;
    }
    if (task->wants.load(std::memory_order_relaxed) != 0 && task->pins.load(std::memory_order_relaxed) == 0) {
      task->state.store(run_state::frozen);
      hooks_.serve(hooks_.owner, *task);
      continue;
    }
    task->state.store(run_state::running, std::memory_order_relaxed);
    here.queue.enter();
    here.queue.run(task);
    here.why = leaving::yield;
    switch_the_long_way(here, here.loop, task->control->suspended);
    if (here.why == leaving::finish && here.fault != errc::ok) {
      hooks_.faulted(hooks_.owner, *here.left_task, std::exchange(here.fault, errc::ok), here.fault_text);
    } else if (here.why == leaving::finish) {
      hooks_.finished(hooks_.owner, *here.left_task);
    } else if (here.why == leaving::serve) {
      here.left_task->state.store(run_state::frozen);
      hooks_.serve(hooks_.owner, *here.left_task);
    }
  }
}

inline std::size_t scheduler::runnable() const noexcept {
  std::size_t count = injected_.load(std::memory_order_relaxed);
  for (const auto& each : workers_) count += each->queue.size();
  return count + workers_.size() - std::min<std::size_t>(idle_count_.load(std::memory_order_relaxed), workers_.size());
}

inline std::vector<const resident*> scheduler::running() const {
  std::vector<const resident*> all;
  for (const auto& each : workers_)
    if (const resident* task = each->queue.running_seen()) all.push_back(task);
  return all;
}

inline scheduler::times scheduler::measure() const noexcept {
  times all;
  for (const auto& each : workers_) {
    std::int64_t mark = each->idle_mark.load(std::memory_order_relaxed);
    all.idle += mark < 0 ? mark + machine_steady() : mark;
    clockid_t clock{};
    timespec used{};
    if (::pthread_getcpuclockid(each->os_thread.native_handle(), &clock) == 0 && ::clock_gettime(clock, &used) == 0)
      all.processor += std::int64_t{used.tv_sec} * 1'000'000'000 + used.tv_nsec;
  }
  return all;
}

inline void scheduler::idle(worker& here) noexcept {
  // Sleepers announce themselves, then look once more. A push onto a worker's own queue wakes nobody
  // while that worker seems about to take the task itself; for the case that it computes on, one
  // sleeper (the sentinel) looks again after a while that doubles up to 2 ms.
  bool sentinel = false;
  long patience = 100'000; // nanoseconds
  auto mark = [&](std::int64_t sign) { // no one else writes it
    here.idle_mark.store(here.idle_mark.load(std::memory_order_relaxed) + sign * machine_steady(), std::memory_order_relaxed);
  };
  mark(-1);
  for (;;) {
    {
      held lock(idle_lock_);
      here.signal.store(0);
      here.idle = true;
      idle_.push_back(&here);
      idle_count_.store(static_cast<std::uint32_t>(idle_.size()));
    }
    asymmetric_barrier::rare();
    if (!anything_queued() && !stopping_.load()) {
      bool others_work = idle_count_.load() < workers_.size();
      if (others_work && !sentinel) sentinel = !sentinel_.exchange(true);
      if (!others_work && sentinel) {
        sentinel = false;
        sentinel_.store(false);
      }
      timespec limit{0, patience};
      ::syscall(SYS_futex, &here.signal, FUTEX_WAIT_PRIVATE, 0, sentinel ? &limit : nullptr, nullptr, 0);
      if (patience < 2'000'000) patience *= 2;
    }
    {
      held lock(idle_lock_);
      if (here.idle) std::erase(idle_, &here);
      here.idle = false;
      idle_count_.store(static_cast<std::uint32_t>(idle_.size()));
    }
    if (stopping_.load() || anything_queued()) break;
  }
  mark(1);
  if (sentinel) sentinel_.store(false);
}

[[gnu::noinline]] inline void scheduler::wake_one() noexcept {
  worker* sleeper = nullptr;
  {
    held lock(idle_lock_);
    if (idle_.empty()) return;
    sleeper = idle_.back();
    idle_.pop_back();
    sleeper->idle = false;
    idle_count_.store(static_cast<std::uint32_t>(idle_.size()));
  }
  sleeper->signal.store(1);
  ::syscall(SYS_futex, &sleeper->signal, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

inline void scheduler::start(unsigned count) {
  bool cheap = asymmetric_barrier::prepare();
  idle_.reserve(count);
  for (unsigned i = 0; i < count; ++i) {
    workers_.push_back(std::make_unique<worker>());
    workers_.back()->owner = this;
    if (!cheap) workers_.back()->queue.take_the_long_way();
  }
  this_scheduler = this;
  for (auto& each : workers_) {
    worker* mine = each.get();
    each->os_thread = std::thread([this, mine] {
      static_cast<void>(::unshare(CLONE_FS)); // a umask of its own, or the process's where a sandbox forbids it
      this_worker_of_thread = mine;
      mine->thread = thread_state::of_this_thread();
      if (mine->thread.locale == nullptr) {
        mine->thread.locale = &mine->asked_locale;
        mine->queue.take_the_long_way();
      }
      mine->signal_stack = std::make_unique<std::byte[]>(worker::rescue_bytes);
      mine->rescue_stack = std::make_unique<std::byte[]>(worker::rescue_bytes);
      stack_t signals{};
      signals.ss_sp = mine->signal_stack.get();
      signals.ss_size = worker::rescue_bytes;
      ::sigaltstack(&signals, nullptr);
      mine->loop.words = processor::thread_words::of_this_thread();
#ifdef MIGRATE_TSAN
      mine->loop.sanitizer_fiber = __tsan_get_current_fiber();
#endif
      run(*mine);
    });
  }
}

inline void scheduler::stop() noexcept {
  if (stopping_.exchange(true)) return;
  for (auto& each : workers_) {
    each->signal.store(1);
    ::syscall(SYS_futex, &each->signal, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  }
  for (auto& each : workers_) each->os_thread.join();
}

} // namespace migrate::detail
