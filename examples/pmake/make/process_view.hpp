// What another process of this machine was started with, as far as a command that stands for it needs it.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

namespace pmake {

int open_pidfd(pid_t of) noexcept;

pid_t parent_of(pid_t process);
// 0 when it is gone.

struct process_view {
  std::string folder; // empty when it is gone
  std::vector<std::string> environment;
  mode_t mask = 022;
};
process_view view_of(pid_t process);

} // namespace pmake
