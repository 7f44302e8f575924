#include "partial_outputs.hpp"

#include <exception>
#include <string>

#include "disk.hpp"

namespace pmake {

void remove_partial(const edge& of) noexcept {
  try {
    std::string depfile = value_of(of, symbol::depfile, quoting::none);
    for (node* output : of.outputs) {
      // What the command has not touched stays: the manifest, when its generator is interrupted. With a depfile the
      // output may be old and the depfile new.
      std::string path(output->path());
      if (!depfile.empty() || time_of(path) != output->time) remove_file(path);
    }
    if (!depfile.empty()) remove_file(depfile);
  } catch (const std::exception&) {
    // There is nothing better to do about a file that cannot be removed.
  }
}

} // namespace pmake
