// A frozen task's memory: what of it is alive, what of that is dirty, and how it is laid out again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <migrate/memory/dirty_pages.hpp>
#include <migrate/store/store.hpp>
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

inline memory_survey survey_memory(control_block& control, page_scanner& scanner) {
  // The stack from its pointer up, with the control block, and what the heap says is in use: free
  // spans and the dead part of the stack stay behind.
  constexpr std::size_t below_pointer = 1024; // the switch's own frames and the red zone
  memory_survey found;
  control.heap.tidy();
  char* stack_low = page_floor(std::max(control.suspended.stack_pointer - below_pointer, control.stack_limit()));
  auto add = [](std::vector<page_range>& ranges, char* address, std::size_t bytes) {
    if (!ranges.empty() && ranges.back().address + ranges.back().bytes == address)
      ranges.back().bytes += bytes;
    else
      ranges.push_back({address, bytes});
  };
  add(found.live, stack_low, static_cast<std::size_t>(control.stack_top() - stack_low));
  control.heap.for_each_live_range([&](char* address, std::size_t bytes) { add(found.live, address, bytes); });
  for (const page_range& range : found.live)
    scanner.for_each_dirty_range(range.address, range.bytes, [&](char* address, std::size_t bytes) {
      add(found.dirty, address, bytes);
      found.dirty_bytes += bytes;
    });
  return found;
}

} // namespace migrate::detail
