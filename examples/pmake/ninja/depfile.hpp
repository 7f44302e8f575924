// The part of a makefile's language in which compilers write down what they read.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "graph.hpp"

namespace pmake {

struct depfile {
  std::vector<std::string> outputs;
  std::vector<std::string> inputs; // each once, in order
};

depfile parse_depfile(std::string_view text);
// Throws build_error. A name may have escaped spaces, '#' and ':', and "$$" is a '$'; a rule without inputs for a file
// that another has as an input (gcc -MP) says nothing.

std::vector<node*> discovered(graph& in, depfile& read);
// The files that are its inputs.

} // namespace pmake
