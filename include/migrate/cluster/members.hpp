// The nodes of the cluster, as one of them knows them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include <migrate/id.hpp>
#include <migrate/task/spin_lock.hpp>

namespace migrate::detail {

class members {
  // Those that are alive, and of them those that take tasks.

public:
  void add(node_id node) {
    held guard(lock_);
    insert(alive_, node);
    insert(open_, node);
  }
  void remove(node_id node) {
    held guard(lock_);
    std::erase(alive_, node);
    std::erase(open_, node);
  }
  void close(node_id node) {
    held guard(lock_);
    std::erase(open_, node);
  }
  void reopen(node_id node) {
    held guard(lock_);
    if (std::binary_search(alive_.begin(), alive_.end(), node)) insert(open_, node);
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
  std::vector<node_id> open() const {
    held guard(lock_);
    return open_;
  }
  std::vector<node_id> closed() const {
    held guard(lock_);
    std::vector<node_id> found;
    std::set_difference(alive_.begin(), alive_.end(), open_.begin(), open_.end(), std::back_inserter(found));
    return found;
  }
  std::size_t copy(node_id* into, std::size_t most) const {
    held guard(lock_);
    std::copy_n(open_.begin(), std::min(most, open_.size()), into);
    return open_.size();
  }
  // Of those that take tasks, as pick().
  node_id pick(std::uint64_t random) const {
    held guard(lock_);
    return open_.empty() ? no_node : open_[static_cast<std::size_t>(random % open_.size())];
  }

private:
  static void insert(std::vector<node_id>& into, node_id node) {
    auto at = std::lower_bound(into.begin(), into.end(), node);
    if (at == into.end() || *at != node) into.insert(at, node);
  }

  mutable spin_lock lock_;
  std::vector<node_id> alive_; // ascending
  std::vector<node_id> open_;  // ascending
};
// Thread safety: any thread, inside a node_heap_scope where a task runs.

} // namespace migrate::detail
