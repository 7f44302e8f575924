// Pages that follow their task, as bytes from a peer: what must hold before any of it is used.
#pragma once

#include <cstddef>

#include <migrate/error.hpp>
#include <migrate/memory/address_plan.hpp>
#include <migrate/rpc/protocol.capnp.h>
#include <migrate/transfer/compressed_pages.hpp>

namespace migrate::detail {

template <class F>
void for_each_page_run(protocol::Reference::Reader message, kj::ArrayPtr<const kj::byte> attachment, const char* from,
                       const char* to, page_decompressor& decompress, F&& visit) {
  // visit(char* address, const kj::byte* what it holds, std::size_t bytes). Throws errc::protocol at the first that does not
  // lie between the two addresses, or has fewer bytes than it says, and when they are compressed and cannot be what they say.
  if (message.getCompressed()) attachment = decompress.pages(message.getPages(), attachment);
  const kj::byte* next = attachment.begin();
  for (auto run : message.getPages()) {
    const std::size_t size = static_cast<std::size_t>(to - from);
    const std::size_t at = run.getAddress() - reinterpret_cast<std::uintptr_t>(from);
    const std::size_t bytes = std::size_t{run.getCount()} * page_size;
    if (at % page_size != 0 || at > size || bytes == 0 || bytes > size - at ||
        bytes > static_cast<std::size_t>(attachment.end() - next))
      throw error(errc::protocol, "pages came that lie outside the task's memory");
    visit(reinterpret_cast<char*>(run.getAddress()), next, bytes);
    next += bytes;
  }
}

} // namespace migrate::detail
