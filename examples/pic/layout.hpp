// How the grid is cut into blocks, and between which of them particles pass.
#pragma once

#include <vector>

#include "kernel.hpp"
#include "parameters.hpp"

namespace pic {

area area_of(unsigned block, const parameters& what);

std::vector<unsigned> destinations(unsigned block, const parameters& what);
// The blocks that a particle of this block can be in one step later, except the block itself: all particles
// take the same step, so these are the blocks that the block's area, shifted by that step, reaches into.

std::vector<unsigned> sources(unsigned block, const parameters& what);
// The blocks of which this one is a destination: each sends it one message in each step.

} // namespace pic
