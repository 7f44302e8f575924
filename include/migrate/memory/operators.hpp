// operator new and delete, routed to the running task's heap.
#pragma once

#include <cstdlib>
#include <new>

#include <migrate/memory/address_plan.hpp>
#include <migrate/memory/current_heap.hpp>
#include <migrate/memory/heap_error.hpp>

namespace migrate::detail {

inline void* try_new(region_heap* heap, std::size_t bytes, std::size_t alignment) noexcept {
  if (heap) return heap->allocate(bytes, alignment);
  if (alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__) return std::malloc(bytes != 0 ? bytes : 1);
  void* block = nullptr;
  return ::posix_memalign(&block, alignment, bytes != 0 ? bytes : 1) == 0 ? block : nullptr;
}

[[gnu::noinline, gnu::cold]] inline void* new_exhausted(region_heap* heap, std::size_t bytes,
                                                        std::size_t alignment) {
  while (std::new_handler handler = std::get_new_handler()) {
    handler();
    if (void* block = try_new(heap, bytes, alignment)) return block;
  }
  if (heap) throw region_exhausted(bytes, heap->reserved_bytes(), heap->capacity());
  throw std::bad_alloc();
}

[[gnu::noinline]] inline void* new_hard(region_heap* heap, std::size_t bytes, std::size_t alignment) {
  if (void* block = try_new(heap, bytes, alignment)) [[likely]]
    return block;
  return new_exhausted(heap, bytes, alignment);
}

[[gnu::always_inline]] inline void* do_new(std::size_t bytes) {
  region_heap* heap = current_heap_slot;
  if (heap) [[likely]]
    if (void* block = heap->allocate_if_easy(bytes)) [[likely]]
      return block;
  return new_hard(heap, bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}
// The thread-local is read without current_heap(), as the operators that this is part of are never inlined.

inline void* do_new(std::size_t bytes, std::size_t alignment) {
  return new_hard(current_heap(), bytes, alignment);
}

inline void* do_new_nothrow(std::size_t bytes, std::size_t alignment) noexcept {
  try {
    return do_new(bytes, alignment);
  } catch (...) {
    return nullptr;
  }
}

inline void do_delete(void* block) noexcept {
  if (in_plan(block)) [[likely]]
    return region_heap::deallocate(block);
  std::free(block);
}
// A block goes back where it came from, whoever frees it.

} // namespace migrate::detail

#define MIGRATE_REPLACEABLE [[gnu::weak, gnu::noinline]]
// Every file of a program may include this: the linker keeps one definition of each.

MIGRATE_REPLACEABLE void* operator new(std::size_t bytes) { return migrate::detail::do_new(bytes); }
MIGRATE_REPLACEABLE void* operator new[](std::size_t bytes) { return migrate::detail::do_new(bytes); }
MIGRATE_REPLACEABLE void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return migrate::detail::do_new(bytes, static_cast<std::size_t>(alignment));
}
MIGRATE_REPLACEABLE void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return migrate::detail::do_new(bytes, static_cast<std::size_t>(alignment));
}
MIGRATE_REPLACEABLE void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return migrate::detail::do_new_nothrow(bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}
MIGRATE_REPLACEABLE void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return migrate::detail::do_new_nothrow(bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}
MIGRATE_REPLACEABLE void* operator new(std::size_t bytes, std::align_val_t alignment,
                                       const std::nothrow_t&) noexcept {
  return migrate::detail::do_new_nothrow(bytes, static_cast<std::size_t>(alignment));
}
MIGRATE_REPLACEABLE void* operator new[](std::size_t bytes, std::align_val_t alignment,
                                         const std::nothrow_t&) noexcept {
  return migrate::detail::do_new_nothrow(bytes, static_cast<std::size_t>(alignment));
}

MIGRATE_REPLACEABLE void operator delete(void* block) noexcept { migrate::detail::do_delete(block); }
MIGRATE_REPLACEABLE void operator delete[](void* block) noexcept { migrate::detail::do_delete(block); }
MIGRATE_REPLACEABLE void operator delete(void* block, std::size_t) noexcept {
  migrate::detail::do_delete(block);
}
MIGRATE_REPLACEABLE void operator delete[](void* block, std::size_t) noexcept {
  migrate::detail::do_delete(block);
}
MIGRATE_REPLACEABLE void operator delete(void* block, std::align_val_t) noexcept {
  migrate::detail::do_delete(block);
}
MIGRATE_REPLACEABLE void operator delete[](void* block, std::align_val_t) noexcept {
  migrate::detail::do_delete(block);
}
MIGRATE_REPLACEABLE void operator delete(void* block, std::size_t, std::align_val_t) noexcept {
  migrate::detail::do_delete(block);
}
MIGRATE_REPLACEABLE void operator delete[](void* block, std::size_t, std::align_val_t) noexcept {
  migrate::detail::do_delete(block);
}
MIGRATE_REPLACEABLE void operator delete(void* block, const std::nothrow_t&) noexcept {
  migrate::detail::do_delete(block);
}
MIGRATE_REPLACEABLE void operator delete[](void* block, const std::nothrow_t&) noexcept {
  migrate::detail::do_delete(block);
}
MIGRATE_REPLACEABLE void operator delete(void* block, std::align_val_t, const std::nothrow_t&) noexcept {
  migrate::detail::do_delete(block);
}
MIGRATE_REPLACEABLE void operator delete[](void* block, std::align_val_t, const std::nothrow_t&) noexcept {
  migrate::detail::do_delete(block);
}

#undef MIGRATE_REPLACEABLE
