// Private mappings of files and of nothing, in the running task's own memory.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/file/file_calls.hpp>
#include <migrate/memory/address_plan.hpp>
#include <migrate/task/presence.hpp>

namespace migrate::detail::files {

// A private mapping is a copy from the start: POSIX leaves open whether it sees what is written to the file afterwards.
// The copy lies in the task's heap and moves with it. What several processes would share cannot: that is refused.

inline std::size_t whole_pages(std::size_t bytes) noexcept { return (bytes + page_size - 1) / page_size * page_size; }

inline long fill_from(int fd, char* into, std::size_t bytes, off_t offset) {
  open_file* file = descriptors::find(fd);
  if (file == nullptr) return -EBADF;
  struct stat status;
  if (file->kind != open_kind::file || ::fstat(file->kernel, &status) != 0 || S_ISDIR(status.st_mode)) return -ENODEV;
  if ((file->flags & O_ACCMODE) == O_WRONLY) return -EACCES;
  for (std::size_t done = 0; done < bytes;) {
    make_present(into + done, bytes - done);
    long got = result(::pread(file->kernel, into + done, bytes - done, offset + static_cast<off_t>(done)));
    if (got == -EINTR) continue;
    if (got < 0) return got;
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return 0;
}

inline long map(std::size_t bytes, int protection, int flags, int fd, off_t offset, void*& made) {
  safe_point();
  bool of_nothing = (flags & MAP_ANONYMOUS) != 0;
  if (bytes == 0 || offset < 0 || offset % static_cast<off_t>(page_size) != 0) return -EINVAL;
  if ((flags & MAP_TYPE) == MAP_SHARED || (flags & MAP_TYPE) == MAP_SHARED_VALIDATE) return -ENOTSUP;
  if ((flags & MAP_TYPE) != MAP_PRIVATE) return -EINVAL;
  if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0) return -ENOTSUP;
  if ((protection & PROT_EXEC) != 0 || (protection & PROT_READ) == 0) return -ENOTSUP;
  if (bytes > PTRDIFF_MAX - page_size) return -ENOMEM;
  std::size_t whole = whole_pages(bytes);
  void* place = self().control->heap.allocate_zeroed(whole, page_size);
  if (place == nullptr) return -ENOMEM;
  long failed = of_nothing ? 0 : fill_from(fd, static_cast<char*>(place), bytes, offset);
  if (failed < 0) {
    region_heap::deallocate(place);
    return failed;
  }
  descriptors::table().mappings.push_back({static_cast<char*>(place), whole});
  made = place;
  return 0;
}
// -ENOTSUP: MAP_SHARED, MAP_FIXED, PROT_EXEC, and what may not be read.

inline memory_mapping* find_mapping(const void* address) {
  for (memory_mapping& each : descriptors::table().mappings)
    if (each.begin == address) return &each;
  return nullptr;
}

inline long unmap(void* address, std::size_t bytes) {
  safe_point();
  memory_mapping* found = find_mapping(address);
  if (found == nullptr || whole_pages(bytes) != found->bytes) return -EINVAL;
  region_heap::deallocate(found->begin);
  auto& all = descriptors::table().mappings;
  *found = all.back();
  all.pop_back();
  return 0;
}
// A whole mapping only.

} // namespace migrate::detail::files
