// Home records: what a home knows of each task that it answers for.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include <migrate/home/signal_record.hpp>
#include <migrate/id.hpp>
#include <migrate/memory/address_plan.hpp>
#include <migrate/task/outcome.hpp>
#include <migrate/task/resident.hpp>
#include <migrate/task/spin_lock.hpp>
#include <migrate/task/wait.hpp>

namespace migrate::detail {

struct end_waiter {
  // Who is told when a task ends. One at a time: a task's handle has one owner.
  resident* local = nullptr; // a task on this node
  thread_waiter* thread = nullptr;
  node_id node = no_node; // a task elsewhere: the call to answer there
  std::uint64_t call = 0;

  explicit operator bool() const noexcept {
    return local != nullptr || thread != nullptr || node != no_node;
  }
};

struct home_record {
  spin_lock lock;
  bool alive = false;    // the slot is in use
  bool detached = false; // nobody will ask for the outcome
  bool is_process = false; // it has a process_record (see processes.hpp)
  std::uint32_t slot = 0;
  std::uint32_t serial = 0;
  region_number region;
  node_id place = no_node; // the node that holds the epoch
  node_id claimed_from = no_node; // who offered the task to `place`
  std::uint64_t epoch = 0;
  std::uint64_t checkpoint = 0; // the generation that the task is restarted from when its node dies; 0: it is not
  std::atomic<resident*> here{nullptr}; // while the task is on its home
  task_id parent;
  std::unique_ptr<detail::outcome> ended;
  std::unique_ptr<signal_record> signals;
  end_waiter waiter;
  home_record* next_free = nullptr;
};

class home_records {
public:
  explicit home_records(node_id home) noexcept : home_(home) {}
  ~home_records() {
    for (auto& each : blocks_) delete each.load(std::memory_order_relaxed);
  }
  home_records(const home_records&) = delete;
  home_records& operator=(const home_records&) = delete;

  std::optional<task_id> create(task_id parent, region_number region, node_id place);
  // A record for a new task, at epoch 1; nothing when all 16,777,216 slots are in use.

  home_record* find(task_id id) noexcept;
  // Under no lock: the caller takes the record's and looks at `alive` and the serial (see holds()).

  static bool holds(const home_record& record, task_id id) noexcept {
    return record.alive && record.serial == id.serial();
  }

  void erase(task_id id, home_record& record) noexcept;
  // With the record's lock held.

  template <class F> void for_each(F&& visit);
  // visit(task_id, home_record&) for each slot in use, with its lock held.

private:
  static constexpr std::size_t block_bits = 12;
  static constexpr std::size_t block_size = std::size_t{1} << block_bits;
  using slot_block = std::array<home_record, block_size>;

  node_id home_;
  spin_lock free_lock_;
  home_record* free_ = nullptr;
  std::uint32_t used_ = 1; // slots ever used; the first is init_task()
  std::array<std::atomic<slot_block*>, (std::size_t{1} << 24) / block_size> blocks_{};
};
// Thread safety: any thread.

inline std::optional<task_id> home_records::create(task_id parent, region_number region, node_id place) {
  std::uint32_t slot = 0;
  home_record* record = nullptr;
  {
    held guard(free_lock_);
    if (free_ != nullptr) {
      record = free_;
      free_ = record->next_free;
      slot = record->slot;
    } else {
      if (used_ == (std::uint32_t{1} << 24)) return std::nullopt;
      slot = used_++;
      auto& where = blocks_[slot >> block_bits];
      if (where.load(std::memory_order_relaxed) == nullptr) {
        node_heap_scope scope;
        where.store(new slot_block, std::memory_order_release);
      }
      record = &(*where.load(std::memory_order_relaxed))[slot & (block_size - 1)];
      record->slot = slot;
    }
  }
  held guard(record->lock);
  record->alive = true;
  record->detached = false;
  record->is_process = false;
  record->region = region;
  record->place = place;
  record->claimed_from = no_node;
  record->epoch = 1;
  record->checkpoint = 0;
  record->here.store(nullptr, std::memory_order_relaxed);
  record->parent = parent;
  record->waiter = {};
  return task_id(home_, slot, record->serial);
}

inline home_record* home_records::find(task_id id) noexcept {
  if (id.home() != home_) return nullptr;
  slot_block* where = blocks_[id.slot() >> block_bits].load(std::memory_order_acquire);
  return where == nullptr ? nullptr : &(*where)[id.slot() & (block_size - 1)];
}

inline void home_records::erase(task_id, home_record& record) noexcept {
  record.alive = false;
  record.serial = (record.serial + 1) & 0xff'ffff;
  record.here.store(nullptr, std::memory_order_relaxed);
  {
    node_heap_scope scope;
    record.ended.reset();
    record.signals.reset();
  }
  held guard(free_lock_);
  record.next_free = free_;
  free_ = &record;
}

template <class F> void home_records::for_each(F&& visit) {
  for (std::uint32_t first = 0; first < (std::uint32_t{1} << 24); first += block_size) {
    slot_block* where = blocks_[first >> block_bits].load(std::memory_order_acquire);
    if (where == nullptr) return;
    for (std::uint32_t i = 0; i < block_size; ++i) {
      home_record& record = (*where)[i];
      held guard(record.lock);
      if (record.alive) visit(task_id(home_, first + i, record.serial), record);
    }
  }
}

} // namespace migrate::detail
