// The regions that a node may give to new tasks.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include <migrate/memory/address_plan.hpp>
#include <migrate/memory/region_space.hpp>

namespace migrate::detail {

struct region_range {
  region_class kind = region_class::small;
  std::uint32_t first = 0;
  std::uint32_t count = 0;
};
// Consecutive region numbers of one class, granted to one node.

class region_pool {
public:
  explicit region_pool(region_space& space) noexcept : space_(space) {}

  struct taken {
    region_number region;
    bool zeroed = false; // nothing in it was ever written
  };

  void grant(region_range range);
  std::size_t left(region_class kind) const noexcept;
  // How many regions can be taken before another grant is needed.

  std::optional<taken> take(region_class kind, bool here = true);
  // A region that is open, with its lowest page guarded and huge pages allowed, or with `here` false one for a task on another node,
  // that may be open or not; nothing when all are in use. Throws
  // migrate::error (errc::region_exhausted) when the kernel refuses another mapping.

  void put_back(region_number region, char* touched_end) noexcept;
  // The region's task has ended here; what lies above the first pages up to touched_end is given
  // back to the system.
  void put_back_closed(region_number region) noexcept;
  // The region's task has ended elsewhere; it is not open here.

private:
  struct idle {
    region_number region;
    bool open;
  };
  struct supply {
    std::vector<idle> used;          // regions that had a task, the warmest last
    std::vector<region_range> fresh; // regions that never had one
    std::uint32_t opened = 0;        // how many of fresh.back() are mapped already
  };

  static constexpr std::array<std::uint32_t, region_classes> opened_at_once = {256, 16, 1, 1};
  static constexpr std::size_t warm = 1024; // idle regions of a class that keep their first pages

  static constexpr std::size_t index(region_class kind) noexcept { return static_cast<std::size_t>(kind); }

  region_space& space_;
  std::array<supply, region_classes> supplies_;
};
// Not synchronised: its owner holds a lock.

inline void region_pool::grant(region_range range) {
  if (range.count == 0) return;
  supply& mine = supplies_[index(range.kind)];
  // The range being used up stays last.
  mine.fresh.insert(mine.fresh.begin(), range);
  if (mine.fresh.size() == 1) mine.opened = 0;
}

inline std::size_t region_pool::left(region_class kind) const noexcept {
  const supply& mine = supplies_[index(kind)];
  std::size_t count = mine.used.size();
  for (const region_range& range : mine.fresh) count += range.count;
  return count;
}

inline std::optional<region_pool::taken> region_pool::take(region_class kind, bool here) {
  supply& mine = supplies_[index(kind)];
  if (!mine.used.empty()) {
    idle last = mine.used.back();
    if (!last.open && here) {
      if (!space_.open(last.region))
        throw error(errc::region_exhausted, "the kernel refuses another mapping (vm.max_map_count?)");
      region_space::guard(last.region.base(), page_size);
      region_space::allow_huge_pages(last.region);
    }
    mine.used.pop_back();
    return taken{last.region, !last.open};
  }
  if (mine.fresh.empty()) return std::nullopt;
  region_range& range = mine.fresh.back();
  region_number region(kind, range.first);
  if (mine.opened == 0) {
    std::uint32_t count = std::min(range.count, opened_at_once[index(kind)]);
    if (!space_.open(region, count))
      throw error(errc::region_exhausted, "the kernel refuses another mapping (vm.max_map_count?)");
    mine.opened = count;
  }
  if (here) {
    region_space::guard(region.base(), page_size);
    region_space::allow_huge_pages(region);
  }
  --mine.opened;
  ++range.first;
  if (--range.count == 0) {
    mine.fresh.pop_back();
    mine.opened = 0;
  }
  return taken{region, true};
}

inline void region_pool::put_back(region_number region, char* touched_end) noexcept {
  supply& mine = supplies_[index(region.kind())];
  char* first = region.base() + page_size;
  if (mine.used.size() >= warm) {
    region_space::give_back(first, static_cast<std::size_t>(touched_end - first));
  } else if (char* kept = region.base() + 8 * span_size; touched_end > kept) {
    region_space::give_back(kept, static_cast<std::size_t>(touched_end - kept));
  }
  mine.used.push_back({region, true});
}

inline void region_pool::put_back_closed(region_number region) noexcept {
  supplies_[index(region.kind())].used.push_back({region, false});
}

} // namespace migrate::detail
