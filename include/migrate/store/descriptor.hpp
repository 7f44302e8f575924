// File descriptors, and what the operating system's errors mean for a store.
#pragma once

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <migrate/error.hpp>

namespace migrate::detail {

class descriptor {
public:
  descriptor() noexcept = default;
  explicit descriptor(int fd) noexcept : fd_(fd) {}
  descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    if (this != &other) {
      close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~descriptor() { close(); }

  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  int release() noexcept { return std::exchange(fd_, -1); }

  int close() noexcept {
    if (fd_ < 0) return 0;
    return ::close(std::exchange(fd_, -1)) == 0 || errno == EINTR ? 0 : errno;
  }
  // 0, or the errno of a write that failed late, as network file systems and quotas report it.

private:
  int fd_ = -1;
};

inline std::string system_message(int number) { return std::generic_category().message(number); }

inline errc store_error_code(int number) noexcept {
  switch (number) {
  case ENOSPC:
  case EDQUOT:
  case EFBIG: return errc::store_full;
  case EROFS:
  case EACCES:
  case EPERM: return errc::store_read_only;
  case ENOENT:
  case ENOTDIR:
  case ESTALE:
  case ENODEV: return errc::store_missing;
  default: return errc::store_io;
  }
}

inline const char* store_remedy(errc code) noexcept {
  switch (code) {
  case errc::store_full: return "free space there, or raise the quota or the file size limit";
  case errc::store_read_only: return "mount it writable and let this process's user write there";
  case errc::store_missing: return "make the store, or mount the file system that it lies on";
  default: return "look at the kernel's log and at the file system's health";
  }
}

[[noreturn]] inline void throw_store_error(int number, const std::string& asked, const std::string& path) {
  errc code = store_error_code(number);
  throw error(code,
              "cannot " + asked + ": " + path + ": " + system_message(number) + "; " + store_remedy(code));
}
// Throws the errc that fits an errno; the message is "cannot <asked>: <path>: <reason>; <remedy>".

} // namespace migrate::detail
