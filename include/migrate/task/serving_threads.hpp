// Threads that serve frozen tasks while no worker is free to.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include <migrate/task/resident.hpp>

namespace migrate::detail {

class serving_threads {
  // A task that computes keeps its worker until it yields or waits. What is to be laid out, flushed or vacated meanwhile
  // must not wait for that, or a machine whose owner is back would be cleared no sooner.

public:
  using function = void (*)(void* owner, resident& task) noexcept;

  serving_threads(function serve, void* owner) noexcept : serve_(serve), owner_(owner) {}
  ~serving_threads() { stop(); }
  serving_threads(const serving_threads&) = delete;
  serving_threads& operator=(const serving_threads&) = delete;

  void start(std::size_t count) {
    while (threads_.size() < count) threads_.emplace_back([this] { run(); });
  }
  // Not from a task: a thread inherits the canary and the pointer guard of the one that starts it.

  void push(resident& task) noexcept {
    std::lock_guard guard(lock_);
    task.next = nullptr;
    if (head_ == nullptr)
      head_ = &task;
    else
      tail_->next = &task;
    tail_ = &task;
    changed_.notify_one();
  }
  // Has the task, which is frozen, served.

  void stop() noexcept {
    {
      std::lock_guard guard(lock_);
      stopping_ = true;
      changed_.notify_all();
    }
    for (std::thread& each : threads_) each.join();
    threads_.clear();
  }
  // What waits stays frozen.

private:
  void run() noexcept {
    std::unique_lock guard(lock_);
    for (;;) {
      changed_.wait(guard, [this] { return stopping_ || head_ != nullptr; });
      if (stopping_) return;
      resident* task = head_;
      head_ = task->next;
      guard.unlock();
      serve_(owner_, *task);
      guard.lock();
    }
  }

  function serve_;
  void* owner_;
  std::mutex lock_;
  std::condition_variable changed_;
  std::vector<std::thread> threads_;
  resident* head_ = nullptr;
  resident* tail_ = nullptr;
  bool stopping_ = false;
};
// Thread safety: push() from any thread; the others from the one that made it.

} // namespace migrate::detail
