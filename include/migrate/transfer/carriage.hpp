// Pages that go ahead of a task's offer: what source and target keep of them.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <migrate/memory/spare_pages.hpp>
#include <migrate/rpc/identity.hpp>
#include <migrate/store/image.hpp>
#include <migrate/store/page_run.hpp>
#include <migrate/task/codec.hpp>
#include <migrate/task/resident.hpp>
#include <migrate/task/services.hpp>
#include <migrate/transfer/compressor.hpp>
#include <migrate/transfer/compressed_pages.hpp>
#include <migrate/transfer/memory.hpp>
#include <migrate/transfer/strategy.hpp>

namespace migrate::detail {

inline constexpr std::size_t most_ahead_of_offer = std::size_t{2} << 20; // bytes of what a freeze finds

class page_copy {
  // Pages of a task as they were when it stood still.
public:
  void prepare(std::size_t bytes) {
    bytes_ = std::make_unique_for_overwrite<std::byte[]>(bytes);
    std::memset(bytes_.get(), 0, bytes); // has the memory, so that copying into it costs no faults
    room_ = bytes;
  }

  void copy(const std::vector<page_range>& pages) {
    std::size_t bytes = 0;
    for (const page_range& each : pages) bytes += each.bytes;
    if (bytes > room_) {
      bytes_ = std::make_unique_for_overwrite<std::byte[]>(bytes);
      room_ = bytes;
    }
    std::byte* to = bytes_.get();
    for (const page_range& each : pages) {
      std::memcpy(to, each.address, each.bytes);
      parts_.emplace_back(each.address, to);
      to += each.bytes;
    }
  }
  // Sorted ranges, with gaps between them.

  void read(std::byte* to, const char* from, std::size_t bytes) const {
    auto part = std::upper_bound(parts_.begin(), parts_.end(), from,
                                 [](const char* address, const auto& each) { return address < each.first; });
    --part;
    std::memcpy(to, part->second + (from - part->first), bytes);
  }
  // Bytes of one of them.

private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t room_ = 0;
  std::vector<std::pair<const char*, const std::byte*>> parts_;
};

struct carriage {
  // On the source, from the first page until the move has been made or given up. A thread of the background works on it;
  // the task, if it runs, may end at any time, and its memory with it.

  carriage(resident& of, node_id to, const strategy& by, std::uint64_t at_epoch)
      : task(of), id(of.id), region(of.control->region), target(to), how(&by), epoch(at_epoch) {}

  bool hold() {
    std::lock_guard guard(lock_);
    if (ended_ || why_.code) return false;
    held_ = true;
    return true;
  }
  void release() {
    std::lock_guard guard(lock_);
    held_ = false;
    changed_.notify_all();
  }
  // Between the two the task's memory stays where it is. False: it is gone, or there is no use in going on.

  void end() noexcept {
    std::unique_lock guard(lock_);
    ended_ = true;
    changed_.notify_all();
    changed_.wait(guard, [this] { return !held_; });
  }
  // The task's memory is about to go. Waits until nobody reads it, which takes as long as a megabyte does.
  template <class F> void unless_ended(F&& act) {
    std::lock_guard guard(lock_);
    if (!ended_) act();
  }
  bool ended() {
    std::lock_guard guard(lock_);
    return ended_;
  }

  void fail(failure reason) {
    std::lock_guard guard(lock_);
    if (!why_.code) why_ = std::move(reason);
    changed_.notify_all();
  }
  failure why() {
    std::lock_guard guard(lock_);
    return why_;
  }

  void answered() {
    std::lock_guard guard(lock_);
    ++answers_;
    changed_.notify_all();
  }
  bool wait_for_answer() {
    std::unique_lock guard(lock_);
    changed_.wait(guard, [this] { return ended_ || why_.code || answers_ > answers_taken_; });
    if (ended_ || why_.code) return false;
    ++answers_taken_;
    return true;
  }
  // A target that is silent is lost, which fails the carriage.
  void wait(std::chrono::microseconds limit) {
    std::unique_lock guard(lock_);
    if (!ended_ && !why_.code) changed_.wait_for(guard, limit);
  }

  resident& task;
  const task_id id;
  const region_number region;
  const node_id target;
  const strategy* how;
  const std::uint64_t epoch;
  std::vector<page_range> watched; // what is looked through in each round; the last is where the task grows
  image base;                      // that the memory was based on before
  image newest;                    // that the rounds have made
  bool begun = false;              // the target has been told to receive
  bool runs = false;               // the task does, meanwhile
  bool looked = false;             // at all of it, once
  bool closes = false;             // the region is about to be closed, and nothing of it watched any more
  std::size_t bytes = 0;           // sent or written so far
  compressor compress{compression::never}; // what goes straight
  unsigned rounds = 0;
  std::atomic<bool> hurry{false}; // somebody waits for the freeze
  memory_survey memory;           // of the frozen task: what of it goes with the offer
  std::vector<page_range> gone;   // of its rest, before the offer
  byte_writer bundle;

  // Of a checkpoint, for which the task stays:
  bool stays = false;
  bool captured = false; // it was frozen, and goes on; guarded by its lock
  page_copy rest;        // what the rounds have left
  bool whole = false;    // `newest` is the checkpoint
  bool restarts = false; // home is to restart the task from it
  std::uint64_t kept_from = 0;
  std::atomic<bool> task_ended{false};

private:
  std::mutex lock_;
  std::condition_variable changed_;
  bool ended_ = false;
  bool held_ = false;
  unsigned answers_ = 0;
  unsigned answers_taken_ = 0;
  failure why_;
};

struct reception {
  // On the target, until the offer comes. Guarded by the engine's lock but for `laid`, which belongs to whoever lays.
  node_id source = no_node;
  std::uint64_t epoch = 0;
  region_number region;
  bool open = false;    // its region is, here
  bool busy = false;    // a thread of the background works on it
  bool dropped = false; // its offer will not come
  char* end = nullptr;  // of what lies there
  image laid;
  page_decompressor decompress; // on the I/O thread
  spare_pages spare;    // for what comes in the freeze
};

} // namespace migrate::detail
