// What a node observes of the tasks on it that compute, by looking at them now and then.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include <migrate/cluster/placement_policy.hpp>
#include <migrate/home/residents.hpp>
#include <migrate/id.hpp>
#include <migrate/task/control_block.hpp>
#include <migrate/task/resident.hpp>
#include <migrate/task/spin_lock.hpp>

namespace migrate::detail {

class task_watch {
  // Tasks are sampled, not accounted: a switch between two costs nothing more for it. Of the processor time that the
  // workers had, each gets as much as it was seen running. What it has used so far goes with it to another node.

public:
  static constexpr std::size_t most_watched = 256;
  static constexpr std::size_t scanned_at_once = 8192; // records, in search of tasks that can run
  static constexpr double memory = 1.0;                // seconds over which averages are taken
  static constexpr double rate_memory = 5.0; // the same, of how much a task computes: one of many that wait for each other
                                             // is seen running a few times in a second only

  void sample(double seconds, std::span<const resident* const> running) noexcept {
    // `running`: the records of the tasks that workers have, whether they are watched or not.
    held guard(lock_);
    double weight = 1 - std::exp(-seconds / memory);
    samples_ += static_cast<double>(running.size());
    for (auto& [id, each] : watched_) {
      if (std::find(running.begin(), running.end(), each.record) != running.end()) each.samples += 1;
      each.runnable += ((can_run(*each.record) ? 1 : 0) - each.runnable) * weight;
    }
  }

  void charge(double seconds, double processor_seconds) noexcept {
    // What the workers had since the last time goes to those that were seen.
    held guard(lock_);
    double weight = 1 - std::exp(-seconds / memory), rate_weight = 1 - std::exp(-seconds / rate_memory);
    double watched = 0;
    for (auto& [id, each] : watched_) watched += each.samples;
    double all = std::max(samples_, watched);
    for (auto& [id, each] : watched_) {
      double its = all > 0 ? processor_seconds * each.samples / all : 0;
      each.used += its;
      each.rate += (its / seconds - each.rate) * rate_weight;
      each.known += (1 - each.known) * rate_weight;
      each.samples = 0;
      for (auto& [node, messages] : each.traffic) {
        messages.rate += (messages.count / seconds - messages.rate) * weight;
        messages.count = 0;
      }
      std::erase_if(each.traffic, [](const auto& with) { return with.second.rate < 0.1; });
    }
    samples_ = 0;
  }

  void search(residents& all, double now) {
    // Some records each time, for tasks that can run and are not watched yet.
    cursor_ = all.for_some(cursor_, scanned_at_once, [&](resident& record) {
      if (!can_run(record)) return;
      task_id id;
      {
        held of_task(record.lock);
        id = record.id;
      }
      held guard(lock_);
      if (id) watch(id, record, now);
    });
  }

  std::vector<task_load> candidates(double now) {
    // Those that a policy may move now. Those that have gone are forgotten.
    std::vector<task_load> all;
    held guard(lock_);
    leaving_ = 0;
    for (auto at = watched_.begin(); at != watched_.end();) {
      auto& [id, each] = *at;
      bool gone = false;
      std::size_t bytes = 0;
      bool movable = false;
      {
        // While its record says that the task is here, and that no move is under way, its memory is here.
        held of_task(each.record->lock);
        run_state state = each.record->state.load();
        gone = each.record->id != id || state == run_state::none;
        if (!gone && each.record->move != nullptr && can_run(*each.record)) ++leaving_;
        if (!gone && state != run_state::frozen && each.record->move == nullptr && each.record->control != nullptr) {
          movable = each.record->control->by_policy && each.record->pins.load(std::memory_order_relaxed) == 0;
          bytes = each.record->control->heap.reserved_bytes_seen();
        }
      }
      if (gone) {
        at = watched_.erase(at);
        continue;
      }
      if (movable && each.used > 0 && now >= each.not_before) {
        task_load load;
        load.task = id;
        load.used = each.used;
        load.rate = each.known > 0 ? each.rate / each.known : 0;
        load.runnable = each.runnable;
        load.here = now - each.came;
        load.bytes = bytes + stack_guess;
        for (const auto& [node, messages] : each.traffic) load.traffic.emplace_back(node, messages.rate);
        all.push_back(std::move(load));
      }
      ++at;
    }
    return all;
  }

  std::size_t leaving() const noexcept {
    held guard(lock_);
    return leaving_;
  }
  // Of those that could run when candidates() was called, how many have an order to move and wait for a worker to flush
  // them. They compute no more here.

  void failed(task_id task, double now) {
    // It could not be moved: it is not tried again for a while, twice as long each time.
    held guard(lock_);
    auto found = watched_.find(task);
    if (found == watched_.end()) return;
    found->second.pause = std::min(600.0, found->second.pause * 2);
    found->second.not_before = now + found->second.pause;
  }

  double used(task_id task) const {
    held guard(lock_);
    auto found = watched_.find(task);
    return found == watched_.end() ? 0 : found->second.used;
  }

  void arrived(task_id task, resident& record, double used, double now) {
    held guard(lock_);
    observed* made = watch(task, record, now);
    if (made == nullptr) return;
    made->used = used;
    made->came = now;
  }

  void message(task_id task, node_id other, double count) noexcept {
    // Sent to a task on that node, or come from one. Any thread.
    if (!lock_.try_lock()) return;
    if (auto found = watched_.find(task); found != watched_.end()) {
      auto& traffic = found->second.traffic;
      auto with = std::find_if(traffic.begin(), traffic.end(), [&](const auto& each) { return each.first == other; });
      if (with != traffic.end())
        with->second.count += count;
      else if (traffic.size() < most_partners)
        traffic.emplace_back(other, tally{count, 0});
    }
    lock_.unlock();
  }

private:
  struct tally {
    double count = 0, rate = 0;
  };
  struct observed {
    resident* record = nullptr; // may be another task's by now: compared before more than its state is looked at
    double samples = 0;
    double used = 0;
    double rate = 0;  // as if it had been zero before it was watched
    double known = 0; // how much of that average is of the time since
    double runnable = 0;
    double came = 0;
    double not_before = 0;
    double pause = 5; // seconds
    std::vector<std::pair<node_id, tally>> traffic;
  };
  static constexpr std::size_t most_partners = 16; // nodes
  static constexpr std::size_t stack_guess = 16 * 1024;

  static bool can_run(const resident& record) noexcept {
    run_state state = record.state.load(std::memory_order_relaxed);
    return state == run_state::ready || state == run_state::running || state == run_state::woken;
  }

  observed* watch(task_id id, resident& record, double now) {
    if (auto found = watched_.find(id); found != watched_.end()) {
      found->second.record = &record;
      return &found->second;
    }
    if (watched_.size() >= most_watched) {
      auto least = std::min_element(watched_.begin(), watched_.end(), [](const auto& a, const auto& b) {
        return a.second.runnable + a.second.rate < b.second.runnable + b.second.rate;
      });
      if (least->second.runnable > 0.5) return nullptr; // enough that can run are watched
      watched_.erase(least);
    }
    observed& made = watched_[id];
    made.record = &record;
    made.runnable = 1;
    made.came = now;
    return &made;
  }

  mutable spin_lock lock_;
  std::unordered_map<task_id, observed> watched_;
  double samples_ = 0;
  std::size_t leaving_ = 0;
  std::size_t cursor_ = 0;
};
// Thread safety: any thread, inside a node_heap_scope where a task runs.

} // namespace migrate::detail
