// The frame: how one message and the raw bytes attached to it travel in a stream.
#pragma once

#include <cstddef>
#include <cstdint>

namespace migrate::detail {

enum class frame_kind : std::uint16_t {
  message = 1, // a Cap'n Proto message, and an attachment of any length
  ping = 2,    // asks for a pong
  pong = 3,
  goodbye = 4, // the sender closes the connection on purpose and has sent everything
};

struct frame_header {
  std::uint32_t magic;      // frame_magic
  std::uint16_t kind;       // a frame_kind
  std::uint16_t reserved;   // 0
  std::uint32_t words;      // length of the message with its segment table, in 8-byte words
  std::uint32_t zero;       // 0
  std::uint64_t attachment; // bytes after the message, padded with zeros to a multiple of 8
};
// Followed by the message in Cap'n Proto's standard stream framing, then by the attachment. Numbers are little-endian. Every
// frame is a multiple of 8 bytes long, so that a message is aligned where it was received.

static_assert(sizeof(frame_header) == 24);

inline constexpr std::uint32_t frame_magic = 0x3172'676d; // "mgr1"
inline constexpr std::size_t frame_header_size = sizeof(frame_header);

constexpr std::size_t padded(std::size_t bytes) noexcept { return (bytes + 7) & ~std::size_t{7}; }

} // namespace migrate::detail
