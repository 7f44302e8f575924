// The three policies that decide where tasks run, behind one interface. They compute and do nothing else.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <migrate/cluster/node_load.hpp>
#include <migrate/id.hpp>
#include <migrate/transfer/move_cost.hpp>

namespace migrate {

enum class placement_policy : std::uint8_t {
  manual,      // tasks move when they are told to
  application, // the application chooses, at spawn and at its tasks' own points
  automatic,   // nodes move tasks to even out their load
};
inline constexpr const char* placement_policy_names[] = {"manual", "application", "automatic"};

using node_chooser = node_id (*)(std::span<const node_load> loads);
// What the application says: the node for a task, given the loads of this node, which comes first, and of those that
// it has heard of lately. The same function on every node; on any thread; it allocates nothing that it keeps.

inline node_id least_loaded(std::span<const node_load> loads) {
  const node_load* best = nullptr;
  for (const node_load& each : loads)
    if (each.accepts && (best == nullptr || each.stretch(1) < best->stretch(1))) best = &each;
  return best == nullptr ? no_node : best->node;
}
// Where one task more would run fastest.

namespace detail {

struct task_load {
  task_id task;
  double used = 0;       // processor seconds so far, wherever it ran
  double rate = 0;       // processor seconds in each second, lately and here
  double runnable = 0;   // how much of the time it ran or could run, lately and here: 0 to 1
  double here = 0;       // seconds since it came to this node
  std::size_t bytes = 0; // that a move would take along
  std::vector<std::pair<node_id, double>> traffic; // messages in each second to and from tasks on that node

  double traffic_with(node_id node) const noexcept {
    for (const auto& [other, messages] : traffic)
      if (other == node) return messages;
    return 0;
  }
};

struct move_prospect {
  double gain = 0; // seconds that the move saves, what its messages cost more or less included
  double cost = 0; // seconds that the move takes
  bool share = false; // by a larger share of a processor there, else by time that lies idle there
  bool worth_it() const noexcept;
};

struct proposed_move {
  task_load what;
  node_load from; // as it was before
  node_id target = no_node;
  move_prospect prospect;
};

class placement {
public:
  virtual ~placement() = default;

  virtual placement_policy which() const noexcept = 0;

  virtual node_id at_spawn(std::span<const node_load> loads) const = 0;
  // The node for a task that is born and whose maker leaves it to the policy. This node's load comes first.

  virtual std::optional<proposed_move> next_move(const node_load& here, std::span<const node_load> others,
                                                 std::span<const task_load> tasks, const move_cost& cost,
                                                 bool idle_too = true) const = 0;
  // The move that is worth most now, if any is worth it; `idle_too`: or one to time that lies idle.
};

class manual_placement final : public placement {
public:
  placement_policy which() const noexcept override { return placement_policy::manual; }
  node_id at_spawn(std::span<const node_load> loads) const override { return loads.front().node; }
  std::optional<proposed_move> next_move(const node_load&, std::span<const node_load>, std::span<const task_load>,
                                         const move_cost&, bool) const override {
    return std::nullopt;
  }
};

class application_placement final : public placement {
public:
  explicit application_placement(node_chooser choose) noexcept : choose_(choose == nullptr ? least_loaded : choose) {}
  placement_policy which() const noexcept override { return placement_policy::application; }
  node_id at_spawn(std::span<const node_load> loads) const override {
    node_id chosen = choose_(loads);
    return chosen == no_node ? loads.front().node : chosen;
  }
  std::optional<proposed_move> next_move(const node_load&, std::span<const node_load>, std::span<const task_load>,
                                         const move_cost&, bool) const override {
    return std::nullopt;
  }

private:
  node_chooser choose_;
};
// As in Sprite, whose pmake asks for hosts and starts its jobs there.

class automatic_placement final : public placement {
  // As in MOSIX. A task is expected to need as much processor time again as it has used so far (Harchol-Balter and
  // Downey 1997: that is what the lifetimes of processes are like). It gains in one of two ways:
  //
  //   share  the node has more that can run than workers, and the task, which can run all the time, would get more of a
  //          processor elsewhere;
  //   idle   the node has something to run for more of the time than another, which waits for it: then what counts is
  //          how much less so the busier of the two is after the move. The share of a task that can run all the time
  //          must not be less.
  //
  // A task that waits for others is done no sooner by a larger share: how many can run tells little then, since those
  // wait that are done with their part.
  //
  // A move must gain twice what it costs. What makes it worth while must be larger than what would make the way back
  // so, and a task stays for a while where it came.

public:
  static constexpr double share_margin = 1.25;  // a move to a larger share wants one that is so many times larger
  static constexpr double idle_margin = 0.1;    // one to idle time wants so much of it to be left, and twice as much to
                                                // begin with: nodes that wait for each other take turns in being idle
  static constexpr double busy_enough = 0.25;   // below this a node holds nobody up
  static constexpr double all_the_time = 0.95;  // in which a task that waits for no others can run, where others do too
  static constexpr double message_cost = 50e-6; // seconds, of one to another node instead of one on the same
  static constexpr double least_gain = 0.01;    // seconds
  static constexpr double most_left = 600;      // seconds of processor time that are expected of no task
  static constexpr double least_stay = 1;       // seconds
  static constexpr std::size_t looked_at = 8;   // nodes, the least loaded that are known

  placement_policy which() const noexcept override { return placement_policy::automatic; }

  node_id at_spawn(std::span<const node_load> loads) const override {
    const node_load& here = loads.front();
    node_id best = least_loaded(loads);
    for (const node_load& each : loads)
      if (each.node == best && each.stretch(1) * share_margin < here.stretch(1)) return best;
    return here.node;
  }

  static move_prospect weigh(const task_load& task, const node_load& here, const node_load& there, double cost) noexcept {
    move_prospect found;
    found.cost = cost;
    double left = std::min(task.used, most_left);
    double extra_messages = task.traffic_with(here.node) - task.traffic_with(there.node);
    auto consider = [&](double seconds_left, double gain, bool share) {
      gain -= seconds_left * extra_messages * message_cost;
      if (gain <= found.gain) return;
      found.gain = gain;
      found.share = share;
    };
    double slow = here.stretch(1 - task.runnable);
    double fast = there.stretch(1);
    const bool waits = task.runnable < all_the_time;
    if (!waits && here.runnable > here.workers && slow > fast * share_margin) consider(left * slow, left * (slow - fast), true);
    double after = std::max(here.busy - task.rate / here.capacity(), there.busy + task.rate / there.capacity());
    double there_after = there.busy + std::max(task.rate / there.capacity(), idle_margin);
    if (task.rate > 0 && here.busy >= busy_enough && there_after < here.busy - idle_margin && (waits || fast <= slow)) {
      double seconds_left = std::min(left / task.rate, most_left);
      consider(seconds_left, seconds_left * (here.busy - after), false);
    }
    return found;
  }

  std::optional<proposed_move> next_move(const node_load& here, std::span<const node_load> others,
                                         std::span<const task_load> tasks, const move_cost& cost,
                                         bool idle_too) const override {
    if (here.busy < busy_enough && here.runnable <= here.workers) return std::nullopt;
    std::vector<const node_load*> targets;
    for (const node_load& each : others)
      if (each.accepts && each.node != here.node) targets.push_back(&each);
    auto less_loaded = [](const node_load* a, const node_load* b) {
      return std::pair(a->stretch(1), a->busy) < std::pair(b->stretch(1), b->busy);
    };
    if (targets.size() > looked_at) {
      std::nth_element(targets.begin(), targets.begin() + looked_at, targets.end(), less_loaded);
      targets.resize(looked_at);
    }
    std::optional<proposed_move> best;
    for (const task_load& task : tasks) {
      double price = cost.expected(task.bytes);
      if (task.here < std::max(least_stay, 20 * price)) continue;
      for (const node_load* there : targets) {
        move_prospect found = weigh(task, here, *there, price);
        if (!found.worth_it() || !(found.share || idle_too)) continue;
        if (!best || found.gain - found.cost > best->prospect.gain - best->prospect.cost)
          best = proposed_move{task, here, there->node, found};
      }
    }
    return best;
  }
};

inline bool move_prospect::worth_it() const noexcept { return gain > 2 * cost + automatic_placement::least_gain; }

inline std::unique_ptr<placement> make_placement(placement_policy which, node_chooser choose) {
  switch (which) {
  case placement_policy::application: return std::make_unique<application_placement>(choose);
  case placement_policy::automatic: return std::make_unique<automatic_placement>();
  case placement_policy::manual: break;
  }
  return std::make_unique<manual_placement>();
}

} // namespace detail
} // namespace migrate
