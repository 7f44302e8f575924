// A block of cells: the task that moves the particles in it.
#pragma once

#include <cstdint>

#include <migrate/id.hpp>

#include "parameters.hpp"
#include "verification.hpp"

namespace pic {

verdict run_block(const parameters& what, unsigned index, migrate::task_id coordinator);
// A task's function. Waits for the start_signal, runs all steps, takes part in the verification, and returns
// the verdict on all particles, the same in each block.

} // namespace pic
