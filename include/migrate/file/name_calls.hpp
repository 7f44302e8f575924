// The name space of files, as the running task sees it: one for all nodes.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/file/file_calls.hpp>
#include <migrate/file/path.hpp>
#include <migrate/task/presence.hpp>

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
  return with_path(path, [&](const char* at) { return make_present(into, bytes), ::readlink(at, into, bytes); });
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
inline long mknod(const char* path, mode_t mode) {
  // What belongs to one machine would be another thing on the next.
  if ((mode & S_IFMT) != S_IFREG && (mode & S_IFMT) != S_IFIFO && (mode & S_IFMT) != 0) return -ENOTSUP;
  return with_path(path, [&](const char* at) {
    creation_mask taken_away;
    return ::mknod(at, mode, 0);
  });
}
inline long rmdir(const char* path) { return with_path(path, ::rmdir); }
inline long chmod(const char* path, mode_t mode) {
  return with_path(path, [&](const char* at) { return ::chmod(at, mode); });
}
inline long chown(const char* path, uid_t user, gid_t group) {
  return with_path(path, [&](const char* at) { return ::chown(at, user, group); });
}
inline long lchown(const char* path, uid_t user, gid_t group) {
  return with_path(path, [&](const char* at) { return ::lchown(at, user, group); });
}
inline long truncate(const char* path, off_t size) {
  return with_path(path, [&](const char* at) { return ::truncate(at, size); });
}
inline long utimens(const char* path, const timespec* times, int flags) {
  return with_path(path, [&](const char* at) { return ::utimensat(AT_FDCWD, at, times, flags); });
}

[[gnu::noinline]] inline long list_here(const char* path, std::vector<dirent>& into) {
  DIR* open = ::opendir(path);
  if (open == nullptr) return -last_error();
  into.clear();
  errno = 0;
  for (dirent* each; (each = ::readdir(open)) != nullptr;) into.push_back(*each);
  long failed = errno != 0 ? -errno : 0;
  ::closedir(open);
  return failed;
}
inline long list(const char* path, std::vector<dirent>& into) {
  safe_point();
  return list_here(path, into);
}
// Of an absolute path; all at once, as an open directory cannot move.

} // namespace migrate::detail::files
