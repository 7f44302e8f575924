// How a heap lays its memory out: spans, headers, size classes.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include <migrate/memory/address_plan.hpp>

namespace migrate {

class region_heap;

namespace detail {

inline constexpr std::size_t cache_line = 64;
inline constexpr std::size_t granule_size = 1024; // the unit in which a shared span is divided
inline constexpr unsigned span_granules = span_size / granule_size;
inline constexpr std::size_t small_max = 8192; // the largest block that has a size class
inline constexpr unsigned size_classes = 56;
inline constexpr unsigned first_binned = 32; // the first class that has a bin: over 1 KiB
inline constexpr std::size_t medium_max = 59 * granule_size - cache_line;
// Blocks up to small_max come from slabs of one size class; up to medium_max a block has some granules
// of a shared span; above that it has a run of spans of its own.

constexpr unsigned class_of_size(std::size_t bytes) noexcept {
  std::size_t last = bytes - 1 + (bytes == 0);
  unsigned top = 63u ^ static_cast<unsigned>(std::countl_zero(last | 128));
  return top * 8 - 56 + static_cast<unsigned>(last >> (top - 3));
}
// 16 to 256 bytes in steps of 16, then eight classes to each doubling: at most an eighth is wasted.

constexpr std::size_t size_of_class(unsigned index) noexcept {
  if (index < 16) return (index + 1) * 16;
  unsigned doubling = (index - 16) / 8;
  return std::size_t{(index & 7) + 9} << (5 + doubling);
}

static_assert(class_of_size(small_max) == size_classes - 1 && size_of_class(size_classes - 1) == small_max);

enum heap_tag : std::uint32_t {
  tag_slab = 0x5b1a'c000, // a slab of one size class that has room
  tag_full,               // one that has none, and is in no list
  tag_solo,               // the header of one medium block
  tag_mixed,              // a span shared by several slabs and medium blocks
  tag_large,              // the first span of a large block
  tag_free,               // the first span of a free run
  tag_dead,               // a header that was given up
};

#ifdef MIGRATE_CHECKED_HEAP
inline constexpr bool checked_heap = true;
#else
inline constexpr bool checked_heap = false;
#endif
// Whether each free looks at the block for signs that it is free already, and each allocation for signs
// that it was written to since. Costs a cache miss for each block. The same in all files of a program.

struct [[gnu::may_alias]] heap_block {
  union {
    heap_block* next;    // in a slab's free list
    std::uint64_t below; // in a bin: where the block under it is, in units of 16 bytes from the heap's begin
  };
  std::uintptr_t key; // in a bin, the low six bits: how many blocks it has up to this one; the others are the
                      // slab's key when heaps are checked
};
// A free block.

inline constexpr std::uintptr_t depth_bits = cache_line - 1;

struct run_header {
  std::uint32_t tag;
  std::uint32_t spans; // length of the run
  char* previous;      // the run before this one in address order; null for the first
  region_heap* heap;
};
// Stands in the first page of every run of spans, free or in use.

struct alignas(cache_line) slab : run_header {
  heap_block* free; // blocks given back, and the next few that were never used
  slab* next;       // the slabs of the class that have room
  slab* prev;
  std::uint32_t bump;  // offset in the span of the first block never used
  std::uint32_t limit; // offset in the span of the end of the blocks
  std::uint16_t block_size;
  std::int16_t live; // blocks in use or in a bin
  std::uint8_t size_class;
  std::uint8_t wrapped;   // the part of the span before the header is in use, too
  std::uint8_t bin_limit; // how many blocks of the class wait in its bin at most
  std::uint8_t low;       // with no more than this many blocks in use, none waits in a bin
};
// Either fills a span of its own or some granules of a shared one. A medium block has one, too
// (tag_solo), which then says no more than where the block ends.

struct alignas(cache_line) mixed_span : run_header {
  static constexpr std::uint8_t nothing = 255;

  std::uint64_t vacant; // bit g: granule g is free
  mixed_span* next;     // the shared spans whose longest free stretch is of the same power of two
  mixed_span* prev;
  std::uint32_t list;  // which list that is
  std::uint32_t taken; // slabs and medium blocks in the span
  alignas(cache_line) std::uint8_t first[span_granules];
  // For each granule the first granule of the slab or block it belongs to, or `nothing`.
};

struct alignas(cache_line) large_header : run_header {
  char* data; // what the user got
  char* end;  // end of what the user may use, at a page boundary
};

struct alignas(cache_line) free_run : run_header {
  free_run* left; // a treap by (length, address)
  free_run* right;
  free_run* dirty_next; // the free runs with pages to be given back
  free_run* dirty_prev;
  std::uint32_t dirty; // about how many of its spans may be resident
};

static_assert(sizeof(slab) == cache_line && sizeof(large_header) == cache_line &&
              sizeof(free_run) == cache_line && sizeof(mixed_span) == 2 * cache_line);

inline char* span_of(const void* block) noexcept {
  return reinterpret_cast<char*>((reinterpret_cast<std::uintptr_t>(block) - 1) & ~(span_size - 1));
}
// The span of a block. No block starts at the first byte of its span but one aligned to a span's size
// or more, and that one's header is in the span before.

inline std::size_t header_offset(const void* span) noexcept {
  return (reinterpret_cast<std::uintptr_t>(span) >> 10) & (63 * cache_line);
}
// A span's header is somewhere in its first page, by the span's number: were it always at the span's
// start, all headers would compete for the same few sets of the processor's caches.

template <class Header> Header* header_at(char* span) noexcept {
  return reinterpret_cast<Header*>(span + header_offset(span));
}

inline std::uint32_t offset_in(const char* span, const void* address) noexcept {
  return static_cast<std::uint32_t>(static_cast<const char*>(address) - span);
}

constexpr unsigned granules_in(std::size_t bytes) noexcept {
  return static_cast<unsigned>((bytes + granule_size - 1) / granule_size);
}

inline slab* slab_at(char* span, unsigned granule) noexcept {
  return reinterpret_cast<slab*>(span + granule * granule_size);
}

inline std::uintptr_t key_of(const slab* owner) noexcept {
  return reinterpret_cast<std::uintptr_t>(owner) ^ 0x9e37'79b9'7f4a'7c00u;
}

inline bool is_slab(const run_header* header) noexcept { return (header->tag | 1) == tag_full; }

constexpr std::size_t round_up(std::size_t value, std::size_t unit) noexcept {
  return (value + unit - 1) & ~(unit - 1);
}

inline char* round_up(char* address, std::size_t unit) noexcept {
  return reinterpret_cast<char*>(round_up(reinterpret_cast<std::uintptr_t>(address), unit));
}

} // namespace detail
} // namespace migrate
