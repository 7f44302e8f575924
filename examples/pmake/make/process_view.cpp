#include "process_view.hpp"

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include <sys/syscall.h>
#include <unistd.h>

namespace pmake {

int open_pidfd(pid_t of) noexcept { return static_cast<int>(::syscall(SYS_pidfd_open, of, 0)); }

pid_t parent_of(pid_t process) {
  pid_t parent = 0;
  if (std::FILE* stat = std::fopen(("/proc/" + std::to_string(process) + "/stat").c_str(), "re")) {
    if (std::fscanf(stat, "%*d (%*[^)]) %*c %d", &parent) != 1) parent = 0;
    std::fclose(stat);
  }
  return parent;
}

process_view view_of(pid_t process) {
  const std::string where = "/proc/" + std::to_string(process);
  process_view seen;
  std::ifstream environment(where + "/environ", std::ios::binary);
  for (std::string each; std::getline(environment, each, '\0');) seen.environment.push_back(each);
  std::ifstream status(where + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("Umask:", 0) == 0)
      seen.mask = static_cast<mode_t>(std::strtoul(line.c_str() + std::string("Umask:").size(), nullptr, 8));
  char folder[4096];
  auto size = ::readlink((where + "/cwd").c_str(), folder, sizeof folder);
  if (size > 0) seen.folder.assign(folder, static_cast<std::size_t>(size));
  return seen;
}

} // namespace pmake
