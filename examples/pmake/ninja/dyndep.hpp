// Files that a build makes and that name further inputs and outputs of its statements.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "graph.hpp"

namespace pmake {

struct dyndep_entry {
  std::vector<node*> outputs, inputs;
  bool restat = false;
};

using dyndep_entries = std::map<edge*, dyndep_entry>;

dyndep_entries load_dyndep(graph& into, node& file);
// Reads the file and adds what it says to the statements that name it; afterwards the node is a file as any other.
// Throws build_error.

} // namespace pmake
