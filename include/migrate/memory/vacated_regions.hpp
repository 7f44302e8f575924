// Regions whose tasks have left, and whose pages are not given back just yet.
#pragma once

#include <chrono>
#include <cstddef>
#include <mutex>
#include <optional>
#include <vector>

#include <migrate/memory/address_plan.hpp>
#include <migrate/memory/region_space.hpp>

namespace migrate::detail {

class vacated_regions {
  // Unmapping costs a TLB flush on every processor, and touching the pages anew a fault each: 80 µs and 10
  // to 50 µs where page tables are virtualised. A task that leaves may well come back, so a small region
  // stays open for a while. Afterwards it is closed, and stray accesses to it are faults.

public:
  explicit vacated_regions(region_space& space, void (*kept_one)() noexcept = nullptr) noexcept
      : space_(space), kept_one_(kept_one) {}
  // kept_one: called when there is something to sweep where there was nothing.

  using clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds patience{100};
  static constexpr std::size_t most = 256;                 // regions kept open
  static constexpr std::size_t largest = 512 * 1024;       // bytes of a region that may be kept resident

  void vacate(region_number region, char* touched_end);
  // touched_end: nothing at or above it was touched.

  std::optional<char*> reopen(region_number region);
  // The region is open again, if it was kept: full of garbage below the returned address, zero above it.

  bool sweep();
  // Closes what has waited long enough. Whether anything is left to wait for.

private:
  struct kept {
    region_number region;
    char* touched_end;
    clock::time_point since;
  };

  region_space& space_;
  void (*kept_one_)() noexcept;
  std::mutex lock_;
  std::vector<kept> kept_; // oldest first
};
// Thread safety: any thread, inside a node_heap_scope where a task runs.

inline void vacated_regions::vacate(region_number region, char* touched_end) {
  if (static_cast<std::size_t>(touched_end - region.base()) > largest) {
    space_.close(region);
    return;
  }
  bool first = false;
  {
    std::lock_guard guard(lock_);
    first = kept_.empty();
    kept_.push_back({region, touched_end, clock::now()});
    if (kept_.size() > most) {
      space_.close(kept_.front().region); // under the lock: reopen() must not overtake it
      kept_.erase(kept_.begin());
    }
  }
  if (first && kept_one_ != nullptr) kept_one_();
}

inline std::optional<char*> vacated_regions::reopen(region_number region) {
  std::lock_guard guard(lock_);
  for (auto at = kept_.begin(); at != kept_.end(); ++at)
    if (at->region == region) {
      char* touched_end = at->touched_end;
      kept_.erase(at);
      return touched_end;
    }
  return std::nullopt;
}

inline bool vacated_regions::sweep() {
  std::lock_guard guard(lock_);
  auto limit = clock::now() - patience;
  std::size_t due = 0;
  while (due < kept_.size() && kept_[due].since <= limit) space_.close(kept_[due++].region);
  kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(due));
  return !kept_.empty();
}

} // namespace migrate::detail
