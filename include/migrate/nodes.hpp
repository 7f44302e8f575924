// The nodes of the cluster.
#pragma once

#include <vector>

#include <migrate/id.hpp>
#include <migrate/task/services.hpp>

namespace migrate {

inline std::vector<node_id> nodes() {
  std::vector<node_id> found(64);
  for (;;) {
    std::size_t count = detail::node_services().nodes(found.data(), found.size());
    bool all = count <= found.size();
    found.resize(count);
    if (all) return found;
  }
}
// Those that this node knows to be alive, ascending; the first node is 1. Any thread or task.

} // namespace migrate
