// Waiting, in a task or on an ordinary thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <migrate/task/node_clock.hpp>
#include <migrate/task/scheduler.hpp>
#include <migrate/task/services.hpp>

namespace migrate::detail {

inline steady_point node_now() noexcept { return steady_point(std::chrono::nanoseconds(node_steady())); }

class thread_waiter {
public:
  // Blocks an ordinary thread; wake() may come first.

  void wake() noexcept {
    woken_.store(1);
    ::syscall(SYS_futex, &woken_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  }

  bool wait(const steady_point* deadline) noexcept {
    while (woken_.exchange(0) == 0) {
      timespec limit{};
      if (deadline != nullptr) {
        auto left = *deadline - node_now();
        if (left <= left.zero()) return false;
        auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(left).count();
        limit = {static_cast<time_t>(nanoseconds / 1'000'000'000), static_cast<long>(nanoseconds % 1'000'000'000)};
      }
      ::syscall(SYS_futex, &woken_, FUTEX_WAIT_PRIVATE, 0, deadline != nullptr ? &limit : nullptr, nullptr, 0);
    }
    return true;
  }
  // False when the deadline passed first.

private:
  std::atomic<std::uint32_t> woken_{0};
};

[[gnu::noinline]] inline void park() noexcept { scheduler::park(*this_worker()); }
// The running task waits for a wake. Afterwards it may be on another node, and nothing may have
// happened: callers look at their condition again.

[[gnu::noinline]] inline steady_point task_now() noexcept {
  auto now = node_now();
  if (resident* task = current_task()) now += std::chrono::nanoseconds(task->control->clock_offset);
  return now;
}
// A steady clock that goes on when the task moves to a machine with another one.

inline bool signal_waits() noexcept {
  resident* task = current_task();
  return task != nullptr && task->signalled.load(std::memory_order_relaxed) && node_services().signal_waits(*task);
}
// Whether the running task's wait should end for a signal.

inline bool park_until(steady_point deadline) noexcept {
  // False when the deadline has passed.
  auto now = task_now();
  if (now >= deadline) return false;
  resident* task = current_task();
  node_services().wake_at(*task, deadline - std::chrono::nanoseconds(task->control->clock_offset + clock_skew));
  park();
  if (resident* self = current_task()) node_services().forget_wake(*self);
  return true;
}

} // namespace migrate::detail
