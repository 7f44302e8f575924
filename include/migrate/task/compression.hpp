// Whether pages are compressed on their way from node to node, by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace migrate {

enum class compression : std::uint8_t {
  automatic, // where that is sooner there, by what was measured of the link and of the pages; not within one machine
  always, // wherever it makes them fewer bytes
  never,
};

inline constexpr std::string_view compression_names[] = {"auto", "always", "never"};

inline constexpr std::string_view name_of(compression which) noexcept {
  return compression_names[static_cast<std::size_t>(which)];
}

inline std::optional<compression> compression_named(std::string_view name) noexcept {
  for (std::size_t i = 0; i < std::size(compression_names); ++i)
    if (compression_names[i] == name) return static_cast<compression>(i);
  return std::nullopt;
}

} // namespace migrate
