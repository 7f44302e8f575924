// The page layer of a heap: runs of 64 KiB spans.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>

#include <sys/mman.h>

#include <migrate/memory/heap_layout.hpp>

namespace migrate::detail {

inline constinit std::atomic<void (*)(char* from, std::size_t bytes) noexcept> heap_gives_back{nullptr};
// Who is told before pages are given back to the system, on the thread that does; null: nobody.

class run_layer {
public:
  run_layer(char* begin, std::size_t size, const void* zeroed_from) noexcept
      : begin_(begin), end_(begin + size / span_size * span_size), top_(begin), high_(begin), touched_(begin),
        slack_(std::clamp(size / 64, span_size, std::size_t{1} << 20)) {
    auto zeroed = reinterpret_cast<std::uintptr_t>(zeroed_from);
    zeroed_ = zeroed_from ? std::max(begin_, reinterpret_cast<char*>(zeroed)) : end_;
  }

  char* begin() const noexcept { return begin_; }
  char* end() const noexcept { return end_; }
  char* top() const noexcept { return top_; }                             // end of the last run
  char* high_water() const noexcept { return high_; }                     // above it nothing was ever touched
  char* zeroed_from() const noexcept { return std::max(zeroed_, high_); } // above it all bytes are zero
  void set_zeroed_from(char* address) noexcept { zeroed_ = address; }
  std::size_t free_bytes() const noexcept { return std::size_t{free_spans_} * span_size; }
  std::size_t used_bytes_seen() const noexcept {
    auto used = static_cast<std::size_t>(__atomic_load_n(&top_, __ATOMIC_RELAXED) - begin_);
    return used - std::min(used, std::size_t{__atomic_load_n(&free_spans_, __ATOMIC_RELAXED)} * span_size);
  }
  // What the last run's end and the free bytes say of the rest, for a thread that is not the owner's: may be a little off.

  char* allocate(region_heap* heap, std::size_t spans) noexcept {
    // The run freed last is the one the caches hold, if it fits exactly.
    if (free_run* run = dirty_ && dirty_->spans == spans ? dirty_ : best_fit(spans)) {
      take_out(run);
      auto* base = span_of(reinterpret_cast<char*>(run) + 1);
      std::uint32_t dirty = run->dirty;
      if (dirty == 0) widen_slack(spans);
      std::uint32_t rest = run->spans - static_cast<std::uint32_t>(spans);
      set_run(base, heap, spans, run->previous);
      if (rest != 0) {
        char* tail = base + spans * span_size;
        set_run(tail, heap, rest, base);
        link_following(tail, rest);
        put_in(tail, std::min(dirty, rest));
      }
      return base;
    }
    return carve(heap, spans);
  }
  // A run of spans, the smallest that fits; its header has the length, its neighbour and the heap, but
  // no tag yet. Null when there is no such run.

  char* allocate_aligned(region_heap* heap, std::size_t spans, std::size_t alignment,
                         std::size_t lead) noexcept {
    char* base = allocate(heap, spans + alignment / span_size - 1);
    if (!base) return nullptr;
    char* start = round_up(base + lead, alignment) - lead;
    std::size_t all = header_at<run_header>(base)->spans;
    auto front = static_cast<std::size_t>(start - base) / span_size;
    if (front != 0) {
      split(base, front);
      release(base);
    }
    if (all - front > spans) {
      split(start, spans);
      release(start + spans * span_size);
    }
    return start;
  }
  // The same, with the address `lead` bytes into the run aligned to a multiple of the span size.

  void release(char* base) noexcept {
    auto* header = header_at<run_header>(base);
    auto spans = header->spans;
    std::uint32_t dirty = spans;
    char* previous = header->previous;
    header->tag = tag_dead;
    char* next = base + std::size_t{spans} * span_size;
    if (next < top_)
      if (auto* run = header_at<free_run>(next); run->tag == tag_free) {
        take_out(run);
        dirty += std::max(run->dirty, 1u);
        spans += run->spans;
        run->tag = tag_dead;
      }
    if (previous)
      if (auto* run = header_at<free_run>(previous); run->tag == tag_free) {
        take_out(run);
        dirty += run->dirty;
        spans += run->spans;
        base = previous;
        previous = run->previous;
        run->tag = tag_dead;
      }
    if (base + std::size_t{spans} * span_size == top_) {
      touched_ = std::max(touched_, top_);
      top_ = base;
      last_ = previous;
    } else {
      set_run(base, header->heap, spans, previous);
      link_following(base, spans);
      put_in(base, std::min(dirty, spans));
    }
    if (dirty_spans_ * span_size + static_cast<std::size_t>(std::max(touched_, top_) - top_) > slack_)
      purge();
  }
  // Takes a run back, and joins it with its neighbours. When more than a certain amount of free memory may
  // be resident, all of it is given back to the system.

  bool extend(char* base, std::size_t spans) noexcept {
    auto* header = header_at<run_header>(base);
    std::size_t more = spans - header->spans;
    char* next = base + std::size_t{header->spans} * span_size;
    if (next == top_) {
      if (static_cast<std::size_t>(end_ - top_) < more * span_size) return false;
      raise_top(more);
    } else {
      auto* run = header_at<free_run>(next);
      if (run->tag != tag_free || run->spans < more) return false;
      take_out(run);
      std::uint32_t dirty = run->dirty, rest = run->spans - static_cast<std::uint32_t>(more);
      run->tag = tag_dead;
      if (rest != 0) {
        char* tail = next + more * span_size;
        set_run(tail, header->heap, rest, base);
        link_following(tail, rest);
        put_in(tail, std::min(dirty, rest));
      } else {
        link_following(base, spans);
      }
    }
    header->spans = static_cast<std::uint32_t>(spans);
    return true;
  }
  // Lengthens a run where it is, when what follows it is free.

  void split(char* base, std::size_t spans) noexcept {
    auto* header = header_at<run_header>(base);
    auto rest = header->spans - static_cast<std::uint32_t>(spans);
    char* tail = base + spans * span_size;
    set_run(tail, header->heap, rest, base);
    link_following(tail, rest);
    header->spans = static_cast<std::uint32_t>(spans);
  }

  void purge() noexcept {
    while (free_run* run = dirty_) {
      char* base = span_of(reinterpret_cast<char*>(run) + 1);
      give_back(base + page_size, base + std::size_t{run->spans} * span_size);
      clean(run);
    }
    if (touched_ > top_) give_back(top_, touched_);
    touched_ = top_;
  }
  // Gives all free memory back to the system but one page for each free run, which holds its header.

  static void give_back(char* from, char* to) noexcept {
    if (from >= to) return;
    if (auto tell = heap_gives_back.load(std::memory_order_relaxed)) tell(from, static_cast<std::size_t>(to - from));
    ::madvise(from, static_cast<std::size_t>(to - from), MADV_DONTNEED);
  }

  void count_free(std::size_t& runs, std::size_t& spans) const noexcept {
    runs = spans = 0;
    count(root_, runs, spans);
  }

private:
  static std::size_t priority(const free_run* run) noexcept {
    std::size_t x = (reinterpret_cast<std::uintptr_t>(run) >> 16) * 0x9e37'79b9'7f4a'7c15u;
    return x ^ (x >> 29);
  }

  static bool before(const free_run* a, const free_run* b) noexcept {
    return a->spans != b->spans ? a->spans < b->spans : a < b;
  }

  free_run* best_fit(std::size_t spans) const noexcept {
    free_run* best = nullptr;
    for (free_run* run = root_; run;)
      if (run->spans >= spans) {
        best = run;
        run = run->left;
      } else {
        run = run->right;
      }
    return best;
  }

  void put_in(char* base, std::uint32_t dirty) noexcept {
    auto* run = header_at<free_run>(base);
    run->tag = tag_free;
    free_spans_ += run->spans;
    run->dirty = dirty;
    if (dirty != 0) {
      dirty_spans_ += dirty;
      run->dirty_prev = nullptr;
      run->dirty_next = dirty_;
      if (dirty_) dirty_->dirty_prev = run;
      dirty_ = run;
    }
    free_run** link = &root_;
    while (*link && priority(*link) >= priority(run))
      link = before(run, *link) ? &(*link)->left : &(*link)->right;
    free_run *rest = *link, **less = &run->left, **more = &run->right;
    *link = run;
    while (rest)
      if (before(rest, run)) {
        *less = rest;
        less = &rest->right;
        rest = rest->right;
      } else {
        *more = rest;
        more = &rest->left;
        rest = rest->left;
      }
    *less = *more = nullptr;
  }

  void clean(free_run* run) noexcept {
    dirty_spans_ -= run->dirty;
    run->dirty = 0;
    if (run->dirty_prev)
      run->dirty_prev->dirty_next = run->dirty_next;
    else
      dirty_ = run->dirty_next;
    if (run->dirty_next) run->dirty_next->dirty_prev = run->dirty_prev;
  }

  void take_out(free_run* run) noexcept {
    std::uint32_t dirty = run->dirty;
    if (dirty != 0) clean(run);
    run->dirty = dirty;
    free_spans_ -= run->spans;
    free_run** link = &root_;
    while (*link != run) link = before(run, *link) ? &(*link)->left : &(*link)->right;
    free_run *left = run->left, *right = run->right;
    while (left && right)
      if (priority(left) >= priority(right)) {
        *link = left;
        link = &left->right;
        left = left->right;
      } else {
        *link = right;
        link = &right->left;
        right = right->left;
      }
    *link = left ? left : right;
  }

  char* carve(region_heap* heap, std::size_t spans) noexcept {
    if (static_cast<std::size_t>(end_ - top_) / span_size < spans) return nullptr;
    char* base = top_;
    raise_top(spans);
    set_run(base, heap, spans, last_);
    last_ = base;
    return base;
  }

  void raise_top(std::size_t spans) noexcept {
    if (touched_ <= top_ && top_ < high_) widen_slack(spans);
    top_ += spans * span_size;
    high_ = std::max(high_, top_);
  }

  static void set_run(char* base, region_heap* heap, std::size_t spans, char* previous) noexcept {
    auto* header = header_at<run_header>(base);
    header->tag = tag_dead;
    header->spans = static_cast<std::uint32_t>(spans);
    header->previous = previous;
    header->heap = heap;
  }

  void link_following(char* base, std::size_t spans) noexcept {
    char* next = base + spans * span_size;
    if (next < top_)
      header_at<run_header>(next)->previous = base;
    else
      last_ = base;
  }

  void widen_slack(std::size_t spans) noexcept {
    auto most = std::min(static_cast<std::size_t>(end_ - begin_) / 4, std::size_t{64} << 20);
    slack_ = std::max(slack_, std::min(slack_ + 2 * spans * span_size, most));
  }
  // A program that wants memory again which it had let go of keeps more of it the next time.

  static void count(const free_run* run, std::size_t& runs, std::size_t& spans) noexcept {
    if (!run) return;
    ++runs;
    spans += run->spans;
    count(run->left, runs, spans);
    count(run->right, runs, spans);
  }

  char* begin_;
  char* end_;
  char* top_;
  char* high_;
  char* touched_; // between top_ and here, pages may be resident
  char* zeroed_;
  char* last_ = nullptr; // the run that ends at top_
  free_run* root_ = nullptr;
  free_run* dirty_ = nullptr;
  std::size_t slack_; // how much free memory may stay resident
  std::uint32_t free_spans_ = 0;
  std::uint32_t dirty_spans_ = 0;
};

} // namespace migrate::detail
