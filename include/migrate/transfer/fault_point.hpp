// Named places in a move at which a test can have this process killed or stopped.
#pragma once

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include <unistd.h>

namespace migrate::detail {

inline const char* requested_fault() noexcept {
  static const char* const request = std::getenv("MIGRATE_FAULT");
  return request;
}

inline void fault_point(std::string_view name) noexcept {
  const char* request = requested_fault();
  if (request == nullptr) [[likely]]
    return;
  std::string_view wanted(request);
  bool stop = wanted.starts_with("stop:");
  if (stop) wanted.remove_prefix(5);
  if (wanted == name) ::kill(::getpid(), stop ? SIGSTOP : SIGKILL);
}
// MIGRATE_FAULT=source.offered kills a node with SIGKILL when it comes to that point,
// MIGRATE_FAULT=stop:source.offered stops it with SIGSTOP.

} // namespace migrate::detail
