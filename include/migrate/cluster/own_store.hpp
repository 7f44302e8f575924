// The folder of a cluster that was not given a store: in memory where there is such a file system, and gone with the
// cluster's first node.
#pragma once

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <migrate/store/descriptor.hpp>

namespace migrate::detail {

class own_store {
  // The node has a lock on its folder, which the kernel takes away however the node ends. So the next node of the user
  // removes what killed ones have left.

public:
  own_store() {
    std::error_code ignored;
    std::filesystem::path shared = "/dev/shm";
    if (!std::filesystem::is_directory(shared, ignored)) shared = std::filesystem::temp_directory_path(ignored);
    std::string start = "migrate-store-" + std::to_string(::geteuid()) + "-";
    sweep(shared, start);
    path_ = (shared / (start + "XXXXXX")).string();
    if (::mkdtemp(path_.data()) == nullptr)
      throw_store_error(errno, "make a store", path_);
    lock_ = descriptor(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (lock_) ::flock(lock_.get(), LOCK_EX | LOCK_NB);
  }
  ~own_store() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  own_store(const own_store&) = delete;
  own_store& operator=(const own_store&) = delete;

  const std::string& path() const noexcept { return path_; }

private:
  static bool may_be_new(int folder, const struct stat& status) noexcept {
    // Not locked yet: what is a store already was locked before.
    constexpr time_t long_ago = 3600;
    return ::faccessat(folder, "store", F_OK, 0) != 0 && ::time(nullptr) - status.st_mtim.tv_sec < long_ago;
  }

  static void sweep(const std::filesystem::path& shared, const std::string& start) {
    std::error_code ignored;
    for (std::filesystem::directory_iterator each(shared, ignored), end; !ignored && each != end;
         each.increment(ignored)) {
      std::string path = each->path().string();
      struct stat status {};
      if (!each->path().filename().native().starts_with(start)) continue;
      if (::lstat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode) || status.st_uid != ::geteuid()) continue;
      descriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      std::error_code still_used;
      if (folder && !may_be_new(folder.get(), status) && ::flock(folder.get(), LOCK_EX | LOCK_NB) == 0)
        std::filesystem::remove_all(path, still_used);
    }
  }

  std::string path_;
  descriptor lock_;
};

} // namespace migrate::detail
