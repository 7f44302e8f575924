#include "jobserver.hpp"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
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
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
    if (taker_.joinable()) put(1); // it may be reading
  }
  owes_.notify_all();
  if (taker_.joinable()) taker_.join();
  if (write_ != read_) ::close(write_);
  ::close(read_);
  if (!path_.empty()) ::unlink(path_.c_str());
}

std::string jobserver::flag() const {
  return "--jobserver-auth=" +
         (kind_ == kind::fifo ? "fifo:" + path_ : std::to_string(read_) + "," + std::to_string(write_));
}

void jobserver::put(unsigned tokens) {
  for (; tokens > 0; --tokens)
    while (::write(write_, "+", 1) < 0 && errno == EINTR) {
    }
}

void jobserver::set(unsigned at_once) {
  std::lock_guard lock(mutex_);
  unsigned wanted = std::max(1u, at_once) - 1, will_be = tokens_ - owed_;
  if (wanted < will_be) {
    owed_ += will_be - wanted;
    if (!taker_.joinable()) taker_ = std::thread([this] { take_back(); });
    owes_.notify_all();
    return;
  }
  unsigned kept = std::min(owed_, wanted - will_be);
  owed_ -= kept;
  put(wanted - will_be - kept);
  tokens_ += wanted - will_be - kept;
}

void jobserver::take_back() {
  std::unique_lock lock(mutex_);
  for (;;) {
    owes_.wait(lock, [this] { return owed_ > 0 || ending_; });
    if (ending_) return;
    lock.unlock();
    char token;
    bool got = ::read(read_, &token, 1) == 1;
    lock.lock();
    if (!got || ending_) continue;
    if (owed_ > 0) {
      --owed_;
      --tokens_;
    } else {
      put(1); // it is wanted again
    }
  }
}

} // namespace pmake
