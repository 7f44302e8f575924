// Projects from Debian's source packages, by which pmake is measured.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <map>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

namespace bench {

struct project {
  std::string package;
  std::string configure; // a command in its folder
  std::string arguments; // for make
};

inline const std::vector<project> debian_projects{
    // Its makefile makes two libraries by one rule, which -j starts twice.
    {"lua5.4",
     "echo '#define DEB_HOST_MULTIARCH \"lib\"' >src/lua5.4-deb-multiarch.h && "
     "sed -i 's/^$(LUA_A): /liblua$(V)-c++.la: liblua$(V).la\\nliblua$(V).la: /' src/Makefile",
     "linux LIBTOOL='libtool --quiet'"},
    {"zlib", "./configure", ""},
    {"redis", "true", "MALLOC=libc BUILD_TLS=no"},
    {"sqlite3", "./configure --disable-tcl", ""},
    {"tmux", "./configure", ""},
};

inline bool unpack(const std::string& folder, const std::vector<std::string>& packages) {
  // Each into a folder of its name.
  std::string call = MIGRATE_DEBIAN_SOURCES " '" + folder + "'";
  for (const std::string& each : packages) call += " " + each;
  return std::system(call.c_str()) == 0;
}

inline std::map<std::string, std::size_t> files_made(const std::filesystem::path& tree) {
  // Objects, libraries and programs, by their contents.
  std::map<std::string, std::size_t> all;
  for (const auto& each : std::filesystem::recursive_directory_iterator(tree)) {
    if (!each.is_regular_file()) continue;
    std::ifstream file(each.path(), std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(file), {}};
    if (text.starts_with("\x7f"
                         "ELF") ||
        text.starts_with("!<arch>"))
      all[std::filesystem::relative(each.path(), tree)] = std::hash<std::string>()(text);
  }
  return all;
}

} // namespace bench
