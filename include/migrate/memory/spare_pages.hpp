// Pages that are there before they are needed.
#pragma once

#include <cstddef>
#include <cstring>

#include <sys/mman.h>

#include <migrate/memory/address_plan.hpp>

namespace migrate::detail {

class spare_pages {
  // What is written into a private mapping of a file costs a fault and a copy of each page. Pages that were touched before
  // and are moved there in one piece cost neither.
public:
  spare_pages() = default;
  ~spare_pages() {
    if (next_ != end_) ::munmap(next_, static_cast<std::size_t>(end_ - next_));
  }
  spare_pages(const spare_pages&) = delete;
  spare_pages& operator=(const spare_pages&) = delete;

  void prepare(std::size_t bytes) noexcept {
    void* got =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) return;
    ::madvise(got, bytes, MADV_NOHUGEPAGE); // moving a part of one would split it
    std::memset(got, 0, bytes);
    next_ = static_cast<char*>(got);
    end_ = next_ + bytes;
  }
  // Once. Has none when the kernel refuses.

  bool put(char* to, const void* from, std::size_t bytes) noexcept {
    constexpr std::size_t worth = 16 * page_size; // each leaves a mapping of its own
    if (bytes < worth || bytes > static_cast<std::size_t>(end_ - next_)) return false;
    std::memcpy(next_, from, bytes);
    if (::mremap(next_, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED) return false;
    next_ += bytes;
    return true;
  }
  // Instead of whatever is mapped at `to`, which is whole pages. False, and nothing has changed: they are too few or too
  // many, or there are too many mappings.

private:
  char* next_ = nullptr;
  char* end_ = nullptr;
};

} // namespace migrate::detail
