// The command line.
#pragma once

#include <optional>

#include "tree.hpp"

namespace uts {

struct options {
  tree which;
  unsigned searchers = 0; // 0: eight for each worker
  unsigned granularity = 1;
  unsigned await_nodes = 1; // begins when there are so many
  bool serial = false;
  bool check = false;
  bool progress = true;
};

struct parsed {
  std::optional<options> run; // none: the program ends, with this status
  int status = 0;
};
parsed parse_options(int argc, char** argv, const char* node_options_help);
// Prints help and what is wrong, and then there is nothing to run.

} // namespace uts
