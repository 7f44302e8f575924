#include "jobserver.hpp"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../ninja/disk.hpp"
#include "../ninja/error.hpp"

namespace pmake {

jobserver::jobserver(kind what, const std::string& folder, unsigned at_once) : kind_(what) {
  if (kind_ == kind::pipe) {
    int ends[2];
    if (::pipe(ends) != 0) throw build_error("pipe: " + reason_text(errno)); // make inherits it
    read_ = ends[0];
    write_ = ends[1];
  } else {
    path_ = folder + "/jobserver";
    if (::mkfifo(path_.c_str(), 0600) != 0) throw build_error("mkfifo(" + path_ + "): " + reason_text(errno));
    read_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    if (read_ < 0) throw build_error("open(" + path_ + "): " + reason_text(errno));
    write_ = read_;
  }
  set(at_once);
}

jobserver::~jobserver() {
  if (write_ != read_) ::close(write_);
  ::close(read_);
  if (!path_.empty()) ::unlink(path_.c_str());
}

std::string jobserver::flag() const {
  return "--jobserver-auth=" +
         (kind_ == kind::fifo ? "fifo:" + path_ : std::to_string(read_) + "," + std::to_string(write_));
}

void jobserver::set(unsigned at_once) {
  unsigned wanted = std::max(1u, at_once) - 1, will_be = tokens_ - owed_;
  if (wanted < will_be) owed_ += will_be - wanted;
  unsigned kept = wanted > will_be ? std::min(owed_, wanted - will_be) : 0;
  owed_ -= kept;
  for (will_be += kept; will_be < wanted; ++will_be, ++tokens_)
    while (::write(write_, "+", 1) < 0 && errno == EINTR) {
    }
}

void jobserver::take_back() noexcept {
  // A make may be faster than we are: who finds nothing waits for the next time.
  while (owed_ > 0) {
    pollfd what{read_, POLLIN, 0};
    char token;
    if (::poll(&what, 1, 0) <= 0 || ::read(read_, &token, 1) != 1) return;
    --owed_;
    --tokens_;
  }
}

} // namespace pmake
