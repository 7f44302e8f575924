// malloc and its family, routed to the running task's heap. Include it in exactly one source file of a
// program.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <new>

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <migrate/memory/address_plan.hpp>
#include <migrate/memory/current_heap.hpp>

// With this, what C libraries allocate inside a task moves with it, and so do exceptions: the C++ runtime
// allocates them by malloc. Outside tasks everything comes from the C library's own allocator, by the names
// it has for itself. A static executable has no such names, as its malloc is left out of the link: there a
// heap with a lock serves the process.

extern "C" {
[[gnu::weak]] void* __libc_malloc(std::size_t);
[[gnu::weak]] void __libc_free(void*);
[[gnu::weak]] void* __libc_calloc(std::size_t, std::size_t);
[[gnu::weak]] void* __libc_realloc(void*, std::size_t);
[[gnu::weak]] void* __libc_memalign(std::size_t, std::size_t);
}
#pragma weak dlsym

namespace migrate::detail {
namespace {

class process_heap {
public:
  template <class F> auto use(F&& f) noexcept {
    lock();
    if (!heap_) start();
    auto result = f(*heap_);
    unlock();
    return result;
  }

  void lock() noexcept {
    while (busy_.test_and_set(std::memory_order_acquire)) ::sched_yield();
  }
  void unlock() noexcept { busy_.clear(std::memory_order_release); }

private:
  static constexpr std::size_t most = std::size_t{1} << 40, least = std::size_t{1} << 28;

  void start() noexcept {
    for (std::size_t size = most; size >= least; size /= 4) {
      void* memory = ::mmap(nullptr, size + span_size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) continue;
      char* begin = round_up(static_cast<char*>(memory), span_size);
      heap_ = ::new (place_) region_heap(begin, size, begin);
      return;
    }
    heap_fatal("no address space for the process's own heap", this);
  }

  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  region_heap* heap_ = nullptr;
  alignas(region_heap) char place_[sizeof(region_heap)] = {};
};

constinit process_heap own_heap;

[[gnu::constructor]] void hold_own_heap_at_fork() {
  if (!__libc_malloc)
    ::pthread_atfork([] { own_heap.lock(); }, [] { own_heap.unlock(); }, [] { own_heap.unlock(); });
}

[[gnu::constructor]] void have_unwinder_tables() {
  try {
    throw 0; // the unwinder of a static executable allocates tables for the process at the first throw
  } catch (int) {
  }
}

void* or_enomem(void* block) noexcept {
  if (!block) errno = ENOMEM;
  return block;
}

bool power_of_two(std::size_t value) noexcept { return value != 0 && (value & (value - 1)) == 0; }

[[gnu::noinline]] void* get_aligned(std::size_t alignment, std::size_t bytes) noexcept {
  if (region_heap* heap = current_heap()) return heap->allocate(bytes, alignment);
  if (__libc_memalign) return __libc_memalign(alignment, bytes);
  return own_heap.use([&](region_heap& heap) { return heap.allocate(bytes, alignment); });
}

} // namespace
} // namespace migrate::detail

extern "C" {

void* malloc(std::size_t bytes) noexcept {
  using namespace migrate::detail;
  if (migrate::region_heap* heap = current_heap()) return or_enomem(heap->allocate(bytes));
  if (__libc_malloc) return __libc_malloc(bytes);
  return or_enomem(own_heap.use([&](migrate::region_heap& heap) { return heap.allocate(bytes); }));
}

void free(void* block) noexcept {
  using namespace migrate::detail;
  if (!block) return;
  int error = errno;
  if (in_plan(block))
    migrate::region_heap::deallocate(block);
  else if (__libc_free)
    __libc_free(block);
  else
    own_heap.use([&](migrate::region_heap&) {
      migrate::region_heap::deallocate(block);
      return 0;
    });
  errno = error;
}

void* calloc(std::size_t count, std::size_t size) noexcept {
  using namespace migrate::detail;
  std::size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return or_enomem(nullptr);
  if (migrate::region_heap* heap = current_heap()) return or_enomem(heap->allocate_zeroed(bytes));
  if (__libc_calloc) return __libc_calloc(count, size);
  return or_enomem(own_heap.use([&](migrate::region_heap& heap) { return heap.allocate_zeroed(bytes); }));
}

void* realloc(void* block, std::size_t bytes) noexcept {
  using namespace migrate::detail;
  if (!block) return malloc(bytes);
  bool in_region = in_plan(block);
  if (!in_region && __libc_realloc) return __libc_realloc(block, bytes);
  if (bytes == 0) {
    free(block);
    return nullptr;
  }
  if (in_region) return or_enomem(migrate::region_heap::owner(block)->reallocate(block, bytes));
  return or_enomem(own_heap.use([&](migrate::region_heap& heap) { return heap.reallocate(block, bytes); }));
}

void* reallocarray(void* block, std::size_t count, std::size_t size) noexcept {
  std::size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return migrate::detail::or_enomem(nullptr);
  return realloc(block, bytes);
}

void* memalign(std::size_t alignment, std::size_t bytes) noexcept {
  using namespace migrate::detail;
  std::size_t power = 16;
  while (power < alignment && power != 0) power *= 2;
  if (power == 0) {
    errno = EINVAL;
    return nullptr;
  }
  return or_enomem(get_aligned(power, bytes));
}

void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  if (!migrate::detail::power_of_two(alignment)) {
    errno = EINVAL;
    return nullptr;
  }
  return memalign(alignment, bytes);
}

int posix_memalign(void** result, std::size_t alignment, std::size_t bytes) noexcept {
  if (alignment % sizeof(void*) != 0 || !migrate::detail::power_of_two(alignment)) return EINVAL;
  int error = errno;
  void* block = migrate::detail::get_aligned(alignment, bytes);
  errno = error;
  if (!block) return ENOMEM;
  *result = block;
  return 0;
}

void* valloc(std::size_t bytes) noexcept { return memalign(migrate::detail::page_size, bytes); }

void* pvalloc(std::size_t bytes) noexcept {
  using namespace migrate::detail;
  if (bytes > static_cast<std::size_t>(-1) - page_size) return or_enomem(nullptr);
  return memalign(page_size, round_up(bytes != 0 ? bytes : 1, page_size));
}

std::size_t malloc_usable_size(void* block) noexcept {
  using namespace migrate::detail;
  if (!block) return 0;
  if (in_plan(block)) return migrate::region_heap::usable_size(block);
  if (!__libc_malloc)
    return own_heap.use([&](migrate::region_heap&) { return migrate::region_heap::usable_size(block); });
  heap_scope scope(nullptr);
  using function = std::size_t (*)(void*);
  static std::atomic<function> next{nullptr};
  function call = next.load(std::memory_order_relaxed);
  if (!call && dlsym) {
    call = reinterpret_cast<function>(::dlsym(RTLD_NEXT, "malloc_usable_size"));
    next.store(call, std::memory_order_relaxed);
  }
  return call ? call(block) : 0;
}
}
