// Where tasks went that were here: for telling a stray access what it hit.
#pragma once

#include <cstddef>
#include <cstring>

#include <migrate/id.hpp>
#include <migrate/memory/address_plan.hpp>
#include <migrate/task/spin_lock.hpp>

namespace migrate::detail {

class departed_regions {
public:
  struct entry {
    region_number region;
    task_id task;
    char name[24];
    node_id went_to;
  };

  void note(region_number region, task_id task, const char (&name)[24], node_id to) noexcept {
    held guard(lock_);
    entry& at = slot(region);
    at.region = region;
    at.task = task;
    at.went_to = to;
    std::memcpy(at.name, name, sizeof at.name);
  }
  void forget(region_number region) noexcept {
    held guard(lock_);
    if (slot(region).region == region) slot(region).region = {};
  }
  bool find(region_number region, entry& found) noexcept {
    // Called in a signal handler: the lock may be held by the interrupted thread.
    if (!lock_.try_lock()) return false;
    found = slot(region);
    lock_.unlock();
    return found.region == region;
  }

private:
  static constexpr std::size_t slots = 4096; // the last to leave win; what is forgotten is only a name
  entry& slot(region_number region) noexcept { return entries_[(region.bits() * 2654435761u) >> 20 & (slots - 1)]; }

  spin_lock lock_;
  entry entries_[slots] = {};
};

} // namespace migrate::detail
