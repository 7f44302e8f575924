// What a path, and the permissions asked for a new file, mean to the running task.
#pragma once

#include <string>
#include <string_view>

#include <sys/stat.h>
#include <sys/types.h>

#include <migrate/file/surroundings.hpp>

namespace migrate::detail {

inline std::string resolve(std::string_view path) {
  if (path.empty() || path.front() == '/') return std::string(path);
  std::string whole = my_surroundings().directory;
  if (whole.back() != '/') whole += '/';
  return whole.append(path);
}
// Absolute, against the task's working directory; an empty path stays empty, so that the kernel refuses it. Throws as
// my_surroundings() does.

class creation_mask {
public:
  creation_mask() : before_(::umask(my_surroundings().mask)) {}
  ~creation_mask() { ::umask(before_); }
  creation_mask(const creation_mask&) = delete;
  creation_mask& operator=(const creation_mask&) = delete;

private:
  mode_t before_;
};
// While it lives the kernel takes the task's umask away from what it creates for this thread: around open, mkdir and
// the like, where the task must not move. Each worker has a umask of its own (see scheduler::start).

inline mode_t permissions(mode_t wanted) { return wanted & ~my_surroundings().mask; }
// What creation_mask leaves of them.

} // namespace migrate::detail
