// The command line that make gets.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace pmake {

struct make_arguments {
  std::vector<std::string> rest; // without -j: the jobserver is ours
  std::optional<unsigned> jobs;  // what -j said; 0: as many as there are
};

make_arguments split_make_arguments(const std::vector<std::string>& given);

std::string make_flags(const std::string& outer, const std::string& ours);
// What MAKEFLAGS is for make: what it was, without the jobserver of a make above us, and ours.

} // namespace pmake
