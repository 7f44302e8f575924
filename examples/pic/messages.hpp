// What the tasks of the simulation tell each other.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include <migrate/id.hpp>

#include "kernel.hpp"

namespace pic {

struct start_signal {
  std::vector<migrate::task_id> blocks;

  auto migrate_fields() { return std::tie(blocks); }
};
// To each block, when all exist.

struct arrivals {
  std::uint64_t step = 0;
  bool last = true; // of the sender's messages for this step
  std::vector<particle> particles;

  auto migrate_fields() { return std::tie(step, last, particles); }
};
// From block to block: who crossed the border in a step.

struct load_report {
  unsigned block;
  std::uint64_t step;
  migrate::node_id node;
  std::uint64_t particles;
  std::uint64_t work_ns; // processor time since the last report
  std::uint64_t moves;
};
// To the coordinator, each time it looks at the load.

struct move_order {
  migrate::node_id target; // no_node: stay
};
// The coordinator's answer to each report but the last.

} // namespace pic
