// Pipes between machines, as tasks know them.
#pragma once

#include <cstdint>
#include <tuple>

#include <migrate/file/shared_offset.hpp>

namespace migrate::detail {

struct pipe_end {
  shared_key key; // of the pipe: the task that made it, whose home keeps its bytes, and a number; none: no such pipe
  bool writes = false;
  std::uint32_t given = 0; // to how many children the task has given this end

  auto migrate_fields() { return std::tie(key, writes, given); }
};

struct pipe_state {
  std::uint64_t waiting = 0; // bytes
  std::uint64_t room = 0;
  bool no_reader = false;
  bool no_writer = false;

  auto migrate_fields() { return std::tie(waiting, room, no_reader, no_writer); }
};

} // namespace migrate::detail
