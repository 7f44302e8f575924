// The first node's ledger: which numbers of nodes and regions the cluster has given out.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include <migrate/id.hpp>
#include <migrate/memory/region_pool.hpp>
#include <migrate/task/spin_lock.hpp>

namespace migrate::detail {

class ledger {
public:
  node_id next_node() noexcept {
    held guard(lock_);
    return last_node_ == most_nodes ? no_node : node_id(++last_node_);
  }
  // None when all 32,767 are used.

  region_range next_range(region_class kind) noexcept {
    held guard(lock_);
    const class_layout& layout = plan[static_cast<std::size_t>(kind)];
    std::uint32_t& next = next_[static_cast<std::size_t>(kind)];
    region_range range{kind, next, std::min(layout.grant, layout.regions - next)};
    next += range.count;
    return range;
  }
  // An empty range when the class is used up.

private:
  static constexpr std::uint16_t most_nodes = 32'767;

  spin_lock lock_;
  std::uint16_t last_node_ = 0;
  std::array<std::uint32_t, region_classes> next_{};
};
// Thread safety: any thread. A number or range is never given out twice.

} // namespace migrate::detail
