#include <migrate/memory/operators.hpp>

#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "heap_fixture.hpp"

using namespace heap_test;
using migrate::detail::heap_scope;
using migrate::detail::in_plan;

namespace {

constexpr auto wide = std::align_val_t{256};

bool aligned(const void* block) { return reinterpret_cast<std::uintptr_t>(block) % 256 == 0; }

// Catch2 allocates, too: so results are kept, and looked at outside the scope.
template <class F> auto in_heap(region_heap& heap, F&& f) {
  heap_scope scope(&heap);
  return f();
}

region_heap* handled_heap;
std::vector<void*>* handled_blocks;
int handled_calls;

} // namespace

TEST_CASE("each form of new takes from the current heap, and each form of delete gives back") {
  heap_in_region heap(region_class::small);
  bool routed = GENERATE(true, false);
  std::vector<void*> blocks(10);
  {
    heap_scope scope(routed ? &*heap : nullptr);
    blocks[0] = ::operator new(100);
    blocks[1] = ::operator new[](100);
    blocks[2] = ::operator new(100, std::nothrow);
    blocks[3] = ::operator new[](100, std::nothrow);
    blocks[4] = ::operator new(0);
    blocks[5] = ::operator new(100, wide);
    blocks[6] = ::operator new[](100, wide);
    blocks[7] = ::operator new(100, wide, std::nothrow);
    blocks[8] = ::operator new[](100, wide, std::nothrow);
    blocks[9] = ::operator new(100'000);
  }
  for (void* block : blocks) {
    REQUIRE(block);
    REQUIRE(in_plan(block) == routed);
  }
  for (int i = 5; i < 9; ++i) REQUIRE(aligned(blocks[static_cast<std::size_t>(i)]));
  if (routed) REQUIRE(heap->allocated_bytes() > 100'000);
  ::operator delete(blocks[0]);
  ::operator delete[](blocks[1]);
  ::operator delete(blocks[2], std::nothrow);
  ::operator delete[](blocks[3], std::nothrow);
  ::operator delete (blocks[4], std::size_t{0});
  ::operator delete(blocks[5], wide);
  ::operator delete[](blocks[6], std::size_t{100}, wide);
  ::operator delete(blocks[7], wide, std::nothrow);
  ::operator delete[](blocks[8], wide, std::nothrow);
  ::operator delete[](blocks[9], std::size_t{100'000});
  REQUIRE(heap->allocated_bytes() == 0);
  for (int form = 0; form < 3; ++form) {
    void* block = in_heap(*heap, [] { return ::operator new(64, wide); });
    asm volatile("" : "+r"(block)); // the array forms take what the others give
    if (form == 0) ::operator delete (block, std::size_t{64}, wide);
    if (form == 1) ::operator delete[](block, wide);
    if (form == 2) ::operator delete[](block, wide, std::nothrow);
    REQUIRE(heap->allocated_bytes() == 0);
  }
  ::operator delete(nullptr);
}

TEST_CASE("strings and containers made in a scope lie in the heap and may be destroyed outside") {
  heap_in_region heap(region_class::small);
  auto* words = in_heap(*heap, [] {
    auto made = new std::vector<std::string>;
    for (int i = 0; i < 100; ++i) made->push_back(std::string(static_cast<std::size_t>(i) * 3, 'x'));
    return made;
  });
  REQUIRE(in_plan(words));
  REQUIRE(in_plan(words->data()));
  REQUIRE(in_plan(words->back().data()));
  REQUIRE(region_heap::owner(words) == &*heap);
  REQUIRE(heap->allocated_bytes() > 100 * 32);
  delete words;
  REQUIRE(heap->allocated_bytes() == 0);
}

TEST_CASE("scopes nest, and node_heap_scope leads out of the heap") {
  heap_in_region heap(region_class::small, false, 1), other(region_class::small, false, 2);
  region_heap* seen[4];
  {
    heap_scope scope(&*heap);
    seen[0] = migrate::detail::current_heap();
    {
      heap_scope inner(&*other);
      seen[1] = migrate::detail::current_heap();
      migrate::node_heap_scope node;
      seen[2] = migrate::detail::current_heap();
    }
    seen[3] = migrate::detail::current_heap();
  }
  REQUIRE(seen[0] == &*heap);
  REQUIRE(seen[1] == &*other);
  REQUIRE(seen[2] == nullptr);
  REQUIRE(seen[3] == &*heap);
  REQUIRE(migrate::detail::current_heap() == nullptr);
}

TEST_CASE("the current heap is each thread's own") {
  heap_in_region heap(region_class::small);
  region_heap* elsewhere = &*heap;
  std::thread thread;
  {
    migrate::node_heap_scope node;
    thread = std::thread([&] { elsewhere = migrate::detail::current_heap(); });
  }
  thread.join();
  REQUIRE(elsewhere == nullptr);
}

TEST_CASE("a full heap throws region_exhausted, and serves again") {
  heap_in_region heap(region_class::small);
  std::size_t asked = 0, count = 0;
  std::string text;
  void* nothing = &heap;
  void* again = nullptr;
  {
    std::vector<void*> blocks(100'000);
    text.reserve(300);
    heap_scope scope(&*heap);
    try {
      for (;;) blocks[count++] = ::operator new(16);
    } catch (const migrate::region_exhausted& full) {
      asked = full.asked();
      text = full.what();
    }
    --count;
    nothing = ::operator new(5000, std::nothrow);
    for (std::size_t i = 0; i < count; ++i) ::operator delete(blocks[i]);
    again = ::operator new(5000);
  }
  REQUIRE(asked == 16);
  REQUIRE(text.find("16 bytes asked") != std::string::npos);
  REQUIRE(count > 40'000);
  REQUIRE(nothing == nullptr);
  REQUIRE(in_plan(again));
  ::operator delete(again);
  REQUIRE_THROWS_AS(::operator new(static_cast<std::size_t>(-1) / 2), std::bad_alloc);
}

TEST_CASE("a new_handler is asked until there is room") {
  heap_in_region heap(region_class::small);
  std::vector<void*> blocks;
  for (int i = 0; i < 3; ++i) blocks.push_back(heap->allocate(300'000));
  REQUIRE(blocks.back());
  handled_heap = &*heap;
  handled_blocks = &blocks;
  handled_calls = 0;
  auto before = std::set_new_handler([] {
    ++handled_calls;
    region_heap::deallocate(handled_blocks->back());
    handled_blocks->pop_back();
    if (handled_blocks->size() == 1) std::set_new_handler(nullptr);
  });
  void* block = in_heap(*heap, [] { return ::operator new(600'000); });
  std::set_new_handler(before);
  REQUIRE(in_plan(block));
  REQUIRE(handled_calls == 2);
  ::operator delete(block);
  region_heap::deallocate(blocks[0]);
  REQUIRE(heap->allocated_bytes() == 0);
}
