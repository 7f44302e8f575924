// Which pages of a stretch of memory, a bit each.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <migrate/memory/address_plan.hpp>

namespace migrate::detail {

class page_set {
public:
  page_set(char* from, char* to)
      : from_(from), pages_(static_cast<std::size_t>(to - from) / page_size), words_((pages_ + 63) / 64) {}

  std::size_t count() const noexcept { return count_; }
  std::size_t size() const noexcept { return pages_; }

  bool inside(const char* page) const noexcept {
    return page >= from_ && static_cast<std::size_t>(page - from_) / page_size < pages_;
  }
  bool has(const char* page) const noexcept { return (words_[index(page) / 64] >> index(page) % 64 & 1) != 0; }

  bool add(const char* page) noexcept {
    std::uint64_t& word = words_[index(page) / 64];
    std::uint64_t bit = std::uint64_t{1} << index(page) % 64;
    bool added = (word & bit) == 0;
    word |= bit;
    count_ += added;
    return added;
  }
  bool remove(const char* page) noexcept {
    std::uint64_t& word = words_[index(page) / 64];
    std::uint64_t bit = std::uint64_t{1} << index(page) % 64;
    bool was = (word & bit) != 0;
    word &= ~bit;
    count_ -= was;
    return was;
  }
  // Whether that changed anything. Of pages inside.

  char* first_from(char* page) const noexcept {
    // The first of the set at or above that page; null: none.
    if (count_ == 0) return nullptr;
    std::size_t at = page <= from_ ? 0 : index(page);
    for (std::size_t word = at / 64; word < words_.size(); ++word) {
      std::uint64_t bits = words_[word];
      if (word == at / 64) bits &= ~std::uint64_t{0} << at % 64;
      if (bits != 0)
        return from_ + (word * 64 + static_cast<std::size_t>(std::countr_zero(bits))) * page_size;
    }
    return nullptr;
  }

  template <class F> void for_each_gap(F&& found) const {
    // found(char*, std::size_t bytes) for each run of pages that are not of the set.
    std::size_t begin = 0;
    for (std::size_t i = 0; i <= pages_; ++i) {
      bool gap = i < pages_ && (words_[i / 64] >> i % 64 & 1) == 0;
      if (gap) continue;
      if (i > begin) found(from_ + begin * page_size, (i - begin) * page_size);
      begin = i + 1;
    }
  }

private:
  std::size_t index(const char* page) const noexcept { return static_cast<std::size_t>(page - from_) / page_size; }

  char* from_;
  std::size_t pages_;
  std::size_t count_ = 0;
  std::vector<std::uint64_t> words_;
};

} // namespace migrate::detail
