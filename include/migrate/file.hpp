// Files in C++ dress. migrate::posix has the same calls by the manual pages' names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <migrate/error.hpp>
#include <migrate/file/file_calls.hpp>
#include <migrate/file/name_calls.hpp>

namespace migrate {

namespace detail {

template <class Call> long checked(std::error_code& code, Call&& call) {
  code.clear();
  if (!files::in_task()) {
    code = make_error_code(errc::not_in_task);
    return -1;
  }
  long got = call();
  if (got < 0) code.assign(static_cast<int>(-got), std::generic_category());
  return got;
}

template <class Call> long checked(const char* what, const std::string& name, Call&& call) {
  std::error_code code;
  long got = checked(code, call);
  if (code) throw error(code, std::string(what) + " " + name + ": " + code.message());
  return got;
}

} // namespace detail

class file {
  // An open file of the running task, closed when the object goes. Thread safety: none; it is its task's.

public:
  file() noexcept = default;
  explicit file(int descriptor) noexcept : descriptor_(descriptor) {}
  // Takes over a descriptor of migrate::posix.

  explicit file(const std::filesystem::path& path, int flags = O_RDONLY, mode_t mode = 0666)
      : descriptor_(static_cast<int>(detail::checked(
            "opening", path.native(), [&] { return detail::files::open(path.c_str(), flags | O_CLOEXEC, mode); }))) {}
  file(const std::filesystem::path& path, int flags, std::error_code& code) : file(path, flags, 0666, code) {}
  file(const std::filesystem::path& path, int flags, mode_t mode, std::error_code& code)
      : descriptor_(static_cast<int>(
            detail::checked(code, [&] { return detail::files::open(path.c_str(), flags | O_CLOEXEC, mode); }))) {}
  // Flags of open(2). No child inherits it. Throws migrate::error with the operating system's code, or
  // errc::not_in_task; or stores it in `code` and holds no file.

  file(file&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  file& operator=(file&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~file() {
    std::error_code ignored;
    if (descriptor_ >= 0) close(ignored);
  }

  explicit operator bool() const noexcept { return descriptor_ >= 0; }
  int descriptor() const noexcept { return descriptor_; }
  int release() noexcept { return std::exchange(descriptor_, -1); }

  std::size_t read(std::span<std::byte> into, std::error_code& code) {
    return with(code, [&] { return detail::files::read(descriptor_, into.data(), into.size()); });
  }
  std::size_t read(std::span<std::byte> into) {
    return with("reading", [&] { return detail::files::read(descriptor_, into.data(), into.size()); });
  }
  // At most so much; zero at the end of the file.

  std::size_t read_at(std::uint64_t offset, std::span<std::byte> into, std::error_code& code) {
    return with(code, [&] { return read_from(offset, into); });
  }
  std::size_t read_at(std::uint64_t offset, std::span<std::byte> into) {
    return with("reading", [&] { return read_from(offset, into); });
  }

  std::size_t write(std::span<const std::byte> from, std::error_code& code) {
    return with(code, [&] { return detail::files::write(descriptor_, from.data(), from.size()); });
  }
  std::size_t write(std::span<const std::byte> from) {
    return with("writing", [&] { return detail::files::write(descriptor_, from.data(), from.size()); });
  }
  std::size_t write(std::string_view text, std::error_code& code) { return write(std::as_bytes(std::span(text)), code); }
  std::size_t write(std::string_view text) { return write(std::as_bytes(std::span(text))); }
  // How much was written: all of it, unless the device is full or a signal came between.

  std::size_t write_at(std::uint64_t offset, std::span<const std::byte> from, std::error_code& code) {
    return with(code, [&] { return write_to(offset, from); });
  }
  std::size_t write_at(std::uint64_t offset, std::span<const std::byte> from) {
    return with("writing", [&] { return write_to(offset, from); });
  }

  std::uint64_t seek(std::int64_t offset, int whence, std::error_code& code) {
    return with(code, [&] { return detail::files::lseek(descriptor_, offset, whence); });
  }
  std::uint64_t seek(std::int64_t offset, int whence = SEEK_SET) {
    return with("seeking in", [&] { return detail::files::lseek(descriptor_, offset, whence); });
  }
  std::uint64_t tell(std::error_code& code) { return seek(0, SEEK_CUR, code); }
  std::uint64_t tell() { return seek(0, SEEK_CUR); }

  std::uint64_t bytes(std::error_code& code) {
    return with(code, [&] { return size_of(); });
  }
  std::uint64_t bytes() {
    return with("looking at", [&] { return size_of(); });
  }
  void resize(std::uint64_t bytes, std::error_code& code) {
    with(code, [&] { return detail::files::ftruncate(descriptor_, static_cast<off_t>(bytes)); });
  }
  void resize(std::uint64_t bytes) {
    with("resizing", [&] { return detail::files::ftruncate(descriptor_, static_cast<off_t>(bytes)); });
  }
  void sync(std::error_code& code) {
    with(code, [&] { return detail::files::fsync(descriptor_); });
  }
  void sync() {
    with("writing back", [&] { return detail::files::fsync(descriptor_); });
  }

  file duplicate(std::error_code& code) const {
    return file(static_cast<int>(detail::checked(code, [&] { return copy(); })));
  }
  file duplicate() const {
    return file(static_cast<int>(detail::checked("duplicating", name(), [&] { return copy(); })));
  }
  // Another descriptor with the same offset, which no child inherits either.

  void lock(std::error_code& code) {
    with(code, [&] { return detail::files::flock(descriptor_, LOCK_EX); });
  }
  void lock() {
    with("locking", [&] { return detail::files::flock(descriptor_, LOCK_EX); });
  }
  bool try_lock(std::error_code& code) {
    with(code, [&] { return detail::files::flock(descriptor_, LOCK_EX | LOCK_NB); });
    if (code != std::errc::resource_unavailable_try_again) return !code;
    code.clear();
    return false;
  }
  bool try_lock() {
    std::error_code code;
    bool locked = try_lock(code);
    if (code) throw error(code, "locking " + name() + ": " + code.message());
    return locked;
  }
  void lock_shared() {
    with("locking", [&] { return detail::files::flock(descriptor_, LOCK_SH); });
  }
  void unlock() {
    with("unlocking", [&] { return detail::files::flock(descriptor_, LOCK_UN); });
  }
  void unlock_shared() { unlock(); }
  // The whole file, as flock(2) has it, also against other programs; for std::unique_lock<migrate::file>. The lock
  // moves with the task on one machine, and refuses the move to another.

  void close(std::error_code& code) {
    int old = release();
    detail::checked(code, [&] { return detail::files::close(old); });
  }
  void close() {
    std::error_code code;
    close(code);
    if (code) throw error(code, "closing a file: " + code.message());
  }

private:
  template <class Call> std::size_t with(std::error_code& code, Call&& call) {
    long got = detail::checked(code, call);
    return got < 0 ? 0 : static_cast<std::size_t>(got);
  }
  template <class Call> std::size_t with(const char* what, Call&& call) {
    return static_cast<std::size_t>(detail::checked(what, name(), call));
  }
  long read_from(std::uint64_t offset, std::span<std::byte> into) const {
    return detail::files::pread(descriptor_, into.data(), into.size(), static_cast<off_t>(offset));
  }
  long write_to(std::uint64_t offset, std::span<const std::byte> from) const {
    return detail::files::pwrite(descriptor_, from.data(), from.size(), static_cast<off_t>(offset));
  }
  long size_of() const {
    struct ::stat status;
    long failed = detail::files::fstat(descriptor_, &status);
    return failed < 0 ? failed : static_cast<long>(status.st_size);
  }
  long copy() const { return detail::files::fcntl(descriptor_, F_DUPFD_CLOEXEC, 0); }
  std::string name() const { return "descriptor " + std::to_string(descriptor_); }

  int descriptor_ = -1;
};

inline int adopt(int kernel_descriptor, const std::string& name, std::error_code& code) {
  return static_cast<int>(detail::checked(code, [&] { return detail::files::adopt(kernel_descriptor, name.c_str()); }));
}
inline int adopt(int kernel_descriptor, const std::string& name) {
  return static_cast<int>(detail::checked("adopting", name, [&] {
    return detail::files::adopt(kernel_descriptor, name.c_str());
  }));
}
// Makes a descriptor of this process, such as a socket, one of the running task's, which closes it. As long as the task
// has it open it cannot move: a move is refused with errc::not_movable and the name.

struct pipe_ends {
  file in;  // to read from
  file out; // to write to
};

inline pipe_ends make_pipe(std::error_code& code) {
  int ends[2] = {-1, -1};
  detail::checked(code, [&] { return detail::files::pipe(ends, 0); });
  return {file(ends[0]), file(ends[1])};
}
inline pipe_ends make_pipe() {
  int ends[2] = {-1, -1};
  detail::checked("making", "a pipe", [&] { return detail::files::pipe(ends, 0); });
  return {file(ends[0]), file(ends[1])};
}
// Unlike files opened by path, both ends are inherited by children.

struct file_pair {
  file one, other;
};

inline file_pair make_socket_pair(std::error_code& code) {
  int ends[2] = {-1, -1};
  detail::checked(code, [&] { return detail::files::socket_pair(ends, 0); });
  return {file(ends[0]), file(ends[1])};
}
inline file_pair make_socket_pair() {
  int ends[2] = {-1, -1};
  detail::checked("making", "a pair of sockets", [&] { return detail::files::socket_pair(ends, 0); });
  return {file(ends[0]), file(ends[1])};
}
// What is written to one is read from the other, both ways. Inherited by children, and moves, as a pipe does.

} // namespace migrate
