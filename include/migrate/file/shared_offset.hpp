// Where a file's offset is that several tasks share, perhaps on several nodes.
#pragma once

#include <cstdint>
#include <functional>

#include <sys/types.h>

#include <migrate/id.hpp>

namespace migrate {

enum class offset_sharing : std::uint8_t {
  kernel, // in the open file description, which is handed over: all nodes must be on one machine
  home,   // at the home of the task that first shared it, which every read and write asks (Sprite)
  token,  // with a token that goes from node to node: whose tasks have it asks nobody (LOCUS)
};

namespace detail {

struct shared_key {
  std::uint64_t task = 0; // whose child was the first to inherit it
  std::uint64_t number = 0;

  node_id home() const noexcept { return task_id(task).home(); }
  explicit operator bool() const noexcept { return task != 0; }
  friend bool operator==(const shared_key&, const shared_key&) = default;
};

struct shared_key_hash {
  std::size_t operator()(const shared_key& key) const noexcept {
    return std::hash<std::uint64_t>()(key.task * 0x9e37'79b9'7f4a'7c15u + key.number);
  }
};

struct shared_offset {
  shared_key key; // none: the kernel's description has the offset
  offset_sharing way = offset_sharing::kernel;
  std::int64_t begun = 0; // the offset when it was first shared, until home has heard of it
};

struct offset_step {
  enum kind : std::uint8_t {
    take,        // `bytes` from the offset on, which moves behind them
    take_within, // the same, but not past `limit`
    set,         // to `bytes`
    shift,       // by `bytes`, not below zero
  };
  kind what;
  std::int64_t bytes = 0;
  std::int64_t limit = 0;
};

struct offset_range {
  std::int64_t at = 0;    // where it begins; after set and shift the new offset
  std::int64_t bytes = 0; // how many were taken
  long failed = 0;        // a negative errno
};

} // namespace detail
} // namespace migrate
