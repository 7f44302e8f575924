// What the parts of an open store share.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <migrate/memory/address_plan.hpp>
#include <migrate/store/descriptor.hpp>
#include <migrate/store/store_id.hpp>
#include <migrate/store/verified_files.hpp>

namespace migrate {

struct store_options {
  bool create = false;
  // Make the store when there is none; the folder that it lies in must exist.

  bool read_only = false;
  // Open it although it cannot be written.

  bool durable = false;
  // Have commits survive the loss of the host, by fsync, not only that of the process. Bases of such commits
  // must have been committed in the same way.

  bool skip_unchanged = true;
  // Leave out of a commit those dirty pages that hold what the base image holds; they are compared
  // byte for byte when their checksums agree.

  std::size_t map_from = 16;
  // Extents of fewer pages are read, longer ones mapped: a mapping costs what copying some ten pages does.

  std::size_t most_mappings = 1024;
  // How many mappings one image may cost its process, which has 65,530 by default (vm.max_map_count).

  std::size_t prefault = 128u << 20;
  // An image's newest pages are likely the ones its task writes again. When the newest generation wrote
  // no more than so many bytes, they are copied at resume in bulk rather than one page fault at a time.
  // The kernel then calls them dirty; skip_unchanged keeps those that stay as they are out of the next image.

  std::size_t most_files = 8;
  // How many data files one image may span before the smaller ones are merged.
};

namespace detail {

class page_buffer {
public:
  static constexpr std::size_t pages = 64;
  static constexpr std::size_t bytes = pages * page_size;

  page_buffer() : memory_(new std::byte[bytes]) { std::memset(memory_.get(), 0, bytes); }
  std::byte* data() const noexcept { return memory_.get(); }

private:
  std::unique_ptr<std::byte[]> memory_;
};
// 256 KiB: large enough for the system call not to matter, small enough for a processor's cache.

class page_buffers {
public:
  class lease {
  public:
    explicit lease(page_buffers& owner) : owner_(owner), buffer_(owner.take()) {}
    ~lease() { owner_.put_back(std::move(buffer_)); }
    lease(const lease&) = delete;
    lease& operator=(const lease&) = delete;
    std::byte* data() const noexcept { return buffer_->data(); }

  private:
    page_buffers& owner_;
    std::unique_ptr<page_buffer> buffer_;
  };

private:
  std::unique_ptr<page_buffer> take() {
    {
      std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        auto buffer = std::move(idle_.back());
        idle_.pop_back();
        return buffer;
      }
    }
    return std::make_unique<page_buffer>();
  }
  void put_back(std::unique_ptr<page_buffer> buffer) noexcept {
    std::lock_guard lock(mutex_);
    if (idle_.size() < idle_.capacity()) idle_.push_back(std::move(buffer));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<page_buffer>> idle_ = room();
  static std::vector<std::unique_ptr<page_buffer>> room() {
    std::vector<std::unique_ptr<page_buffer>> list;
    list.reserve(16);
    return list;
  }
};
// Buffers already touched, so that taking one costs no page faults.

struct store_state {
  std::string path;
  store_options options;
  store_id id;
  descriptor root;   // the store's folder
  descriptor images; // its folder of tasks
  verified_files verified;
  page_buffers buffers;
};

} // namespace detail
} // namespace migrate
