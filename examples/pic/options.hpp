// The command line.
#pragma once

#include <optional>

#include "parameters.hpp"
#include "progress.hpp"

namespace pic {

struct options {
  parameters what;
  unsigned blocks = 0; // 0: so many for each worker
  bool serial = false;
  bool check = false;
  progress_style style = progress_style::lines;
};

struct parsed {
  std::optional<options> run; // none: the program ends, with this status
  int status = 0;
};
parsed parse_options(int argc, char** argv, const char* node_options_help);
// Prints help and what is wrong, and then there is nothing to run.

bool cut_into_blocks(parameters& what, unsigned blocks);
// As nearly square as the number allows; false when there would be more than one for each cell.

const char* name_of(distribution initial) noexcept;

} // namespace pic
