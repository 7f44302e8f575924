// Compressed pages as bytes from a peer: what must hold before they are pages again.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>

#include <lz4.h>

#include <migrate/error.hpp>
#include <migrate/memory/address_plan.hpp>
#include <migrate/rpc/protocol.capnp.h>

namespace migrate::detail {

class page_decompressor {
public:
  static constexpr std::size_t most = std::size_t{1} << 20; // bytes of pages in a message, but for an offer's

  kj::ArrayPtr<const kj::byte> pages(capnp::List<protocol::Pages>::Reader ranges,
                                     kj::ArrayPtr<const kj::byte> block, std::size_t at_most = most);
  // What the ranges hold, until the next call. Throws errc::protocol, before it has memory for them, when they say more than
  // `at_most` bytes or than such a block can hold; and when the block does not hold exactly so many.

private:
  std::unique_ptr<kj::byte[]> bytes_;
  std::size_t room_ = 0;
};
// Thread safety: one at a time.

inline kj::ArrayPtr<const kj::byte> page_decompressor::pages(capnp::List<protocol::Pages>::Reader ranges,
                                                             kj::ArrayPtr<const kj::byte> block,
                                                             std::size_t at_most) {
  constexpr std::size_t most_of_a_byte = 255; // that a block can hold for each of its own
  const std::size_t limit =
      std::min({at_most, block.size() * most_of_a_byte, std::size_t{LZ4_MAX_INPUT_SIZE}});
  std::size_t bytes = 0;
  for (auto range : ranges) {
    bytes += std::size_t{range.getCount()} * page_size;
    if (bytes > limit)
      throw error(errc::protocol, "compressed pages came that say more bytes than " +
                                      std::to_string(block.size()) + " compressed ones can hold");
  }
  if (bytes > room_) {
    bytes_ = std::make_unique_for_overwrite<kj::byte[]>(bytes);
    room_ = bytes;
  }
  int got =
      LZ4_decompress_safe(reinterpret_cast<const char*>(block.begin()), reinterpret_cast<char*>(bytes_.get()),
                          static_cast<int>(block.size()), static_cast<int>(bytes));
  if (got < 0 || static_cast<std::size_t>(got) != bytes)
    throw error(errc::protocol, "compressed pages came that are damaged: " + std::to_string(block.size()) +
                                    " bytes do not hold the " + std::to_string(bytes) + " that they say");
  return kj::arrayPtr(bytes_.get(), bytes);
}

} // namespace migrate::detail
