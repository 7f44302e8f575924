// Which heap the running thread allocates from.
#pragma once

#include <migrate/memory/heap.hpp>

namespace migrate {

namespace detail {

[[gnu::used]] inline constinit thread_local region_heap*
    current_heap_slot asm("migrate_current_heap") = nullptr;

[[gnu::noinline]] inline region_heap* current_heap() noexcept {
  region_heap* heap = current_heap_slot;
  asm volatile("" : "+r"(heap)); // not pure: two calls may run on two threads
  return heap;
}

[[gnu::noinline]] inline void set_current_heap(region_heap* heap) noexcept {
  asm volatile("" : "+r"(heap));
  current_heap_slot = heap;
}
// The heap that operator new uses on this thread; null: the process's own. Only these two functions touch
// the thread-local: an optimiser may keep its address across a switch, after which it is another thread's,
// or another process's.

class heap_scope {
public:
  explicit heap_scope(region_heap* heap) noexcept : before_(current_heap()) { set_current_heap(heap); }
  ~heap_scope() { set_current_heap(before_); }
  heap_scope(const heap_scope&) = delete;
  heap_scope& operator=(const heap_scope&) = delete;

private:
  region_heap* before_;
};
// Allocations in its scope go to the given heap. No switch to another task may happen inside it.

} // namespace detail

class node_heap_scope {
public:
  node_heap_scope() noexcept : scope_(nullptr) {}

private:
  detail::heap_scope scope_;
};
// Allocations in its scope go to the process's ordinary heap: for statics first used inside a task, and for
// everything that must stay on the node when the task leaves. The task must not move in the scope.

} // namespace migrate
