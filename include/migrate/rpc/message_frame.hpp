// The message in a frame that has come whole.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <capnp/message.h>
#include <capnp/serialize.h>

#include <migrate/rpc/frame.hpp>
#include <migrate/rpc/protocol.capnp.h>

namespace migrate::detail {

template <class F> void read_frame(const frame_header& header, const std::byte* body, F&& take) {
  // take(protocol::Message::Reader, kj::ArrayPtr<const kj::byte> attachment), both valid until it returns. `body` is what
  // follows a good header of kind `message`, 8-byte aligned. Reading what is malformed throws a kj::Exception.
  capnp::ReaderOptions options;
  options.traversalLimitInWords = std::max<std::uint64_t>(std::uint64_t{header.words} * 8, 64 * 1024);
  capnp::FlatArrayMessageReader reader(kj::arrayPtr(reinterpret_cast<const capnp::word*>(body), header.words),
                                       options);
  const auto* attached = reinterpret_cast<const kj::byte*>(body) + std::size_t{header.words} * 8;
  take(reader.getRoot<protocol::Message>(),
       kj::arrayPtr(attached, static_cast<std::size_t>(header.attachment)));
}

} // namespace migrate::detail
