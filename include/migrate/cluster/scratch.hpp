// A grant's folder for files, which goes with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/store/descriptor.hpp>
#include <migrate/store/directory.hpp>

namespace migrate::detail {

inline void remove_tree(int parent, const std::string& name) {
  // Whatever modes the folders in it have, and however deep they lie: they are moved up before they are emptied.
  // Symbolic links are removed and never followed. What cannot be removed stays.
  auto open_folder = [](int in, const char* which) {
    struct stat status {};
    if (::fstatat(in, which, &status, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(status.st_mode))
      return descriptor();
    if ((status.st_mode & 0700) != 0700) ::fchmodat(in, which, 0700, AT_SYMLINK_NOFOLLOW);
    return descriptor(::openat(in, which, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  };
  auto names_in = [](const descriptor& folder) { // listed first: reading may skip names while others go
    std::vector<std::string> all;
    for_each_name(folder.get(), ".", [&](std::string_view each) { all.emplace_back(each); });
    return all;
  };
  descriptor top = open_folder(parent, name.c_str());
  std::vector<std::string> folders;
  auto empty = [&](const descriptor& folder, const std::string& moved_as) {
    for (const std::string& each : names_in(folder)) {
      if (::unlinkat(folder.get(), each.c_str(), 0) == 0) continue;
      if (moved_as.empty()) {
        folders.push_back(each);
        continue;
      }
      std::string up = moved_as + "." + std::to_string(folders.size());
      if (::renameat(folder.get(), each.c_str(), top.get(), up.c_str()) == 0) folders.push_back(up);
    }
  };
  if (top) empty(top, "");
  for (std::size_t i = 0; i < folders.size(); ++i) {
    if (descriptor folder = open_folder(top.get(), folders[i].c_str()))
      empty(folder, "up-" + std::to_string(i));
    ::unlinkat(top.get(), folders[i].c_str(), AT_REMOVEDIR);
  }
  ::unlinkat(parent, name.c_str(), top ? AT_REMOVEDIR : 0);
}

inline std::uint64_t tree_bytes(int parent, const std::string& name, int deepest = 64) {
  // That the tree takes up on its disk, down to so many levels.
  struct stat status {};
  if (::fstatat(parent, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return 0;
  auto bytes = static_cast<std::uint64_t>(status.st_blocks) * 512;
  if (!S_ISDIR(status.st_mode) || deepest == 0) return bytes;
  descriptor folder(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (folder)
    for_each_name(folder.get(), ".", [&](std::string_view each) {
      bytes += tree_bytes(folder.get(), std::string(each), deepest - 1);
    });
  return bytes;
}

} // namespace migrate::detail
