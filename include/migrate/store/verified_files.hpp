// What this process has verified already.
#pragma once

#include <cstdint>
#include <ctime>
#include <mutex>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include <sys/stat.h>

#include <migrate/id.hpp>
#include <migrate/store/image.hpp>
#include <migrate/store/page_run.hpp>

namespace migrate::detail {

struct file_state {
  dev_t device = 0;
  ino_t inode = 0;
  off_t size = 0;
  std::int64_t modified = 0; // nanoseconds
  std::int64_t changed = 0;  // nanoseconds
  std::uint64_t table = 0;   // checksum of the file's table of page checksums

  file_state() noexcept = default;
  file_state(const struct stat& status, std::uint64_t table_checksum) noexcept
      : device(status.st_dev), inode(status.st_ino), size(status.st_size),
        modified(nanoseconds(status.st_mtim)), changed(nanoseconds(status.st_ctim)), table(table_checksum) {}

  friend bool operator==(const file_state&, const file_state&) noexcept = default;

private:
  static std::int64_t nanoseconds(const timespec& time) noexcept {
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  }
};
// A file whose state is the same has not been written in between. The table's checksum keeps a file
// that was made anew under the same inode and within one tick of the clock from passing for its predecessor.

class verified_files {
public:
  bool contains(task_id task, std::uint64_t generation, const file_state& state,
                std::span<const page_run> pages) const {
    std::lock_guard lock(mutex_);
    for (const table* entries : {&young_, &old_})
      if (auto found = entries->find({task, generation}); found != entries->end())
        return found->second.state == state && covers(found->second.pages, pages);
    return false;
  }
  // Whether all these pages of a data file were found good and the file is unchanged since.

  void add(task_id task, std::uint64_t generation, const file_state& state, std::vector<page_run> pages) {
    std::lock_guard lock(mutex_);
    key name{task, generation};
    if (auto found = old_.find(name); found != old_.end()) {
      young_.insert_or_assign(name, std::move(found->second));
      old_.erase(found);
    }
    if (young_.size() >= most_) old_ = std::exchange(young_, {});
    entry& mine = young_[name];
    if (mine.state == state) {
      pages.insert(pages.end(), mine.pages.begin(), mine.pages.end());
      normalise(pages);
    }
    mine = {state, std::move(pages)};
  }

  void forget(task_id task, std::uint64_t generation) {
    std::lock_guard lock(mutex_);
    young_.erase({task, generation});
    old_.erase({task, generation});
  }

private:
  struct key {
    task_id task;
    std::uint64_t generation;
    friend bool operator==(const key&, const key&) noexcept = default;
  };
  struct hash {
    std::size_t operator()(const key& name) const noexcept {
      return std::hash<task_id>()(name.task) + name.generation * 0x9e37'79b9'7f4a'7c15u;
    }
  };
  struct entry {
    file_state state;
    std::vector<page_run> pages;
  };
  using table = std::unordered_map<key, entry, hash>;

  static constexpr std::size_t most_ = 32 * 1024;

  mutable std::mutex mutex_;
  table young_, old_; // the older half is dropped when the younger one is full
};
// Any thread. What is forgotten is only verified again.

} // namespace migrate::detail
