// The checksum that every page, table and manifest in a store carries.
#pragma once

#include <cstddef>
#include <cstdint>

#include <xxhash.h>

#ifdef __x86_64__
extern "C" [[gnu::weak]] XXH64_hash_t XXH3_64bits_dispatch(const void* input, size_t bytes);
// xxHash's shared library has it and uses AVX2 or AVX-512 where the processor does; Debian's static
// library does not have it.
#endif

namespace migrate::detail {

inline std::uint64_t checksum(const void* data, std::size_t bytes) noexcept {
#ifdef __x86_64__
  if (&XXH3_64bits_dispatch != nullptr) return XXH3_64bits_dispatch(data, bytes);
#endif
  return XXH3_64bits(data, bytes);
}
// XXH3, 64 bits: it finds accidents, not forgers; forgers are kept out by the store's owner and mode.

} // namespace migrate::detail
