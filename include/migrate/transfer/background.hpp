// Threads that do what would take the I/O thread, or a worker, too long.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <sys/resource.h>

namespace migrate::detail {

class background {
public:
  background() = default;
  ~background() { stop(); }
  background(const background&) = delete;
  background& operator=(const background&) = delete;

  void start(std::size_t count, int stands_back = 0) {
    while (threads_.size() < count)
      threads_.emplace_back([this, stands_back] {
        if (stands_back != 0) ::setpriority(PRIO_PROCESS, 0, ::getpriority(PRIO_PROCESS, 0) + stands_back);
        run();
      });
  }
  std::size_t threads() const noexcept { return threads_.size(); }
  // stands_back: by how much nicer the threads are than the one that starts them (nice(2); on Linux each has its own).
  // Not from a task: a thread inherits the canary and the pointer guard of the one that starts it.

  void push(std::function<void()> job) {
    std::lock_guard guard(lock_);
    jobs_.push_back(std::move(job));
    changed_.notify_one();
  }
  // Any thread, in a node_heap_scope where a task runs. Jobs must not throw.

  void stop() noexcept {
    {
      std::lock_guard guard(lock_);
      stopping_ = true;
      jobs_.clear();
      changed_.notify_all();
    }
    for (std::thread& each : threads_) each.join();
    threads_.clear();
  }
  // What was not begun is not done.

private:
  void run() {
    std::unique_lock guard(lock_);
    for (;;) {
      changed_.wait(guard, [this] { return stopping_ || !jobs_.empty(); });
      if (stopping_) return;
      std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      guard.unlock();
      job();
      job = nullptr;
      guard.lock();
    }
  }

  std::mutex lock_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  std::vector<std::thread> threads_;
  bool stopping_ = false;
};

} // namespace migrate::detail
