// Compresses the pages of one move where that gets them to the target sooner.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <lz4.h>
#include <sys/uio.h>

#include <migrate/task/compression.hpp>

namespace migrate::detail {

class compressor {
  // LZ4, as one block for each message of pages. A block travels instead of its pages only when
  //
  //   pages / link  >  time of compressing them + block / link
  //
  // with the link's speed as this move's own first pages have measured it. After a block that did not pay the next one, two,
  // four, ... up to 32 messages are not tried, since memory that does not shrink seldom lies alone.

public:
  explicit compressor(compression how) : how_(how) {}

  bool wants_link() const noexcept { return how_ == compression::automatic && link_ == 0; }
  void set_link(double bytes_a_second) noexcept {
    if (bytes_a_second > 0) link_ = bytes_a_second;
  }
  // Until then nothing is compressed, unless it always is.

  std::span<const std::byte> compress(std::span<const iovec> pages);
  // The block that is to travel instead of the pages, until the next call; empty: they are to travel themselves.

  std::uint64_t before() const noexcept { return before_; }
  std::uint64_t after() const noexcept { return after_; }
  // Bytes of the pages that were compressed, and of what travelled instead.

  std::string outcome() const;
  // In words; empty: nothing was tried.

private:
  static std::size_t size_of(std::span<const iovec> pages) noexcept {
    std::size_t bytes = 0;
    for (const iovec& each : pages) bytes += each.iov_len;
    return bytes;
  }
  bool pays(std::size_t bytes, std::size_t block, double seconds) const noexcept {
    if (how_ == compression::always) return true;
    return static_cast<double>(bytes - block) / link_ > seconds;
  }

  compression how_;
  double link_ = 0; // bytes a second
  std::vector<std::byte> copy_, block_;
  std::unique_ptr<std::byte[]> state_;
  unsigned pause_ = 0;  // messages after the next that does not pay
  unsigned paused_ = 0; // that are still to be left as they are
  std::uint64_t before_ = 0, after_ = 0;
  std::uint64_t tried_ = 0;
  double seconds_ = 0;
};
// Thread safety: one at a time.

inline std::span<const std::byte> compressor::compress(std::span<const iovec> pages) {
  if (how_ == compression::never || wants_link()) return {};
  if (paused_ > 0) {
    --paused_;
    return {};
  }
  const std::size_t bytes = size_of(pages);
  if (bytes == 0 || bytes > LZ4_MAX_INPUT_SIZE) return {};
  auto begun = std::chrono::steady_clock::now();
  // Of a copy: the task may run, and a page that it changes between being compared and being stored would spoil those that
  // refer to it, which are not sent again.
  copy_.resize(std::max(copy_.size(), bytes));
  block_.resize(std::max(block_.size(), bytes));
  if (!state_)
    state_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(LZ4_sizeofState()));
  std::byte* to = copy_.data();
  for (const iovec& each : pages) {
    std::memcpy(to, each.iov_base, each.iov_len);
    to += each.iov_len;
  }
  // It gives up at the first byte too many.
  auto block = static_cast<std::size_t>(LZ4_compress_fast_extState(
      state_.get(), reinterpret_cast<const char*>(copy_.data()), reinterpret_cast<char*>(block_.data()),
      static_cast<int>(bytes), static_cast<int>(bytes - 1), 1));
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  tried_ += bytes;
  seconds_ += seconds;
  if (block == 0 || !pays(bytes, block, seconds)) {
    constexpr unsigned longest = 32;
    paused_ = pause_ = std::clamp(pause_ * 2, 1u, longest);
    return {};
  }
  pause_ = 0;
  before_ += bytes;
  after_ += block;
  return {block_.data(), block};
}

inline std::string compressor::outcome() const {
  if (tried_ == 0) return {};
  char text[160];
  int size = std::snprintf(text, sizeof text, "%llu KiB compressed to %llu (LZ4 takes %.0f MB/s",
                           static_cast<unsigned long long>(before_ / 1024),
                           static_cast<unsigned long long>(after_ / 1024),
                           static_cast<double>(tried_) / std::max(seconds_, 1e-9) / 1e6);
  if (link_ > 0)
    size += std::snprintf(text + size, sizeof text - static_cast<std::size_t>(size), ", the link %.1f",
                          link_ / 1e6);
  return std::string(text, static_cast<std::size_t>(size)) + ")";
}

} // namespace migrate::detail
