#define MIGRATE_CHECKED_HEAP
#include <migrate/memory/heap.hpp>

#include <csignal>
#include <random>

#include "heap_fixture.hpp"

using namespace heap_test;

namespace {

void require_abort(const std::pair<std::string, int>& result, const char* words) {
  CAPTURE(result.first);
  REQUIRE((WIFSIGNALED(result.second) && WTERMSIG(result.second) == SIGABRT));
  REQUIRE(result.first.find(words) != std::string::npos);
}

} // namespace

TEST_CASE("a checked heap notices a double free however long ago the first was") {
  heap_in_region heap(region_class::large);
  for (std::size_t bytes : {16, 700, 5'000})
    require_abort(in_child([&] {
                    std::vector<void*> blocks;
                    for (int i = 0; i < 500; ++i) blocks.push_back(heap->allocate(bytes));
                    for (std::size_t i = 0; i < 400; ++i) region_heap::deallocate(blocks[i]);
                    region_heap::deallocate(blocks[123]);
                  }),
                  "double free");
}

TEST_CASE("a checked heap notices an address inside a block, and a write to a free one") {
  heap_in_region heap(region_class::large);
  require_abort(in_child([&] { region_heap::deallocate(static_cast<char*>(heap->allocate(100)) + 16); }),
                "inside a block");
  require_abort(in_child([&] {
                  auto* block = static_cast<char*>(heap->allocate(100));
                  heap->allocate(100);
                  region_heap::deallocate(block);
                  std::memset(block, 1, 100);
                  heap->allocate(100);
                }),
                "written to after it was freed");
}

TEST_CASE("a checked heap accepts what is right, blocks that look like free ones too") {
  heap_in_region heap(region_class::large);
  std::mt19937 random(3);
  std::vector<std::pair<char*, std::size_t>> blocks(3000);
  for (int i = 0; i < 60'000; ++i) {
    auto& [block, bytes] = blocks[random() % blocks.size()];
    region_heap::deallocate(block);
    bytes = random() % 9000 + 16;
    block = static_cast<char*>(heap->allocate(bytes));
    std::memset(block, static_cast<int>(random()), bytes);
    if (bytes <= 1024 && random() % 64 == 0) {
      char* span = migrate::detail::span_of(block);
      auto key = migrate::detail::key_of(migrate::detail::header_at<migrate::detail::slab>(span));
      std::memcpy(block + 8, &key, sizeof key);
    }
  }
  REQUIRE(heap->check_consistency());
  for (auto [block, bytes] : blocks) region_heap::deallocate(block);
  heap->tidy();
  REQUIRE(heap->reserved_bytes() == 0);
}
