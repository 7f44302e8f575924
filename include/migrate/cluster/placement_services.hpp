// What tasks ask of their node about placement, and what it tells of its decisions.
#pragma once

#include <cstddef>
#include <cstdint>

#include <migrate/cluster/node_load.hpp>
#include <migrate/cluster/placement_policy.hpp>
#include <migrate/id.hpp>

namespace migrate {

enum class placement_outcome : std::uint8_t {
  moved,
  refused, // by the node that the task was meant for
  failed,  // the move was begun and given up
  chosen,  // a node for a task that was born, or for one that asked
};
inline constexpr const char* placement_outcome_names[] = {"moved", "refused", "failed", "chosen"};

struct placement_decision {
  std::int64_t when = 0; // nanoseconds since 1970
  task_id task;          // none: one that was about to be born
  node_id from = no_node;
  node_id to = no_node;
  placement_outcome outcome = placement_outcome::moved;
  double gain = 0; // seconds that the move was expected to save
  double cost = 0; // and to take
  char reason[168] = {};
};
// Plain data: it may be sent as it is.

struct placement_statistics {
  std::uint64_t moved = 0;    // away from this node, by its policy
  std::uint64_t refused = 0;  // by the targets
  std::uint64_t failed = 0;   // begun and given up
  std::uint64_t admitted = 0; // to this node
  std::uint64_t declined = 0; // not admitted
  std::uint64_t chosen = 0;   // nodes for tasks that were born, or that asked
  std::uint64_t news_told = 0;
  std::uint64_t news_heard = 0; // messages about load
};

namespace detail {

struct placement_services {
  placement_policy (*policy)() noexcept;
  std::size_t (*loads)(node_load* into, std::size_t most); // how many there are
  node_id (*choose)(task_id task);
  std::size_t (*decisions)(placement_decision* into, std::size_t most); // the last ones, oldest first
  placement_statistics (*statistics)();
};
inline constinit const placement_services* the_placement = nullptr;

} // namespace detail
} // namespace migrate
