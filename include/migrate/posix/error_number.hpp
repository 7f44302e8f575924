// errno for tasks.
#pragma once

#include <cerrno>

namespace migrate::posix::detail {

[[gnu::noinline]] inline int* error_number_place() noexcept {
  int* place = &errno;
  asm volatile("" : "+r"(place)); // not constant: two calls may run on two threads, or in two processes
  return place;
}

} // namespace migrate::posix::detail

// The C library promises compilers that the address of errno never changes within a function, so that they look it up
// once; a task's changes with every call that waits. The value goes along with the task.
#undef errno
#define errno (*::migrate::posix::detail::error_number_place())
