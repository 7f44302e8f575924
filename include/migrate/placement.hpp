// Where tasks run: what the nodes' load is, who decides, and what was decided.
#pragma once

#include <atomic>
#include <cstddef>
#include <system_error>
#include <vector>

#include <migrate/cluster/placement_services.hpp>
#include <migrate/nodes.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate {

namespace detail {

inline const placement_services& node_placement() {
  node_services(); // throws when there is no node
  return *the_placement;
}

template <class T> std::vector<T> copied(std::size_t (*copy)(T* into, std::size_t most)) {
  std::vector<T> all(16);
  for (;;) {
    std::size_t count = copy(all.data(), all.size());
    bool fits = count <= all.size();
    all.resize(count);
    if (fits) return all;
  }
}

} // namespace detail

inline placement_policy placement() { return detail::node_placement().policy(); }
// The policy of this node, from node_options::policy or --migrate-policy. Of the three,
//   manual       moves no task: they go where migrate_to says;
//   application  has node_options::choose choose a node for each task that is spawned on any_node, and for each that
//                calls this_task::place();
//   automatic    moves tasks whenever that gains more than it costs, unless their spawn_options::by_policy is false.
// Any thread or task.

inline std::vector<node_load> node_loads() { return detail::copied(detail::node_placement().loads); }
// This node's load, and of the others' those it has heard of within the last three seconds. Under the manual policy
// nobody measures, and there is this node's name only. Any thread or task.

inline node_id least_loaded_node() { return least_loaded(node_loads()); }
// By those loads.

inline node_id next_node() {
  static constinit std::atomic<std::size_t> last{0};
  std::vector<node_id> all = nodes();
  return all[last.fetch_add(1, std::memory_order_relaxed) % all.size()];
}
// Each node in turn, as this one counts.

inline std::vector<placement_decision> recent_decisions() { return detail::copied(detail::node_placement().decisions); }
// The last that this node's policy took, at most 256, oldest first. Any thread or task.

inline placement_statistics placement_counts() { return detail::node_placement().statistics(); }
// Of this node since its start. Any thread or task.

namespace this_task {

inline void place() {
  detail::self();
  detail::safe_point();
  node_id target = detail::node_placement().choose(id());
  std::error_code refused; // then it goes on where it is
  if (target != detail::the_services->here()) migrate_to(target, refused);
}
// A point at which the application's policy may move the running task: to where node_options::choose says. Under the
// other policies it is a safe point like poll(). The task may have moved when it returns.

} // namespace this_task
} // namespace migrate
