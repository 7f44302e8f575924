#include <migrate/memory/resource.hpp>

#include <list>
#include <map>
#include <memory>
#include <memory_resource>
#include <string>
#include <vector>

#include "heap_fixture.hpp"

using namespace heap_test;
using migrate::allocator;
using migrate::heap_resource;

namespace {

bool inside(const region& memory, const void* address) {
  return address >= memory.base() && address < memory.base() + memory.size();
}

} // namespace

TEST_CASE("polymorphic containers live in the heap") {
  heap_in_region heap(region_class::medium);
  heap_resource resource(*heap);
  {
    std::pmr::map<int, std::pmr::string> words(&resource);
    for (int i = 0; i < 2000; ++i) words[i].assign(static_cast<std::size_t>(i % 300), 'a');
    for (int i = 0; i < 2000; i += 2) words.erase(i);
    for (auto& [key, word] : words) {
      REQUIRE(inside(heap, &word));
      REQUIRE(word == std::pmr::string(static_cast<std::size_t>(key % 300), 'a'));
      REQUIRE(word.get_allocator().resource() == &resource);
    }
  }
  REQUIRE(heap->allocated_bytes() == 0);
  void* aligned = resource.allocate(100, 512);
  REQUIRE(reinterpret_cast<std::uintptr_t>(aligned) % 512 == 0);
  resource.deallocate(aligned, 100, 512);
  REQUIRE(heap->allocated_bytes() == 0);
}

TEST_CASE("resources are equal when their heap is the same") {
  heap_in_region heap(region_class::small, false, 1), other(region_class::small, false, 2);
  heap_resource one(*heap), two(*heap), three(*other);
  REQUIRE(one == two);
  REQUIRE(one != three);
  REQUIRE(one != *std::pmr::new_delete_resource());
  REQUIRE(&one.heap() == &*heap);
}

TEST_CASE("a resource made inside a task is of the task's heap, and outside there is none") {
  heap_in_region heap(region_class::small);
  CHECK_THROWS_WITH(heap_resource(), Catch::Contains("runs no task"));
  migrate::detail::heap_scope scope(&*heap);
  heap_resource resource;
  std::pmr::vector<int> numbers(100, 7, &resource);
  REQUIRE(inside(heap, numbers.data()));
}

TEST_CASE("a resource whose heap is full throws region_exhausted") {
  heap_in_region heap(region_class::small);
  heap_resource resource(*heap);
  REQUIRE_THROWS_AS(resource.allocate(2 * mebibyte), migrate::region_exhausted);
  std::vector<char, allocator<char>> bytes{allocator<char>(*heap)};
  REQUIRE_THROWS_AS(bytes.resize(2 * mebibyte), std::bad_alloc);
  REQUIRE_THROWS_AS(allocator<int>(*heap).allocate(static_cast<std::size_t>(-1) / 2),
                    std::bad_array_new_length);
  bytes.resize(1000);
  REQUIRE(inside(heap, bytes.data()));
}

TEST_CASE("an allocator over a given heap serves vector, map and list") {
  heap_in_region heap(region_class::medium);
  {
    allocator<int> from(*heap);
    std::vector<int, allocator<int>> numbers(from);
    std::list<int, allocator<int>> chain(from);
    std::map<int, int, std::less<>, allocator<std::pair<const int, int>>> squares{std::less<>(), from};
    for (int i = 0; i < 5000; ++i) {
      numbers.push_back(i);
      chain.push_front(i);
      squares[i] = i * i;
    }
    REQUIRE(inside(heap, numbers.data()));
    REQUIRE(inside(heap, &chain.front()));
    REQUIRE(inside(heap, &squares[17]));
    REQUIRE(squares[70] == 4900);
    REQUIRE(numbers[4999] == chain.front());
    auto moved = std::move(numbers);
    REQUIRE(moved.size() == 5000);
    REQUIRE(moved.get_allocator() == from);
    using traits = std::allocator_traits<allocator<int>>;
    static_assert(std::is_same_v<traits::rebind_alloc<long>, allocator<long>>);
    static_assert(!traits::is_always_equal::value);
    REQUIRE(allocator<long>(from) == from);
  }
  REQUIRE(heap->allocated_bytes() == 0);
}

TEST_CASE("an allocator takes the heap that is current when it is made") {
  heap_in_region heap(region_class::small, false, 1), other(region_class::small, false, 2);
  std::vector<int, allocator<int>> outside(10);
  REQUIRE(!inside(heap, outside.data()));
  REQUIRE(outside.get_allocator().heap() == nullptr);
  migrate::detail::heap_scope scope(&*heap);
  std::vector<int, allocator<int>> numbers(10, 3);
  REQUIRE(inside(heap, numbers.data()));
  outside.resize(1000);
  REQUIRE(!inside(heap, outside.data()));
  {
    migrate::detail::heap_scope inner(&*other);
    auto copy = numbers;
    REQUIRE(inside(other, copy.data()));
    REQUIRE(copy == numbers);
    numbers.resize(1000);
    REQUIRE(inside(heap, numbers.data()));
    copy = std::move(numbers);
    REQUIRE(inside(other, copy.data()));
    REQUIRE(copy.size() == 1000);
    migrate::node_heap_scope node;
    std::vector<int, allocator<int>> ordinary(10);
    REQUIRE(!inside(heap, ordinary.data()));
    REQUIRE(!inside(other, ordinary.data()));
  }
  REQUIRE(other->allocated_bytes() == 0);
  struct alignas(128) wide {
    char bytes[128];
  };
  std::vector<wide, allocator<wide>> aligned(3);
  REQUIRE(reinterpret_cast<std::uintptr_t>(aligned.data()) % 128 == 0);
}
