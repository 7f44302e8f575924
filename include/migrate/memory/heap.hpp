// The heap inside a region.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <migrate/memory/address_plan.hpp>
#include <migrate/memory/heap_error.hpp>
#include <migrate/memory/heap_layout.hpp>
#include <migrate/memory/heap_runs.hpp>

namespace migrate {

class region_heap {
public:
  region_heap(void* begin, std::size_t size, const void* zeroed_from = nullptr) noexcept
      : runs_(static_cast<char*>(begin), size, zeroed_from) {}
  region_heap(const region_heap&) = delete;
  region_heap& operator=(const region_heap&) = delete;
  // Manages the `size` bytes from `begin`, which is aligned to 64 KiB, and touches none of them. They may
  // hold anything, an older heap too. The caller may say from which address on they are known to be zero,
  // which saves allocate_zeroed() work; null: nowhere.

  void* allocate(std::size_t bytes) noexcept {
    if (bytes <= detail::small_max) [[likely]] {
      unsigned index = detail::class_of_size(bytes);
      if (void* block = take(index)) [[likely]]
        return block;
      return allocate_small(index);
    }
    return allocate_big(bytes, 16);
  }
  void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
    if (alignment <= 16) return allocate(bytes);
    return allocate_aligned(bytes, alignment);
  }
  // A block of at least `bytes` bytes, aligned to 16 or to `alignment`, a power of two; null when the heap
  // has no room for it. Zero bytes is a block like any other.

  void* allocate_if_easy(std::size_t bytes) noexcept {
    return bytes <= detail::small_max ? take(detail::class_of_size(bytes)) : nullptr;
  }
  // The same if it takes a few instructions; else null, and allocate() may do better.

  void* allocate_zeroed(std::size_t bytes, std::size_t alignment = 16) noexcept;
  // The same, with `bytes` zero bytes in it.

  void* reallocate(void* block, std::size_t bytes) noexcept;
  // Makes a block of this heap larger or smaller, where it is or at another place; null when there is no
  // room, and then the block is as it was. A null block is allocated; zero bytes give a block like any
  // other.

  static void deallocate(void* block) noexcept {
    if (!block) return;
    char* span = detail::span_of(block);
    auto* header = detail::header_at<detail::slab>(span);
    if (header->tag == detail::tag_mixed) {
      auto* mixed = detail::header_at<detail::mixed_span>(span);
      unsigned first = mixed->first[detail::offset_in(span, block) / detail::granule_size];
      if (first != detail::mixed_span::nothing) header = detail::slab_at(span, first);
    }
    if (detail::is_slab(header)) [[likely]]
      return put(header, block);
    deallocate_other(span, block);
  }
  // Gives a block back to the heap it came from, whichever that is; null does nothing. Ends the process
  // with a message when there is no such block, where that is noticed: always with MIGRATE_CHECKED_HEAP,
  // else often.

  static std::size_t usable_size(const void* block) noexcept;
  // How many bytes of the block may be used: what was asked for or more.

  static region_heap* owner(const void* block) noexcept;
  // The heap a block came from.

  char* begin() const noexcept { return runs_.begin(); }
  std::size_t capacity() const noexcept { return static_cast<std::size_t>(runs_.end() - runs_.begin()); }
  std::size_t reserved_bytes() const noexcept {
    return static_cast<std::size_t>(runs_.top() - runs_.begin()) - runs_.free_bytes();
  }
  // Bytes of address space in spans that hold something: an upper bound of what is live.
  std::size_t reserved_bytes_seen() const noexcept { return runs_.used_bytes_seen(); }
  // The same for another thread while the heap is in use.

  std::size_t allocated_bytes() const noexcept;
  // Usable bytes in all blocks in use. Takes time in proportion to the spans in use.

  const char* high_water() const noexcept { return runs_.high_water(); }
  // Nothing at or above this address was ever touched by this heap.

  void set_zeroed_from(const void* address) noexcept {
    runs_.set_zeroed_from(begin() + (static_cast<const char*>(address) - begin()));
  }
  // Says anew from which address on the memory is known to be zero, for a heap that goes on in another
  // process: what it never touched may hold anything there. end() of the region: nowhere.

  void tidy() noexcept;
  // Gives up the empty slabs kept for the next allocation, so that they are not live. No system call
  // unless that frees a great deal.

  void trim() noexcept;
  // Gives every page that holds nothing back to the system, now.

  template <class F> void for_each_live_range(F&& f) const;
  // Calls f(char* address, std::size_t bytes) for every stretch of pages that hold blocks in use or the
  // heap's own data, in ascending order. Pages left out may be lost: the heap will assume nothing of them.
  // Call tidy() first for the least. Takes time in proportion to the spans in use.

  bool check_consistency() const;
  // Whether everything the heap knows agrees. For tests: slow.

private:
  friend struct heap_inspector;
  static constexpr std::size_t roomy = std::size_t{4} << 20;
  static constexpr unsigned lists = 6;
  static constexpr std::uint8_t bin_depth = 8;

  detail::heap_block* block_at(std::uint64_t place) const noexcept {
    return reinterpret_cast<detail::heap_block*>(runs_.begin() + place * 16);
  }
  std::uint32_t place_of(const void* block) const noexcept {
    return static_cast<std::uint32_t>((static_cast<const char*>(block) - runs_.begin()) >> 4);
  }

  void* take(unsigned index) noexcept {
    if (index >= detail::first_binned) return take_from_bin(index);
    detail::slab* from = small_slabs_[index];
    return from ? take_from(from) : nullptr;
  }

  static void* take_from(detail::slab* from) noexcept {
    detail::heap_block* block = from->free;
    if (!block) [[unlikely]]
      return nullptr;
    if constexpr (detail::checked_heap) check_free_block(block);
    from->free = block->next;
    __builtin_prefetch(block->next); // to be allocated next, and perhaps long out of the caches
    ++from->live;
    if constexpr (detail::checked_heap) block->key = 0;
    return block;
  }

  void* take_from_bin(unsigned index) noexcept {
    std::uint32_t& bin = bins_[index - detail::first_binned];
    if (bin == 0) return nullptr;
    detail::heap_block* block = block_at(bin);
    if constexpr (detail::checked_heap) check_free_block(block);
    bin = static_cast<std::uint32_t>(block->below);
    if constexpr (detail::checked_heap) block->key = 0;
    return block;
  }

  static void put(detail::slab* owner, void* address) noexcept {
    auto* block = static_cast<detail::heap_block*>(address);
    if constexpr (detail::checked_heap) check_block(owner, block);
    if (owner->bin_limit != 0) return put_in_bin(owner, block);
    give_back(owner, block);
  }

  [[gnu::noinline]] static void put_in_bin(detail::slab* owner, detail::heap_block* block) noexcept {
    region_heap* heap = owner->heap;
    std::uint32_t& bin = heap->bins_[owner->size_class - detail::first_binned];
    std::uint32_t place = heap->place_of(block);
    if (bin == place) detail::heap_fatal("double free", block);
    std::uintptr_t depth = bin != 0 ? heap->block_at(bin)->key & detail::depth_bits : 0;
    if (depth >= owner->bin_limit || owner->live <= owner->low) return give_back(owner, block);
    block->below = bin;
    block->key = depth + 1 + (detail::checked_heap ? detail::key_of(owner) : 0);
    bin = place;
  }

  static void give_back(detail::slab* owner, detail::heap_block* block) noexcept {
    if (owner->tag == detail::tag_full) [[unlikely]]
      return give_back_to_full(owner, block);
    if (owner->free == block) [[unlikely]]
      detail::heap_fatal("double free", block);
    block->next = owner->free;
    if constexpr (detail::checked_heap) block->key = detail::key_of(owner);
    owner->free = block;
    if (--owner->live <= 0) [[unlikely]]
      slab_empty(owner, block);
  }

  static void deallocate_other(char* span, void* block) noexcept;
  static void check_block(const detail::slab* owner, const detail::heap_block* block) noexcept;
  static void check_free_block(const detail::heap_block* block) noexcept;
  static bool is_block(const detail::slab* owner, const void* block) noexcept;
  static void slab_empty(detail::slab* owner, const void* last) noexcept;
  static void give_back_to_full(detail::slab* owner, detail::heap_block* block) noexcept;
  void empty_bins() noexcept;
  static detail::slab* inner_slab(char* span, const void* block) noexcept;
  static detail::slab* slab_of(const void* block) noexcept;

  void* allocate_small(unsigned index) noexcept;
  void* allocate_big(std::size_t bytes, std::size_t alignment) noexcept;
  void* allocate_aligned(std::size_t bytes, std::size_t alignment) noexcept;
  void* allocate_medium(std::size_t bytes, std::size_t alignment) noexcept;
  void* allocate_large(std::size_t bytes, std::size_t alignment) noexcept;
  bool resize_medium(detail::slab* header, char* block, std::size_t bytes) noexcept;
  bool resize_large(char* span, char* block, std::size_t bytes) noexcept;

  detail::slab* new_slab(unsigned index) noexcept;
  detail::slab* new_whole_slab(unsigned index) noexcept;
  detail::slab* new_inner_slab(unsigned index, unsigned level) noexcept;
  void set_up_slab(detail::slab* made, unsigned index) noexcept;
  static bool extend(detail::slab* owner) noexcept;
  void link_slab(detail::slab* owner) noexcept;
  void unlink_slab(detail::slab* owner) noexcept;
  void free_slab(detail::slab* owner) noexcept;
  static bool is_whole(const detail::slab* owner) noexcept {
    char* at = reinterpret_cast<char*>(const_cast<detail::slab*>(owner));
    return detail::header_at<detail::run_header>(detail::span_of(at + 1))->tag != detail::tag_mixed;
  }

  detail::mixed_span* new_mixed() noexcept;
  detail::slab* take_granules(unsigned count) noexcept;
  void give_granules(detail::mixed_span* mixed, unsigned first, unsigned count) noexcept;
  void list_mixed(detail::mixed_span* mixed) noexcept;
  void unlist_mixed(detail::mixed_span* mixed) noexcept;
  static unsigned find_stretch(std::uint64_t vacant, unsigned count) noexcept;
  static unsigned longest_stretch(std::uint64_t vacant) noexcept;
  static std::uint64_t granule_mask(unsigned first, unsigned count) noexcept {
    return (count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1) << first;
  }
  static std::uint32_t live_pages(const detail::mixed_span* mixed, const char* span) noexcept;

  unsigned level(unsigned index) const noexcept { return (levels_[index / 4] >> (index % 4 * 2)) & 3; }
  void raise_level(unsigned index) noexcept {
    levels_[index / 4] = static_cast<std::uint8_t>(levels_[index / 4] + (1 << (index % 4 * 2)));
  }

  detail::slab* first_slab(unsigned index) const noexcept {
    if (index < detail::first_binned) return small_slabs_[index];
    std::uint32_t place = slabs_[index - detail::first_binned];
    return place == 0 ? nullptr
                      : reinterpret_cast<detail::slab*>(runs_.begin() + std::uint64_t{place - 1} * 64);
  }
  void set_first_slab(unsigned index, detail::slab* first) noexcept {
    if (index < detail::first_binned) {
      small_slabs_[index] = first;
      return;
    }
    auto* at = reinterpret_cast<const char*>(first);
    slabs_[index - detail::first_binned] =
        first ? static_cast<std::uint32_t>((at - runs_.begin()) / 64 + 1) : 0;
  }

  detail::slab* small_slabs_[detail::first_binned] = {};
  // For each class a list of the slabs that have room.
  std::uint32_t slabs_[detail::size_classes - detail::first_binned] = {};
  // The same for the larger classes, in units of 64 bytes from begin(), plus one.
  std::uint32_t bins_[detail::size_classes - detail::first_binned] = {};
  // For each of these the block freed last, in units of 16 bytes from begin(); under it a few that were
  // freed before. A block freed just now is still in the caches, and its slab need not be looked at.
  detail::run_layer runs_;
  detail::mixed_span* mixed_[lists] = {}; // shared spans, by their longest free stretch
  std::uint8_t levels_[detail::size_classes / 4] = {};
  // For each class two bits: how large its next slab is to be.
  std::uint8_t released_ = 0; // slabs given up since the last one made
};
// A heap for one task, in the task's region, with all it knows about itself in the region too: copied to
// another process at the same addresses together with its memory, it goes on there.
//
// Thread safety: none. One thread at a time uses a heap; deallocate(), usable_size() and owner() use the
// block's heap.
//
// Small blocks come from slabs of one size class, which start with a kilobyte and grow to a span of 64 KiB
// as a class is used more; what a block belongs to is found by masking its address. (Free lists for each
// slab: mimalloc, Leijen and others, 2019; slabs: Bonwick, 1994.)

inline bool region_heap::is_block(const detail::slab* owner, const void* block) noexcept {
  char* at = reinterpret_cast<char*>(const_cast<detail::slab*>(owner));
  char* span = detail::span_of(at + 1);
  std::size_t offset = detail::offset_in(span, block),
              first = detail::offset_in(span, at) + sizeof(detail::slab);
  if (offset >= first)
    return (offset - first) % owner->block_size == 0 &&
           (owner->wrapped ? offset + owner->block_size <= detail::span_size : offset < owner->bump);
  return owner->wrapped && offset >= sizeof(detail::slab) &&
         (offset - sizeof(detail::slab)) % owner->block_size == 0 && offset < owner->bump;
}

[[gnu::noinline]] inline void region_heap::check_block(const detail::slab* owner,
                                                       const detail::heap_block* block) noexcept {
  if (!is_block(owner, block)) detail::heap_fatal("free of an address inside a block", block);
  if ((block->key & ~detail::depth_bits) != detail::key_of(owner)) return;
  const region_heap* heap = owner->heap; // a program may have written those bytes by chance
  std::uint64_t place = owner->bin_limit != 0 ? heap->bins_[owner->size_class - detail::first_binned] : 0;
  for (; place != 0; place = heap->block_at(place)->below)
    if (heap->block_at(place) == block) detail::heap_fatal("double free", block);
  for (const detail::heap_block* one = owner->free; one; one = one->next)
    if (one == block) detail::heap_fatal("double free", block);
}

[[gnu::noinline]] inline void region_heap::check_free_block(const detail::heap_block* block) noexcept {
  detail::slab* owner = slab_of(block);
  if (!detail::is_slab(owner) || (block->key & ~detail::depth_bits) != detail::key_of(owner) ||
      !is_block(owner, block))
    detail::heap_fatal("a block was written to after it was freed", block);
}

[[gnu::noinline]] inline void region_heap::give_back_to_full(detail::slab* owner,
                                                             detail::heap_block* block) noexcept {
  owner->heap->link_slab(owner);
  give_back(owner, block);
}

[[gnu::noinline]] inline void region_heap::slab_empty(detail::slab* owner, const void* last) noexcept {
  if (owner->live < 0) detail::heap_fatal("double free", last);
  if (owner->next || owner->prev) owner->heap->free_slab(owner);
}
// A class keeps one empty slab, so that a program which goes to and fro does not make it each time.

inline void region_heap::empty_bins() noexcept {
  for (unsigned index = detail::first_binned; index < detail::size_classes; ++index)
    while (bins_[index - detail::first_binned] != 0) {
      auto* block = static_cast<detail::heap_block*>(take_from_bin(index));
      give_back(slab_of(block), block);
    }
}

inline detail::slab* region_heap::inner_slab(char* span, const void* block) noexcept {
  auto* mixed = detail::header_at<detail::mixed_span>(span);
  unsigned first = mixed->first[detail::offset_in(span, block) / detail::granule_size];
  if (first == detail::mixed_span::nothing)
    detail::heap_fatal("double free, or free of an address that is no block", block);
  return detail::slab_at(span, first);
}

inline detail::slab* region_heap::slab_of(const void* block) noexcept {
  char* span = detail::span_of(block);
  auto* header = detail::header_at<detail::slab>(span);
  return header->tag == detail::tag_mixed ? inner_slab(span, block) : header;
}

[[gnu::noinline]] inline void region_heap::deallocate_other(char* span, void* block) noexcept {
  auto* header = detail::header_at<detail::slab>(span);
  region_heap* heap = header->heap;
  if (header->tag == detail::tag_mixed) {
    auto* mixed = detail::header_at<detail::mixed_span>(span);
    header = inner_slab(span, block);
    if (header->tag == detail::tag_solo) {
      header->tag = detail::tag_dead;
      return heap->give_granules(mixed, detail::granules_in(header->bump),
                                 detail::granules_in(header->limit - header->bump));
    }
  }
  auto* large = detail::header_at<detail::large_header>(span);
  if (large->tag != detail::tag_large)
    detail::heap_fatal("double free, or free of an address that is no block", block);
  if (large->data != block) detail::heap_fatal("free of an address inside a block", block);
  heap->runs_.release(span);
}

inline bool region_heap::extend(detail::slab* owner) noexcept {
  char* span = detail::span_of(reinterpret_cast<char*>(owner) + 1);
  std::uint32_t size = owner->block_size;
  if (owner->bump + size > owner->limit) {
    std::uint32_t header = detail::offset_in(span, owner);
    if (owner->wrapped || !is_whole(owner) || header < sizeof(detail::slab) + size) return false;
    owner->wrapped = 1;
    owner->bump = sizeof(detail::slab);
    owner->limit = header;
  }
  std::uint32_t offset = owner->bump;
  auto page = static_cast<std::uint32_t>(detail::round_up(offset + size, detail::page_size));
  std::uint32_t stop = page < owner->limit ? page : owner->limit;
  detail::heap_block** link = &owner->free;
  for (unsigned count = 0; count < 16 && offset + size <= stop; ++count, offset += size) {
    auto* block = reinterpret_cast<detail::heap_block*>(span + offset);
    if constexpr (detail::checked_heap) block->key = detail::key_of(owner);
    *link = block;
    link = &block->next;
  }
  *link = nullptr;
  owner->bump = offset;
  return true;
}
// Blocks that were never used join the free list a few at a time, and only as far as the page of the first of
// them, so that no page is touched before it is needed.

inline void region_heap::link_slab(detail::slab* owner) noexcept {
  owner->tag = detail::tag_slab;
  detail::slab* head = first_slab(owner->size_class);
  owner->prev = head;
  owner->next = head ? head->next : nullptr;
  if (!head) return set_first_slab(owner->size_class, owner);
  if (head->next) head->next->prev = owner;
  head->next = owner;
}
// Behind the first of its list, which is allocated from: until that is full, blocks gather in this one.

inline void region_heap::unlink_slab(detail::slab* owner) noexcept {
  if (owner->prev)
    owner->prev->next = owner->next;
  else
    set_first_slab(owner->size_class, owner->next);
  if (owner->next) owner->next->prev = owner->prev;
}

inline void region_heap::free_slab(detail::slab* owner) noexcept {
  unlink_slab(owner);
  owner->tag = detail::tag_dead;
  char* at = reinterpret_cast<char*>(owner);
  char* span = detail::span_of(at + 1);
  auto* mixed = detail::header_at<detail::mixed_span>(span);
  if (mixed->tag != detail::tag_mixed) {
    runs_.release(span);
    if (++released_ == 16) {
      released_ = 0;
      tidy();
    }
    return;
  }
  unsigned first = detail::granules_in(detail::offset_in(span, at));
  give_granules(mixed, first, detail::granules_in(owner->limit) - first);
}

// In a program that frees much, the blocks in bins and the empty slabs would keep spans in use, here and there.

inline void region_heap::set_up_slab(detail::slab* made, unsigned index) noexcept {
  made->tag = detail::tag_slab;
  made->heap = this;
  made->free = nullptr;
  made->block_size = static_cast<std::uint16_t>(detail::size_of_class(index));
  made->live = 0;
  made->size_class = static_cast<std::uint8_t>(index);
  made->wrapped = 0;
  made->bin_limit = 0;
  made->low = 0;
}

inline detail::slab* region_heap::new_whole_slab(unsigned index) noexcept {
  char* span = runs_.allocate(this, 1);
  if (!span) return nullptr;
  auto* made = detail::header_at<detail::slab>(span);
  set_up_slab(made, index);
  made->bump = static_cast<std::uint32_t>(detail::header_offset(span) + sizeof(detail::slab));
  made->limit = detail::span_size;
  if (index >= detail::first_binned) {
    made->bin_limit = bin_depth;
    made->low = static_cast<std::uint8_t>(detail::span_size / made->block_size / 4);
  }
  released_ = 0;
  return made;
}

inline detail::slab* region_heap::new_inner_slab(unsigned index, unsigned level) noexcept {
  std::size_t size = detail::size_of_class(index);
  std::size_t aim = (detail::granule_size << (2 * level)) - sizeof(detail::slab);
  std::size_t blocks = aim / size > 0 ? aim / size : 1;
  unsigned granules = detail::granules_in(sizeof(detail::slab) + blocks * size);
  detail::slab* made = take_granules(granules);
  if (!made) return nullptr;
  set_up_slab(made, index);
  char* span = detail::span_of(reinterpret_cast<char*>(made) + 1);
  made->bump = detail::offset_in(span, made + 1);
  made->limit = detail::offset_in(span, detail::slab_at(reinterpret_cast<char*>(made), granules));
  return made;
}

inline detail::slab* region_heap::new_slab(unsigned index) noexcept {
  unsigned now = level(index);
  detail::slab* made = now == 2 && capacity() >= roomy ? new_whole_slab(index) : nullptr;
  for (unsigned at_level = now + 1; !made && at_level-- > 0;) made = new_inner_slab(index, at_level);
  if (made && now < 2) raise_level(index);
  return made;
}
// A class's first slab aims at 1 KiB, its second at 4 KiB, the others at a whole span, or in a small region
// at 16 KiB; in one nearly exhausted, at what there is.

[[gnu::noinline]] inline void* region_heap::allocate_small(unsigned index) noexcept {
  for (bool tidied = false;;) {
    detail::slab* from = first_slab(index);
    if (!from) {
      from = new_slab(index);
      if (!from) {
        if (tidied) return nullptr;
        tidied = true;
        tidy();
        continue;
      }
      link_slab(from);
    }
    if (from->free || extend(from)) return take_from(from);
    unlink_slab(from);
    from->tag = detail::tag_full;
  }
}

inline unsigned region_heap::longest_stretch(std::uint64_t vacant) noexcept {
  unsigned list = 0;
  for (unsigned width = 1; list < lists - 1; width *= 2) {
    vacant &= vacant >> width;
    if (!vacant) break;
    ++list;
  }
  return list;
}
// The power of two of the longest stretch of set bits (Warren, Hacker's Delight, 6-3).

inline unsigned region_heap::find_stretch(std::uint64_t vacant, unsigned count) noexcept {
  for (unsigned have = 1; have < count && vacant;) {
    unsigned step = have < count - have ? have : count - have;
    vacant &= vacant >> step;
    have += step;
  }
  return static_cast<unsigned>(std::countr_zero(vacant));
}
// The first of `count` set bits in a row; 64 when there are none.

inline void region_heap::list_mixed(detail::mixed_span* mixed) noexcept {
  if (mixed->vacant == 0) {
    mixed->list = lists;
    return;
  }
  mixed->list = longest_stretch(mixed->vacant);
  detail::mixed_span*& head = mixed_[mixed->list];
  mixed->prev = nullptr;
  mixed->next = head;
  if (head) head->prev = mixed;
  head = mixed;
}

inline void region_heap::unlist_mixed(detail::mixed_span* mixed) noexcept {
  if (mixed->list == lists) return;
  if (mixed->prev)
    mixed->prev->next = mixed->next;
  else
    mixed_[mixed->list] = mixed->next;
  if (mixed->next) mixed->next->prev = mixed->prev;
}

inline detail::mixed_span* region_heap::new_mixed() noexcept {
  char* span = runs_.allocate(this, 1);
  if (!span) return nullptr;
  auto* mixed = detail::header_at<detail::mixed_span>(span);
  mixed->tag = detail::tag_mixed;
  mixed->taken = 0;
  std::memset(mixed->first, detail::mixed_span::nothing, sizeof mixed->first);
  std::size_t offset = detail::header_offset(span);
  auto first = static_cast<unsigned>(offset / detail::granule_size);
  auto last = static_cast<unsigned>((offset + sizeof(detail::mixed_span) - 1) / detail::granule_size);
  mixed->vacant = ~granule_mask(first, last - first + 1);
  list_mixed(mixed);
  return mixed;
}

inline detail::slab* region_heap::take_granules(unsigned count) noexcept {
  auto list = static_cast<unsigned>(std::bit_width(count) - 1);
  detail::mixed_span* from = nullptr;
  unsigned first = 64, tries = 8;
  for (auto* mixed = mixed_[list]; mixed && tries > 0 && !from; mixed = mixed->next, --tries) {
    first = find_stretch(mixed->vacant, count);
    if (first != 64) from = mixed;
  }
  for (++list; list < lists && !from; ++list)
    if (mixed_[list]) {
      first = find_stretch(mixed_[list]->vacant, count);
      if (first != 64) from = mixed_[list];
    }
  if (!from) {
    from = new_mixed();
    if (!from) return nullptr;
    first = find_stretch(from->vacant, count);
  }
  char* span = detail::span_of(reinterpret_cast<char*>(from) + 1);
  unlist_mixed(from);
  from->vacant &= ~granule_mask(first, count);
  ++from->taken;
  std::memset(from->first + first, static_cast<int>(first), count);
  list_mixed(from);
  return detail::slab_at(span, first);
}

inline void region_heap::give_granules(detail::mixed_span* mixed, unsigned first, unsigned count) noexcept {
  unlist_mixed(mixed);
  mixed->vacant |= granule_mask(first, count);
  std::memset(mixed->first + first, detail::mixed_span::nothing, count);
  if (--mixed->taken == 0) return runs_.release(detail::span_of(reinterpret_cast<char*>(mixed) + 1));
  list_mixed(mixed);
}

inline void* region_heap::allocate_medium(std::size_t bytes, std::size_t alignment) noexcept {
  std::size_t need =
      sizeof(detail::slab) + bytes + (alignment > detail::cache_line ? alignment - detail::cache_line : 0);
  unsigned granules = detail::granules_in(need);
  detail::slab* header = take_granules(granules);
  if (!header) return nullptr;
  char* span = detail::span_of(reinterpret_cast<char*>(header) + 1);
  header->tag = detail::tag_solo;
  header->heap = this;
  header->bump = detail::offset_in(span, header);
  header->limit = detail::offset_in(span, detail::slab_at(reinterpret_cast<char*>(header), granules));
  return detail::round_up(reinterpret_cast<char*>(header + 1), alignment);
}

inline void* region_heap::allocate_large(std::size_t bytes, std::size_t alignment) noexcept {
  std::size_t lead = alignment >= detail::span_size ? detail::span_size : 0, spans;
  char* span;
  if (lead != 0) {
    if (alignment > capacity()) return nullptr;
    spans = (detail::round_up(bytes, detail::span_size) + lead) / detail::span_size;
    span = runs_.allocate_aligned(this, spans, alignment, lead);
  } else {
    std::size_t margin = detail::page_size + (alignment > detail::cache_line ? alignment : 0);
    spans = detail::round_up(bytes + margin, detail::span_size) / detail::span_size;
    span = runs_.allocate(this, spans);
  }
  if (!span) return nullptr;
  auto* header = detail::header_at<detail::large_header>(span);
  header->tag = detail::tag_large;
  header->data = lead != 0 ? span + lead : detail::round_up(reinterpret_cast<char*>(header + 1), alignment);
  header->end = detail::round_up(header->data + bytes, detail::page_size);
  return header->data;
}

[[gnu::noinline]] inline void* region_heap::allocate_big(std::size_t bytes, std::size_t alignment) noexcept {
  bytes += bytes == 0; // so that a block's address lies in it, whatever its alignment
  if (bytes > capacity()) return nullptr;
  bool medium = alignment <= detail::medium_max && bytes + alignment <= detail::medium_max;
  for (bool tidied = false;; tidied = true) {
    void* block = medium ? allocate_medium(bytes, alignment) : allocate_large(bytes, alignment);
    if (block || tidied) return block;
    tidy();
  }
}

[[gnu::noinline]] inline void* region_heap::allocate_aligned(std::size_t bytes,
                                                             std::size_t alignment) noexcept {
  if (alignment <= detail::cache_line && bytes <= detail::small_max)
    return allocate(detail::round_up(bytes + (bytes == 0), alignment));
  return allocate_big(bytes, alignment);
}
// A size that is a multiple of 32 or 64 has a class whose size is, too, and every slab's first block is
// aligned to a cache line.

inline void* region_heap::allocate_zeroed(std::size_t bytes, std::size_t alignment) noexcept {
  const char* zeroed = runs_.zeroed_from();
  auto* block = static_cast<char*>(allocate(bytes, alignment));
  if (!block) return nullptr;
  std::size_t dirty = zeroed <= block ? 0 : static_cast<std::size_t>(zeroed - block);
  if (bytes <= detail::medium_max || dirty > bytes) dirty = bytes;
  std::memset(block, 0, dirty);
  return block;
}

inline std::size_t region_heap::usable_size(const void* block) noexcept {
  if (!block) return 0;
  char* span = detail::span_of(block);
  auto* header = detail::header_at<detail::slab>(span);
  if (header->tag == detail::tag_mixed) header = inner_slab(span, block);
  switch (header->tag) {
  case detail::tag_slab:
  case detail::tag_full: return header->block_size;
  case detail::tag_solo: return header->limit - detail::offset_in(span, block);
  case detail::tag_large:
    return static_cast<std::size_t>(detail::header_at<detail::large_header>(span)->end -
                                    static_cast<const char*>(block));
  default: detail::heap_fatal("use of an address that is no block", block);
  }
}

inline region_heap* region_heap::owner(const void* block) noexcept {
  return detail::header_at<detail::run_header>(detail::span_of(block))->heap;
}

inline bool region_heap::resize_medium(detail::slab* header, char* block, std::size_t bytes) noexcept {
  char* span = detail::span_of(block);
  auto* mixed = detail::header_at<detail::mixed_span>(span);
  unsigned to = detail::granules_in(detail::offset_in(span, block) + bytes);
  if (to > detail::span_granules) return false;
  unsigned from = detail::granules_in(header->limit), first = detail::granules_in(header->bump);
  if (to == from) return true;
  std::uint64_t change = to > from ? granule_mask(from, to - from) : granule_mask(to, from - to);
  if (to > from && (mixed->vacant & change) != change) return false;
  unlist_mixed(mixed);
  mixed->vacant ^= change;
  if (to > from)
    std::memset(mixed->first + from, static_cast<int>(first), to - from);
  else
    std::memset(mixed->first + to, detail::mixed_span::nothing, from - to);
  list_mixed(mixed);
  header->limit = detail::offset_in(span, detail::slab_at(span, to));
  return true;
}

inline bool region_heap::resize_large(char* span, char* block, std::size_t bytes) noexcept {
  auto* header = detail::header_at<detail::large_header>(span);
  if (bytes > capacity()) return false;
  char* end = detail::round_up(block + bytes, detail::page_size);
  std::size_t spans =
      detail::round_up(static_cast<std::size_t>(end - span), detail::span_size) / detail::span_size;
  if (spans > header->spans) {
    if (!runs_.extend(span, spans)) return false;
  } else if (spans < header->spans) {
    runs_.split(span, spans);
    runs_.release(span + spans * detail::span_size);
  }
  header->end = end;
  return true;
}

inline void* region_heap::reallocate(void* block, std::size_t bytes) noexcept {
  if (!block) return allocate(bytes);
  std::size_t usable = usable_size(block);
  char* span = detail::span_of(block);
  auto* header = detail::header_at<detail::slab>(span);
  if (header->tag == detail::tag_mixed) header = inner_slab(span, block);
  if (header->tag == detail::tag_large) {
    if (bytes > detail::medium_max && resize_large(span, static_cast<char*>(block), bytes)) return block;
  } else if (header->tag == detail::tag_solo) {
    if (bytes > detail::small_max && bytes <= detail::span_size &&
        resize_medium(header, static_cast<char*>(block), bytes))
      return block;
  } else if (bytes <= usable && (bytes >= usable / 2 || usable <= 32)) {
    return block;
  }
  void* moved = allocate(bytes);
  if (!moved) return bytes <= usable ? block : nullptr;
  std::memcpy(moved, block, usable < bytes ? usable : bytes);
  deallocate(block);
  return moved;
}

} // namespace migrate

#include <migrate/memory/heap_survey.hpp>
