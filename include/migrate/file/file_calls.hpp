// Reading, writing and controlling what the running task has open.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <migrate/file/descriptors.hpp>
#include <migrate/file/file_services.hpp>
#include <migrate/file/path.hpp>
#include <migrate/file/shared_calls.hpp>
#include <migrate/file/streams.hpp>
#include <migrate/home/signal_delivery.hpp>
#include <migrate/task/presence.hpp>

namespace migrate::detail::files {

// As in descriptors.hpp: what the system call returns, or a negative errno. Each passes a safe point first. Input and
// output on regular files blocks the worker, as page faults do; what may wait for another task lets the worker go.

inline bool in_task() noexcept { return the_services != nullptr && current_task() != nullptr; }

inline bool interrupted() {
  // Runs the handlers of what waits; false when they want the call to go on (SA_RESTART).
  return signal_waits() && the_services->take_signals() == after_signals::interrupt;
}

inline long wait_until_ready(int kernel, std::uint32_t events) {
  // 0: look again, perhaps on another node.
  if (signal_waits()) return interrupted() ? -EINTR : 0;
  the_files->wake_when(kernel, events);
  park(); // no safe point after it: a handler that ran there would not end the call
  return 0;
}

template <class Call> long unless_interrupted(Call&& call) {
  // call() again after a signal that wants the call to go on.
  for (;;) {
    long done = call();
    if (done != -EINTR || interrupted()) return done;
  }
}

inline bool is_stream(const open_file* file) noexcept { return file != nullptr && file->kind == open_kind::stream; }

inline bool is_home_pipe(const open_file* file) noexcept {
  return file != nullptr && file->kind == open_kind::home_pipe;
}

inline bool may_wait(const open_file& file) noexcept {
  return (file.kind == open_kind::pipe || file.kind == open_kind::foreign) && (file.flags & O_NONBLOCK) == 0;
}

inline bool make_room(open_file& file) noexcept {
  // A pipe that its writer has filled once gets more room, or each 64 KiB would cost both ends a switch. Not as much as
  // anybody may have: what a user's pipes hold in all is limited.
  if (file.kind != open_kind::pipe || std::exchange(file.roomy, true)) return false;
  return ::fcntl(file.kernel, F_SETPIPE_SZ, 256 << 10) > 0;
}

template <class Call> long when_ready(int fd, std::uint32_t events, Call&& call) {
  // call(open_file&) until it need not wait.
  for (;;) {
    open_file* file = descriptors::find(fd);
    if (file == nullptr) return -EBADF;
    if (is_stream(file) || is_home_pipe(file)) return -ESPIPE;
    long done = result(call(*file));
    if (done != -EAGAIN || !may_wait(*file)) return done;
    if ((events & EPOLLOUT) != 0 && make_room(*file)) continue;
    if (long failed = wait_until_ready(file->kernel, events); failed < 0) return failed;
  }
}

inline long read_home_pipe(const open_file& file, void* into, std::size_t bytes) {
  if (file.end.writes) return -EBADF;
  if (bytes == 0) return 0;
  pipe_end from = file.end;
  bool wait = (file.flags & O_NONBLOCK) == 0;
  return unless_interrupted([&] { return the_files->read_pipe(from, next_request(), wait, into, bytes); });
}

inline long write_home_pipe(int fd, const void* from, std::size_t bytes) {
  std::size_t done = 0;
  while (done < bytes) {
    open_file* file = descriptors::find(fd);
    if (file == nullptr) return -EBADF;
    pipe_end to = file->other.key ? file->other : file->end;
    if (!to.writes) return -EBADF;
    bool wait = (file->flags & O_NONBLOCK) == 0;
    const char* rest = static_cast<const char*>(from) + done;
    long wrote = unless_interrupted(
        [&] { return the_files->write_pipe(to, next_request(), wait, rest, bytes - done); });
    if (wrote < 0) return done > 0 ? static_cast<long>(done) : wrote;
    done += static_cast<std::size_t>(wrote);
    if (!wait) break;
    safe_point();
  }
  return static_cast<long>(done);
}

inline long open_kernel(const char* path, int flags, mode_t mode) {
  // Fifos and terminals are opened so that they never hold up the worker: O_NONBLOCK of the task is in its own table.
  // A fifo is opened at once, without waiting for its other end.
  std::string resolved = resolve(path);
  long opened = 0;
  if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
    creation_mask taken_away;
    opened = result(::open(resolved.c_str(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode));
  } else {
    opened = result(::open(resolved.c_str(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  }
  if (opened < 0) return opened;
  int kernel = static_cast<int>(opened);
  struct stat status;
  if (::fstat(kernel, &status) != 0) {
    long failed = -last_error();
    ::close(kernel);
    return failed;
  }
  open_kind kind = descriptors::kind_of(status);
  if (kind == open_kind::file && (flags & O_NONBLOCK) == 0) ::fcntl(kernel, F_SETFL, flags & ~O_NONBLOCK);
  long fd = descriptors::open_as(kind, kernel, flags, std::move(resolved));
  if (fd >= 0) descriptors::find(static_cast<int>(fd))->directory = S_ISDIR(status.st_mode);
  return fd;
}

inline long open(const char* path, int flags, mode_t mode) {
  safe_point();
  return open_kernel(path, flags, mode);
}

inline long close(int fd) {
  safe_point();
  return descriptors::close(fd);
}

inline long read(int fd, void* into, std::size_t bytes) {
  safe_point();
  open_file* from = descriptors::find(fd);
  if (is_shared(from)) return shared_read(fd, into, bytes);
  if (is_home_pipe(from)) return read_home_pipe(*from, into, bytes);
  if (is_stream(from)) 
    return from->stream == 0 ? unless_interrupted([&] { return stream_read(into, bytes); }) : -EBADF;
  return when_ready(fd, EPOLLIN, [&](open_file& file) { return make_present(into, bytes), ::read(file.kernel, into, bytes); });
}

inline long readv(int fd, const iovec* parts, int count) {
  safe_point();
  open_file* from = descriptors::find(fd);
  if (is_shared(from) || is_home_pipe(from) || is_stream(from))
    return read_parts(parts, count, [&](void* into, std::size_t bytes) { return read(fd, into, bytes); });
  return when_ready(fd, EPOLLIN, [&](open_file& file) { return make_present(parts, count), ::readv(file.kernel, parts, count); });
}

inline long pread(int fd, void* into, std::size_t bytes, off_t at) {
  safe_point();
  return when_ready(fd, EPOLLIN, [&](open_file& file) { return make_present(into, bytes), ::pread(file.kernel, into, bytes, at); });
}

inline long told(long done) {
  // Who writes where nobody will read gets SIGPIPE too, with its handler run before the error is returned.
  if (done == -EPIPE && in_task()) {
    signal_info broken;
    broken.number = SIGPIPE;
    broken.code = SI_KERNEL;
    post_to_self(broken);
    safe_point();
  }
  return done;
}

inline long write_silently(int fd, const void* from, std::size_t bytes) {
  // Into a pipe all of it, unless a signal or O_NONBLOCK ends it (pipe(7)).
  open_file* into = descriptors::find(fd);
  if (is_shared(into)) return shared_write(fd, from, bytes);
  if (is_home_pipe(into)) return write_home_pipe(fd, from, bytes);
  if (is_stream(into)) return into->stream != 0 ? stream_write(into->stream, from, bytes) : -EBADF;
  std::size_t done = 0;
  for (;;) {
    open_file* file = nullptr;
    long wrote = when_ready(fd, EPOLLOUT, [&](open_file& to) {
      file = &to;
      make_present(static_cast<const char*>(from) + done, bytes - done);
      return ::write(to.kernel, static_cast<const char*>(from) + done, bytes - done);
    });
    if (wrote < 0) return done > 0 ? static_cast<long>(done) : wrote;
    done += static_cast<std::size_t>(wrote);
    if (done == bytes || !may_wait(*file)) return static_cast<long>(done);
  }
}

inline long write(int fd, const void* from, std::size_t bytes) {
  safe_point();
  return told(write_silently(fd, from, bytes));
}

inline long writev(int fd, const iovec* parts, int count) {
  safe_point();
  open_file* file = descriptors::find(fd);
  if (file == nullptr) return -EBADF;
  if (count < 0 || count > IOV_MAX) return -EINVAL;
  if (file->kind == open_kind::file && !is_shared(file))
    return told(when_ready(fd, EPOLLOUT, [&](open_file& to) { return make_present(parts, count), ::writev(to.kernel, parts, count); }));
  std::string whole; // in one piece: up to PIPE_BUF bytes stay together, and an offset is asked for once
  for (int i = 0; i < count; ++i) whole.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
  return write(fd, whole.data(), whole.size());
}

inline long pwrite(int fd, const void* from, std::size_t bytes, off_t at) {
  safe_point();
  return when_ready(fd, EPOLLOUT, [&](open_file& file) { return make_present(from, bytes), ::pwrite(file.kernel, from, bytes, at); });
}

inline long lseek(int fd, off_t to, int whence) {
  safe_point();
  if (is_shared(descriptors::find(fd))) return shared_seek(fd, to, whence);
  return when_ready(fd, 0, [&](open_file& file) { return ::lseek(file.kernel, to, whence); });
}

template <class Call> long with_file(int fd, Call&& call) {
  safe_point();
  open_file* file = descriptors::find(fd);
  if (file == nullptr) return -EBADF;
  if (file->kernel < 0) return -EINVAL;
  return result(call(file->kernel));
}

inline long ftruncate(int fd, off_t size) {
  return with_file(fd, [&](int kernel) { return ::ftruncate(kernel, size); });
}
inline long fsync(int fd) {
  return with_file(fd, [&](int kernel) { return ::fsync(kernel); });
}
inline long fdatasync(int fd) {
  return with_file(fd, [&](int kernel) { return ::fdatasync(kernel); });
}
inline long fstat(int fd, struct stat* into) {
  safe_point();
  if (is_home_pipe(descriptors::find(fd))) {
    *into = {};
    into->st_mode = (descriptors::find(fd)->other.key ? S_IFSOCK : S_IFIFO) | 0600;
    into->st_blksize = PIPE_BUF;
    into->st_nlink = 1;
    return 0;
  }
  return with_file(fd, [&](int kernel) { return ::fstat(kernel, into); });
}
inline long fchmod(int fd, mode_t mode) {
  return with_file(fd, [&](int kernel) { return ::fchmod(kernel, mode); });
}
inline long fchown(int fd, uid_t user, gid_t group) {
  return with_file(fd, [&](int kernel) { return ::fchown(kernel, user, group); });
}
inline long futimens(int fd, const timespec* times) {
  return with_file(fd, [&](int kernel) { return ::futimens(kernel, times); });
}

inline long isatty(int fd) {
  safe_point();
  open_file* file = descriptors::find(fd);
  if (file == nullptr) return -EBADF;
  if (is_stream(file)) return (my_surroundings().terminals >> file->stream & 1u) != 0 ? 1 : -ENOTTY; // home's
  return file->kernel >= 0 && ::isatty(file->kernel) == 1 ? 1 : -ENOTTY;
}

// --- descriptors -------------------------------------------------------------------------------------

inline long dup(int fd) {
  safe_point();
  return descriptors::duplicate(fd, 0, false);
}
inline long dup2(int fd, int onto) {
  safe_point();
  return descriptors::duplicate_over(fd, onto, false);
}
inline long dup3(int fd, int onto, int flags) {
  safe_point();
  if (fd == onto || (flags & ~O_CLOEXEC) != 0) return -EINVAL;
  return descriptors::duplicate_over(fd, onto, flags != 0);
}

inline long get_flags(const open_file& file) {
  if (file.kind != open_kind::file) return file.flags; // the kernel's O_NONBLOCK is the library's
  return result(::fcntl(file.kernel, F_GETFL));
}

inline long set_flags(open_file& file, int flags) {
  constexpr int changeable = O_APPEND | O_NONBLOCK | O_NOATIME;
  if (file.kind == open_kind::file)
    if (::fcntl(file.kernel, F_SETFL, flags) != 0) return -last_error();
  file.flags = (file.flags & ~changeable) | (flags & changeable);
  return 0;
}
// O_NONBLOCK of a pipe's end is each task's own, where POSIX shares it with whoever inherited the description.

// --- locks -------------------------------------------------------------------------------------------

template <class Try> long retry_until_locked(Try&& attempt) {
  // The kernel tells nobody when a lock is given up, and a worker must not wait for it: look again, ever more rarely.
  // Deadlocks are not found.
  auto pause = std::chrono::microseconds(50);
  for (;;) {
    long done = attempt();
    if (done != -EAGAIN && done != -EACCES) return done;
    if (interrupted()) return -EINTR;
    park_until(task_now() + pause);
    pause = std::min(pause * 2, std::chrono::microseconds(10'000));
  }
}

inline long lock_holder(int fd, open_file*& holder) {
  // A process's record locks are not those of a description (fcntl(2)): they are its own, whichever descriptor it used,
  // and no child's. So a description that nobody else has holds them: the kernel's lock on a description goes where
  // the description goes, without a moment in which another could take it.
  open_file* file = descriptors::find(fd);
  if (file == nullptr || file->kernel < 0) return -EBADF;
  struct stat status;
  if (::fstat(file->kernel, &status) != 0) return -last_error();
  file_table& mine = descriptors::table();
  holder = descriptors::find_locks(mine, status);
  int access = file->flags & O_ACCMODE;
  if (holder != nullptr) return access == O_RDONLY || (holder->flags & O_ACCMODE) == O_RDWR ? 0 : -EBADF;
  std::string self_path = "/proc/self/fd/" + std::to_string(file->kernel);
  int kernel = ::open(self_path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
  int flags = O_RDWR;
  if (kernel < 0) kernel = ::open(self_path.c_str(), (flags = access) | O_CLOEXEC | O_NONBLOCK);
  if (kernel < 0) return -last_error();
  holder = &descriptors::add_file(mine, open_kind::locks, kernel, flags, file->path);
  holder->references = 1;
  holder->locked = true;
  holder->device = status.st_dev;
  holder->inode = status.st_ino;
  ++mine.lock_files;
  return 0;
}

inline long record_lock(int fd, int command, struct flock& what) {
  open_file* file = descriptors::find(fd);
  if (file == nullptr) return -EBADF;
  if (what.l_whence == SEEK_CUR) { // of the descriptor's offset, not of the one that holds the locks
    off_t at = ::lseek(file->kernel, 0, SEEK_CUR);
    if (at < 0) return -last_error();
    what.l_start += at;
    what.l_whence = SEEK_SET;
  }
  int access = file->flags & O_ACCMODE;
  if (command != F_GETLK && ((what.l_type == F_WRLCK && access == O_RDONLY) || (what.l_type == F_RDLCK && access == O_WRONLY)))
    return -EBADF;
  what.l_pid = 0;
  open_file* holder = nullptr;
  if (long failed = lock_holder(fd, holder); failed < 0) return failed;
  long done = result(::fcntl(holder->kernel, command == F_GETLK ? F_OFD_GETLK : F_OFD_SETLK, &what));
  if (done == 0 && command != F_GETLK && what.l_type == F_UNLCK) {
    // With the last lock goes what held it: it is known to be the last when nobody has any.
    struct flock any {};
    any.l_type = F_WRLCK;
    bool whole = what.l_whence == SEEK_SET && what.l_start == 0 && what.l_len == 0;
    if (whole || (::fcntl(file->kernel, F_OFD_GETLK, &any) == 0 && any.l_type == F_UNLCK))
      descriptors::drop(descriptors::table(), *holder);
  }
  return done;
}
// F_GETLK says -1 for the holder: the kernel knows only its description.

inline long fcntl(int fd, int command, std::uintptr_t argument) {
  safe_point();
  descriptor_slot* slot = descriptors::find_slot(fd);
  if (slot == nullptr) return -EBADF;
  switch (command) {
  case F_DUPFD: return descriptors::duplicate(fd, argument, false);
  case F_DUPFD_CLOEXEC: return descriptors::duplicate(fd, argument, true);
  case F_GETFD: return slot->close_on_exec ? FD_CLOEXEC : 0;
  case F_SETFD: slot->close_on_exec = (argument & FD_CLOEXEC) != 0; return 0;
  case F_GETFL: return get_flags(*slot->file);
  case F_SETFL: return set_flags(*slot->file, static_cast<int>(argument));
  case F_GETLK:
  case F_SETLK: return record_lock(fd, command, *reinterpret_cast<struct flock*>(argument));
  case F_SETLKW:
    return retry_until_locked([&] { return record_lock(fd, F_SETLK, *reinterpret_cast<struct flock*>(argument)); });
  default: return -EINVAL;
  }
}

inline long flock(int fd, int operation) {
  safe_point();
  auto attempt = [&]() -> long {
    open_file* file = descriptors::find(fd);
    if (file == nullptr || file->kernel < 0) return -EBADF;
    long done = result(::flock(file->kernel, operation | LOCK_NB));
    if (done == 0) file->locked = (operation & LOCK_UN) == 0;
    return done;
  };
  return (operation & LOCK_NB) != 0 ? attempt() : retry_until_locked(attempt);
}

// --- other things with descriptors -------------------------------------------------------------------

inline long pipe(int ends[2], int flags) {
  safe_point();
  if ((flags & ~(O_CLOEXEC | O_NONBLOCK)) != 0) return -EINVAL;
  int kernel[2] = {-1, -1};
  bool at_home = the_files->pipes_at_home;
  if (!at_home && ::pipe2(kernel, O_CLOEXEC | O_NONBLOCK) != 0) return -last_error();
  open_kind kind = at_home ? open_kind::home_pipe : open_kind::pipe;
  shared_key key{self().id.bits(), at_home ? ++descriptors::table().sharings : 0};
  long in = descriptors::open_as(kind, kernel[0], O_RDONLY | flags, "a pipe");
  if (in < 0) {
    if (kernel[1] >= 0) ::close(kernel[1]);
    return in;
  }
  descriptors::find(static_cast<int>(in))->end = {key, false, 0};
  long out = descriptors::open_as(kind, kernel[1], O_WRONLY | flags, "a pipe");
  if (out < 0) {
    descriptors::close(static_cast<int>(in));
    return out;
  }
  descriptors::find(static_cast<int>(out))->end = {key, true, 0};
  ends[0] = static_cast<int>(in);
  ends[1] = static_cast<int>(out);
  return 0;
}

inline long socket_pair(int ends[2], int flags) {
  // As two pipes between machines, or a pair of the kernel's.
  safe_point();
  bool at_home = the_files->pipes_at_home;
  int kernel[2] = {-1, -1};
  if (!at_home && ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, kernel) != 0)
    return -last_error();
  open_kind kind = at_home ? open_kind::home_pipe : open_kind::pipe;
  std::uint64_t me = self().id.bits();
  shared_key there{me, at_home ? ++descriptors::table().sharings : 0};
  shared_key back{me, at_home ? ++descriptors::table().sharings : 0};
  long made[2] = {-1, -1};
  for (int i = 0; i < 2; ++i) {
    made[i] = descriptors::open_as(kind, kernel[i], O_RDWR | flags, "one of a pair of sockets");
    if (made[i] < 0) {
      if (i == 1) descriptors::close(static_cast<int>(made[0]));
      else if (kernel[1] >= 0) ::close(kernel[1]);
      return made[i];
    }
    open_file& file = *descriptors::find(static_cast<int>(made[i]));
    file.end = {i == 0 ? there : back, false, 0};
    if (at_home) file.other = {i == 0 ? back : there, true, 0};
    ends[i] = static_cast<int>(made[i]);
  }
  return 0;
}

inline long adopt(int kernel, const char* name) {
  safe_point();
  int flags = ::fcntl(kernel, F_GETFL);
  return flags < 0 ? -last_error() : descriptors::open_as(open_kind::foreign, kernel, flags, name);
}

} // namespace migrate::detail::files
