// The nodes of the cluster, as one of them knows them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <migrate/id.hpp>
#include <migrate/task/spin_lock.hpp>

namespace migrate::detail {

class members {
public:
  void add(node_id node) {
    held guard(lock_);
    auto at = std::lower_bound(alive_.begin(), alive_.end(), node);
    if (at == alive_.end() || *at != node) alive_.insert(at, node);
  }
  void remove(node_id node) {
    held guard(lock_);
    std::erase(alive_, node);
  }
  bool contains(node_id node) const {
    held guard(lock_);
    return std::binary_search(alive_.begin(), alive_.end(), node);
  }
  std::size_t count() const {
    held guard(lock_);
    return alive_.size();
  }
  std::vector<node_id> all() const {
    held guard(lock_);
    return alive_;
  }
  std::size_t copy(node_id* into, std::size_t most) const {
    held guard(lock_);
    std::copy_n(alive_.begin(), std::min(most, alive_.size()), into);
    return alive_.size();
  }
  node_id pick(std::uint64_t random) const {
    held guard(lock_);
    return alive_.empty() ? no_node : alive_[static_cast<std::size_t>(random % alive_.size())];
  }

private:
  mutable spin_lock lock_;
  std::vector<node_id> alive_; // ascending
};
// Thread safety: any thread, inside a node_heap_scope where a task runs.

} // namespace migrate::detail
