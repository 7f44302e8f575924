// A run of the program as Ninja.
#pragma once

#include <functional>
#include <memory>

#include "command_line.hpp"
#include "executor.hpp"
#include "interruption.hpp"

namespace pmake {

using executor_factory = std::function<std::unique_ptr<executor>(const command_line&, interruption&)>;
// Called when there is something to be run, and not before.

int run_as_ninja(const command_line& line, const executor_factory& make_executor);
// Returns the exit status: 0, 1 for an error or a failed command, 2 when interrupted.

} // namespace pmake
