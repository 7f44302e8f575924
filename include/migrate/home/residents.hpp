// The tasks that are on this node.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include <migrate/home/records.hpp>
#include <migrate/task/resident.hpp>
#include <migrate/task/spin_lock.hpp>

namespace migrate::detail {

class residents {
public:
  residents() = default;
  residents(const residents&) = delete;
  residents& operator=(const residents&) = delete;

  resident& enter(task_id id, std::uint64_t epoch, control_block* control, home_record* home,
                  run_state state = run_state::none);
  // A record for a task that comes to this node. `home`: its home record, when this is its home.

  void retire(resident& task, task_id id, home_record* home) noexcept;
  // The task `id` has ended or left. It may have come again in another record meanwhile, and this one may
  // be used for another task at once.

  resident* find_foreign(task_id id) noexcept {
    held guard(lock_);
    auto found = foreign_.find(id);
    return found == foreign_.end() ? nullptr : found->second;
  }

  template <class F> void for_each_foreign(F&& visit) {
    held guard(lock_);
    for (auto& [id, task] : foreign_) visit(*task);
  }

  template <class F> void for_each(F&& visit) {
    held guard(lock_);
    for (auto& block : blocks_)
      for (std::size_t i = 0; i < block_size; ++i)
        if (occupied(block[i])) visit(block[i]);
  }

  template <class F> std::size_t for_some(std::size_t from, std::size_t most, F&& visit) {
    // Up to `most` records from number `from` on, with tasks in them or without, under no lock. Where to go on: 0
    // after the last.
    std::size_t at = from;
    for (std::size_t end = from + most; at < end;) {
      resident* block = nullptr; // these are never freed
      {
        held guard(lock_);
        if (at / block_size >= blocks_.size()) return 0;
        block = blocks_[at / block_size].get();
      }
      do visit(block[at % block_size]);
      while (++at % block_size != 0 && at < end);
    }
    return at;
  }

  std::size_t count() const noexcept { return count_.load(std::memory_order_relaxed); }

  void when_empty(void (*tell)() noexcept) noexcept { when_empty_.store(tell); }
  // Told of the last task's going, on the thread that saw to it.

private:
  static constexpr std::size_t block_size = 256;

  static bool occupied(resident& record) noexcept {
    held guard(record.lock);
    return static_cast<bool>(record.id);
  }

  spin_lock lock_;
  resident* free_ = nullptr;
  std::vector<std::unique_ptr<resident[]>> blocks_;
  std::unordered_map<task_id, resident*> foreign_;
  std::atomic<std::size_t> count_{0};
  std::atomic<void (*)() noexcept> when_empty_{nullptr};
};
// Thread safety: any thread, inside a node_heap_scope where a task runs.

inline resident& residents::enter(task_id id, std::uint64_t epoch, control_block* control, home_record* home,
                                  run_state state) {
  resident* task = nullptr;
  {
    held guard(lock_);
    if (free_ == nullptr) {
      blocks_.push_back(std::make_unique<resident[]>(block_size));
      for (std::size_t i = 0; i < block_size; ++i) {
        blocks_.back()[i].next = free_;
        free_ = &blocks_.back()[i];
      }
    }
    task = free_;
    free_ = task->next;
  }
  {
    // Whoever still has a pointer to the task that was here before looks under the lock.
    held guard(task->lock);
    task->next = nullptr;
    task->control = control;
    task->epoch = epoch;
    task->wants.store(0, std::memory_order_relaxed);
    task->pins.store(0, std::memory_order_relaxed);
    task->signalled.store(false, std::memory_order_relaxed);
    task->mail = nullptr;
    task->signals = nullptr;
    task->awaits.store(0, std::memory_order_relaxed);
    task->anything_in.store(false, std::memory_order_relaxed);
    task->move = nullptr;
    task->open_call = 0;
    task->hides_pages.store(false, std::memory_order_relaxed);
    task->lost_from.store(no_node, std::memory_order_relaxed);
    task->state.store(state, std::memory_order_relaxed);
    task->id = id;
  }
  if (home != nullptr) {
    held guard(home->lock);
    home->here.store(task, std::memory_order_release);
  } else {
    held guard(lock_);
    foreign_.insert_or_assign(id, task);
  }
  count_.fetch_add(1, std::memory_order_relaxed);
  return *task;
}

inline void residents::retire(resident& task, task_id id, home_record* home) noexcept {
  {
    held guard(task.lock);
    task.id = {};
    task.control = nullptr;
    task.state.store(run_state::none, std::memory_order_relaxed);
  }
  if (home != nullptr) {
    held guard(home->lock);
    if (home->here.load(std::memory_order_relaxed) == &task)
      home->here.store(nullptr, std::memory_order_release);
  }
  bool last = false;
  {
    held guard(lock_);
    if (auto found = foreign_.find(id); found != foreign_.end() && found->second == &task) foreign_.erase(found);
    task.next = free_;
    free_ = &task;
    last = count_.fetch_sub(1) == 1;
  }
  if (auto tell = last ? when_empty_.load() : nullptr; tell != nullptr) tell();
}

} // namespace migrate::detail
