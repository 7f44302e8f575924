// Reading and writing at an offset that other tasks share, when it is not in the kernel.
#pragma once

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <migrate/file/descriptors.hpp>
#include <migrate/file/file_services.hpp>
#include <migrate/file/shared_offset.hpp>
#include <migrate/task/presence.hpp>

namespace migrate::detail::files {

// Whoever asks gets a part of the file that nobody else gets, and fills it: what all of them write neither overlaps nor
// leaves a hole, unless the device is full or a node dies between. Appending is the kernel's: the offset follows it.

[[gnu::noinline]] inline int last_error() noexcept { return errno; }
// Not inlined: a compiler may keep errno's address, which is another thread's after a wait.

inline long result(long value) noexcept { return value < 0 ? -last_error() : value; }

inline bool is_shared(const open_file* file) noexcept { return file != nullptr && bool(file->shared.key); }

inline long write_all_at(int kernel, const char* from, std::size_t bytes, off_t at) {
  std::size_t done = 0;
  while (done < bytes) {
    make_present(from + done, bytes - done);
    long wrote = result(::pwrite(kernel, from + done, bytes - done, at + static_cast<off_t>(done)));
    if (wrote == -EINTR) continue;
    if (wrote <= 0) return done > 0 ? static_cast<long>(done) : wrote;
    done += static_cast<std::size_t>(wrote);
  }
  return static_cast<long>(done);
}

inline bool appends(const open_file& file) { return (::fcntl(file.kernel, F_GETFL) & O_APPEND) != 0; }

inline std::uint64_t next_request() { return ++descriptors::table().requests; }

template <class Use> long use_token(int fd, Use&& use) {
  // use(file, offset): what was read or written; sets the offset.
  open_file* file = descriptors::find(fd);
  shared_offset which = file->shared;
  std::int64_t at = the_files->take_token(which);
  file = descriptors::find(fd); // the task may have moved meanwhile, and run a handler
  if (file == nullptr || !(file->shared.key == which.key)) {
    the_files->put_token(which, at);
    return -EBADF;
  }
  long done = use(*file, at);
  the_files->put_token(which, at);
  return done;
}

inline long shared_read(int fd, void* into, std::size_t bytes) {
  open_file* file = descriptors::find(fd);
  if ((file->flags & O_ACCMODE) == O_WRONLY) return -EBADF;
  if (file->shared.way == offset_sharing::token)
    return use_token(fd, [&](open_file& from, std::int64_t& at) {
      make_present(into, bytes);
      long got = result(::pread(from.kernel, into, bytes, at));
      if (got > 0) at += got;
      return got;
    });
  struct stat status;
  if (::fstat(file->kernel, &status) != 0) return -last_error();
  offset_range mine = the_files->step_offset(
      file->shared, {offset_step::take_within, static_cast<std::int64_t>(bytes), status.st_size}, next_request());
  if (mine.failed < 0 || mine.bytes == 0) return mine.failed;
  file = descriptors::find(fd);
  if (file == nullptr) return -EBADF;
  make_present(into, static_cast<std::size_t>(mine.bytes));
  return result(::pread(file->kernel, into, static_cast<std::size_t>(mine.bytes), mine.at));
}

template <class Read> long read_parts(const iovec* parts, int count, Read&& read) {
  if (count < 0 || count > IOV_MAX) return -EINVAL;
  std::size_t bytes = 0;
  for (int i = 0; i < count; ++i) bytes += parts[i].iov_len;
  std::string whole(bytes, '\0');
  long got = read(whole.data(), bytes);
  std::size_t at = 0;
  for (int i = 0; i < count && got > 0 && at < static_cast<std::size_t>(got); ++i) {
    std::size_t part = std::min(parts[i].iov_len, static_cast<std::size_t>(got) - at);
    std::memcpy(parts[i].iov_base, whole.data() + at, part);
    at += part;
  }
  return got;
}

inline long shared_write(int fd, const void* from, std::size_t bytes) {
  open_file* file = descriptors::find(fd);
  if ((file->flags & O_ACCMODE) == O_RDONLY) return -EBADF;
  const char* data = static_cast<const char*>(from);
  if (file->shared.way == offset_sharing::token)
    return use_token(fd, [&](open_file& to, std::int64_t& at) {
      long wrote = 0;
      if (appends(to)) {
        make_present(data, bytes);
        wrote = result(::write(to.kernel, data, bytes));
        if (wrote > 0) at = ::lseek(to.kernel, 0, SEEK_CUR);
      } else {
        wrote = write_all_at(to.kernel, data, bytes, at);
        if (wrote > 0) at += wrote;
      }
      return wrote;
    });
  if (appends(*file)) {
    make_present(data, bytes);
    long wrote = result(::write(file->kernel, data, bytes));
    if (wrote > 0) the_files->step_offset(file->shared, {offset_step::set, ::lseek(file->kernel, 0, SEEK_CUR), 0}, next_request());
    return wrote;
  }
  offset_range mine = the_files->step_offset(file->shared, {offset_step::take, static_cast<std::int64_t>(bytes), 0}, next_request());
  if (mine.failed < 0) return mine.failed;
  file = descriptors::find(fd);
  if (file == nullptr) return -EBADF;
  return write_all_at(file->kernel, data, bytes, mine.at);
}

inline long shared_seek(int fd, off_t to, int whence) {
  open_file* file = descriptors::find(fd);
  offset_step step{offset_step::shift, to, 0};
  if (whence != SEEK_CUR) {
    long at = result(::lseek(file->kernel, to, whence)); // the kernel's own offset of this description is of no use
    if (at < 0) return at;
    step = {offset_step::set, at, 0};
  }
  if (file->shared.way == offset_sharing::home) {
    offset_range now = the_files->step_offset(file->shared, step, next_request());
    return now.failed < 0 ? now.failed : now.at;
  }
  return use_token(fd, [&](open_file&, std::int64_t& at) -> long {
    std::int64_t wanted = step.what == offset_step::set ? step.bytes : at + step.bytes;
    if (wanted < 0) return -EINVAL;
    return static_cast<long>(at = wanted);
  });
}

} // namespace migrate::detail::files
