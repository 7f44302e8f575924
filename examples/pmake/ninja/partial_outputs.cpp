#include "partial_outputs.hpp"

#include <climits>
#include <exception>
#include <string>
#include <string_view>

#include <sys/statvfs.h>

#include "disk.hpp"

namespace pmake {

bool remove_partial(const edge& of) noexcept {
  bool removed = false;
  try {
    std::string depfile = value_of(of, symbol::depfile, quoting::none);
    for (node* output : of.outputs) {
      // What the command has not touched stays: the manifest, when its generator is interrupted. With a depfile the
      // output may be old and the depfile new.
      std::string path(output->path());
      if (!depfile.empty() || time_of(path) != output->time) removed = remove_file(path) || removed;
    }
    if (!depfile.empty()) removed = remove_file(depfile) || removed;
  } catch (const std::exception&) {
    // There is nothing better to do about a file that cannot be removed.
  }
  return removed;
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
