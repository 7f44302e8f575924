// What is to be simulated.
#pragma once

#include <cstdint>

namespace pic {

enum class distribution : std::uint8_t { geometric, sinusoidal, linear, patch };

enum class sabotage_kind : std::uint8_t { none, shift, drop, repeat };

struct parameters {
  std::int64_t cells = 1000; // the grid is this wide and this high, and periodic in both directions
  std::uint64_t particles = 1'000'000;
  std::uint64_t steps = 150;
  std::int64_t k = 1; // each step takes a particle 2 k + 1 cells to the right
  std::int64_t m = 1; // and m cells up

  distribution initial = distribution::geometric;
  double rho = 0.995; // geometric: column x holds rho times as many as column x - 1
  double alpha = 1;   // linear: column x holds in proportion to beta - alpha x / cells
  double beta = 2;
  std::int64_t left = 0, right = 0, bottom = 0, top = 0; // patch: the first and the last column and row

  unsigned blocks_x = 1; // the grid is cut into so many blocks
  unsigned blocks_y = 1;
  unsigned interval = 10; // steps between two looks at the load
  bool balance = true;    // by moving blocks, under the application's placement policy
  unsigned await_nodes = 1; // begins when there are so many

  sabotage_kind sabotage = sabotage_kind::none; // for tests: a particle is put wrong half way
  std::uint64_t victim = 0;

  std::int64_t shift() const noexcept { return 2 * k + 1; }
  unsigned blocks() const noexcept { return blocks_x * blocks_y; }
};

} // namespace pic
