// Waiting for any of several descriptors.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstddef>
#include <vector>

#include <poll.h>
#include <sys/epoll.h>

#include <migrate/file/file_calls.hpp>

namespace migrate::detail::files {

inline long poll_once(pollfd* all, std::size_t count, bool& far) {
  // What poll(2) says without waiting. `far`: there is a pipe among them that cannot wake the task.
  std::vector<pollfd> kernel(count);
  long ready = 0;
  for (std::size_t i = 0; i < count; ++i) {
    open_file* file = all[i].fd < 0 ? nullptr : descriptors::find(all[i].fd);
    all[i].revents = file == nullptr && all[i].fd >= 0 ? POLLNVAL : 0;
    if (is_home_pipe(file)) {
      pipe_state now;
      if (long failed = the_files->look_at_pipe(file->end, now); failed < 0) return failed;
      int seen = file->end.writes ? (now.no_reader ? POLLERR : 0) | (now.room >= PIPE_BUF ? POLLOUT : 0)
                                  : (now.no_writer ? POLLHUP : 0) | (now.waiting > 0 ? POLLIN : 0);
      all[i].revents = static_cast<short>(seen & (all[i].events | POLLERR | POLLHUP));
      far = true;
    }
    if (is_stream(file)) all[i].revents = all[i].events & (POLLIN | POLLOUT);
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

inline long poll(pollfd* all, std::size_t count, int milliseconds) {
  safe_point();
  if (count > descriptors::most) return -EINVAL;
  steady_point deadline = task_now() + std::chrono::milliseconds(milliseconds < 0 ? 0 : milliseconds);
  for (bool in_time = true;;) {
    bool far = false;
    long ready = poll_once(all, count, far);
    if (ready != 0 || milliseconds == 0 || !in_time) return ready;
    if (signal_waits()) return -EINTR;
    for (std::size_t i = 0; i < count; ++i) {
      open_file* file = all[i].fd < 0 ? nullptr : descriptors::find(all[i].fd);
      std::uint32_t events = ((all[i].events & POLLIN) != 0 ? EPOLLIN : 0u) | ((all[i].events & POLLOUT) != 0 ? EPOLLOUT : 0u);
      if (file != nullptr && file->kind == open_kind::pipe) the_files->wake_when(file->kernel, events);
    }
    if (far) { // homes are asked again
      steady_point soon = task_now() + std::chrono::milliseconds(2);
      if (milliseconds >= 0) soon = std::min(soon, deadline);
      while (park_until(soon) && !signal_waits()) {} // an answer that had come already ends a park at once
      in_time = milliseconds < 0 || task_now() < deadline;
    } else if (milliseconds < 0) {
      park();
    } else {
      in_time = park_until(deadline);
    }
    safe_point();
  }
}
// A wait begun on one node ends in time on another.

} // namespace migrate::detail::files
