// What a heap says when it cannot go on.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <new>

#include <unistd.h>

#include <migrate/memory/address_plan.hpp>

namespace migrate {

class region_exhausted : public std::bad_alloc {
public:
  region_exhausted(std::size_t asked, std::size_t reserved, std::size_t capacity) noexcept
      : asked_(asked), capacity_(capacity) {
    std::snprintf(what_, sizeof what_,
                  "region exhausted: %zu bytes asked, %zu of the heap's %zu bytes in use; free memory or "
                  "spawn the task with a larger region_class",
                  asked, reserved, capacity);
  }

  explicit region_exhausted(const char* what) noexcept : asked_(0), capacity_(0) {
    std::snprintf(what_, sizeof what_, "%s", what);
  }

  const char* what() const noexcept override { return what_; }
  std::size_t asked() const noexcept { return asked_; }
  std::size_t capacity() const noexcept { return capacity_; }

private:
  std::size_t asked_;
  std::size_t capacity_;
  char what_[208];
};
// Thrown by operator new and the allocators when a task's region has no room for a block. asked() and
// capacity() are in bytes. Needs no memory but its own.

namespace detail {

[[noreturn, gnu::cold, gnu::noinline]] inline void heap_fatal(const char* problem,
                                                              const void* address) noexcept {
  static constexpr const char* classes[] = {"small", "medium", "large", "huge"};
  char line[256];
  int length;
  if (region_number region = region_of(address))
    length = std::snprintf(line, sizeof line, "migrate: heap: %s: address %p, region %s %u at %p\n", problem,
                           address, classes[static_cast<unsigned>(region.kind())], region.index(),
                           static_cast<const void*>(region.base()));
  else
    length =
        std::snprintf(line, sizeof line, "migrate: heap: %s: address %p, in no region\n", problem, address);
  if (length > 0) [[maybe_unused]]
    auto written = ::write(2, line, static_cast<std::size_t>(length));
  std::abort();
}
// Says on standard error what is wrong with the block at an address, and ends the process: a heap that
// was damaged would only damage more, here or where it moves.

} // namespace detail
} // namespace migrate
