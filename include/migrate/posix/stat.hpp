// sys/stat.h, for tasks.
#pragma once

#include <sys/stat.h>

#include <migrate/file/name_calls.hpp>
#include <migrate/posix/errors.hpp>

namespace migrate::posix {

inline int stat(const char* path, struct ::stat* into) {
  return detail::posix_call([&] { return migrate::detail::files::stat(path, into); });
}
inline int lstat(const char* path, struct ::stat* into) {
  return detail::posix_call([&] { return migrate::detail::files::lstat(path, into); });
}
inline int fstat(int fd, struct ::stat* into) {
  return detail::posix_call([&] { return migrate::detail::files::fstat(fd, into); });
}
inline int chmod(const char* path, mode_t mode) {
  return detail::posix_call([&] { return migrate::detail::files::chmod(path, mode); });
}
inline int fchmod(int fd, mode_t mode) {
  return detail::posix_call([&] { return migrate::detail::files::fchmod(fd, mode); });
}
inline int mkdir(const char* path, mode_t mode) {
  return detail::posix_call([&] { return migrate::detail::files::mkdir(path, mode); });
}
inline int mkfifo(const char* path, mode_t mode) {
  return detail::posix_call([&] { return migrate::detail::files::mkfifo(path, mode); });
}
inline int mknod(const char* path, mode_t mode, dev_t) {
  return detail::posix_call([&] { return migrate::detail::files::mknod(path, mode); });
}
// Regular files and fifos; ENOTSUP for devices and sockets, which belong to one machine.

inline int futimens(int fd, const timespec times[2]) {
  return detail::posix_call([&] { return migrate::detail::files::futimens(fd, times); });
}
inline int utimensat(int directory, const char* path, const timespec times[2], int flags) {
  if (directory != AT_FDCWD) {
    detail::set_error(ENOTSUP);
    return -1;
  }
  return detail::posix_call([&] { return migrate::detail::files::utimens(path, times, flags); });
}
// Only for AT_FDCWD; ENOTSUP otherwise.

} // namespace migrate::posix
