// The simulation as a whole.
#pragma once

#include <cstdint>
#include <tuple>

#include "parameters.hpp"
#include "progress.hpp"
#include "verification.hpp"

namespace pic {

struct outcome {
  verdict found;
  double seconds = 0;       // of the steps alone
  std::uint64_t placed = 0; // moves of blocks to the nodes they began on
  double imbalance = 1;     // the fullest node's work over the mean, averaged over the looks at the load

  auto migrate_fields() { return std::tie(found, seconds, placed, imbalance); }
};

outcome simulate(const parameters& what, progress_style style);
// The main task's function: makes the blocks, evens out their load as they go, and waits for their verdict.
// Throws migrate::error naming the block, its task and its node when one is lost.

outcome simulate_serially(const parameters& what);
// The same on the calling thread, without tasks, block or border.

} // namespace pic
