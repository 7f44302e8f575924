// The name of one store.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace migrate {

struct store_id {
  std::uint64_t high = 0;
  std::uint64_t low = 0;

  constexpr explicit operator bool() const noexcept { return (high | low) != 0; }
  friend constexpr auto operator<=>(const store_id&, const store_id&) noexcept = default;
};
// 128 random bits drawn when a store is made. Nodes compare it at their handshake, and every image
// carries it, so that an image copied from another cluster is refused.

inline std::string to_string(store_id id) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text(32, '0');
  for (unsigned i = 0; i < 16; ++i) {
    text[15 - i] = digits[(id.high >> (4 * i)) & 15];
    text[31 - i] = digits[(id.low >> (4 * i)) & 15];
  }
  return text;
}
// 32 hexadecimal digits.

inline std::optional<store_id> parse_store_id(std::string_view text) noexcept {
  if (text.size() != 32) return std::nullopt;
  store_id id;
  for (std::size_t i = 0; i < 32; ++i) {
    char c = text[i];
    std::uint64_t digit;
    if (c >= '0' && c <= '9')
      digit = static_cast<std::uint64_t>(c - '0');
    else if (c >= 'a' && c <= 'f')
      digit = static_cast<std::uint64_t>(c - 'a' + 10);
    else
      return std::nullopt;
    std::uint64_t& half = i < 16 ? id.high : id.low;
    half = half << 4 | digit;
  }
  return id;
}
// The reverse of to_string; none when the text is anything else.

} // namespace migrate
