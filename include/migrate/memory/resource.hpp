// A region heap as a std::pmr::memory_resource and as a standard allocator.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory_resource>
#include <new>

#include <migrate/error.hpp>
#include <migrate/memory/current_heap.hpp>
#include <migrate/memory/heap.hpp>

namespace migrate {

class heap_resource final : public std::pmr::memory_resource {
public:
  heap_resource() : heap_(detail::current_heap()) {
    if (heap_ == nullptr) throw error(errc::not_in_task, "heap_resource: the calling thread runs no task, so it has no heap");
  }
  // Of the running task's heap.

  explicit heap_resource(region_heap& heap) noexcept : heap_(&heap) {}

  region_heap& heap() const noexcept { return *heap_; }

private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    if (void* block = heap_->allocate(bytes, alignment)) return block;
    throw region_exhausted(bytes, heap_->reserved_bytes(), heap_->capacity());
  }
  void do_deallocate(void* block, std::size_t, std::size_t) override { region_heap::deallocate(block); }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    auto* resource = dynamic_cast<const heap_resource*>(&other);
    return resource && resource->heap_ == heap_;
  }

  region_heap* heap_;
};
// Allocates from one heap, which must outlive it; throws region_exhausted. Put it in the region too when what
// uses it is to move.

template <class T> class allocator {
public:
  using value_type = T;

  allocator() noexcept : heap_(detail::current_heap()) {}
  explicit allocator(region_heap& heap) noexcept : heap_(&heap) {}
  template <class U> allocator(const allocator<U>& other) noexcept : heap_(other.heap()) {}

  T* allocate(std::size_t count) {
    if (count > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_array_new_length();
    std::size_t bytes = count * sizeof(T);
    void* block = nullptr;
    if (heap_) {
      block = heap_->allocate(bytes, alignof(T));
      if (!block) throw region_exhausted(bytes, heap_->reserved_bytes(), heap_->capacity());
    } else if (::posix_memalign(&block, alignof(T) < sizeof(void*) ? sizeof(void*) : alignof(T),
                                bytes != 0 ? bytes : 1) != 0) {
      throw std::bad_alloc();
    }
    return static_cast<T*>(block);
  }

  void deallocate(T* block, std::size_t) noexcept {
    if (heap_)
      region_heap::deallocate(block);
    else
      std::free(block);
  }

  allocator select_on_container_copy_construction() const noexcept { return {}; }
  // A copy belongs to whoever makes it.

  region_heap* heap() const noexcept { return heap_; }

  template <class U> friend bool operator==(const allocator& a, const allocator<U>& b) noexcept {
    return a.heap() == b.heap();
  }

private:
  region_heap* heap_;
};
// Allocates from the heap it was made with, or from the one that was the thread's current heap when it was
// made (none: the process's own). allocate() throws region_exhausted.

} // namespace migrate
