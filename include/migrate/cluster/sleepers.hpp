// Tasks that wait for a point in time.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <unordered_map>

#include <migrate/rpc/event_loop.hpp>
#include <migrate/task/resident.hpp>
#include <migrate/task/scheduler.hpp>
#include <migrate/task/services.hpp>

namespace migrate::detail {

class sleepers {
public:
  using action = void (*)(resident& task) noexcept;
  sleepers(event_loop& loop, action due) : loop_(loop), due_(due) {}
  // due(task) on the I/O thread, or for nothing: the record may be another task's by then.

  void add(resident& task, steady_point when) {
    bool earliest = false;
    {
      std::lock_guard guard(lock_);
      auto at = by_time_.emplace(when, &task);
      if (auto [old, fresh] = by_task_.try_emplace(&task, at); !fresh) {
        by_time_.erase(old->second);
        old->second = at;
      }
      earliest = at == by_time_.begin();
    }
    if (earliest) loop_.post([this] { arm(); });
  }

  void forget(resident& task) noexcept {
    std::lock_guard guard(lock_);
    auto found = by_task_.find(&task);
    if (found == by_task_.end()) return;
    by_time_.erase(found->second);
    by_task_.erase(found);
  }

private:
  using schedule = std::multimap<steady_point, resident*>;

  void arm() {
    steady_point now = std::chrono::steady_clock::now();
    std::lock_guard guard(lock_);
    while (!by_time_.empty() && by_time_.begin()->first <= now) {
      resident* due = by_time_.begin()->second;
      by_task_.erase(due);
      by_time_.erase(by_time_.begin());
      due_(*due); // whoever it is by now: see resident.hpp
    }
    loop_.cancel(timer_);
    if (!by_time_.empty()) timer_ = loop_.at(by_time_.begin()->first, [this] { arm(); });
  }

  event_loop& loop_;
  action due_;
  std::mutex lock_;
  schedule by_time_;
  std::unordered_map<resident*, schedule::iterator> by_task_;
  event_loop::timer timer_; // on the I/O thread
};
// Thread safety: any thread, inside a node_heap_scope where a task runs. One timer of the event loop
// stands for all.

} // namespace migrate::detail
