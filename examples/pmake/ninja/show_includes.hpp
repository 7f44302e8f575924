// What Microsoft's compiler prints about the headers it reads (/showIncludes), among its messages.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pmake {

struct shown_includes {
  std::vector<std::string> files; // each once; without those of the compiler itself
  std::string rest; // the output without them, and without the compiler's echo of its input's name
};

shown_includes filter_includes(std::string_view output, std::string_view prefix);
// An empty prefix is the English one.

} // namespace pmake
