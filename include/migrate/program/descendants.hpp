// The processes that stem from a process, as /proc tells.
#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

namespace migrate::detail {

namespace processes {

inline bool read_proc(const char* path, std::string& into) {
  int file = ::open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  char bytes[4096];
  for (ssize_t got; (got = ::read(file, bytes, sizeof bytes)) > 0;) into.append(bytes, static_cast<std::size_t>(got));
  ::close(file);
  return true;
}

template <class F> void for_each_number_in(const char* folder, F&& visit) {
  DIR* open = ::opendir(folder);
  if (open == nullptr) return;
  while (const dirent* each = ::readdir(open))
    if (std::isdigit(static_cast<unsigned char>(each->d_name[0])) != 0) visit(static_cast<pid_t>(std::atoi(each->d_name)));
  ::closedir(open);
}

inline pid_t parent_of(pid_t process) {
  std::array<char, 64> path;
  std::snprintf(path.data(), path.size(), "/proc/%d/stat", static_cast<int>(process));
  std::string text;
  read_proc(path.data(), text);
  std::size_t name = text.rfind(')'); // the name may hold anything
  return name == text.npos || name + 4 >= text.size() ? 0 : static_cast<pid_t>(std::atoi(text.c_str() + name + 4));
}

inline void children_of_thread(pid_t process, pid_t thread, std::vector<pid_t>& into) {
  std::array<char, 64> path;
  std::snprintf(path.data(), path.size(), "/proc/%d/task/%d/children", static_cast<int>(process), static_cast<int>(thread));
  std::string text;
  read_proc(path.data(), text);
  const char* end = text.data() + text.size();
  for (const char* at = text.data(); at < end; ++at) {
    pid_t child = 0;
    auto [next, problem] = std::from_chars(at, end, child);
    if (problem != std::errc()) return;
    into.push_back(child);
    at = next;
  }
}

inline bool kernel_lists_children() { return ::access("/proc/thread-self/children", F_OK) == 0; }

inline void children_of(pid_t process, std::vector<pid_t>& into) {
  std::array<char, 32> folder;
  std::snprintf(folder.data(), folder.size(), "/proc/%d/task", static_cast<int>(process));
  if (kernel_lists_children())
    for_each_number_in(folder.data(), [&](pid_t thread) { children_of_thread(process, thread, into); });
  else
    for_each_number_in("/proc", [&](pid_t each) {
      if (parent_of(each) == process) into.push_back(each);
    });
}

inline void add_tree(pid_t root, std::vector<pid_t>& into) {
  // The root first. It may have ended.
  if (std::find(into.begin(), into.end(), root) != into.end()) return;
  std::size_t next = into.size();
  into.push_back(root);
  for (; next < into.size(); ++next) {
    std::vector<pid_t> children;
    children_of(into[next], children);
    for (pid_t each : children)
      if (std::find(into.begin(), into.end(), each) == into.end()) into.push_back(each);
  }
}

inline rlim_t tag_of(pid_t process) noexcept {
  rlimit limit{};
  return ::prlimit(process, RLIMIT_RTTIME, nullptr, &limit) == 0 ? limit.rlim_cur : 0;
}
// See protocol.hpp.

} // namespace processes
} // namespace migrate::detail
