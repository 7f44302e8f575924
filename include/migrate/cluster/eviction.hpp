// Eviction: all tasks leave this node at once, because the owner of its host is back or another is owed it.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <migrate/cluster/eviction_report.hpp>
#include <migrate/cluster/members.hpp>
#include <migrate/cluster/task_view.hpp>
#include <migrate/home/office.hpp>
#include <migrate/program/office.hpp>
#include <migrate/task/scheduler.hpp>
#include <migrate/transfer/engine.hpp>

namespace migrate {

namespace detail {

class eviction {
  // Every task that is here, begins here or comes to run here gets an order to move to a node that is not being evicted
  // itself; when that one refuses it, to another. Tasks are frozen as soon as they pass a safe point, and all workers
  // flush at once; nothing waits on the I/O thread. What keeps a task, such as a pin_scope, is looked at again
  // and again until the deadline.

public:
  using clock = std::chrono::steady_clock;

  eviction(home_office& home, transfer_engine& engine, const members& nodes)
      : home_(home), engine_(engine), nodes_(nodes) {}
  eviction(const eviction&) = delete;
  eviction& operator=(const eviction&) = delete;

  void begin(const std::string& reason);
  // Every task is asked to go. The node refuses others from now on.

  void wait(clock::time_point deadline);
  // Returns when no task is here, or then.

  void wait_for_homed(clock::time_point deadline);
  // Returns when no task is left whose home this is, or then.

  eviction_report report();

  void end();
  // The node takes tasks again, and those that are here stay.

  void cancel() noexcept;
  // Whoever waits returns: the process ends.

  bool active() const noexcept { return engine_.closed(); }

  void not_gone(resident& task, task_id id, node_id refused_by, const failure& why) noexcept;
  void gone(task_id task) noexcept;
  void all_gone() noexcept;
  // See move_listener.

  void choose_with(eviction_target choice);
  // Instead of the least laden by what this eviction has sent, a task's home last.

private:
  struct evictee {
    std::vector<node_id> refused_by;
    std::string why;         // it is still here
    clock::time_point again; // when the next attempt is due; epoch: one is under way
  };

  node_id choose(task_id task, const evictee& mine);
  void try_again();
  std::string what_keeps(const task_view& task);

  static constexpr auto pause =
      std::chrono::milliseconds(20); // between two attempts of a task that nobody takes
  static constexpr auto tick = std::chrono::milliseconds(5);
  static constexpr int grace = 3; // a program stands still for this part of the time before it is given up

  home_office& home_;
  transfer_engine& engine_;
  const members& nodes_;
  std::mutex lock_;
  std::condition_variable changed_;
  std::string reason_;
  eviction_target choice_;
  std::unordered_map<task_id, evictee> tasks_;
  std::unordered_map<std::uint16_t, std::size_t> sent_; // tasks, by node
  std::uint64_t moved_ = 0;
  clock::time_point begun_, cleared_;
  bool programs_let_go_ = false;
  std::atomic<bool> cancelled_{false};
};
// Thread safety: any thread. wait() from one that runs no task and is not the I/O thread.

inline eviction* this_eviction = nullptr;

inline void eviction::choose_with(eviction_target choice) {
  std::lock_guard guard(lock_);
  choice_ = std::move(choice);
}

inline void eviction::begin(const std::string& reason) {
  {
    std::lock_guard guard(lock_);
    if (active()) return;
    reason_ = reason;
    tasks_.clear();
    sent_.clear();
    moved_ = 0;
    begun_ = clock::now();
    cleared_ = {};
    programs_let_go_ = false;
    engine_.close("node " + to_string(home_.here()) + " is leaving its host (" + reason +
                  ") and takes no tasks; pick another node");
  }
  home_.residents().when_empty([]() noexcept { this_eviction->all_gone(); });
  this_programs->suspend_all(reason);
  for (const task_view& each : look_at_all(home_.residents()))
    if (resident* task = home_.find_here(each.id)) not_gone(*task, each.id, no_node, {});
}

inline void eviction::cancel() noexcept {
  cancelled_ = true;
  std::lock_guard guard(lock_);
  changed_.notify_all();
}

inline void eviction::end() {
  home_.residents().when_empty(nullptr);
  engine_.reopen();
  this_programs->resume_all();
}

inline node_id eviction::choose(task_id task, const evictee& mine) {
  std::vector<node_id> candidates = nodes_.open();
  std::erase_if(candidates, [&](node_id each) {
    return each == home_.here() ||
           std::find(mine.refused_by.begin(), mine.refused_by.end(), each) != mine.refused_by.end();
  });
  if (candidates.empty()) return no_node;
  if (choice_) return choice_(task, candidates);
  auto rank = [&](node_id each) {
    auto apart =
        static_cast<std::uint16_t>(number(each) - number(home_.here())); // two that are evicted differ
    return std::tuple(each == task.home(), sent_[number(each)], apart);
  };
  return *std::min_element(candidates.begin(), candidates.end(),
                           [&](node_id a, node_id b) { return rank(a) < rank(b); });
}

inline void eviction::not_gone(resident& task, task_id id, node_id refused_by, const failure& why) noexcept {
  node_heap_scope scope;
  node_id target = no_node;
  {
    std::lock_guard guard(lock_);
    if (!active()) return;
    evictee& mine = tasks_[id];
    mine.again = {};
    bool own_fault = why.code == errc::not_movable || why.code == errc::store_full ||
                     why.code == errc::store_io || why.code == errc::store_read_only;
    if (why.code) {
      mine.why = why.what;
      if (!own_fault) mine.refused_by.push_back(refused_by);
    }
    if (!own_fault) target = choose(id, mine);
    if (target == no_node) {
      if (mine.why.empty()) mine.why = "no other node of the cluster takes tasks";
      mine.refused_by.clear();
      mine.again = clock::now() + pause;
      return;
    }
    ++sent_[number(target)];
  }
  failure under_way; // whoever asked before it sees it through, and we hear if it fails
  engine_.order(task, id, target, {no_node, 0, {}, move_reason::evicted}, under_way);
}

inline void eviction::gone(task_id task) noexcept {
  if (!active()) return;
  std::lock_guard guard(lock_);
  tasks_.erase(task);
  ++moved_;
}

inline void eviction::all_gone() noexcept {
  std::lock_guard guard(lock_);
  cleared_ = clock::now();
  changed_.notify_all();
}

inline void eviction::try_again() {
  std::vector<task_id> due;
  auto now = clock::now();
  {
    std::lock_guard guard(lock_);
    for (auto& [id, each] : tasks_)
      if (each.again != clock::time_point{} && each.again <= now) due.push_back(id);
  }
  for (task_id id : due) {
    if (resident* task = home_.find_here(id)) {
      not_gone(*task, id, no_node, {});
    } else {
      std::lock_guard guard(lock_);
      tasks_.erase(id);
    }
  }
}

inline void eviction::wait(clock::time_point deadline) {
  const auto programs_stay = clock::now() + (deadline - clock::now()) / grace;
  while (home_.residents().count() > 0 && clock::now() < deadline && !cancelled_) {
    {
      std::unique_lock guard(lock_);
      changed_.wait_for(guard, tick, [&] { return home_.residents().count() == 0 || cancelled_; });
    }
    try_again();
    this_scheduler->serve_queued();
    if (clock::now() >= programs_stay && !std::exchange(programs_let_go_, true))
      this_programs->give_up_all([this](task_id) { // it can move: the next attempt is due
        std::lock_guard guard(lock_);
        changed_.notify_all();
      });
  }
  while (engine_.keeps_memory() && clock::now() < deadline && !cancelled_) { // of tasks that have left
    engine_.push_memory();
    std::unique_lock guard(lock_);
    changed_.wait_for(guard, tick);
  }
  while (!home_.all_ends_seen() && clock::now() < deadline && !cancelled_) {
    std::unique_lock guard(lock_);
    changed_.wait_for(guard, std::chrono::milliseconds(1));
  }
}

inline void eviction::wait_for_homed(clock::time_point deadline) {
  for (bool any = true; any && clock::now() < deadline && !cancelled_;) {
    any = false;
    home_.records().for_each([&](task_id, home_record& record) { any = any || !record.ended; });
    if (!any) return;
    std::unique_lock guard(lock_);
    changed_.wait_for(guard, tick);
  }
}

inline std::string eviction::what_keeps(const task_view& task) {
  if (task.pinned) return "it holds a pin_scope, or forks";
  if (task.phase == move_phase::offered || task.phase == move_phase::vacating)
    return "it was offered to node " + to_string(task.target) + ", which has not taken it";
  if (task.phase == move_phase::arriving || task.phase == move_phase::claiming) return "it is arriving";
  {
    std::lock_guard guard(lock_);
    auto found = tasks_.find(task.id);
    if (found != tasks_.end() && !found->second.why.empty()) return found->second.why;
  }
  bool runs = task.state == run_state::running || task.state == run_state::woken;
  return runs ? "it has passed no safe point" : "it waits to be frozen";
}

inline eviction_report eviction::report() {
  eviction_report made;
  for (const task_view& each : look_at_all(home_.residents()))
    made.remaining.push_back({each.id, each.name, what_keeps(each)});
  home_.records().for_each([&](task_id id, home_record& record) {
    if (!record.ended && record.here.load(std::memory_order_relaxed) == nullptr)
      made.homed.push_back(
          {id, {}, "it is on node " + to_string(record.place) + ", and this node is its home"});
  });
  std::lock_guard guard(lock_);
  made.reason = reason_;
  made.moved = moved_;
  made.took = ((cleared_ == clock::time_point{} ? clock::now() : cleared_) - begun_).count();
  return made;
}

} // namespace detail
} // namespace migrate
