// A run of the program as Ninja.
#pragma once

#include <functional>
#include <memory>

#include "command_line.hpp"
#include "executor.hpp"
#include "foreign_places.hpp"
#include "interruption.hpp"

namespace pmake {

struct executor_setting {
  const command_line& line;
  interruption& signals;
  host_note note;                              // for the trace
  std::function<void(const std::string&)> say; // for the user
};
using executor_factory = std::function<std::unique_ptr<executor>(const executor_setting&)>;
// Called when there is something to be run, and not before. What it is given outlives the executor.

int run_as_ninja(const command_line& line, const executor_factory& make_executor);
// Returns the exit status: 0, 1 for an error or a failed command, 2 when interrupted.

} // namespace pmake
