// pmake make ...: an unmodified GNU make whose commands run where pmake says.
#pragma once

#include <string>
#include <vector>

namespace pmake {

struct make_options {
  std::string shell;       // pmake's own, that make gets
  unsigned processors = 1; // as many commands at once run here, whatever make asks for
};

int run_make(const std::vector<std::string>& command, const make_options& options);
// command[0] is the make. Returns its exit status, 128 + N when it was ended by signal N. Throws build_error when it cannot
// be started.

} // namespace pmake
