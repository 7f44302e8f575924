// A frozen task's memory: what of it is alive, what of that is dirty, and how it is laid out again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include <migrate/memory/dirty_pages.hpp>
#include <migrate/store/commit.hpp>
#include <migrate/store/image.hpp>
#include <migrate/store/page_run.hpp>
#include <migrate/task/control_block.hpp>

namespace migrate::detail {

struct memory_survey {
  std::vector<page_range> live;
  std::vector<page_range> dirty; // within `live`
  std::size_t dirty_bytes = 0;
};

inline char* page_floor(char* address) noexcept {
  return address - (reinterpret_cast<std::uintptr_t>(address) & (page_size - 1));
}

inline void add_range(std::vector<page_range>& ranges, char* address, std::size_t bytes) {
  if (!ranges.empty() && ranges.back().address + ranges.back().bytes == address)
    ranges.back().bytes += bytes;
  else
    ranges.push_back({address, bytes});
}

inline bool all_zero(const char* page) noexcept {
  std::uint64_t first;
  std::memcpy(&first, page, sizeof first);
  return first == 0 && std::memcmp(page, page + sizeof first, page_size - sizeof first) == 0;
}

inline std::vector<page_range> to_ranges(const std::vector<page_run>& runs, region_number region) {
  std::vector<page_range> ranges;
  ranges.reserve(runs.size());
  for (const page_run& run : runs)
    ranges.push_back({region.base() + std::size_t{run.first} * page_size, std::size_t{run.pages} * page_size});
  return ranges;
}

inline std::vector<page_range> merged(const std::vector<page_range>& ranges, region_number region) {
  return to_ranges(to_runs(ranges, region), region);
}
// Sorted, and each page once.

inline std::vector<page_range> with_image(const std::vector<page_range>& pages, const image& based_on,
                                          const std::vector<page_range>& live, region_number region) {
  std::vector<page_run> all = to_runs(pages, region);
  for (const image_extent& each : keep(based_on.extents(), to_runs(live, region), {})) all.push_back({each.first, each.pages});
  normalise(all);
  return to_ranges(all, region);
}
// The pages, and those of the image that are in live.

inline std::vector<page_range> live_memory(control_block& control) {
  // The stack from its pointer up, with the control block, and what the heap says is in use: free
  // spans and the dead part of the stack stay behind.
  constexpr std::size_t below_pointer = 1024; // the switch's own frames and the red zone
  std::vector<page_range> live;
  control.heap.tidy();
  char* stack_low = page_floor(std::max(control.suspended.stack_pointer - below_pointer, control.stack_limit()));
  add_range(live, stack_low, static_cast<std::size_t>(control.stack_top() - stack_low));
  control.heap.for_each_live_range([&](char* address, std::size_t bytes) { add_range(live, address, bytes); });
  return live;
}

inline memory_survey survey_memory(control_block& control, page_scanner& scanner) {
  memory_survey found;
  found.live = live_memory(control);
  for (const page_range& range : found.live)
    scanner.for_each_dirty_range(range.address, range.bytes, [&](char* address, std::size_t bytes) {
      add_range(found.dirty, address, bytes);
      found.dirty_bytes += bytes;
    });
  return found;
}

template <class F>
memory_survey survey_written(control_block& control, page_scanner& scanner, F&& each) {
  // The same of a task whose region a write_tracker watches: `dirty` is what was written since it was last taken. After
  // each finding each(memory_survey&) may take of it what it likes.
  memory_survey found;
  found.live = live_memory(control);
  for (const page_range& range : found.live)
    scanner.for_each_written_range(range.address, range.bytes, [&](char* address, std::size_t bytes) {
      add_range(found.dirty, address, bytes);
      found.dirty_bytes += bytes;
      each(found);
    });
  return found;
}

inline bool more_dirty_than(std::size_t bytes, const std::vector<page_range>& live, page_scanner& scanner) {
  // As far as can be seen without holding the task up: what is not looked at counts.
  constexpr std::size_t step = std::size_t{1} << 20, most_looked_at = std::size_t{8} << 20;
  std::size_t dirty = 0, looked_at = 0;
  for (const page_range& range : live)
    for (std::size_t done = 0; done < range.bytes;) {
      std::size_t now = std::min(range.bytes - done, step);
      if ((looked_at += now) > most_looked_at) return true;
      scanner.for_each_dirty_range(range.address + done, now, [&](char*, std::size_t some) { dirty += some; });
      if (dirty > bytes) return true;
      done += now;
    }
  return false;
}

} // namespace migrate::detail
