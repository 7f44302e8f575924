// fcntl.h, for tasks.
#pragma once

#include <cstdint>

#include <fcntl.h>
#include <sys/types.h>

#include <migrate/file/file_calls.hpp>
#include <migrate/posix/errors.hpp>

namespace migrate::posix {

inline int open(const char* path, int flags, mode_t mode = 0) {
  return detail::posix_call([&] { return migrate::detail::files::open(path, flags, mode); });
}
inline int creat(const char* path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

inline int fcntl(int fd, int command, int argument = 0) {
  auto bits = static_cast<std::uintptr_t>(argument);
  return detail::posix_call([&] { return migrate::detail::files::fcntl(fd, command, bits); });
}
inline int fcntl(int fd, int command, struct flock* lock) {
  auto bits = reinterpret_cast<std::uintptr_t>(lock);
  return detail::posix_call([&] { return migrate::detail::files::fcntl(fd, command, bits); });
}
// F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK and F_SETLKW; EINVAL for others.

} // namespace migrate::posix
