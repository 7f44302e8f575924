// Verifying an image and laying its pages at their addresses.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <sys/mman.h>

#include <migrate/store/data_file.hpp>
#include <migrate/store/image.hpp>
#include <migrate/store/store_state.hpp>

namespace migrate::detail {

#ifndef MADV_POPULATE_WRITE
inline constexpr int madv_populate_write = 23; // Linux 5.14
#else
inline constexpr int madv_populate_write = MADV_POPULATE_WRITE;
#endif

inline bool populate(char* address, std::size_t bytes) noexcept {
  for (;;) {
    if (::madvise(address, bytes, madv_populate_write) == 0) return true;
    if (errno != EINTR && errno != EAGAIN) return false;
  }
}
// Gives the range private, writable pages without a fault for each; false when the kernel cannot.

inline void verify_image(store_state& store, const image& of) {
  std::vector<image_extent> sorted = by_file(of);
  for_each_file(sorted, [&](std::size_t index, std::span<const image_extent> extents) {
    data_file file(store, of, index);
    std::vector<page_run> pages = file_pages(extents);
    if (store.verified.contains(of.task(), file.entry().generation, file.state(), pages)) return;
    page_buffers::lease buffer(store.buffers);
    for (const page_run& run : pages) file.verify(run.first, run.pages, buffer.data());
    store.verified.add(of.task(), file.entry().generation, file.state(), std::move(pages));
  });
}
// Reads what this process has not verified before. Throws as store::verify.

class resumer {
public:
  resumer(store_state& store, const image& of, char* base, bool check, std::uint64_t after = 0)
      : store_(store), of_(of), base_(base), check_(check), sorted_(by_file(of)) {
    std::erase_if(sorted_, [&](const image_extent& each) { return of.files()[each.file].generation <= after; });
    map_from_ = least_mapped();
    if (after != 0) map_from_ = std::max(map_from_, worth_mapping_over);
  }
  // after: the generation that lies there already; nothing as old as that is laid.

  void run() {
    try {
      for_each_file(sorted_, [this](std::size_t index, std::span<const image_extent> extents) {
        lay_file(index, extents);
      });
    } catch (...) {
      clear();
      throw;
    }
  }

private:
  static constexpr std::size_t worth_mapping_over = 1024; // pages: what a task has just written it writes again

  struct part {
    char* address;
    std::uint32_t page;
    std::uint32_t pages;
  };

  char* address(std::uint32_t page) const noexcept { return base_ + std::size_t{page} * page_size; }

  std::size_t least_mapped() const {
    std::vector<std::size_t> lengths;
    for (const image_extent& extent : sorted_)
      if (extent.pages >= store_.options.map_from) lengths.push_back(extent.pages);
    std::size_t most = store_.options.most_mappings;
    if (lengths.size() <= most) return store_.options.map_from;
    std::nth_element(lengths.begin(), lengths.begin() + static_cast<std::ptrdiff_t>(most), lengths.end(),
                     std::greater<>());
    return lengths[most] + 1;
  }
  // The shortest extent to be mapped, such that there are no more mappings than allowed.

  void lay_file(std::size_t index, std::span<const image_extent> extents);
  std::size_t mapped_together(std::span<const image_extent> extents) const;
  bool map_pages(data_file& file, const image_extent& from, const image_extent& to);
  void settle(data_file& file, const image_extent& extent, bool verify);
  void read_parts(data_file& file, bool verify);
  void clear() noexcept;

  store_state& store_;
  const image& of_;
  char* base_;
  bool check_;
  std::vector<image_extent> sorted_;
  std::size_t map_from_ = 0;
  std::vector<part> parts_; // neighbours in the file, to be read in one call
  std::size_t waiting_ = 0; // pages in parts_
};
// One image being laid into a region.

inline void resumer::lay_file(std::size_t index, std::span<const image_extent> extents) {
  data_file file(store_, of_, index);
  bool verify = false;
  std::vector<page_run> pages;
  if (check_) {
    pages = file_pages(extents);
    verify = !store_.verified.contains(of_.task(), file.entry().generation, file.state(), pages);
  }
  std::size_t mapped = 0; // extents from here on that a mapping covers
  for (std::size_t i = 0; i < extents.size(); ++i) {
    const image_extent& extent = extents[i];
    if (mapped == 0 && extent.pages >= map_from_) {
      std::size_t together = mapped_together(extents.subspan(i));
      if (map_pages(file, extent, extents[i + together - 1])) mapped = together;
    }
    if (mapped > 0) {
      settle(file, extent, verify);
      --mapped;
      continue;
    }
    for (std::uint32_t done = 0; done < extent.pages;) {
      auto now = static_cast<std::uint32_t>(std::min<std::size_t>(extent.pages - done, page_buffer::pages));
      std::uint32_t page = extent.file_page + done;
      if (!parts_.empty() &&
          (parts_.back().page + parts_.back().pages != page || waiting_ + now > page_buffer::pages))
        read_parts(file, verify);
      parts_.push_back({address(extent.first + done), page, now});
      waiting_ += now;
      done += now;
    }
  }
  read_parts(file, verify);
  if (verify) store_.verified.add(of_.task(), file.entry().generation, file.state(), std::move(pages));
}

inline std::size_t resumer::mapped_together(std::span<const image_extent> extents) const {
  auto all = of_.extents();
  std::size_t count = 1;
  for (; count < extents.size(); ++count) {
    const image_extent &last = extents[count - 1], &next = extents[count];
    if (next.pages < map_from_ || next.first < last.end() ||
        next.first - last.end() != next.file_page - (last.file_page + last.pages))
      break;
    auto between = std::upper_bound(all.begin(), all.end(), last.first,
                                    [](std::uint32_t page, const image_extent& e) { return page < e.first; });
    std::uint32_t covered = last.end();
    while (covered < next.first && between->first == covered && between->file > next.file)
      covered = (between++)->end();
    if (covered != next.first) break;
  }
  return count;
}
// How many of the file's next extents one mapping can lay, because the gaps between them are as wide in
// the file as in the region and are filled by files that come later: what a page changed in the middle of
// an old file leaves.

inline bool resumer::map_pages(data_file& file, const image_extent& from, const image_extent& to) {
  void* got = ::mmap(address(from.first), std::size_t{to.end() - from.first} * page_size,
                     PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, file.fd(),
                     static_cast<off_t>(std::size_t{from.file_page} * page_size));
  if (got != MAP_FAILED) return true;
  if (errno == ENOMEM || errno == ENODEV) return false; // too many mappings, or a file system without
  throw_store_error(errno, "map " + to_string(of_), file.path());
}
// False when the extents have to be read instead.

inline void resumer::settle(data_file& file, const image_extent& extent, bool verify) {
  char* start = address(extent.first);
  std::uint32_t fresh = file.entry().generation == of_.generation() ? image_access::fresh_pages(of_) : 0;
  if (std::uint64_t{fresh} * page_size > store_.options.prefault) fresh = 0;

  std::uint32_t done = 0;
  const std::uint32_t hot = fresh > extent.file_page ? std::min(extent.pages, fresh - extent.file_page) : 0;
  while (done < hot) {
    auto now = static_cast<std::uint32_t>(std::min<std::size_t>(hot - done, page_buffer::pages));
    char* to = start + std::size_t{done} * page_size;
    if (!populate(to, now * page_size)) break;
    if (verify) file.check(to, extent.file_page + done, now);
    done += now;
  }
  if (verify && done < extent.pages) {
    page_buffers::lease buffer(store_.buffers);
    file.verify(extent.file_page + done, extent.pages - done, buffer.data());
  }
}
// Copies a mapped extent's hot pages and checks all of it.

inline void resumer::read_parts(data_file& file, bool verify) {
  if (parts_.empty()) return;
  iovec places[page_buffer::pages];
  std::size_t count = 0;
  for (const part& one : parts_) {
    std::size_t bytes = std::size_t{one.pages} * page_size;
    populate(one.address, bytes);
    places[count++] = {one.address, bytes};
  }
  file.read(places, count, std::uint64_t{parts_.front().page} * page_size);
  if (verify)
    for (const part& one : parts_) file.check(one.address, one.page, one.pages);
  parts_.clear();
  waiting_ = 0;
}

inline void resumer::clear() noexcept {
  for (const image_extent& extent : sorted_) {
    std::size_t bytes = std::size_t{extent.pages} * page_size;
    if (::mmap(address(extent.first), bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
      ::madvise(address(extent.first), bytes, MADV_DONTNEED);
  }
}
// Leaves plain zeros wherever the image has pages: nothing of a damaged image can run.

} // namespace migrate::detail
