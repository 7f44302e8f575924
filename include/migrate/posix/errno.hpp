// errno, for code that can move from one thread to another.
#pragma once

#include <cerrno>

namespace migrate::posix::detail {

[[gnu::noinline]] inline int* errno_location() noexcept {
  int* where = &errno;
  asm volatile("" : "+r"(where)); // not pure: two calls may run on two threads
  return where;
}

} // namespace migrate::posix::detail

#undef errno
#define errno (*::migrate::posix::detail::errno_location())
// The C library declares that errno's address never changes within a function, and compilers keep it across calls. A
// task goes on on another thread, whose errno is elsewhere.
