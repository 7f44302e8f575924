// What the image of a checkpoint has in its metadata.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <migrate/rpc/identity.hpp>
#include <migrate/task/codec.hpp>

namespace migrate::detail {

struct checkpoint_note {
  // What an offer says beside the manifest.
  std::uint64_t control = 0; // address of the control block
  std::int64_t clock = 0;    // the task's, nanoseconds
  id128 boot;                // of the machine whose steady clock it is
};

inline std::pair<checkpoint_note, std::span<const std::byte>>
read_checkpoint(std::span<const std::byte> metadata) {
  byte_reader in(metadata.data(), metadata.size());
  auto note = in.get<checkpoint_note>();
  return {note, metadata.last(in.left())};
}
// And the carriers' bundle. Throws errc::protocol.

} // namespace migrate::detail
