// The running task's working directory, and the permissions it does not give away.
#pragma once

#include <climits>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/file/path.hpp>

namespace migrate {

// One working directory and one umask for each task, not for each node; both are inherited by child tasks. A path is
// checked where the task runs: one name space is shared by all nodes.

inline std::filesystem::path working_directory() { return detail::my_surroundings().directory; }
// Absolute. Throws migrate::error (errc::not_in_task, home_unreachable).

inline void change_directory(const std::filesystem::path& to, std::error_code& code) {
  std::string whole = detail::resolve(to.native());
  char real[PATH_MAX];
  struct stat found {};
  code.clear();
  if (::realpath(whole.c_str(), real) == nullptr || ::stat(real, &found) != 0)
    code.assign(errno, std::generic_category());
  else if (!S_ISDIR(found.st_mode))
    code = std::make_error_code(std::errc::not_a_directory);
  else if (::faccessat(AT_FDCWD, real, X_OK, AT_EACCESS) != 0)
    code.assign(errno, std::generic_category());
  else
    detail::my_surroundings().directory = real;
}

inline void change_directory(const std::filesystem::path& to) {
  std::error_code code;
  change_directory(to, code);
  if (code) throw std::filesystem::filesystem_error("migrate::change_directory", to, code);
}
// Relative paths are taken against the one before; symbolic links are followed now, as chdir(2) does.

inline std::filesystem::perms file_mask() {
  return static_cast<std::filesystem::perms>(detail::my_surroundings().mask);
}

inline std::filesystem::perms file_mask(std::filesystem::perms taken_away) {
  auto& mine = detail::my_surroundings();
  auto before = static_cast<std::filesystem::perms>(mine.mask);
  mine.mask = static_cast<mode_t>(taken_away) & 0777;
  return before;
}
// What new files and directories are created without; returns what it was before.

} // namespace migrate
