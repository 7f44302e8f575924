// sys/mman.h, for tasks.
#pragma once

#include <cstddef>
#include <cstdint>

#include <sys/mman.h>

#include <migrate/file/mappings.hpp>
#include <migrate/posix/errors.hpp>

namespace migrate::posix {

inline void* mmap(void* wish, std::size_t bytes, int protection, int flags, int fd, off_t offset) {
  static_cast<void>(wish);
  void* made = MAP_FAILED;
  detail::posix_call([&] { return migrate::detail::files::map(bytes, protection, flags, fd, offset, made); });
  return made;
}
// MAP_PRIVATE, of a file or MAP_ANONYMOUS: a copy in the task's own memory, of which its region must have room; behind
// the file's end it is zero. Where it lies is not for the caller to say. ENOTSUP: MAP_SHARED, which would be memory that
// tasks share; MAP_FIXED; PROT_EXEC, and memory that may not be read.

inline int munmap(void* address, std::size_t bytes) {
  return detail::posix_call([&] { return migrate::detail::files::unmap(address, bytes); });
}
// All of one mapping; EINVAL for a part.

inline int mprotect(void*, std::size_t, int protection) {
  return detail::posix_call([&]() -> long { return protection == (PROT_READ | PROT_WRITE) ? 0 : -ENOTSUP; });
}
// A task's memory can be read and written: ENOTSUP for anything else.

inline int msync(void*, std::size_t, int flags) {
  return detail::posix_call([&]() -> long {
    bool both = (flags & MS_SYNC) != 0 && (flags & MS_ASYNC) != 0;
    return both || (flags & ~(MS_SYNC | MS_ASYNC | MS_INVALIDATE)) != 0 ? -EINVAL : 0;
  });
}
// Nothing is to be written back, as no mapping is shared.

inline int shm_open(const char*, int, mode_t) {
  return detail::posix_call([]() -> long { return -ENOTSUP; });
}
inline int shm_unlink(const char*) {
  return detail::posix_call([]() -> long { return -ENOTSUP; });
}
// Tasks share no memory: ENOTSUP.

} // namespace migrate::posix
