// sys/file.h, for tasks.
#pragma once

#include <sys/file.h>

#include <migrate/file/file_calls.hpp>
#include <migrate/posix/errors.hpp>

namespace migrate::posix {

inline int flock(int fd, int operation) {
  return detail::posix_call([&] { return migrate::detail::files::flock(fd, operation); });
}

} // namespace migrate::posix
