// sys/uio.h, for tasks.
#pragma once

#include <sys/uio.h>

#include <migrate/file/file_calls.hpp>
#include <migrate/posix/errors.hpp>

namespace migrate::posix {

inline ssize_t readv(int fd, const iovec* parts, int count) {
  return detail::posix_call<ssize_t>([&] { return migrate::detail::files::readv(fd, parts, count); });
}
inline ssize_t writev(int fd, const iovec* parts, int count) {
  return detail::posix_call<ssize_t>([&] { return migrate::detail::files::writev(fd, parts, count); });
}

} // namespace migrate::posix
