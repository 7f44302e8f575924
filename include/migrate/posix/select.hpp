// sys/select.h, for tasks.
#pragma once

#include <algorithm>
#include <climits>
#include <vector>

#include <sys/select.h>
#include <sys/time.h>

#include <migrate/posix/poll.hpp>

namespace migrate::posix {

inline int pselect(int count, fd_set* to_read, fd_set* to_write, fd_set* exceptional, const timespec* limit,
                   const sigset_t* mask) {
  if (count < 0 || count > FD_SETSIZE) {
    detail::set_error(EINVAL);
    return -1;
  }
  std::vector<pollfd> all;
  for (int fd = 0; fd < count; ++fd) {
    int events = (to_read != nullptr && FD_ISSET(fd, to_read) ? POLLIN : 0) |
                 (to_write != nullptr && FD_ISSET(fd, to_write) ? POLLOUT : 0) |
                 (exceptional != nullptr && FD_ISSET(fd, exceptional) ? POLLPRI : 0);
    if (events != 0) all.push_back({fd, static_cast<short>(events), 0});
  }
  int done = posix::ppoll(all.data(), all.size(), limit, mask);
  if (done < 0) return -1;
  if (std::any_of(all.begin(), all.end(), [](const pollfd& each) { return (each.revents & POLLNVAL) != 0; })) {
    detail::set_error(EBADF);
    return -1;
  }
  for (fd_set* each : {to_read, to_write, exceptional})
    if (each != nullptr) FD_ZERO(each);
  int found = 0;
  auto mark = [&](fd_set* into, int fd, bool holds) {
    if (into == nullptr || !holds) return;
    FD_SET(fd, into);
    ++found;
  };
  for (const pollfd& each : all) {
    mark(to_read, each.fd, (each.events & POLLIN) != 0 && (each.revents & (POLLIN | POLLHUP | POLLERR)) != 0);
    mark(to_write, each.fd, (each.events & POLLOUT) != 0 && (each.revents & (POLLOUT | POLLERR)) != 0);
    mark(exceptional, each.fd, (each.revents & POLLPRI) != 0);
  }
  return found;
}

inline int select(int count, fd_set* to_read, fd_set* to_write, fd_set* exceptional, timeval* limit) {
  timespec until{};
  if (limit != nullptr) {
    if (limit->tv_sec < 0 || limit->tv_usec < 0 || limit->tv_usec >= 1'000'000) {
      detail::set_error(EINVAL);
      return -1;
    }
    until = {limit->tv_sec, limit->tv_usec * 1000};
  }
  return posix::pselect(count, to_read, to_write, exceptional, limit != nullptr ? &until : nullptr, nullptr);
}
// Descriptors below FD_SETSIZE. `limit` stays as it is.

} // namespace migrate::posix
