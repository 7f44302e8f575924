#include "path.hpp"

#include <algorithm>
#include <array>
#include <vector>

namespace pmake {

bool is_canonical(std::string_view path) noexcept {
  if (path.empty() || path.back() == '/') return false;
  bool at_start = true; // of a component
  for (std::size_t i = 0; i < path.size(); ++i) {
    char c = path[i];
    if (at_start && (c == '.' || (c == '/' && i > 0))) {
      if (c == '/') return false;
      // A name may begin with a dot, but "." and ".." are left to the slow way.
      std::size_t next = i + 1 < path.size() && path[i + 1] == '.' ? i + 2 : i + 1;
      if (next >= path.size() || path[next] == '/') return false;
    }
    at_start = c == '/';
  }
  return true;
}

void canonicalize(std::string& path) {
  if (path.empty()) return;
  bool absolute = path[0] == '/';
  std::string result(absolute ? "/" : "");
  std::vector<std::size_t> names; // where in `result` each component begins that ".." can take away
  for (std::size_t at = 0; at < path.size();) {
    std::size_t end = std::min(path.find('/', at), path.size());
    std::string_view part(path.data() + at, end - at);
    at = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == ".." && !names.empty()) {
      result.resize(names.back());
      names.pop_back();
      continue;
    }
    if (part != "..") names.push_back(result.size());
    result.append(part).push_back('/');
  }
  if (result.size() > 1 && result.back() == '/') result.pop_back();
  if (result.empty()) result.push_back('.');
  path = std::move(result);
}

void append_shell_quoted(std::string& to, std::string_view path) {
  static constexpr auto plain = [] {
    std::array<bool, 256> table{};
    for (unsigned char c :
         std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-./"))
      table[c] = true;
    return table;
  }();
  if (std::all_of(path.begin(), path.end(), [](char c) { return plain[static_cast<unsigned char>(c)]; })) {
    to.append(path);
    return;
  }
  to.push_back('\'');
  for (char c : path) {
    if (c == '\'')
      to.append("'\\''");
    else
      to.push_back(c);
  }
  to.push_back('\'');
}

std::string folder_of(std::string_view path) {
  std::size_t slash = path.find_last_of('/');
  if (slash == path.npos) return "";
  while (slash > 0 && path[slash - 1] == '/') --slash;
  return std::string(path.substr(0, slash));
}

} // namespace pmake
