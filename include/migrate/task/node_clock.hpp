// The node's own clocks, as everything reads them that a task's time is made of.
#pragma once

#include <cstdint>
#include <cstdlib>

#include <time.h>

#include <migrate/id.hpp>

namespace migrate::detail {

inline constinit std::int64_t clock_skew = 0;
// Nanoseconds by which this node's clocks are wrong on purpose, so that nodes of one machine can stand for nodes of
// several in tests. Set before the node's first task, and zero otherwise.

inline std::int64_t read_clock(clockid_t which) noexcept {
  timespec now{};
  ::clock_gettime(which, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec + clock_skew;
}
inline std::int64_t node_steady() noexcept { return read_clock(CLOCK_MONOTONIC); }
inline std::int64_t machine_steady() noexcept { return node_steady() - clock_skew; }
inline std::int64_t node_wall() noexcept { return read_clock(CLOCK_REALTIME); }

inline std::int64_t skew_from_environment(node_id node) noexcept {
  // MIGRATE_CLOCK_SKEW=NANOSECONDS[:NODE][,...]
  const char* at = std::getenv("MIGRATE_CLOCK_SKEW");
  while (at != nullptr && *at != 0) {
    char* end = nullptr;
    std::int64_t skew = std::strtoll(at, &end, 10);
    bool mine = true;
    if (*end == ':') mine = std::strtoul(end + 1, &end, 10) == number(node);
    if (mine) return skew;
    at = *end == ',' ? end + 1 : nullptr;
  }
  return 0;
}

} // namespace migrate::detail
