// What nodes ask of each other that concerns a node and not a task.
#pragma once

#include <cstddef>
#include <cstdint>

namespace migrate::detail {

enum class cluster_wish : std::uint8_t {
  notice, // hear of this event
  evict,  // leave your host
  stay,   // do not
  status, // say what you have
};
// The first byte of a request to service::cluster.

inline constexpr std::size_t most_listed = 1000; // tasks of each node in a status

} // namespace migrate::detail
