// dirent.h, for tasks.
#pragma once

#include <cerrno>
#include <cstddef>
#include <string>
#include <vector>

#include <dirent.h>

#include <migrate/file/name_calls.hpp>
#include <migrate/posix/errors.hpp>

namespace migrate::posix {

class DIR {
  // A directory as it was when it was opened or rewound: a list in the task's heap, which moves with it, where an open
  // directory would be the node's.

public:
  explicit DIR(std::string path) : path_(std::move(path)) {}
  long read() {
    return migrate::detail::files::list(path_.c_str(), entries_);
  }

private:
  friend dirent* readdir(DIR*);
  friend void rewinddir(DIR*);
  friend long telldir(DIR*);
  friend void seekdir(DIR*, long);

  std::string path_; // absolute
  std::vector<::dirent> entries_;
  std::size_t next_ = 0;
};

inline DIR* opendir(const char* path) {
  DIR* made = nullptr;
  detail::posix_call([&]() -> long {
    made = new DIR(migrate::detail::resolve(path));
    long failed = made->read();
    if (failed < 0) {
      delete made;
      made = nullptr;
    }
    return failed;
  });
  return made;
}

inline ::dirent* readdir(DIR* from) { return from->next_ < from->entries_.size() ? &from->entries_[from->next_++] : nullptr; }
// What it returns stays until the directory is closed or rewound.

inline void rewinddir(DIR* from) {
  from->next_ = 0;
  detail::posix_call([&] { return from->read(); });
}
inline long telldir(DIR* from) { return static_cast<long>(from->next_); }
inline void seekdir(DIR* from, long place) { from->next_ = static_cast<std::size_t>(place); }

inline int closedir(DIR* closed) {
  delete closed;
  return 0;
}

} // namespace migrate::posix
