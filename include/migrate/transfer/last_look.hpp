// The look through a frozen task's memory, by several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include <migrate/memory/dirty_pages.hpp>
#include <migrate/store/page_run.hpp>
#include <migrate/transfer/background.hpp>

namespace migrate::detail {

class last_look {
  // The memory in parts: whoever waits takes them from the front, so that what is found comes in order; helpers from the
  // back. A part that a helper has not done by the time all are taken is looked through once more rather than waited for.
public:
  last_look(const std::vector<page_range>& live, page_scanner& scanner) : scanner_(scanner) {
    for (const page_range& range : live)
      for (std::size_t done = 0; done < range.bytes; done += part_bytes)
        ranges_.push_back({range.address + done, std::min(part_bytes, range.bytes - done)});
    parts_ = std::vector<part>(ranges_.size());
  }

  void help() noexcept {
    for (std::size_t i = parts_.size(); i-- > 0;) {
      part& one = parts_[i];
      if (!take(one)) return;
      try {
        scanner_.for_each_written_range(ranges_[i].address, ranges_[i].bytes,
                                        [&](char* address, std::size_t bytes) { one.found.push_back({address, bytes}); });
      } catch (const std::exception&) {
        return; // whoever waits will see it, too
      }
      one.at.store(step::done, std::memory_order_release);
    }
  }
  // Any thread. Touches nothing but page tables, so the memory may go meanwhile.

  template <class F> void run(F&& found) {
    std::size_t i = 0;
    for (; i < parts_.size() && take(parts_[i]); ++i)
      scanner_.for_each_written_range(ranges_[i].address, ranges_[i].bytes, found);
    for (; i < parts_.size(); ++i)
      if (parts_[i].at.load(std::memory_order_acquire) == step::done)
        for (const page_range& each : parts_[i].found) found(each.address, each.bytes);
      else
        scanner_.for_each_written_range(ranges_[i].address, ranges_[i].bytes, found);
  }
  // As page_scanner::for_each_written_range.

private:
  static constexpr std::size_t part_bytes = std::size_t{16} << 20;
  enum class step : unsigned char { free, taken, done };
  struct part {
    std::atomic<step> at{step::free};
    std::vector<page_range> found;
  };

  static bool take(part& one) noexcept {
    step none = step::free;
    return one.at.compare_exchange_strong(none, step::taken);
  }

  page_scanner& scanner_;
  std::vector<page_range> ranges_;
  std::vector<part> parts_;
};

template <class F>
void look_for_written(const std::vector<page_range>& live, page_scanner& scanner, background& helpers, F&& found) {
  constexpr std::size_t worth = std::size_t{128} << 20; // looked through in the time in which a thread wakes
  std::size_t bytes = 0;
  for (const page_range& range : live) bytes += range.bytes;
  auto look = std::make_shared<last_look>(live, scanner);
  if (bytes >= worth)
    for (std::size_t i = 0; i < helpers.threads(); ++i) helpers.push([look] { look->help(); });
  look->run(found);
}
// As page_scanner::for_each_written_range of all that is live.

} // namespace migrate::detail
