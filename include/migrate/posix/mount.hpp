// sys/mount.h, for tasks: refused.
#pragma once

#include <cerrno>

#include <sys/mount.h>

#include <migrate/posix/errors.hpp>

namespace migrate::posix {

inline int mount(const char*, const char*, const char*, unsigned long, const void*) {
  return detail::posix_call([]() -> long { return -ENOTSUP; });
}
inline int umount(const char*) {
  return detail::posix_call([]() -> long { return -ENOTSUP; });
}
inline int umount2(const char*, int) {
  return detail::posix_call([]() -> long { return -ENOTSUP; });
}
// ENOTSUP: it would change the name space of one machine, and all nodes have one in common.

} // namespace migrate::posix
