// SIGINT, SIGTERM and SIGHUP, which end a build in order.
#pragma once

#include <csignal>

#include <poll.h>
#include <time.h>

namespace pmake {

class interruption {
public:
  interruption();
  ~interruption();
  interruption(const interruption&) = delete;
  interruption& operator=(const interruption&) = delete;
  // Only one at a time. The signals are blocked in this thread except while it waits.

  int signal() const noexcept;
  // The last that came, or 0.
  void look() noexcept;
  // Takes what is pending.
  void forget() noexcept;

  int poll(pollfd* what, nfds_t count, const timespec* limit) noexcept;
  // As ppoll(2): -1 and EINTR when one of the signals came.
  const sigset_t& outer_mask() const noexcept { return outer_; }
  // For the programs that are started.

private:
  sigset_t outer_;
  struct sigaction before_[3];
};

} // namespace pmake
