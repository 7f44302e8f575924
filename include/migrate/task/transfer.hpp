// The strategies by which a task's memory can be moved, by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace migrate {

enum class transfer : std::uint8_t {
  by_default,   // the task's own, else its node's
  flush,        // freeze, write what is dirty to the image, run from the image (Sprite)
  full_copy,    // freeze, send all that is alive straight to the target, run (LOCUS, Charlotte)
  pre_copy,     // send while it runs, again what it wrote meanwhile, freeze for the rest (V)
  on_reference, // freeze, send what it needs to run, run; the rest follows, first what is touched (Accent)
  pre_flush,    // write to the image while it runs, lay it out on the target, freeze for the rest
  automatic, // whichever the measured rates of writing and of the ways to the target make the shortest freeze
  random,    // another one for each move: for tests
};

inline constexpr std::string_view transfer_names[] = {"default",      "flush",     "full-copy", "pre-copy",
                                                      "on-reference", "pre-flush", "auto",      "random"};

inline constexpr std::string_view name_of(transfer which) noexcept {
  return transfer_names[static_cast<std::size_t>(which)];
}

inline std::optional<transfer> transfer_named(std::string_view name) noexcept {
  for (std::size_t i = 0; i < std::size(transfer_names); ++i)
    if (transfer_names[i] == name) return static_cast<transfer>(i);
  return std::nullopt;
}

} // namespace migrate
