// A lock for a few instructions, one byte large, for structures that exist by the million.
#pragma once

#include <atomic>

#include <sched.h>

#include <migrate/task/processor.hpp>

namespace migrate::detail {

class spin_lock {
public:
  void lock() noexcept {
    while (locked_.exchange(true, std::memory_order_acquire)) {
      for (int spins = 0; locked_.load(std::memory_order_relaxed); ++spins) {
        processor::pause();
        if (spins > 200) ::sched_yield(); // its holder may have lost the processor
      }
    }
  }
  bool try_lock() noexcept { return !locked_.exchange(true, std::memory_order_acquire); }
  void unlock() noexcept { locked_.store(false, std::memory_order_release); }

private:
  std::atomic<bool> locked_{false};
};

template <class Lock> class [[nodiscard]] held {
public:
  explicit held(Lock& lock) noexcept : lock_(lock) { lock_.lock(); }
  ~held() { lock_.unlock(); }
  held(const held&) = delete;
  held& operator=(const held&) = delete;

private:
  Lock& lock_;
};
// std::lock_guard without <mutex>. A task must not give up its worker while it holds a spin lock.

} // namespace migrate::detail
