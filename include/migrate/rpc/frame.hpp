// The frame: how one message and the raw bytes attached to it travel in a stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

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

inline std::string what_is_wrong(const frame_header& header, std::size_t most_words, std::size_t most_attached) {
  // With a header from a stream, as the object of "the peer sent"; empty: nothing is.
  if (header.magic != frame_magic)
    return "bytes that do not begin a message of this protocol (" + std::to_string(header.magic) + " for " +
           std::to_string(frame_magic) + "), so it is not a node, or of another version";
  if (header.kind < 1 || header.kind > 4 || header.reserved != 0 || header.zero != 0)
    return "a frame of unknown kind " + std::to_string(header.kind);
  if (header.words > most_words)
    return "a message of " + std::to_string(std::uint64_t{header.words} * 8) + " bytes, the limit is " +
           std::to_string(most_words * 8);
  if (header.attachment > most_attached)
    return "an attachment of " + std::to_string(header.attachment) + " bytes, the limit is " +
           std::to_string(most_attached);
  bool is_message = header.kind == static_cast<std::uint16_t>(frame_kind::message);
  if (is_message ? header.words == 0 : (header.words != 0 || header.attachment != 0))
    return "a frame of kind " + std::to_string(header.kind) + " with a wrong length";
  return {};
}

constexpr std::size_t frame_bytes(const frame_header& header) noexcept {
  return frame_header_size + std::size_t{header.words} * 8 + padded(static_cast<std::size_t>(header.attachment));
}
// Of the whole frame, when nothing is wrong with its header.

} // namespace migrate::detail
