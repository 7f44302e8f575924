// Named places in a move at which a test can have this process killed or stopped, or one thread of it held up.
#pragma once

#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

#include <migrate/id.hpp>

namespace migrate::detail {

struct fault_request {
  std::string_view point;
  unsigned node = 0; // 0: whichever comes to the point
  bool stop = false;
  const char* hold = nullptr; // a file
  std::atomic<bool> pending{false};

  explicit fault_request(const char* text) noexcept {
    if (text == nullptr) return;
    point = text;
    if (point.starts_with("stop:")) {
      stop = true;
      point.remove_prefix(5);
    } else if (point.starts_with("hold:")) {
      hold = std::getenv("MIGRATE_FAULT_FILE");
      point.remove_prefix(5);
    }
    if (auto [end, problem] = std::from_chars(point.data(), point.data() + point.size(), node);
        problem == std::errc() && end != point.data() + point.size() && *end == ':')
      point.remove_prefix(static_cast<std::size_t>(end - point.data()) + 1);
    pending = true;
  }
};

inline fault_request& requested_fault() noexcept {
  static fault_request request(std::getenv("MIGRATE_FAULT"));
  return request;
}

inline constinit std::atomic<node_id> fault_node{no_node}; // this process's

inline void fault_point(std::string_view name) noexcept {
  fault_request& request = requested_fault();
  if (!request.pending.load(std::memory_order_relaxed)) [[likely]]
    return;
  if (request.point != name || (request.node != 0 && request.node != number(fault_node.load()))) return;
  if (!request.pending.exchange(false)) return;
  if (request.hold == nullptr) {
    // A stop asked of the process may be served by another thread while this one goes on.
    ::raise(request.stop ? SIGSTOP : SIGKILL);
    return;
  }
  if (int made = ::open(request.hold, O_WRONLY | O_CREAT | O_CLOEXEC, 0600); made >= 0) ::close(made);
  while (::access(request.hold, F_OK) == 0) ::usleep(1000);
}
// MIGRATE_FAULT=source.offered kills a node with SIGKILL when it first comes to that point,
// MIGRATE_FAULT=stop:source.offered stops it with SIGSTOP, MIGRATE_FAULT=2:source.offered and
// MIGRATE_FAULT=stop:2:source.offered do so to node 2 only. MIGRATE_FAULT=hold:2:source.offered has the thread that comes
// there make the file that MIGRATE_FAULT_FILE names and wait until it is gone; the process goes on.

} // namespace migrate::detail
