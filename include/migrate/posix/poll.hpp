// poll.h, for tasks.
#pragma once

#include <poll.h>

#include <migrate/file/poll_calls.hpp>
#include <migrate/posix/errors.hpp>

namespace migrate::posix {

inline int poll(pollfd* all, nfds_t count, int milliseconds) {
  return detail::posix_call([&] { return migrate::detail::files::poll(all, count, milliseconds); });
}

} // namespace migrate::posix
