// The name space of files, as the running task sees it: one for all nodes.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/file/file_calls.hpp>
#include <migrate/file/path.hpp>

namespace migrate::detail::files {

// Each is one call of the kernel where the task is, on the path that the task's working directory makes of it.

template <class Call> long with_path(const char* path, Call&& call) {
  safe_point();
  return result(call(resolve(path).c_str()));
}
template <class Call> long with_paths(const char* first, const char* second, Call&& call) {
  safe_point();
  return result(call(resolve(first).c_str(), resolve(second).c_str()));
}

inline long stat(const char* path, struct stat* into) {
  return with_path(path, [&](const char* at) { return ::stat(at, into); });
}
inline long lstat(const char* path, struct stat* into) {
  return with_path(path, [&](const char* at) { return ::lstat(at, into); });
}
inline long access(const char* path, int mode) {
  return with_path(path, [&](const char* at) { return ::access(at, mode); });
}
inline long link(const char* from, const char* to) { return with_paths(from, to, ::link); }
inline long symlink(const char* target, const char* path) {
  // The target stays as it is written: whoever follows the link resolves it.
  return with_path(path, [&](const char* at) { return ::symlink(target, at); });
}
inline long readlink(const char* path, char* into, std::size_t bytes) {
  return with_path(path, [&](const char* at) { return ::readlink(at, into, bytes); });
}
inline long unlink(const char* path) { return with_path(path, ::unlink); }
inline long rename(const char* from, const char* to) { return with_paths(from, to, ::rename); }
inline long mkdir(const char* path, mode_t mode) {
  return with_path(path, [&](const char* at) {
    creation_mask taken_away;
    return ::mkdir(at, mode);
  });
}
inline long mkfifo(const char* path, mode_t mode) {
  return with_path(path, [&](const char* at) {
    creation_mask taken_away;
    return ::mkfifo(at, mode);
  });
}
inline long rmdir(const char* path) { return with_path(path, ::rmdir); }
inline long chmod(const char* path, mode_t mode) {
  return with_path(path, [&](const char* at) { return ::chmod(at, mode); });
}
inline long truncate(const char* path, off_t size) {
  return with_path(path, [&](const char* at) { return ::truncate(at, size); });
}
inline long utimens(const char* path, const timespec* times, int flags) {
  return with_path(path, [&](const char* at) { return ::utimensat(AT_FDCWD, at, times, flags); });
}

} // namespace migrate::detail::files
