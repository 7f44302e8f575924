#include "partial_outputs.hpp"

#include <climits>
#include <exception>
#include <string>
#include <string_view>

#include <sys/statvfs.h>

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

bool disk_is_full(const edge& of) noexcept {
  for (const node* output : of.outputs) {
    struct statvfs room = {};
    std::string_view path = output->path();
    std::size_t slash = path.rfind('/');
    char folder[PATH_MAX] = ".";
    if (slash != path.npos && slash < sizeof folder) folder[path.copy(folder, slash + 1)] = '\0';
    if (::statvfs(folder, &room) == 0 && room.f_blocks > 0 && room.f_bavail == 0) return true;
  }
  return false;
}

} // namespace pmake
