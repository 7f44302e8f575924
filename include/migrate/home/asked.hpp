// Who asked something of a home.
#pragma once

#include <cstdint>

#include <migrate/id.hpp>

namespace migrate::detail {

struct request {
  node_id asker = no_node;
  std::uint64_t call = 0;
  task_id task; // who asks; none: a thread
};
// See reply() in reply.hpp.

} // namespace migrate::detail
