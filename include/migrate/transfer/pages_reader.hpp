// Pages that come ahead of their task's offer, as bytes from a peer.
#pragma once

#include <cstddef>

#include <migrate/memory/address_plan.hpp>
#include <migrate/rpc/protocol.capnp.h>
#include <migrate/transfer/compressed_pages.hpp>

namespace migrate::detail {

template <class F>
bool for_each_range_ahead(region_number region, protocol::PagesAhead::Reader message, kj::ArrayPtr<const kj::byte> attachment,
                          page_decompressor& decompress, F&& visit) {
  if (message.getCompressed()) attachment = decompress.pages(message.getPages(), attachment);
  const kj::byte* next = attachment.begin();
  const std::size_t size = region.size();
  for (auto range : message.getPages()) {
    std::size_t at = range.getAddress() - region.address();
    std::size_t bytes = std::size_t{range.getCount()} * page_size;
    if (at % page_size != 0 || at < page_size || at > size || bytes > size - at ||
        bytes > static_cast<std::size_t>(attachment.end() - next))
      return false;
    visit(region.base() + at, next, bytes);
    next += bytes;
  }
  return true;
}
// visit(char* to, const kj::byte* from, std::size_t bytes) for each range, within the valid region and behind its first
// page. False: one of them lies outside, or the attachment is too short; those before it have been visited.
// Throws errc::protocol when they are compressed and cannot be what they say.

} // namespace migrate::detail
