#include <migrate/memory/heap.hpp>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "heap_fixture.hpp"

using namespace heap_test;
using migrate::detail::medium_max;
using migrate::detail::size_of_class;
using migrate::detail::small_max;
using migrate::detail::span_size;

namespace {

struct held {
  unsigned char* block = nullptr;
  std::size_t bytes = 0;
  unsigned char fill = 0;
};

bool holds(const held& one, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i)
    if (one.block[i] != one.fill) return false;
  return true;
}

void fill(held& one, std::size_t bytes, unsigned char with) {
  one.bytes = bytes;
  one.fill = with;
  std::memset(one.block, with, bytes);
}

bool covered(const std::vector<std::pair<char*, std::size_t>>& ranges, const void* block, std::size_t bytes) {
  auto* from = static_cast<const char*>(block);
  return std::any_of(ranges.begin(), ranges.end(), [&](auto range) {
    return from >= range.first && from + bytes <= range.first + range.second;
  });
}

std::size_t draw_size(std::mt19937& random, std::size_t largest) {
  switch (random() % 16) {
  case 0: return random() % largest;
  case 1:
  case 2: return random() % (4 * small_max);
  case 3:
  case 4:
  case 5: return random() % small_max;
  default: return random() % 512;
  }
}

void random_trace(region_class kind, unsigned seed, std::size_t slots, std::size_t largest, int steps,
                  bool dirty) {
  CAPTURE(seed);
  heap_in_region heap(kind);
  if (dirty) std::memset(heap->begin(), 0xa5, std::min(heap->capacity(), 8 * mebibyte));
  std::mt19937 random(seed);
  std::vector<held> all(slots);
  bool good = true;
  for (int i = 0; i < steps && good; ++i) {
    held& one = all[random() % slots];
    std::size_t bytes = draw_size(random, largest);
    std::size_t alignment = random() % 8 == 0 ? std::size_t{16} << random() % 14 : 16;
    if (one.block && random() % 4 == 0) {
      auto* moved = static_cast<unsigned char*>(heap->reallocate(one.block, bytes));
      if (!moved) continue;
      one.block = moved;
      good &= holds(one, std::min(bytes, one.bytes));
    } else {
      if (one.block) {
        good &= holds(one, one.bytes) && region_heap::owner(one.block) == &*heap;
        region_heap::deallocate(one.block);
        one = {};
        if (random() % 2 == 0) continue;
      }
      bool zeroed = random() % 8 == 0;
      one.block = static_cast<unsigned char*>(zeroed ? heap->allocate_zeroed(bytes, alignment)
                                                     : heap->allocate(bytes, alignment));
      if (!one.block) continue;
      if (zeroed) good &= holds(one = {one.block, bytes, 0}, bytes);
      good &= reinterpret_cast<std::uintptr_t>(one.block) % alignment == 0;
    }
    std::size_t usable = region_heap::usable_size(one.block);
    good &= usable >= bytes;
    fill(one, bytes, static_cast<unsigned char>(random()));
    if (bytes <= small_max) fill(one, usable, one.fill);
    if (i % 5000 == 0) {
      good &= heap->check_consistency();
      auto ranges = live_ranges(*heap);
      for (const held& other : all)
        if (other.block) good &= covered(ranges, other.block, other.bytes);
    }
    if (i % 17'000 == 0) heap->trim();
  }
  REQUIRE(good);
  REQUIRE(heap->check_consistency());
  std::size_t sum = 0;
  for (const held& one : all) sum += one.bytes;
  REQUIRE(heap->allocated_bytes() >= sum);
  REQUIRE(heap->allocated_bytes() <= heap->reserved_bytes());
  for (held& one : all)
    if (one.block) {
      good &= holds(one, one.bytes);
      region_heap::deallocate(one.block);
    }
  REQUIRE(good);
  REQUIRE(heap->allocated_bytes() == 0);
  heap->trim();
  REQUIRE(heap->check_consistency());
  REQUIRE(heap->reserved_bytes() == 0);
  REQUIRE(live_ranges(*heap).empty());
  REQUIRE(resident(heap->begin(), heap->capacity()) == 0);
}

} // namespace

TEST_CASE("blocks keep their content through random traces") {
  auto seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  SECTION("small region, where room runs out") {
    random_trace(region_class::small, seed, 300, 40'000, 60'000, false);
  }
  SECTION("small region full of an old heap's bytes") {
    random_trace(region_class::small, seed, 200, 20'000, 60'000, true);
  }
  SECTION("medium region") { random_trace(region_class::medium, seed, 3'000, 300'000, 60'000, true); }
  SECTION("medium region, nearly full") {
    random_trace(region_class::medium, seed, 60, 6'000'000, 2'000, false);
  }
}

TEST_CASE("a size class wastes at most an eighth") {
  for (std::size_t bytes = 1; bytes <= small_max; ++bytes) {
    std::size_t block = size_of_class(migrate::detail::class_of_size(bytes));
    bool fits = block >= bytes && block - bytes < std::max<std::size_t>(16, block / 8 + 1);
    if (!fits) FAIL(bytes);
  }
}

TEST_CASE("every size at a border of the layout is usable to its last byte") {
  heap_in_region heap(region_class::large);
  std::vector<std::size_t> sizes{0, 1, 15, 16, 17, page, span_size, 2 * mebibyte, 3 * mebibyte};
  for (unsigned i = 0; i < migrate::detail::size_classes; ++i) sizes.push_back(size_of_class(i));
  for (std::size_t border : {small_max, medium_max, span_size - page, span_size - 64, 2 * span_size - page})
    sizes.push_back(border);
  std::vector<held> all;
  for (std::size_t size : sizes)
    for (std::size_t bytes : {size, size + 1, size - (size > 0)}) {
      held one;
      one.block = static_cast<unsigned char*>(heap->allocate(bytes));
      REQUIRE(one.block);
      REQUIRE(reinterpret_cast<std::uintptr_t>(one.block) % 16 == 0);
      REQUIRE(region_heap::usable_size(one.block) >= bytes);
      fill(one, region_heap::usable_size(one.block), static_cast<unsigned char>(all.size()));
      all.push_back(one);
    }
  for (const held& one : all) REQUIRE(holds(one, one.bytes));
  REQUIRE(heap->check_consistency());
  for (const held& one : all) region_heap::deallocate(one.block);
  REQUIRE(heap->allocated_bytes() == 0);
}

TEST_CASE("alignments up to many spans hold, for all kinds of sizes") {
  heap_in_region heap(region_class::large);
  std::vector<held> all;
  for (std::size_t alignment = 1; alignment <= 16 * mebibyte; alignment *= 2)
    for (std::size_t bytes : {0ul, 1ul, 40ul, 700ul, 5'000ul, 20'000ul, 61'000ul, 200'000ul}) {
      held one;
      one.block = static_cast<unsigned char*>(heap->allocate(bytes, alignment));
      REQUIRE(one.block);
      REQUIRE(reinterpret_cast<std::uintptr_t>(one.block) % alignment == 0);
      REQUIRE(region_heap::usable_size(one.block) >= bytes);
      REQUIRE(region_heap::owner(one.block) == &*heap);
      fill(one, bytes, static_cast<unsigned char>(all.size()));
      all.push_back(one);
    }
  REQUIRE(heap->check_consistency());
  auto ranges = live_ranges(*heap);
  for (const held& one : all) {
    REQUIRE(holds(one, one.bytes));
    REQUIRE(covered(ranges, one.block, one.bytes));
  }
  for (const held& one : all) region_heap::deallocate(one.block);
  REQUIRE(heap->check_consistency());
  REQUIRE(heap->allocated_bytes() == 0);
}

TEST_CASE("a fresh heap touches nothing, and three small blocks at most two pages") {
  region memory(region_class::small);
  alignas(region_heap) char place[sizeof(region_heap)];
  auto* heap = ::new (place) region_heap(memory.base() + span_size, memory.size() - span_size);
  static_assert(sizeof(region_heap) <= 640);
  REQUIRE(live_ranges(*heap).empty());
  REQUIRE(resident(memory.base(), memory.size()) == 0);
  REQUIRE(heap->high_water() == heap->begin());
  for (std::size_t bytes : {24, 100, 500}) std::memset(heap->allocate(bytes), 1, bytes);
  REQUIRE(resident(memory.base(), memory.size()) <= 2 * page);
  REQUIRE(live_bytes(*heap) <= 2 * page);
  REQUIRE(heap->high_water() > heap->begin());
}

TEST_CASE("a heap that is full gives null, and serves again when something is freed") {
  heap_in_region heap(region_class::small);
  for (std::size_t bytes : {16, 100, 1000, 8000, 30'000, 70'000}) {
    std::vector<held> all;
    for (;;) {
      held one;
      one.block = static_cast<unsigned char*>(heap->allocate(bytes));
      if (!one.block) break;
      fill(one, bytes, static_cast<unsigned char>(all.size()));
      all.push_back(one);
    }
    CAPTURE(bytes, all.size());
    REQUIRE(all.size() * bytes > heap->capacity() / 5 * 2);
    REQUIRE(heap->allocate(heap->capacity()) == nullptr);
    REQUIRE(heap->check_consistency());
    for (const held& one : all) REQUIRE(holds(one, bytes));
    region_heap::deallocate(all.back().block);
    all.back().block = static_cast<unsigned char*>(heap->allocate(bytes));
    REQUIRE(all.back().block);
    for (const held& one : all) region_heap::deallocate(one.block);
    heap->tidy();
    REQUIRE(heap->reserved_bytes() == 0);
  }
  REQUIRE(heap->allocate(static_cast<std::size_t>(-1)) == nullptr);
  REQUIRE(heap->allocate(static_cast<std::size_t>(-1) - 4096, 4096) == nullptr);
  REQUIRE(heap->allocate(16, std::size_t{1} << 40) == nullptr);
}

TEST_CASE("memory kept back for one size serves another before the heap says it is full") {
  heap_in_region heap(region_class::small);
  std::vector<void*> blocks;
  while (void* block = heap->allocate(48)) blocks.push_back(block);
  for (void* block : blocks) region_heap::deallocate(block);
  void* large = heap->allocate(heap->capacity() - 2 * page - span_size);
  REQUIRE(large);
  REQUIRE(heap->check_consistency());
  region_heap::deallocate(large);

  std::size_t most = 0, again = 0;
  blocks.clear();
  for (; void* block = heap->allocate(96); ++most) blocks.push_back(block);
  for (void* block : blocks) region_heap::deallocate(block);
  blocks.clear();
  for (std::size_t bytes = 16; bytes <= small_max; bytes += 16)
    for (int i = 0; i < 3; ++i) blocks.push_back(heap->allocate(bytes));
  for (void* block : blocks) region_heap::deallocate(block);
  while (heap->allocate(96)) ++again;
  REQUIRE(again >= most - most / 20);
}

TEST_CASE("reallocation keeps content, and grows in place where nothing follows") {
  heap_in_region heap(region_class::large);
  std::mt19937 random(7);
  held one;
  one.block = static_cast<unsigned char*>(heap->reallocate(nullptr, 10));
  fill(one, 10, 42);
  for (int i = 0; i < 300; ++i) {
    std::size_t bytes = std::size_t{1} << random() % 23;
    one.block = static_cast<unsigned char*>(heap->reallocate(one.block, bytes));
    REQUIRE(one.block);
    REQUIRE(holds(one, std::min(bytes, one.bytes)));
    REQUIRE(heap->check_consistency());
    fill(one, bytes, static_cast<unsigned char>(i));
  }
  region_heap::deallocate(one.block);

  void* large = heap->allocate(mebibyte);
  REQUIRE(heap->reallocate(large, 64 * mebibyte) == large);
  void* after = heap->allocate(mebibyte);
  REQUIRE(heap->reallocate(large, 8 * mebibyte) == large);
  REQUIRE(heap->reallocate(large, 60 * mebibyte) == large);
  void* medium = heap->allocate(10'000);
  REQUIRE(heap->reallocate(medium, 30'000) == medium);
  region_heap::deallocate(medium);
  region_heap::deallocate(after);
  REQUIRE(heap->check_consistency());
}

TEST_CASE("a reallocation that finds no room leaves the block as it was") {
  heap_in_region heap(region_class::small);
  held one;
  one.block = static_cast<unsigned char*>(heap->allocate(300'000));
  fill(one, 300'000, 9);
  heap->allocate(300'000);
  REQUIRE(heap->reallocate(one.block, 700'000) == nullptr);
  REQUIRE(holds(one, 300'000));
  REQUIRE(heap->check_consistency());
}

TEST_CASE("zeroed blocks are zero although the memory was used before") {
  bool known_zero = GENERATE(false, true);
  heap_in_region heap(region_class::medium, known_zero);
  if (!known_zero) std::memset(heap->begin(), 0xff, heap->capacity());
  std::mt19937 random(5);
  std::vector<held> all(40);
  for (int i = 0; i < 1500; ++i) {
    held& one = all[random() % all.size()];
    region_heap::deallocate(one.block);
    std::size_t bytes = draw_size(random, mebibyte);
    one.block = static_cast<unsigned char*>(heap->allocate_zeroed(bytes));
    REQUIRE(one.block);
    one.fill = 0;
    REQUIRE(holds(one, bytes));
    fill(one, bytes, 0xee);
    if (i % 200 == 0) heap->trim();
  }
}

TEST_CASE("zeroed memory above the high-water mark is not written to") {
  heap_in_region heap(region_class::large, true);
  void* block = heap->allocate_zeroed(512 * mebibyte);
  REQUIRE(block);
  REQUIRE(resident(heap->begin(), 600 * mebibyte) <= 4 * page);
}

TEST_CASE("blocks of a gigabyte and of forty") {
  heap_in_region heap(region_class::huge);
  for (std::size_t bytes : {std::size_t{1} << 30, std::size_t{40} << 30}) {
    auto* block = static_cast<char*>(heap->allocate(bytes));
    REQUIRE(block);
    block[0] = block[bytes - 1] = 1;
    REQUIRE(region_heap::usable_size(block) >= bytes);
    REQUIRE(resident(heap->begin(), span_size) <= 2 * page);
    region_heap::deallocate(block);
    heap->trim();
    REQUIRE(resident(heap->begin(), span_size) == 0);
    REQUIRE(resident(heap->begin() + bytes - bytes % page, span_size) == 0);
  }
}

TEST_CASE("what a program frees leaves memory, and is not live") {
  heap_in_region heap(region_class::large);
  std::vector<void*> blocks;
  std::mt19937 random(11);
  for (int i = 0; i < 20'000; ++i) {
    std::size_t bytes = 1 + random() % 8000;
    blocks.push_back(heap->allocate(bytes));
    std::memset(blocks.back(), 1, bytes);
  }
  void* large = heap->allocate(100 * mebibyte);
  std::memset(large, 1, 100 * mebibyte);
  std::size_t extent = static_cast<std::size_t>(heap->high_water() - heap->begin());
  REQUIRE(resident(heap->begin(), extent) > 150 * mebibyte);
  std::shuffle(blocks.begin(), blocks.end(), random);
  region_heap::deallocate(large);
  for (void* block : blocks) region_heap::deallocate(block);
  REQUIRE(resident(heap->begin(), extent) < 50 * mebibyte);
  heap->tidy();
  REQUIRE(live_bytes(*heap) == 0);
  heap->trim();
  REQUIRE(resident(heap->begin(), extent) == 0);
}

TEST_CASE("a freed large block is not live, nor the part of a span never used") {
  heap_in_region heap(region_class::large);
  void* keep = heap->allocate(mebibyte);
  void* hole = heap->allocate(50 * mebibyte);
  void* after = heap->allocate(mebibyte);
  std::size_t before = live_bytes(*heap);
  REQUIRE(before >= 52 * mebibyte);
  region_heap::deallocate(hole);
  REQUIRE(live_bytes(*heap) <= before - 50 * mebibyte + page);
  auto ranges = live_ranges(*heap);
  REQUIRE(covered(ranges, keep, mebibyte));
  REQUIRE(covered(ranges, after, mebibyte));
  REQUIRE(!covered(ranges, static_cast<char*>(hole) + mebibyte, page));

  std::size_t now = live_bytes(*heap);
  for (int i = 0; i < 100; ++i) heap->allocate(4000);
  REQUIRE(live_bytes(*heap) <= now + 100 * 4096 + 16 * page);
}

TEST_CASE("a block of a program that goes to and fro is not given back each time") {
  heap_in_region heap(region_class::medium);
  for (int i = 0; i < 20; ++i) {
    auto* block = static_cast<char*>(heap->allocate(4 * mebibyte));
    std::memset(block, 1, 4 * mebibyte);
    region_heap::deallocate(block);
  }
  REQUIRE(resident(heap->begin(), 5 * mebibyte) >= 4 * mebibyte);
  heap->trim();
  REQUIRE(resident(heap->begin(), 5 * mebibyte) == 0);
}

TEST_CASE("a heap goes on in another process from its live ranges alone") {
  auto seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  std::vector<held> all(800);
  int to_child[2], to_parent[2];
  REQUIRE(::pipe(to_child) == 0);
  REQUIRE(::pipe(to_parent) == 0);
  auto send = [](int to, const void* from, std::size_t bytes) {
    auto* at = static_cast<const char*>(from);
    for (ssize_t done; bytes > 0; at += done, bytes -= static_cast<std::size_t>(done))
      if ((done = ::write(to, at, bytes)) <= 0) return false;
    return true;
  };
  auto receive = [](int from, void* to, std::size_t bytes) {
    auto* at = static_cast<char*>(to);
    for (ssize_t done; bytes > 0; at += done, bytes -= static_cast<std::size_t>(done))
      if ((done = ::read(from, at, bytes)) <= 0) return false;
    return true;
  };
  auto work = [&](region_heap* heap, unsigned with) {
    std::mt19937 draw(with);
    bool good = heap->check_consistency();
    for (int i = 0; i < 4000; ++i) {
      held& one = all[draw() % all.size()];
      if (one.block) {
        good &= holds(one, one.bytes);
        region_heap::deallocate(one.block);
      }
      std::size_t bytes = draw_size(draw, 200'000);
      bool zeroed = draw() % 4 == 0;
      one.block = static_cast<unsigned char*>(zeroed ? heap->allocate_zeroed(bytes) : heap->allocate(bytes));
      if (!one.block) return false;
      one.fill = 0;
      if (zeroed) good &= holds(one, bytes);
      fill(one, bytes, static_cast<unsigned char>(draw()));
    }
    return good && heap->check_consistency();
  };
  // The region's first page travels with the heap object in it, then each live range; all else is garbage
  // there.
  auto give = [&](int to, region_heap* heap, char* base) {
    heap->tidy();
    bool good = send(to, base, page) && send(to, all.data(), all.size() * sizeof(held));
    heap->for_each_live_range([&](char* address, std::size_t bytes) {
      good &=
          send(to, &address, sizeof address) && send(to, &bytes, sizeof bytes) && send(to, address, bytes);
    });
    char* none = nullptr;
    return good && send(to, &none, sizeof none);
  };
  auto take = [&](int from, char* base) {
    bool good = receive(from, base, page) && receive(from, all.data(), all.size() * sizeof(held));
    for (char* address; good && receive(from, &address, sizeof address) && address;) {
      std::size_t bytes;
      good = receive(from, &bytes, sizeof bytes) && receive(from, address, bytes);
    }
    return good;
  };

  const migrate::detail::region_number number(region_class::medium, 3);
  auto child_seed = static_cast<unsigned>(random());
  pid_t child = ::fork();
  if (child == 0) {
    if (::mmap(number.base(), number.size(), PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) != number.base())
      ::_exit(2);
    std::memset(number.base(), 0xdb, number.size());
    auto* heap = reinterpret_cast<region_heap*>(number.base());
    if (!take(to_child[0], number.base())) ::_exit(3);
    heap->set_zeroed_from(number.base() + number.size());
    if (!work(heap, child_seed)) ::_exit(4);
    if (!give(to_parent[1], heap, number.base())) ::_exit(5);
    ::_exit(0);
  }
  {
    heap_in_region heap(region_class::medium, true, 3);
    REQUIRE(work(&*heap, static_cast<unsigned>(random())));
    REQUIRE(give(to_child[1], &*heap, heap.base()));
    std::memset(heap.base(), 0x77, heap.size());
    REQUIRE(take(to_parent[0], heap.base()));
    heap->set_zeroed_from(heap.base() + heap.size());
    REQUIRE(work(&*heap, static_cast<unsigned>(random())));
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(status == 0);
  }
  for (int end : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) ::close(end);
}

TEST_CASE("the owner of a block is found by its address") {
  heap_in_region one(region_class::small, false, 1), other(region_class::small, false, 2);
  for (std::size_t bytes : {1, 500, 9'000, 100'000}) {
    void *first = one->allocate(bytes), *second = other->allocate(bytes);
    REQUIRE(region_heap::owner(first) == &*one);
    REQUIRE(region_heap::owner(second) == &*other);
    region_heap::deallocate(second);
    region_heap::deallocate(first);
  }
  REQUIRE(one->allocated_bytes() == 0);
  REQUIRE(other->allocated_bytes() == 0);
}

TEST_CASE("freeing twice, or what is no block, ends the process with a message") {
  heap_in_region heap(region_class::medium);
  for (std::size_t bytes : {40, 3'000, 20'000, 300'000}) {
    CAPTURE(bytes);
    auto [text, status] = in_child([&] {
      void* before = heap->allocate(bytes);
      void* block = heap->allocate(bytes);
      region_heap::deallocate(block);
      region_heap::deallocate(before);
      region_heap::deallocate(block);
    });
    REQUIRE((WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT));
    REQUIRE(text.find("double free") != std::string::npos);
    REQUIRE(text.find("region medium 1") != std::string::npos);
    REQUIRE(std::count(text.begin(), text.end(), '\n') == 1);
  }
  auto [text, status] = in_child([&] {
    auto* block = static_cast<char*>(heap->allocate(300'000));
    region_heap::deallocate(block + 160);
  });
  REQUIRE((WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT));
  REQUIRE(text.find("inside a block") != std::string::npos);
}

TEST_CASE("exhaustion says what was asked and what to do") {
  migrate::region_exhausted error(12'345, 600, 983'040);
  std::string text = error.what();
  REQUIRE(text.find("12345 bytes") != std::string::npos);
  REQUIRE(text.find("983040") != std::string::npos);
  REQUIRE(text.find("region_class") != std::string::npos);
  REQUIRE(error.asked() == 12'345);
}
