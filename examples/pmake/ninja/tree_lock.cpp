#include "tree_lock.hpp"

#include <cerrno>
#include <cstdlib>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pmake {

namespace {
constexpr const char* variable =
    "PMAKE_TREES"; // in which the builds above this one work: " device:inode ..."
}

tree_lock::tree_lock(const std::string& folder, const std::function<void()>& on_wait) {
  struct stat found;
  folder_ = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_ < 0 || ::fstat(folder_, &found) != 0) return;
  std::string name = " " + std::to_string(found.st_dev) + ":" + std::to_string(found.st_ino) + " ";
  const char* outer = std::getenv(variable);
  had_outer_ = outer != nullptr;
  if (had_outer_) outer_ = outer;
  if (outer_.find(name) != outer_.npos) return;
  if (::flock(folder_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return;
    on_wait();
    while (::flock(folder_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  ::setenv(variable, (outer_ + name).c_str(), 1);
  named_ = true;
}

tree_lock::~tree_lock() {
  if (named_) {
    if (had_outer_)
      ::setenv(variable, outer_.c_str(), 1);
    else
      ::unsetenv(variable);
  }
  if (folder_ >= 0) ::close(folder_);
}

} // namespace pmake
