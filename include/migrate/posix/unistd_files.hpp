// Of unistd.h, for tasks: what has to do with files and pipes.
#pragma once

#include <cstddef>

#include <sys/types.h>
#include <unistd.h>

#include <migrate/file/file_calls.hpp>
#include <migrate/file/name_calls.hpp>
#include <migrate/posix/errors.hpp>

namespace migrate::posix {

namespace calls = migrate::detail::files;

inline int close(int fd) {
  return detail::posix_call([&] { return calls::close(fd); });
}
inline ssize_t read(int fd, void* into, std::size_t bytes) {
  return detail::posix_call<ssize_t>([&] { return calls::read(fd, into, bytes); });
}
inline ssize_t write(int fd, const void* from, std::size_t bytes) {
  return detail::posix_call<ssize_t>([&] { return calls::write(fd, from, bytes); });
}
inline ssize_t pread(int fd, void* into, std::size_t bytes, off_t at) {
  return detail::posix_call<ssize_t>([&] { return calls::pread(fd, into, bytes, at); });
}
inline ssize_t pwrite(int fd, const void* from, std::size_t bytes, off_t at) {
  return detail::posix_call<ssize_t>([&] { return calls::pwrite(fd, from, bytes, at); });
}
inline off_t lseek(int fd, off_t to, int whence) {
  return detail::posix_call<off_t>([&] { return calls::lseek(fd, to, whence); });
}
inline int ftruncate(int fd, off_t size) {
  return detail::posix_call([&] { return calls::ftruncate(fd, size); });
}
inline int fsync(int fd) {
  return detail::posix_call([&] { return calls::fsync(fd); });
}
inline int fdatasync(int fd) {
  return detail::posix_call([&] { return calls::fdatasync(fd); });
}
inline int dup(int fd) {
  return detail::posix_call([&] { return calls::dup(fd); });
}
inline int dup2(int fd, int onto) {
  return detail::posix_call([&] { return calls::dup2(fd, onto); });
}
inline int dup3(int fd, int onto, int flags) {
  return detail::posix_call([&] { return calls::dup3(fd, onto, flags); });
}
inline int pipe2(int ends[2], int flags) {
  return detail::posix_call([&] { return calls::pipe(ends, flags); });
}
inline int pipe(int ends[2]) { return pipe2(ends, 0); }
inline int isatty(int fd) {
  int answer = detail::posix_call([&] { return calls::isatty(fd); });
  return answer == 1 ? 1 : 0;
}

inline int access(const char* path, int mode) {
  return detail::posix_call([&] { return calls::access(path, mode); });
}
inline int link(const char* from, const char* to) {
  return detail::posix_call([&] { return calls::link(from, to); });
}
inline int symlink(const char* target, const char* path) {
  return detail::posix_call([&] { return calls::symlink(target, path); });
}
inline ssize_t readlink(const char* path, char* into, std::size_t bytes) {
  return detail::posix_call<ssize_t>([&] { return calls::readlink(path, into, bytes); });
}
inline int unlink(const char* path) {
  return detail::posix_call([&] { return calls::unlink(path); });
}
inline int rmdir(const char* path) {
  return detail::posix_call([&] { return calls::rmdir(path); });
}
inline int chown(const char* path, uid_t user, gid_t group) {
  return detail::posix_call([&] { return calls::chown(path, user, group); });
}
inline int lchown(const char* path, uid_t user, gid_t group) {
  return detail::posix_call([&] { return calls::lchown(path, user, group); });
}
inline int fchown(int fd, uid_t user, gid_t group) {
  return detail::posix_call([&] { return calls::fchown(fd, user, group); });
}
inline int truncate(const char* path, off_t size) {
  return detail::posix_call([&] { return calls::truncate(path, size); });
}
inline int rename(const char* from, const char* to) {
  return detail::posix_call([&] { return calls::rename(from, to); });
}
// Of stdio.h.

} // namespace migrate::posix
