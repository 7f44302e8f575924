// A worker's queue of runnable tasks: first in, first out, stolen from by idle workers.
#pragma once

#include <atomic>
#include <cstddef>

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
  static void prepare() noexcept {}
  static void frequent() noexcept { word_.fetch_add(1); }
  static void rare() noexcept { word_.fetch_add(1); }

private:
  static inline std::atomic<unsigned> word_{0};
#else
  static void prepare() noexcept {
    cheap_ = ::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
  }
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
  // The owner's push and pop take no locked instruction: a thief announces itself and then waits until
  // the owner is seen outside.

  void push(resident* task) noexcept {
    enter();
    task->next = nullptr;
    if (head_ == nullptr)
      head_ = task;
    else
      tail_->next = task;
    tail_ = task;
    resize(1);
    leave();
  }

  resident* pop() noexcept {
    if (size() == 0) return nullptr; // the owner's own hint: only thieves make it too large
    enter();
    resident* task = head_;
    if (task != nullptr) {
      head_ = task->next;
      resize(-1);
    }
    leave();
    return task;
  }

  resident* rotate(resident* last) noexcept {
    // Takes the first task and puts `last`, whose context is not saved yet, behind the others: thieves leave
    // it alone until saved(). Null, with nothing changed, when the queue is empty.
    if (size() == 0) return nullptr;
    enter();
    resident* first = head_;
    if (first != nullptr) {
      last->next = nullptr;
      tail_->next = last; // `first` itself when it is alone
      tail_ = last;
      head_ = first->next;
      unsaved_.store(true, std::memory_order_relaxed);
    }
    leave();
    return first;
  }
  void saved() noexcept { unsaved_.store(false, std::memory_order_release); }

  std::size_t size() const noexcept { return size_.load(std::memory_order_relaxed); }
  // Exact for the owner; a hint for others.

  resident* steal(run_queue& into) noexcept;
  // Takes the older half: returns its first task and puts the others into the caller's own queue.

private:
  void resize(std::ptrdiff_t by) noexcept { size_.store(size() + by, std::memory_order_relaxed); } // inside only

  void enter() noexcept {
#ifdef MIGRATE_TSAN
    guard_.lock();
#else
    for (;;) {
      owner_inside_.store(true, std::memory_order_relaxed);
      asymmetric_barrier::frequent();
      if (!thief_.load(std::memory_order_acquire)) [[likely]]
        return;
      owner_inside_.store(false, std::memory_order_release);
      while (thief_.load(std::memory_order_acquire)) ::sched_yield();
    }
#endif
  }
  void leave() noexcept {
#ifdef MIGRATE_TSAN
    guard_.unlock();
#else
    owner_inside_.store(false, std::memory_order_release);
#endif
  }

  resident* head_ = nullptr;
  std::atomic<std::size_t> size_{0}; // between the two, or compilers combine their stores by way of a vector register
  resident* tail_ = nullptr;
  std::atomic<bool> unsaved_{false}; // the last task's context is on its way out of a worker
  std::atomic<bool> owner_inside_{false};
  alignas(64) std::atomic<bool> thief_{false};
  spin_lock guard_; // one thief at a time
};

inline resident* run_queue::steal(run_queue& into) noexcept {
#ifdef MIGRATE_TSAN
  guard_.lock();
#else
  if (size() == 0) return nullptr;
  if (!guard_.try_lock()) return nullptr;
  thief_.store(true, std::memory_order_relaxed);
  asymmetric_barrier::rare();
  while (owner_inside_.load(std::memory_order_acquire)) processor::pause();
#endif
  resident* first = nullptr;
  resident* rest = nullptr;
  std::size_t there = size() - (unsaved_.load(std::memory_order_acquire) ? 1 : 0);
  if (head_ != nullptr && there > 0) {
    first = head_;
    std::size_t half = (there + 1) / 2;
    resident* last = first;
    std::size_t count = 1;
    for (; count < half; ++count) last = last->next;
    head_ = last->next;
    resize(-static_cast<std::ptrdiff_t>(count));
    if (head_ == nullptr) tail_ = nullptr;
    rest = first == last ? nullptr : first->next;
    last->next = nullptr;
  }
#ifndef MIGRATE_TSAN
  thief_.store(false, std::memory_order_release);
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
