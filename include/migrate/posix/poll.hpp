// poll.h, for tasks.
#pragma once

#include <chrono>
#include <optional>

#include <poll.h>
#include <signal.h>

#include <migrate/file/poll_calls.hpp>
#include <migrate/posix/errors.hpp>
#include <migrate/posix/signal.hpp>

namespace migrate::posix {

inline int poll(pollfd* all, nfds_t count, int milliseconds) {
  std::optional<std::chrono::nanoseconds> limit;
  if (milliseconds >= 0) limit = std::chrono::milliseconds(milliseconds);
  return detail::posix_call([&] {
    migrate::detail::safe_point();
    return migrate::detail::files::poll(all, count, limit);
  });
}

inline int ppoll(pollfd* all, nfds_t count, const timespec* time, const sigset_t* mask) {
  if (time != nullptr && !detail_signal::is_time(*time)) {
    detail::set_error(EINVAL);
    return -1;
  }
  std::optional<std::chrono::nanoseconds> limit;
  if (time != nullptr) limit = std::chrono::nanoseconds(detail_signal::nanoseconds_of(*time));
  return detail::posix_call([&] {
    migrate::detail::safe_point();
    return mask == nullptr
               ? migrate::detail::files::poll(all, count, limit)
               : migrate::detail::files::poll_with_mask(all, count, limit, detail_signal::bits_of(*mask));
  });
}

} // namespace migrate::posix
