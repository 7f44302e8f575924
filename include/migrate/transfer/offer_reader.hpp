// An offer as bytes from a peer: reading it, and what must hold before any of it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include <migrate/memory/address_plan.hpp>
#include <migrate/rpc/protocol.capnp.h>
#include <migrate/task/control_block.hpp>
#include <migrate/transfer/compressed_pages.hpp>
#include <migrate/transfer/move_order.hpp>

namespace migrate::detail {

inline std::unique_ptr<arrival> read_offer(node_id source, protocol::Offer::Reader message,
                                           kj::ArrayPtr<const kj::byte> attachment) {
  auto incoming = std::make_unique<arrival>();
  incoming->source = source;
  incoming->epoch = message.getEpoch();
  incoming->region = region_number::from_bits(message.getRegion());
  incoming->control = message.getControl();
  incoming->clock = message.getClock();
  incoming->original = task_id(message.getOriginal());
  incoming->boot = {message.getBoot().getHigh(), message.getBoot().getLow()};
  auto manifest = message.getManifest();
  incoming->manifest.assign(reinterpret_cast<const std::byte*>(manifest.begin()),
                            reinterpret_cast<const std::byte*>(manifest.end()));
  for (auto range : message.getPages())
    incoming->pages.push_back(
        {reinterpret_cast<char*>(range.getAddress()), std::size_t{range.getCount()} * page_size});
  incoming->bundle = message.getBundle();
  incoming->unlaid = message.getUnlaid();
  incoming->restarted = message.getRestarted();
  incoming->office_port = message.getOfficePort();
  incoming->office_number = message.getOfficeNumber();
  incoming->missing_from = message.getMissingFrom();
  incoming->missing_to = message.getMissingTo();
  incoming->bytes = std::as_bytes(std::span(attachment.begin(), attachment.size()));
  if (message.getCompressed() && incoming->bundle <= incoming->bytes.size()) {
    page_decompressor decompress;
    auto pages = decompress.pages(message.getPages(), attachment.slice(incoming->bundle, attachment.size()),
                                  incoming->region.valid() ? incoming->region.size() : 0);
    incoming->kept.reserve(incoming->bundle + pages.size());
    incoming->kept.assign(incoming->bytes.begin(), incoming->bytes.begin() + static_cast<std::ptrdiff_t>(incoming->bundle));
    auto more = std::as_bytes(std::span(pages.begin(), pages.size()));
    incoming->kept.insert(incoming->kept.end(), more.begin(), more.end());
    incoming->bytes = incoming->kept;
  }
  return incoming;
}
// Its bytes lie in the attachment, or are its own. Throws errc::protocol when its pages are compressed and cannot be what they say.

inline void check_offer(const arrival& from) {
  // Throws errc::protocol unless every address is one of the region's and the lengths agree.
  std::size_t pages = 0;
  for (const page_range& range : from.pages) pages += range.bytes;
  if (!from.region.valid() || from.bundle > from.bytes.size() || pages != from.bytes.size() - from.bundle)
    throw error(errc::protocol, "the offer's lengths do not agree");
  const std::uintptr_t base = from.region.address();
  const std::size_t size = from.region.size();
  auto inside = [&](std::uintptr_t address, std::size_t bytes) {
    return address >= base && bytes <= size && address - base <= size - bytes;
  };
  if (!inside(from.control, sizeof(control_block)) || from.control % 64 != 0 ||
      from.control - base < page_size)
    throw error(errc::protocol, "the offer's control block lies outside its region");
  for (const page_range& range : from.pages) {
    auto address = reinterpret_cast<std::uintptr_t>(range.address);
    if (!inside(address, range.bytes) || address % page_size != 0 || address == base)
      throw error(errc::protocol, "the offer has pages outside its region");
  }
  if (from.office_port != 0 &&
      (!inside(from.missing_from, 1) || from.missing_to <= from.missing_from ||
       !inside(from.missing_from, from.missing_to - from.missing_from) || from.missing_from % page_size != 0 ||
       from.missing_to % page_size != 0 || from.missing_from == base))
    throw error(errc::protocol, "the rest of the offer's memory lies outside its region");
}

template <class F> void for_each_range(const arrival& from, F&& visit) {
  // visit(page_range, const std::byte* what it holds), of a good offer.
  const std::byte* next = from.bytes.data() + from.bundle;
  for (const page_range& range : from.pages) {
    visit(range, next);
    next += range.bytes;
  }
}

} // namespace migrate::detail
