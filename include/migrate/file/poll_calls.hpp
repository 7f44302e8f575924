// Waiting for any of several descriptors.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/epoll.h>

#include <migrate/file/file_calls.hpp>
#include <migrate/home/signal_delivery.hpp>

namespace migrate::detail::files {

inline long poll_once(pollfd* all, std::size_t count, bool& far) {
  // What poll(2) says without waiting. `far`: there is one among them that cannot wake the task.
  std::vector<pollfd> kernel(count);
  long ready = 0;
  for (std::size_t i = 0; i < count; ++i) {
    open_file* file = all[i].fd < 0 ? nullptr : descriptors::find(all[i].fd);
    all[i].revents = file == nullptr && all[i].fd >= 0 ? POLLNVAL : 0;
    if (is_home_pipe(file)) {
      for (pipe_end end : {file->end, file->other}) { // the task may move meanwhile
        if (!end.key) continue;
        pipe_state now;
        if (long failed = the_files->look_at_pipe(end, now); failed < 0) return failed;
        int seen = end.writes ? (now.no_reader ? POLLERR : 0) | (now.room >= PIPE_BUF ? POLLOUT : 0)
                              : (now.no_writer ? POLLHUP : 0) | (now.waiting > 0 ? POLLIN : 0);
        all[i].revents = static_cast<short>(all[i].revents | (seen & (all[i].events | POLLERR | POLLHUP)));
      }
      far = true;
    }
    if (is_stream(file)) {
      bool input = file->stream == 0;
      int seen = input ? ((all[i].events & POLLIN) != 0 && stream_has_input() ? POLLIN : 0) : all[i].events & POLLOUT;
      all[i].revents = static_cast<short>(seen);
      far |= input;
    }
  }
  for (std::size_t i = 0; i < count; ++i) { // after the last wait: the kernel's numbers are this node's
    open_file* file = all[i].fd < 0 ? nullptr : descriptors::find(all[i].fd);
    kernel[i] = {file != nullptr ? file->kernel : -1, all[i].events, 0};
  }
  if (::poll(kernel.data(), count, 0) < 0) return -last_error();
  for (std::size_t i = 0; i < count; ++i) {
    all[i].revents = static_cast<short>(all[i].revents | kernel[i].revents);
    if (all[i].revents != 0) ++ready;
  }
  return ready;
}

inline long poll(pollfd* all, std::size_t count, std::optional<std::chrono::nanoseconds> limit) {
  if (count > descriptors::most) return -EINVAL;
  steady_point deadline = task_now() + limit.value_or(std::chrono::nanoseconds(0));
  for (bool in_time = true;;) {
    bool far = false;
    long ready = poll_once(all, count, far);
    if (ready != 0 || (limit && limit->count() == 0) || !in_time) return ready;
    if (the_services->take_signals() != after_signals::none) return -EINTR;
    for (std::size_t i = 0; i < count; ++i) {
      open_file* file = all[i].fd < 0 ? nullptr : descriptors::find(all[i].fd);
      std::uint32_t events = ((all[i].events & POLLIN) != 0 ? EPOLLIN : 0u) | ((all[i].events & POLLOUT) != 0 ? EPOLLOUT : 0u);
      if (file != nullptr && (file->kind == open_kind::pipe || file->kind == open_kind::foreign))
        the_files->wake_when(file->kernel, events);
    }
    if (far) { // homes are asked again
      steady_point soon = task_now() + std::chrono::milliseconds(2);
      if (limit) soon = std::min(soon, deadline);
      while (park_until(soon) && !signal_waits()) {} // an answer that had come already ends a park at once
      in_time = !limit || task_now() < deadline;
    } else if (!limit) {
      park();
    } else {
      in_time = park_until(deadline);
    }
  }
}
// After a safe point. A wait begun on one node ends in time on another; a signal that has a handler runs it and ends the
// wait. No limit: it has none.

inline long poll_with_mask(pollfd* all, std::size_t count, std::optional<std::chrono::nanoseconds> limit,
                           signal_bits mask) {
  signal_bits before = std::exchange(own_signals().mask, mask & ~never_blocked);
  long ready = poll(all, count, limit);
  own_signals().mask = before;
  the_services->take_signals();
  return ready;
}

} // namespace migrate::detail::files
