// Making the next image of a task from its dirty pages and the image before.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <migrate/store/compaction.hpp>
#include <migrate/store/data_file.hpp>
#include <migrate/store/image.hpp>
#include <migrate/store/image_writer.hpp>
#include <migrate/store/page_run.hpp>
#include <migrate/store/store_state.hpp>

namespace migrate::detail {

inline std::vector<image_extent> keep(std::span<const image_extent> extents, std::span<const page_run> live,
                                      std::span<const page_run> dirty) {
  std::vector<image_extent> kept;
  auto alive = live.begin();
  auto fresh = dirty.begin();
  for (const image_extent& extent : extents) {
    while (alive != live.end() && alive->end() <= extent.first) ++alive;
    for (auto run = alive; run != live.end() && run->first < extent.end(); ++run) {
      std::uint32_t at = std::max(extent.first, run->first);
      const std::uint32_t end = std::min(extent.end(), run->end());
      while (at < end) {
        while (fresh != dirty.end() && fresh->end() <= at) ++fresh;
        std::uint32_t clean_end = fresh == dirty.end() ? end : std::clamp(fresh->first, at, end);
        append_extent(kept, {at, clean_end - at, extent.file, extent.file_page + (at - extent.first)});
        at = fresh != dirty.end() && fresh->first < end ? std::min(fresh->end(), end) : end;
      }
    }
  }
  return kept;
}
// The extents' pages that are in live and not in dirty; all three sorted.

using page_reader = std::function<void(std::byte* to, const char* from, std::size_t bytes)>;
// Copies pages that their task may be writing. What it throws ends the commit.

class committer {
public:
  static constexpr std::size_t worth_comparing = 32; // pages; writing fewer is cheaper than opening the base

  committer(store_state& store, task_id task, region_number region, const image* base,
            const page_reader* running = nullptr)
      : store_(store), task_(task), region_(region), base_(base), running_(running), buffer_(store.buffers),
        writer_(store, task, base != nullptr ? base->generation() : 0),
        own_(base != nullptr ? static_cast<std::uint32_t>(base->files().size()) : 0), base_files_(own_),
        unreadable_(own_, false) {
    if (running_ != nullptr) copy_.emplace(store.buffers);
  }

  image run(std::span<const page_run> dirty, std::span<const page_run> live,
            std::span<const std::byte> metadata) {
    write_dirty(dirty);
    std::uint32_t fresh_pages = writer_.pages();
    if (base_ != nullptr) {
      auto kept = keep(base_->extents(), live, dirty);
      kept_.insert(kept_.end(), kept.begin(), kept.end());
      merge_old_files();
    }
    std::vector<image_extent> all = std::move(kept_);
    all.insert(all.end(), written_.begin(), written_.end());
    std::sort(all.begin(), all.end(),
              [](const image_extent& a, const image_extent& b) { return a.first < b.first; });
    std::vector<image_file> files;
    std::vector<image_extent> extents = renumber(all, files);
    return writer_.finish(task_, region_, fresh_pages, std::move(files), std::move(extents), metadata);
  }

private:
  char* address(std::uint32_t page) const noexcept { return region_.base() + std::size_t{page} * page_size; }

  void write(std::uint32_t page, const void* from, std::uint64_t sum) {
    append_extent(written_, {page, 1, own_, writer_.pages()});
    writer_.add_page(from, sum);
  }

  void write_dirty(std::span<const page_run> dirty);
  void write_new(std::uint32_t page, std::uint32_t pages);
  void write_changed(std::uint32_t page, std::uint32_t pages, const image_extent& old);
  const char* still(std::uint32_t page, std::uint32_t pages);
  data_file* base_file(std::uint32_t index);
  void merge_old_files();
  void copy(const image_extent& old);
  std::vector<image_extent> renumber(std::span<const image_extent> all, std::vector<image_file>& files) const;

  store_state& store_;
  task_id task_;
  region_number region_;
  const image* base_;
  const page_reader* running_; // null: nobody writes the pages
  page_buffers::lease buffer_;
  std::optional<page_buffers::lease> copy_; // of what may be written meanwhile
  image_writer writer_;
  std::uint32_t own_; // the index of the new file: one more than the base's last
  std::vector<std::optional<data_file>> base_files_;
  std::vector<bool> unreadable_;
  std::vector<image_extent> kept_;    // extents of the base that the new image takes over
  std::vector<image_extent> written_; // extents in the new file
};
// One commit.

inline void committer::write_dirty(std::span<const page_run> dirty) {
  std::span<const image_extent> old;
  std::size_t pages = 0;
  for (const page_run& run : dirty) pages += run.pages;
  if (base_ != nullptr && store_.options.skip_unchanged && pages >= worth_comparing) old = base_->extents();
  auto next = old.begin();
  for (const page_run& run : dirty)
    for (std::uint32_t page = run.first; page < run.end();) {
      while (next != old.end() && next->end() <= page) ++next;
      bool known = next != old.end() && next->first <= page;
      std::uint32_t end =
          next == old.end() ? run.end() : std::min(run.end(), known ? next->end() : next->first);
      for (std::uint32_t now; page < end; page += now) {
        now = std::min<std::uint32_t>(end - page, page_buffer::pages);
        known ? write_changed(page, now, *next) : write_new(page, now);
      }
    }
}

inline const char* committer::still(std::uint32_t page, std::uint32_t pages) {
  if (running_ == nullptr) return address(page);
  writer_.flush(); // before the buffer is used again
  (*running_)(copy_->data(), address(page), pages * page_size);
  return reinterpret_cast<const char*>(copy_->data());
}
// The pages as nobody writes them: what is written has to be what was summed and compared.

inline void committer::write_new(std::uint32_t page, std::uint32_t pages) {
  const char* now = still(page, pages);
  for (std::uint32_t i = 0; i < pages; ++i, now += page_size) write(page + i, now, checksum(now, page_size));
}

inline void committer::write_changed(std::uint32_t page, std::uint32_t pages, const image_extent& old) {
  std::uint64_t before[page_buffer::pages], now[page_buffer::pages];
  const std::uint32_t file_page = old.file_page + (page - old.first);
  data_file* file = base_file(old.file);
  bool comparable = file != nullptr;
  if (comparable) {
    try {
      file->read_checksums(before, file_page, pages);
    } catch (const error&) {
      comparable = false;
    }
  }
  const char* memory = still(page, pages);
  for (std::uint32_t i = 0; i < pages; ++i) now[i] = checksum(memory + i * page_size, page_size);
  for (std::uint32_t i = 0; i < pages;) {
    std::uint32_t same = 0;
    while (comparable && i + same < pages && now[i + same] == before[i + same]) ++same;
    bool unchanged = false;
    if (same > 0) {
      try {
        file->read(buffer_.data(), same * page_size, std::uint64_t{file_page + i} * page_size);
        unchanged = std::memcmp(buffer_.data(), memory + i * page_size, same * page_size) == 0;
      } catch (const error&) {
        comparable = false;
      }
    }
    if (unchanged)
      append_extent(kept_, {page + i, same, old.file, file_page + i});
    else
      for (std::uint32_t j = i; j < i + std::max(same, 1u); ++j) write(page + j, memory + j * page_size, now[j]);
    i += std::max(same, 1u);
  }
}
// Up to page_buffer::pages dirty pages that the base has in one extent. What cannot be compared is written.

inline data_file* committer::base_file(std::uint32_t index) {
  if (!base_files_[index] && !unreadable_[index]) {
    try {
      base_files_[index].emplace(store_, *base_, index);
    } catch (const error&) {
      unreadable_[index] = true;
    }
  }
  return base_files_[index] ? &*base_files_[index] : nullptr;
}

inline void committer::merge_old_files() {
  std::vector<std::uint32_t> live(own_, 0);
  for (const image_extent& extent : kept_) live[extent.file] += extent.pages;
  std::vector<bool> merge = files_to_merge(base_->files(), live, writer_.pages(), store_.options.most_files);
  if (std::find(merge.begin(), merge.end(), true) == merge.end()) return;
  writer_.flush();
  std::vector<image_extent> rest;
  std::sort(kept_.begin(), kept_.end(),
            [](const image_extent& a, const image_extent& b) { return a.first < b.first; });
  for (const image_extent& extent : kept_)
    if (merge[extent.file])
      copy(extent);
    else
      rest.push_back(extent);
  kept_ = std::move(rest);
}

inline void committer::copy(const image_extent& old) {
  std::optional<data_file>& file = base_files_[old.file];
  if (!file) file.emplace(store_, *base_, old.file);
  std::span<const std::uint64_t> sums = file->table();
  for (std::uint32_t done = 0; done < old.pages;) {
    std::uint32_t now = std::min<std::uint32_t>(old.pages - done, page_buffer::pages);
    file->verify(old.file_page + done, now, buffer_.data());
    for (std::uint32_t i = 0; i < now; ++i)
      write(old.first + done + i, buffer_.data() + i * page_size, sums[old.file_page + done + i]);
    writer_.flush(); // before the buffer is used again
    done += now;
  }
}

inline std::vector<image_extent> committer::renumber(std::span<const image_extent> all,
                                                     std::vector<image_file>& files) const {
  std::vector<std::uint32_t> index(own_ + 1, 0);
  for (const image_extent& extent : all) index[extent.file] = 1;
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i <= own_; ++i) {
    if (index[i] == 0) continue;
    index[i] = count++;
    if (i < own_) files.push_back(base_->files()[i]);
  }
  std::vector<image_extent> extents;
  for (image_extent extent : all) {
    extent.file = index[extent.file];
    append_extent(extents, extent);
  }
  return extents;
}
// Leaves out the files that nothing uses any more.

} // namespace migrate::detail
