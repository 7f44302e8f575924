// What another machine needs to open a task's file again.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>

#include <migrate/task/codec.hpp>

namespace migrate::detail::file_carrying {

struct reopening {
  std::uint64_t inode = 0;
  std::uint32_t mode = 0;
  std::int64_t at = 0;    // the offset
  std::int32_t flags = 0; // as F_GETFL returns them
  std::string hidden;     // where the bytes of a file are that has no name any more; empty: it has one

  auto migrate_fields() { return std::tie(inode, mode, at, flags, hidden); }
};

} // namespace migrate::detail::file_carrying
