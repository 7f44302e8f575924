#include <migrate/malloc.hpp>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <malloc.h>

#include <migrate/memory/operators.hpp>

#include "heap_fixture.hpp"

using namespace heap_test;
using migrate::detail::heap_scope;
using migrate::detail::in_plan;

namespace {

bool aligned(const void* block, std::size_t to) { return reinterpret_cast<std::uintptr_t>(block) % to == 0; }

// Keeps the compiler from knowing what an allocation is for.
template <class T> T* opaque(T* pointer) {
  T* same;
  asm volatile("" : "=r"(same) : "0"(pointer));
  return same;
}

} // namespace

TEST_CASE("each function of the family takes from the current heap, and free gives back") {
  heap_in_region heap(region_class::medium);
  bool routed = GENERATE(true, false);
  struct {
    const char* name;
    void* block;
    std::size_t bytes, alignment;
  } made[] = {
      {"malloc", nullptr, 100, 16},          {"calloc", nullptr, 1000, 16},
      {"realloc", nullptr, 300, 16},         {"reallocarray", nullptr, 4000, 16},
      {"memalign", nullptr, 100, 1024},      {"aligned_alloc", nullptr, 128, 64},
      {"posix_memalign", nullptr, 60, 4096}, {"valloc", nullptr, 10, 4096},
      {"pvalloc", nullptr, 4096, 4096},      {"strdup", nullptr, 6, 16},
      {"strndup", nullptr, 3, 16},           {"large malloc", nullptr, mebibyte, 16},
      {"malloc(0)", nullptr, 0, 16},         {"reallocarray null", nullptr, 80, 16},
  };
  int result;
  {
    heap_scope scope(routed ? &*heap : nullptr);
    made[0].block = opaque(std::malloc(100));
    made[1].block = opaque(std::calloc(10, 100));
    made[2].block = opaque(std::realloc(opaque(std::malloc(20)), 300));
    made[3].block = opaque(::reallocarray(opaque(std::malloc(20)), 40, 100));
    made[4].block = opaque(::memalign(1024, 100));
    made[5].block = opaque(std::aligned_alloc(64, 128));
    result = ::posix_memalign(&made[6].block, 4096, 60);
    made[7].block = opaque(::valloc(10));
    made[8].block = opaque(::pvalloc(1));
    made[9].block = opaque(::strdup("hello"));
    made[10].block = opaque(::strndup("hello", 2));
    made[11].block = opaque(std::malloc(mebibyte));
    made[12].block = opaque(std::malloc(0));
    made[13].block = opaque(::reallocarray(nullptr, 8, 10));
  }
  REQUIRE(result == 0);
  for (auto& one : made) {
    CAPTURE(one.name);
    REQUIRE(one.block);
    REQUIRE(in_plan(one.block) == routed);
    REQUIRE(aligned(one.block, one.alignment));
    REQUIRE(::malloc_usable_size(one.block) >= one.bytes);
  }
  REQUIRE(std::string(static_cast<char*>(made[9].block)) == "hello");
  REQUIRE(std::string(static_cast<char*>(made[10].block)) == "he");
  for (auto& one : made) {
    std::memset(one.block, 1, one.bytes);
    std::free(one.block);
  }
  REQUIRE(heap->allocated_bytes() == 0);
  REQUIRE(::malloc_usable_size(nullptr) == 0);
}

TEST_CASE("calloc gives zeros where there was something else") {
  heap_in_region heap(region_class::small);
  heap_scope scope(&*heap);
  bool zero = true;
  for (std::size_t bytes : {40, 900, 12'000, 100'000})
    for (int i = 0; i < 3; ++i) {
      auto* block = static_cast<unsigned char*>(opaque(std::calloc(bytes / 4, 4)));
      for (std::size_t k = 0; k < bytes; ++k) zero &= block[k] == 0;
      std::memset(block, 0xff, bytes);
      std::free(opaque(block));
    }
  migrate::node_heap_scope node;
  REQUIRE(zero);
}

TEST_CASE("realloc keeps a block in the heap it is from") {
  heap_in_region heap(region_class::medium);
  char* inside;
  char* outside = static_cast<char*>(std::malloc(10));
  std::strcpy(outside, "node");
  {
    heap_scope scope(&*heap);
    inside = static_cast<char*>(std::malloc(10));
    std::strcpy(inside, "task");
    outside = static_cast<char*>(opaque(std::realloc(outside, 100'000)));
  }
  inside = static_cast<char*>(opaque(std::realloc(inside, 100'000)));
  REQUIRE(in_plan(inside));
  REQUIRE(!in_plan(outside));
  REQUIRE(std::string(inside) == "task");
  REQUIRE(std::string(outside) == "node");
  REQUIRE(std::realloc(inside, 0) == nullptr);
  std::free(outside);
  REQUIRE(heap->allocated_bytes() == 0);
}

TEST_CASE("what cannot be had is null with ENOMEM or EINVAL") {
  heap_in_region heap(region_class::small);
  bool routed = GENERATE(true, false);
  std::size_t much = static_cast<std::size_t>(-1) / 2 + (std::size_t{1} << 40);
  asm volatile("" : "+r"(much));
  struct result {
    void* block;
    int error;
  };
  std::vector<result> failed;
  void* none = &heap;
  void* small = nullptr;
  int no_memory, bad_alignment, odd_alignment;
  failed.reserve(10);
  {
    heap_scope scope(routed ? &*heap : nullptr);
    auto note = [&](void* block) {
      failed.push_back({block, errno});
      errno = 0;
    };
    errno = 0;
    small = opaque(std::malloc(10));
    note(opaque(std::malloc(much)));
    note(opaque(std::calloc(much, 16)));
    note(opaque(std::realloc(opaque(small), much)));
    note(opaque(::reallocarray(opaque(small), much, 16)));
    note(opaque(::memalign(64, much)));
    note(opaque(::pvalloc(static_cast<std::size_t>(-1))));
    no_memory = ::posix_memalign(&none, 64, much);
    bad_alignment = ::posix_memalign(&none, 24, 10);
    odd_alignment = ::posix_memalign(&none, 4, 10);
    std::free(small);
  }
  for (auto& one : failed) {
    REQUIRE(one.block == nullptr);
    REQUIRE(one.error == ENOMEM);
  }
  REQUIRE(no_memory == ENOMEM);
  REQUIRE(bad_alignment == EINVAL);
  REQUIRE(odd_alignment == EINVAL);
  REQUIRE(none == &heap);
  std::size_t odd = 48;
  asm volatile("" : "+r"(odd));
  errno = 0;
  REQUIRE(opaque(std::aligned_alloc(odd, 96)) == nullptr);
  REQUIRE(errno == EINVAL);
}

TEST_CASE("free leaves errno alone") {
  heap_in_region heap(region_class::small);
  void* block = heap->allocate(500'000);
  errno = 77;
  std::free(block);
  REQUIRE(errno == 77);
}

TEST_CASE("exceptions thrown in a task lie in its heap") {
  heap_in_region heap(region_class::small);
  bool in_region = false, whole = false;
  std::exception_ptr kept;
  {
    heap_scope scope(&*heap);
    try {
      throw std::runtime_error("a message of more than a few characters, so that it is allocated");
    } catch (const std::runtime_error& error) {
      in_region = in_plan(&error) && in_plan(error.what());
      kept = std::current_exception();
    }
  }
  REQUIRE(in_region);
  REQUIRE(heap->allocated_bytes() > 0);
  try {
    std::rethrow_exception(kept);
  } catch (const std::runtime_error& error) {
    whole = std::string(error.what()).starts_with("a message of more");
  }
  REQUIRE(whole);
  kept = nullptr;
  REQUIRE(heap->allocated_bytes() == 0);
}

TEST_CASE("a heap full to the last block still throws") {
  heap_in_region heap(region_class::small);
  bool caught = false;
  std::size_t blocks = 0;
  {
    heap_scope scope(&*heap);
    for (std::size_t bytes : {30'000, 1000, 16})
      while (heap->allocate(bytes)) ++blocks;
    for (std::size_t bytes = migrate::detail::small_max; bytes >= 16; bytes -= 16)
      while (heap->allocate(bytes)) ++blocks;
    try {
      delete opaque(new int(5));
    } catch (const std::bad_alloc& error) {
      caught = std::strstr(error.what(), "region exhausted") != nullptr;
    }
  }
  REQUIRE(blocks > 30);
  REQUIRE(caught);
}

TEST_CASE("operator new outside of tasks ends at the process's allocator") {
  auto text = std::make_unique<std::string>(5000, 'x');
  REQUIRE(!in_plan(text.get()));
  REQUIRE(::malloc_usable_size(text->data()) >= 5000);
}

TEST_CASE("many threads and a forked child allocate at once") {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([] {
      for (int i = 0; i < 20'000; ++i) std::free(opaque(std::malloc(static_cast<std::size_t>(i % 3000))));
    });
  auto [text, status] = in_child([] {
    for (int i = 0; i < 1000; ++i) std::free(opaque(std::malloc(static_cast<std::size_t>(i))));
  });
  for (auto& thread : threads) thread.join();
  REQUIRE(status == 0);
}

TEST_CASE("the heap that a static executable falls back on serves several threads") {
  using migrate::detail::own_heap;
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&wrong, t] {
      for (int i = 0; i < 5000; ++i) {
        auto bytes = static_cast<std::size_t>(16 + i % 5000);
        void* block = own_heap.use([&](region_heap& heap) { return heap.allocate(bytes); });
        std::memset(block, t, bytes);
        if (static_cast<char*>(block)[bytes - 1] != t || in_plan(block)) ++wrong;
        own_heap.use([&](region_heap&) {
          region_heap::deallocate(block);
          return 0;
        });
      }
    });
  for (auto& thread : threads) thread.join();
  REQUIRE(wrong == 0);
  REQUIRE(own_heap.use([](region_heap& heap) { return heap.check_consistency(); }));
  bool serves_the_process = !__libc_malloc; // and then holds more than what was allocated here
  if (!serves_the_process)
    REQUIRE(own_heap.use([](region_heap& heap) { return heap.allocated_bytes(); }) == 0);
}
