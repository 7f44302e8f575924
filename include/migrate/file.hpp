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
    return size(detail::checked(code, [&] { return detail::files::read(descriptor_, into.data(), into.size()); }));
  }
  std::size_t read(std::span<std::byte> into) {
    return size(detail::checked("reading", name(), [&] { return detail::files::read(descriptor_, into.data(), into.size()); }));
  }
  // At most so much; zero at the end of the file.

  std::size_t read_at(std::uint64_t offset, std::span<std::byte> into) {
    return size(detail::checked("reading", name(), [&] {
      return detail::files::pread(descriptor_, into.data(), into.size(), static_cast<off_t>(offset));
    }));
  }

  std::size_t write(std::span<const std::byte> from, std::error_code& code) {
    return size(detail::checked(code, [&] { return detail::files::write(descriptor_, from.data(), from.size()); }));
  }
  std::size_t write(std::span<const std::byte> from) {
    return size(detail::checked("writing", name(), [&] { return detail::files::write(descriptor_, from.data(), from.size()); }));
  }
  std::size_t write(std::string_view text) { return write(std::as_bytes(std::span(text))); }
  // How much was written: all of it, unless the device is full or a signal came between.

  std::size_t write_at(std::uint64_t offset, std::span<const std::byte> from) {
    return size(detail::checked("writing", name(), [&] {
      return detail::files::pwrite(descriptor_, from.data(), from.size(), static_cast<off_t>(offset));
    }));
  }

  std::uint64_t seek(std::int64_t offset, int whence = SEEK_SET) {
    return size(detail::checked("seeking in", name(), [&] { return detail::files::lseek(descriptor_, offset, whence); }));
  }
  std::uint64_t tell() { return seek(0, SEEK_CUR); }
  std::uint64_t bytes() {
    struct ::stat status;
    detail::checked("looking at", name(), [&] { return detail::files::fstat(descriptor_, &status); });
    return static_cast<std::uint64_t>(status.st_size);
  }
  void resize(std::uint64_t bytes) {
    detail::checked("resizing", name(), [&] { return detail::files::ftruncate(descriptor_, static_cast<off_t>(bytes)); });
  }
  void sync() {
    detail::checked("writing back", name(), [&] { return detail::files::fsync(descriptor_); });
  }

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
  static std::size_t size(long got) noexcept { return got < 0 ? 0 : static_cast<std::size_t>(got); }
  std::string name() const { return "descriptor " + std::to_string(descriptor_); }

  int descriptor_ = -1;
};

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

inline pipe_ends make_pipe() {
  int ends[2] = {-1, -1};
  detail::checked("making", "a pipe", [&] { return detail::files::pipe(ends, 0); });
  return {file(ends[0]), file(ends[1])};
}
// Unlike files opened by path, both ends are inherited by children.

} // namespace migrate
