// MurmurHash64A, by which Ninja's log remembers commands (Austin Appleby 2008, in the public domain).
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace pmake {

inline std::uint64_t command_hash(std::string_view command) noexcept {
  constexpr std::uint64_t seed = 0xdeca'fbad'deca'fbad, factor = 0xc6a4'a793'5bd1'e995;
  constexpr int shift = 47;
  std::uint64_t hash = seed ^ (command.size() * factor);
  auto mix = [&](std::uint64_t word) {
    word *= factor;
    word ^= word >> shift;
    hash = (hash ^ word * factor) * factor;
  };
  for (; command.size() >= 8; command.remove_prefix(8)) {
    std::uint64_t word;
    std::memcpy(&word, command.data(), 8);
    mix(word);
  }
  if (!command.empty()) {
    std::uint64_t rest = 0;
    std::memcpy(&rest, command.data(), command.size());
    hash = (hash ^ rest) * factor;
  }
  hash ^= hash >> shift;
  hash *= factor;
  return hash ^ (hash >> shift);
}

} // namespace pmake
