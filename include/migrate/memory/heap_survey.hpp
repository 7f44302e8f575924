// What a heap knows of itself as a whole: what is live, what can be given back, whether all agrees.
#pragma once

#include <migrate/memory/heap.hpp>

namespace migrate {

inline std::uint32_t region_heap::live_pages(const detail::mixed_span* mixed, const char* span) noexcept {
  std::uint32_t pages = 0;
  auto mark = [&](std::size_t from, std::size_t to) {
    auto first = from / detail::page_size, last = (to - 1) / detail::page_size;
    pages |= ((std::uint32_t{2} << last) - 1) & ~((std::uint32_t{1} << first) - 1);
  };
  std::size_t offset = detail::offset_in(span, mixed);
  mark(offset, offset + sizeof(detail::mixed_span));
  for (unsigned granule = 0; granule < detail::span_granules;) {
    if (mixed->first[granule] != granule) {
      ++granule;
      continue;
    }
    auto* one = detail::slab_at(const_cast<char*>(span), granule);
    mark(granule * detail::granule_size, one->tag == detail::tag_solo ? one->limit : one->bump);
    granule = detail::granules_in(one->limit);
  }
  return pages;
}

template <class F> void region_heap::for_each_live_range(F&& f) const {
  char *from = nullptr, *to = nullptr;
  auto add = [&](char* first, char* last) {
    if (first == to) {
      to = last;
      return;
    }
    if (from != to) f(from, static_cast<std::size_t>(to - from));
    from = first;
    to = last;
  };
  for (char* span = runs_.begin(); span != runs_.top();) {
    auto* header = detail::header_at<detail::run_header>(span);
    switch (header->tag) {
    case detail::tag_mixed:
      for (std::uint32_t pages = live_pages(detail::header_at<detail::mixed_span>(span), span); pages != 0;) {
        auto first = static_cast<unsigned>(std::countr_zero(pages));
        auto count = static_cast<unsigned>(std::countr_one(pages >> first));
        add(span + first * detail::page_size, span + (first + count) * detail::page_size);
        pages &= ~(((std::uint32_t{1} << count) - 1) << first);
      }
      break;
    case detail::tag_slab:
    case detail::tag_full: {
      auto* one = detail::header_at<detail::slab>(span);
      add(span, span + (one->wrapped ? detail::span_size : detail::round_up(one->bump, detail::page_size)));
      break;
    }
    case detail::tag_large: {
      auto* large = detail::header_at<detail::large_header>(span);
      if (large->data == span + detail::span_size) {
        add(span, span + detail::page_size);
        add(large->data, large->end);
      } else {
        add(span, large->end);
      }
      break;
    }
    default: add(span, span + detail::page_size);
    }
    span += std::size_t{header->spans} * detail::span_size;
  }
  if (from != to) f(from, static_cast<std::size_t>(to - from));
}

inline void region_heap::tidy() noexcept {
  empty_bins();
  for (unsigned index = 0; index < detail::size_classes; ++index)
    if (detail::slab* only = first_slab(index); only && only->live == 0) free_slab(only);
}

inline void region_heap::trim() noexcept {
  tidy();
  runs_.purge();
  for (detail::mixed_span* mixed : mixed_)
    for (; mixed; mixed = mixed->next) {
      char* span = detail::span_of(reinterpret_cast<char*>(mixed) + 1);
      std::uint32_t dead = ~live_pages(mixed, span) & 0xffff;
      while (dead != 0) {
        auto first = static_cast<unsigned>(std::countr_zero(dead));
        auto count = static_cast<unsigned>(std::countr_one(dead >> first));
        detail::run_layer::give_back(span + first * detail::page_size,
                                     span + (first + count) * detail::page_size);
        dead &= ~(((std::uint32_t{1} << count) - 1) << first);
      }
    }
}

inline std::size_t region_heap::allocated_bytes() const noexcept {
  std::size_t sum = 0;
  auto add = [&](const detail::slab* one) {
    sum += one->tag == detail::tag_solo ? one->limit - one->bump - sizeof(detail::slab)
                                        : static_cast<std::size_t>(one->live) * one->block_size;
  };
  for (char* span = runs_.begin(); span != runs_.top();) {
    auto* header = detail::header_at<detail::run_header>(span);
    if (header->tag == detail::tag_mixed) {
      auto* mixed = detail::header_at<detail::mixed_span>(span);
      for (unsigned granule = 0; granule < detail::span_granules; ++granule)
        if (mixed->first[granule] == granule) add(detail::slab_at(span, granule));
    } else if (header->tag == detail::tag_large) {
      auto* large = detail::header_at<detail::large_header>(span);
      sum += static_cast<std::size_t>(large->end - large->data);
    } else if (header->tag != detail::tag_free) {
      add(detail::header_at<detail::slab>(span));
    }
    span += std::size_t{header->spans} * detail::span_size;
  }
  for (unsigned index = detail::first_binned; index < detail::size_classes; ++index)
    if (std::uint32_t bin = bins_[index - detail::first_binned]; bin != 0)
      sum -= (block_at(bin)->key & detail::depth_bits) * detail::size_of_class(index);
  return sum;
}

inline bool region_heap::check_consistency() const {
  auto slab_good = [&](const detail::slab* one, char* span) {
    std::size_t start = detail::offset_in(span, one) + sizeof(detail::slab);
    std::size_t size = one->block_size, blocks;
    if (one->heap != this || one->size_class >= detail::size_classes ||
        size != detail::size_of_class(one->size_class) || one->limit > detail::span_size)
      return false;
    if (one->wrapped)
      blocks = (detail::span_size - start) / size + (one->bump - sizeof(detail::slab)) / size;
    else
      blocks = (one->bump - start) / size;
    std::size_t spare = 0;
    for (const detail::heap_block* block = one->free; block; block = block->next) {
      if (++spare > blocks || detail::span_of(block) != span) return false;
      if (detail::checked_heap && block->key != detail::key_of(one)) return false;
      if (!is_block(one, block)) return false;
    }
    if (one->live < 0 || spare + static_cast<std::size_t>(one->live) != blocks) return false;
    bool listed = false;
    for (const detail::slab* other = first_slab(one->size_class); other; other = other->next)
      listed |= other == one;
    return listed == (one->tag == detail::tag_slab) && (listed || spare == 0);
  };
  std::size_t free_runs = 0, free_spans = 0;
  bool previous_free = false;
  char* previous = nullptr;
  for (char* span = runs_.begin(); span != runs_.top();) {
    auto* header = detail::header_at<detail::run_header>(span);
    std::size_t bytes = std::size_t{header->spans} * detail::span_size;
    if (bytes == 0 || bytes > static_cast<std::size_t>(runs_.top() - span)) return false;
    if (header->previous != previous || header->heap != this) return false;
    if (header->tag == detail::tag_free) {
      if (previous_free) return false;
      ++free_runs;
      free_spans += header->spans;
    } else if (header->tag == detail::tag_mixed) {
      auto* mixed = detail::header_at<detail::mixed_span>(span);
      unsigned taken = 0, granule = 0;
      while (granule < detail::span_granules) {
        if (mixed->first[granule] == detail::mixed_span::nothing) {
          ++granule;
          continue;
        }
        auto* one = detail::slab_at(span, granule);
        unsigned end = detail::granules_in(one->limit);
        if (mixed->first[granule] != granule || end <= granule || end > detail::span_granules) return false;
        for (unsigned inner = granule; inner < end; ++inner)
          if (mixed->first[inner] != granule || (mixed->vacant >> inner & 1)) return false;
        if (one->tag != detail::tag_solo && !slab_good(one, span)) return false;
        ++taken;
        granule = end;
      }
      if (taken != mixed->taken || taken == 0) return false;
      if (mixed->list != (mixed->vacant ? longest_stretch(mixed->vacant) : lists)) return false;
    } else if (header->tag == detail::tag_large) {
      auto* large = detail::header_at<detail::large_header>(span);
      if (large->data <= span || large->end < large->data || large->end > span + bytes) return false;
    } else if (header->tag != detail::tag_slab && header->tag != detail::tag_full) {
      return false;
    } else if (!slab_good(detail::header_at<detail::slab>(span), span)) {
      return false;
    }
    previous_free = header->tag == detail::tag_free;
    previous = span;
    span += bytes;
  }
  for (unsigned index = detail::first_binned; index < detail::size_classes; ++index) {
    std::uint64_t place = bins_[index - detail::first_binned];
    std::uintptr_t depth = place != 0 ? block_at(place)->key & detail::depth_bits : 0;
    for (; depth > 0; --depth, place = block_at(place)->below) {
      const detail::heap_block* block = place != 0 ? block_at(place) : nullptr;
      if (!block || owner(block) != this) return false;
      const detail::slab* from = slab_of(block);
      if (!detail::is_slab(from) || from->size_class != index || (block->key & detail::depth_bits) != depth ||
          !is_block(from, block))
        return false;
    }
    if (place != 0) return false;
  }
  std::size_t counted_runs, counted_spans;
  runs_.count_free(counted_runs, counted_spans);
  return !previous_free && counted_runs == free_runs && counted_spans == free_spans &&
         runs_.free_bytes() == free_spans * detail::span_size;
}

} // namespace migrate
