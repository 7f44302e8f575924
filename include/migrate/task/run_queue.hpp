// A worker's queue of runnable tasks: first in, first out, stolen from by idle workers.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <migrate/memory/sanitizers.hpp>
#include <migrate/task/resident.hpp>
#include <migrate/task/spin_lock.hpp>

namespace migrate::detail {

class asymmetric_barrier {
public:
  // A store-load barrier that costs its frequent side nothing: the rare side interrupts the others
  // (membarrier(2)). Where the kernel has none, both sides pay for a full fence; ThreadSanitizer knows neither,
  // and both sides change a word for it to see.

#ifdef MIGRATE_TSAN
  static bool prepare() noexcept { return true; }
  static void frequent() noexcept { word_.fetch_add(1); }
  static void rare() noexcept { word_.fetch_add(1); }

private:
  static inline std::atomic<unsigned> word_{0};
#else
  static bool prepare() noexcept {
    return cheap_ = ::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
  }
  // Whether the frequent side costs nothing.
  [[gnu::always_inline]] static void frequent() noexcept {
    if (cheap_) [[likely]]
      std::atomic_signal_fence(std::memory_order_seq_cst);
    else
      std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  static void rare() noexcept {
    if (!cheap_ || ::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0)
      std::atomic_thread_fence(std::memory_order_seq_cst);
  }

private:
  static inline bool cheap_ = false;
#endif
};

class run_queue {
public:
  // The running task keeps its place at the head, so a yield moves two pointers on. The owner takes no locked
  // instruction: a thief announces itself and then waits until the owner is seen outside.

  void enter() noexcept {
#ifdef MIGRATE_TSAN
    guard_.lock();
#else
    owner_inside_.store(true, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (obstacles_.load(std::memory_order_acquire) != 0) [[unlikely]]
      enter_slowly();
#endif
  }
  [[gnu::always_inline]] bool try_enter() noexcept {
    // False, and outside, when there is a thief or the owner has to take the long way for another reason.
#ifdef MIGRATE_TSAN
    guard_.lock();
#else
    owner_inside_.store(true, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
    if (obstacles_.load(std::memory_order_acquire) == 0) [[likely]]
      return true;
    leave();
    return false;
  }
  void leave() noexcept {
#ifdef MIGRATE_TSAN
    guard_.unlock();
#else
    owner_inside_.store(false, std::memory_order_release);
#endif
  }

  resident* running() const noexcept { return running_; }
  // Null in the worker's own loop.
  resident* running_seen() const noexcept { return __atomic_load_n(&running_, __ATOMIC_RELAXED); }
  // The same for another thread, of which nothing can be said by the time it looks.

  // By the owner, inside:

  void add(resident* task) noexcept {
    if (last_ == nullptr) {
      task->next = task;
    } else {
      task->next = last_->next;
      last_->next = task;
    }
    last_ = task;
    resize(1);
  }

  [[gnu::always_inline]] static resident* behind(const resident& running) noexcept { return running.next; }
  // The running task itself when it is alone.

  [[gnu::always_inline]] void rotate(resident* running, resident* next) noexcept {
    // The one behind it runs, and what ran is the last: thieves must not have it before its context is saved, until
    // when the owner stays inside.
    last_ = running;
    running_ = next;
  }
  [[gnu::always_inline]] void drop_and_run(resident* next) noexcept {
    // What ran is out of the queue, and the one behind it, which is another, runs.
    running_ = last_->next = next;
    resize(-1);
  }
  void rotate_to_loop() noexcept {
    last_ = std::exchange(running_, nullptr);
    resize(1);
  }
  void drop_to_loop() noexcept { unlink(std::exchange(running_, nullptr)); }
  void run(resident* task) noexcept {
    // From the loop.
    if (last_ == nullptr) last_ = task->next = task;
    task->next = std::exchange(last_->next, task);
    running_ = task;
  }

  // By the owner, outside:

  void push(resident* task) noexcept {
    enter();
    add(task);
    leave();
  }

  resident* pop() noexcept {
    // From the loop.
    if (size() == 0) return nullptr; // the owner's own hint: only thieves make it too large
    enter();
    resident* first = last_ == nullptr ? nullptr : last_->next;
    if (first != nullptr) {
      unlink(first);
      resize(-1);
    }
    leave();
    return first;
  }

  void take_the_long_way() noexcept { obstacles_.fetch_or(long_way); }
  // Any thread: from now on try_enter() fails.

  std::size_t size() const noexcept { return size_.load(std::memory_order_relaxed); }
  // Exact for the owner; a hint for others.

  resident* steal(run_queue& into) noexcept;
  // Takes the older half: returns its first task and puts the others into the caller's own queue.

private:
  enum obstacle : std::uint8_t { thief = 1, long_way = 2 };

  void resize(std::ptrdiff_t by) noexcept { size_.store(size() + by, std::memory_order_relaxed); }

  [[gnu::noinline]] void enter_slowly() noexcept {
    for (;;) {
      asymmetric_barrier::frequent();
      if ((obstacles_.load(std::memory_order_acquire) & thief) == 0) return;
      owner_inside_.store(false, std::memory_order_release);
      while ((obstacles_.load(std::memory_order_acquire) & thief) != 0) ::sched_yield();
      owner_inside_.store(true, std::memory_order_relaxed);
    }
  }

  void unlink(resident* first) noexcept {
    if (first == last_)
      last_ = nullptr;
    else
      last_->next = first->next;
  }

  // A ring: the last one's `next` is the running task, or the first when none runs. The size, without the running one,
  // stands between the two, or compilers combine their stores by way of a vector register.
  resident* running_ = nullptr;
  std::atomic<std::size_t> size_{0};
  resident* last_ = nullptr;
  std::atomic<bool> owner_inside_{false};
  alignas(64) std::atomic<std::uint8_t> obstacles_{0};
  spin_lock guard_; // one thief at a time
};

inline resident* run_queue::steal(run_queue& into) noexcept {
#ifdef MIGRATE_TSAN
  guard_.lock();
#else
  if (size() == 0) return nullptr;
  if (!guard_.try_lock()) return nullptr;
  obstacles_.fetch_or(thief, std::memory_order_relaxed);
  asymmetric_barrier::rare();
  for (int spins = 0; owner_inside_.load(std::memory_order_acquire); ++spins) {
    processor::pause();
    if (spins > 200) ::sched_yield(); // it may have lost the processor
  }
#endif
  resident* first = nullptr;
  resident* rest = nullptr;
  if (std::size_t there = size(); there > 0) {
    std::size_t half = (there + 1) / 2;
    resident* before = running_ != nullptr ? running_ : last_;
    first = before->next;
    resident* last = first;
    for (std::size_t count = 1; count < half; ++count) last = last->next;
    rest = first == last ? nullptr : first->next;
    before->next = last->next;
    if (last == last_) last_ = running_;
    resize(-static_cast<std::ptrdiff_t>(half));
    last->next = nullptr;
  }
#ifndef MIGRATE_TSAN
  obstacles_.fetch_and(static_cast<std::uint8_t>(~thief), std::memory_order_release);
#endif
  guard_.unlock();
  while (rest != nullptr) {
    resident* task = rest;
    rest = rest->next;
    into.push(task);
  }
  return first;
}

} // namespace migrate::detail
