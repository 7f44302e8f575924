// The options that pmake has beside Ninja's and make's.
#pragma once

#include <string>
#include <vector>

#include "make/leaves_home.hpp"

namespace pmake {

struct own_options {
  leaving_rules rules;
  std::string trace; // for make; Ninja's command line has its own
  bool make = false; // what is left is a make and its arguments
};

own_options take_own_options(std::vector<std::string>& arguments, bool as_ninja);
// Takes them out of the command line: for make, those before it. Throws build_error.

} // namespace pmake
