// Regions for the tests of the heap: memory at addresses of the plan, and a way to look at what is resident.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <migrate/memory/heap.hpp>

namespace heap_test {

using migrate::region_class;
using migrate::region_heap;

inline constexpr std::size_t page = migrate::detail::page_size;
inline constexpr std::size_t mebibyte = std::size_t{1} << 20;

class region {
public:
  explicit region(region_class kind, std::uint32_t index = 1) : number_(kind, index) {
    REQUIRE(::mmap(number_.base(), size(), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
                   0) == number_.base());
  }
  ~region() { ::munmap(number_.base(), size()); }
  region(const region&) = delete;

  char* base() const { return number_.base(); }
  std::size_t size() const { return number_.size(); }

private:
  migrate::detail::region_number number_;
};

// A heap that lies in its region, in front of the memory it manages, as a task's does.
class heap_in_region : public region {
public:
  explicit heap_in_region(region_class kind, bool zeroed = false, std::uint32_t index = 1)
      : region(kind, index),
        heap_(::new (base()) region_heap(base() + migrate::detail::span_size,
                                         size() - migrate::detail::span_size, zeroed ? base() : nullptr)) {}

  region_heap* operator->() const { return heap_; }
  region_heap& operator*() const { return *heap_; }

private:
  region_heap* heap_;
};

inline std::vector<std::pair<char*, std::size_t>> live_ranges(const region_heap& heap) {
  std::vector<std::pair<char*, std::size_t>> ranges;
  heap.for_each_live_range([&](char* address, std::size_t bytes) {
    REQUIRE(reinterpret_cast<std::uintptr_t>(address) % page == 0);
    REQUIRE(bytes % page == 0);
    REQUIRE(bytes > 0);
    if (!ranges.empty()) REQUIRE(ranges.back().first + ranges.back().second < address);
    ranges.emplace_back(address, bytes);
  });
  return ranges;
}

inline std::size_t live_bytes(const region_heap& heap) {
  std::size_t sum = 0;
  for (auto [address, bytes] : live_ranges(heap)) sum += bytes;
  return sum;
}

inline std::size_t resident(const char* from, std::size_t bytes) {
  std::vector<unsigned char> pages(bytes / page);
  REQUIRE(::mincore(const_cast<char*>(from), bytes, pages.data()) == 0);
  std::size_t sum = 0;
  for (unsigned char one : pages) sum += (one & 1) * page;
  return sum;
}

// Runs f in a child process and gives what it wrote on standard error, and its wait status.
template <class F> std::pair<std::string, int> in_child(F&& f) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], 2);
    ::signal(SIGABRT, SIG_DFL);
    f();
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char buffer[256];
  for (ssize_t got; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  ::close(ends[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return {text, status};
}

} // namespace heap_test
