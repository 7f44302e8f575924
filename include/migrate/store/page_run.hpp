// Sets of a region's pages, as sorted runs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include <migrate/memory/address_plan.hpp>

namespace migrate {

struct page_range {
  char* address = nullptr;
  std::size_t bytes = 0;
};
// Whole pages of a region: both members are multiples of 4096.

namespace detail {

struct page_run {
  std::uint32_t first = 0;
  std::uint32_t pages = 0;

  constexpr std::uint32_t end() const noexcept { return first + pages; }
  friend constexpr bool operator==(const page_run&, const page_run&) noexcept = default;
};
// Pages first .. end()-1, counted from the start of a region or of a data file.

inline void append(std::vector<page_run>& runs, page_run run) {
  if (run.pages == 0) return;
  if (!runs.empty() && runs.back().end() >= run.first)
    runs.back().pages = std::max(runs.back().end(), run.end()) - runs.back().first;
  else
    runs.push_back(run);
}
// Adds a run that starts nowhere before the last one; overlapping and adjacent runs become one.

inline void normalise(std::vector<page_run>& runs) {
  auto before = [](const page_run& a, const page_run& b) { return a.first < b.first; };
  if (!std::is_sorted(runs.begin(), runs.end(), before)) std::sort(runs.begin(), runs.end(), before);
  std::size_t kept = 0;
  for (const page_run& run : runs) {
    if (run.pages == 0) continue;
    if (kept > 0 && runs[kept - 1].end() >= run.first)
      runs[kept - 1].pages = std::max(runs[kept - 1].end(), run.end()) - runs[kept - 1].first;
    else
      runs[kept++] = run;
  }
  runs.resize(kept);
}

inline std::vector<page_run> to_runs(std::span<const page_range> ranges, region_number region) {
  std::vector<page_run> runs;
  runs.reserve(ranges.size());
  const std::uintptr_t start = region.address();
  const std::size_t size = region.size();
  for (const page_range& range : ranges) {
    auto offset = reinterpret_cast<std::uintptr_t>(range.address) - start;
    if (offset > size || range.bytes > size - offset || offset % page_size != 0 ||
        range.bytes % page_size != 0)
      throw std::invalid_argument("migrate: a page range is not made of whole pages of its region");
    runs.push_back({static_cast<std::uint32_t>(offset / page_size),
                    static_cast<std::uint32_t>(range.bytes / page_size)});
  }
  normalise(runs);
  return runs;
}
// The ranges' pages, sorted and merged. Throws std::invalid_argument for a range outside the region
// or one that is not made of whole pages.

inline bool covers(std::span<const page_run> all, std::span<const page_run> some) noexcept {
  auto outer = all.begin();
  for (const page_run& run : some) {
    while (outer != all.end() && outer->end() <= run.first) ++outer;
    if (outer == all.end() || outer->first > run.first || outer->end() < run.end()) return false;
  }
  return true;
}
// Whether every page of some is in all; both sorted and merged.

} // namespace detail
} // namespace migrate
