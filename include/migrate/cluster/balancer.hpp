// One node's part in placement, without its threads and messages: what it measures, hears, proposes and admits.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include <migrate/cluster/load_news.hpp>
#include <migrate/cluster/node_load.hpp>
#include <migrate/cluster/placement_policy.hpp>
#include <migrate/id.hpp>

namespace migrate::detail {

class balancer {
  // A task that is to move is asked for at its target first, whose own measures are newer than any news of them; what
  // the target has admitted counts as its load from then on, before the task is there. So however many nodes see one
  // that is idle, it gets no more than it can do with.
  //
  // While a task that others wait for is on its way, they all look idle. So after a move its two nodes leave each other and
  // the rest alone for a while, but for moves to a larger share, which do not depend on who waits. And what a move to idle
  // time has not put right, the next will hardly do: each time the node waits twice as long with it, unless another node
  // does next to nothing, and until one comes that is new.

public:
  using clock = load_news::clock;
  static constexpr std::size_t most_at_once = 8; // moves that one look proposes
  static constexpr std::chrono::seconds usable{3}; // older news makes no target
  static constexpr std::chrono::seconds settling{3}; // how long what is measured tells of a move and not of what it led to
  static constexpr std::chrono::seconds longest_pause{120};
  static constexpr double next_to_idle = 0.5; // busier than that other, a node does not wait

  balancer(node_id here, std::uint32_t workers, std::unique_ptr<placement> policy)
      : here_(here), policy_(std::move(policy)), meter_(workers) {}

  load_meter& meter() noexcept { return meter_; }

  void sample(double seconds, std::size_t runnable, clock::time_point now) noexcept {
    // What is on its way here counts as if it were here.
    std::erase_if(coming_, [&](const coming& each) { return each.until < now; });
    double all = static_cast<double>(runnable);
    for (const coming& each : coming_) all += each.runnable;
    meter_.sample(seconds, all);
  }
  void measure(double seconds, double busy_seconds, double processor_seconds) noexcept {
    double rate = 0;
    for (const coming& each : coming_) rate += each.rate;
    meter_.measure(seconds, busy_seconds, processor_seconds, rate);
  }

  const placement& policy() const noexcept { return *policy_; }
  void accept(bool yes) noexcept { accepts_ = yes; }
  bool accepts() const noexcept { return accepts_; }

  node_load own() const {
    node_load now = meter_.read();
    now.node = here_;
    now.accepts = accepts_;
    return now;
  }

  std::vector<node_load> known(clock::time_point now) const {
    // Its own load first.
    std::vector<node_load> all{own()};
    for (const node_load& each : news_.freshest(now, ~std::size_t{0}))
      if (each.age <= usable) all.push_back(each);
    return all;
  }

  node_id spawn_place(clock::time_point now) {
    node_id chosen = policy_->at_spawn(known(now));
    if (chosen == here_)
      meter_.expect(1, 0);
    else
      news_.adjust(chosen, 1, 0);
    return chosen;
  }
  // For a task that is born, or for one that may go on elsewhere: counted there until there is news.

  // --- news

  std::vector<node_load> tell(clock::time_point now) {
    news_.forget_old(now);
    std::vector<node_load> all{own()};
    for (node_load& each : news_.freshest(now, load_news::most_told - 1)) all.push_back(each);
    return all;
  }

  void hear(std::span<const node_load> told, clock::time_point now) {
    for (const node_load& each : told) {
      if (each.node == here_) continue;
      news_.hear(each, now);
      if (seen_.insert(each.node).second) pause_ = {};
    }
  }

  void forget(node_id node) {
    news_.forget(node);
    seen_.erase(node);
  }

  // --- as the node that a task is to leave

  std::vector<proposed_move> look(std::span<const task_load> tasks, const move_cost& cost, clock::time_point now) {
    // What to ask the targets for. The loads are counted as if the tasks had gone.
    std::vector<proposed_move> all;
    if (policy_->which() != placement_policy::automatic) return all;
    std::vector<task_load> left(tasks.begin(), tasks.end());
    const bool quiet = settled(now) && under_way_ == 0;
    if (!quiet && idle_moved_) return all;
    const bool idle_too = quiet && (now - last_move_ >= pause_ || somebody_idles(now));
    while (all.size() < most_at_once && under_way_ < most_at_once) {
      std::vector<node_load> others = known(now);
      others.erase(others.begin());
      auto next = policy_->next_move(own(), others, left, cost, idle_too);
      if (!next) break;
      expect_move(*next, 1);
      idle_moved_ = !next->prospect.share;
      ++under_way_;
      std::erase_if(left, [&](const task_load& each) { return each.task == next->what.task; });
      all.push_back(std::move(*next));
    }
    if (!all.empty() && idle_moved_) pause_ = std::clamp<clock::duration>(2 * pause_, settling, longest_pause);
    return all;
  }

  void answered(const proposed_move& asked, bool granted, const node_load& target, clock::time_point now) {
    node_load told = target;
    told.node = asked.target;
    news_.hear(told, now);
    if (granted) return;
    meter_.expect(asked.what.runnable, asked.what.rate); // it stays
    --under_way_;
  }

  void unanswered(const proposed_move& asked) {
    expect_move(asked, -1);
    --under_way_;
  }
  // The target is lost, or the move that it admitted was not made.

  void moved(clock::time_point now) noexcept {
    --under_way_;
    last_move_ = now;
  }
  // It has left.

  std::size_t under_way() const noexcept { return under_way_; }

  // --- as the node that it is to come to

  bool admit(const task_load& task, const node_load& from, double cost, clock::time_point now) {
    if (!accepts_ || policy_->which() != placement_policy::automatic) return false;
    move_prospect found = automatic_placement::weigh(task, from, own(), cost);
    if (!found.worth_it()) return false;
    if (!found.share && !settled(now) && last_from_ != from.node) return false;
    last_move_ = now;
    last_from_ = from.node;
    meter_.expect(task.runnable, task.rate);
    coming_.push_back({task.task, task.runnable, task.rate, now + longest_way});
    return true;
  }

  void arrived(task_id task, clock::time_point now) noexcept {
    last_move_ = now;
    std::erase_if(coming_, [&](const coming& each) { return each.task == task; });
  }

private:
  bool settled(clock::time_point now) const noexcept { return now - last_move_ >= settling; }

  bool somebody_idles(clock::time_point now) const {
    std::vector<node_load> all = known(now);
    return std::any_of(all.begin() + 1, all.end(), [&](const node_load& each) {
      return each.accepts && each.busy < all.front().busy - next_to_idle;
    });
  }

  void expect_move(const proposed_move& which, double sign) {
    const task_load& task = which.what;
    meter_.expect(-sign * task.runnable, -sign * task.rate);
    news_.adjust(which.target, sign * task.runnable, sign * task.rate);
  }

  struct coming {
    task_id task;
    double runnable, rate;
    clock::time_point until; // then it will not come
  };
  static constexpr std::chrono::seconds longest_way{3};

  node_id here_;
  std::unique_ptr<placement> policy_;
  load_meter meter_;
  load_news news_;
  bool accepts_ = true;
  std::size_t under_way_ = 0;
  clock::time_point last_move_{}; // that ended here, either way
  node_id last_from_ = no_node;   // of those that came
  bool idle_moved_ = false;       // the last ones that left did so for time that lies idle elsewhere
  clock::duration pause_{};       // after such a move
  std::set<node_id> seen_;        // nodes
  std::vector<coming> coming_;
};
// Not thread-safe.

} // namespace migrate::detail
