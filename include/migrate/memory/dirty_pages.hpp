// Which pages of a region differ from its image.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include <migrate/error.hpp>
#include <migrate/memory/address_plan.hpp>

namespace migrate::detail {

namespace pagemap {

// From <linux/fs.h> of Linux 6.7; Debian 12's headers are older.
struct scan_arguments {
  std::uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  std::uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct page_region {
  std::uint64_t start, end, categories;
};
inline constexpr std::uint64_t write_protect_matching = 1 << 0, check_asynchronous = 1 << 1; // flags
inline constexpr std::uint64_t is_written = 1 << 1;
inline constexpr std::uint64_t is_file = 1 << 2, is_present = 1 << 3, is_swapped = 1 << 4,
                               is_zero_page = 1 << 5;
inline constexpr unsigned long scan_request = _IOWR('f', 16, scan_arguments);

} // namespace pagemap

class page_scanner {
public:
  page_scanner() : pagemap_(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)) {
    if (pagemap_ < 0)
      throw error(std::error_code(errno, std::system_category()),
                  std::string("opening /proc/self/pagemap, which lists a task's dirty pages: ") +
                      std::strerror(errno));
  }
  ~page_scanner() { ::close(pagemap_); }
  page_scanner(const page_scanner&) = delete;
  page_scanner& operator=(const page_scanner&) = delete;

  template <class F> void for_each_dirty_range(char* address, std::size_t bytes, F&& found);
  // Calls found(char* address, std::size_t bytes), ascending, for each run of pages in the range that
  // were written since the image was mapped there, swapped-out ones too; pages that only ever read as
  // zero are left out. Throws migrate::error when the kernel refuses. Any thread; the range must not be
  // written meanwhile.

  template <class F> void take_written(char* address, std::size_t bytes, bool images_too, bool protect, F&& found);
  // The same for pages of a region that a write_tracker watches that were written since they were last taken, or never
  // taken. With `protect` they are taken now, in one step with listing them. Pages that were only read from an image
  // count the first time, unless images_too is false, which costs a look at each page's description. The range may be written meanwhile.

  template <class F> void for_each_written_range(char* address, std::size_t bytes, F&& found);
  // As take_written() with images_too and without protect, in half the time when little was written. The range must not be
  // written meanwhile.

  void protect_by(int userfault) noexcept { userfault_ = userfault; }
  // From now on the two above read /proc/self/pagemap, and pages are protected through this descriptor: of a write_tracker of
  // the older kind. Before any region is watched.

private:
  template <class F> void take_from_pagemap(std::uintptr_t start, std::uintptr_t end, bool protect, F& found);
  template <class F> void for_each_entry(std::uintptr_t start, std::uintptr_t end, F&& visit);
  // visit(std::uintptr_t page, std::uint64_t its entry in pagemap).
  template <class F> bool scan(std::uintptr_t start, std::uintptr_t end, F& found);
  template <class F> void read_pagemap(std::uintptr_t start, std::uintptr_t end, F& found);
  int list(pagemap::scan_arguments& request, std::uintptr_t start, std::uintptr_t end,
           std::span<pagemap::page_region> into, bool may_lack = false) const;
  // How many runs of pages there are; as far as request.walk_end. -1, if that may be: the kernel has no such request.

  int pagemap_;
  int userfault_ = -1;
};

inline int page_scanner::list(pagemap::scan_arguments& request, std::uintptr_t start, std::uintptr_t end,
                              std::span<pagemap::page_region> into, bool may_lack) const {
  request.size = sizeof request;
  request.start = start;
  request.end = end;
  request.vec = reinterpret_cast<std::uint64_t>(into.data());
  request.vec_len = into.size();
  for (;;) {
    int count = ::ioctl(pagemap_, pagemap::scan_request, &request);
    if (count >= 0) return count;
    if (may_lack && (errno == ENOTTY || errno == EINVAL)) return -1;
    if (errno != EINTR)
      throw error(std::error_code(errno, std::system_category()),
                  std::string("listing a task's pages (PAGEMAP_SCAN): ") + std::strerror(errno));
  }
}

template <class F> void page_scanner::for_each_dirty_range(char* address, std::size_t bytes, F&& found) {
  auto start = reinterpret_cast<std::uintptr_t>(address);
  if (bytes > 0 && !scan(start, start + bytes, found)) read_pagemap(start, start + bytes, found);
}

template <class F> bool page_scanner::scan(std::uintptr_t start, std::uintptr_t end, F& found) {
  pagemap::page_region ranges[64];
  while (start < end) {
    pagemap::scan_arguments request{};
    request.category_inverted = pagemap::is_file | pagemap::is_zero_page;
    request.category_mask = pagemap::is_file | pagemap::is_zero_page;
    request.category_anyof_mask = pagemap::is_present | pagemap::is_swapped;
    request.return_mask = pagemap::is_file; // never set in what is returned, so neighbours merge
    int count = list(request, start, end, ranges, true);
    if (count < 0) return false;
    for (int i = 0; i < count; ++i)
      found(reinterpret_cast<char*>(ranges[i].start), ranges[i].end - ranges[i].start);
    start = request.walk_end;
  }
  return true;
}

template <class F>
void page_scanner::take_written(char* address, std::size_t bytes, bool images_too, bool protect, F&& found) {
  pagemap::page_region ranges[256];
  auto start = reinterpret_cast<std::uintptr_t>(address);
  const std::uintptr_t end = start + bytes;
  if (userfault_ >= 0) {
    take_from_pagemap(start, end, protect, found);
    return;
  }
  constexpr std::uint64_t clean = pagemap::is_file | pagemap::is_zero_page;
  while (start < end) {
    pagemap::scan_arguments request{};
    request.flags = protect ? pagemap::write_protect_matching | pagemap::check_asynchronous : 0;
    request.category_mask = pagemap::is_written;
    request.category_anyof_mask = pagemap::is_present | pagemap::is_swapped;
    request.return_mask = images_too ? pagemap::is_written : clean;
    int count = list(request, start, end, ranges);
    for (int i = 0; i < count; ++i)
      if (images_too || (ranges[i].categories & clean) == 0)
        found(reinterpret_cast<char*>(ranges[i].start), ranges[i].end - ranges[i].start);
    start = request.walk_end;
  }
}

template <class F> void page_scanner::for_each_written_range(char* address, std::size_t bytes, F&& found) {
  // Asked for nothing else, the kernel looks at one bit of each page's entry; but it also names pages that are not there.
  if (userfault_ >= 0) {
    take_written(address, bytes, true, false, found);
    return;
  }
  constexpr std::size_t worth = 256; // pages that are listed in the time of one call
  pagemap::page_region ranges[256];
  auto start = reinterpret_cast<std::uintptr_t>(address);
  const std::uintptr_t end = start + bytes;
  while (start < end) {
    pagemap::scan_arguments request{};
    request.category_mask = pagemap::is_written;
    request.return_mask = pagemap::is_written;
    int count = list(request, start, end, ranges);
    if (count == static_cast<int>(std::size(ranges)) &&
        request.walk_end - ranges[0].start < std::size(ranges) * worth * page_size) {
      take_written(reinterpret_cast<char*>(ranges[0].start), request.walk_end - ranges[0].start, true, false, found);
    } else {
      for (int i = 0; i < count; ++i)
        take_written(reinterpret_cast<char*>(ranges[i].start), ranges[i].end - ranges[i].start, true, false, found);
    }
    start = request.walk_end;
  }
}

template <class F> void page_scanner::for_each_entry(std::uintptr_t start, std::uintptr_t end, F&& visit) {
  // See Documentation/admin-guide/mm/pagemap.rst.
  std::uint64_t entries[512];
  while (start < end) {
    std::size_t pages = std::min<std::size_t>(std::size(entries), (end - start) / page_size);
    ssize_t got = ::pread(pagemap_, entries, pages * sizeof entries[0],
                          static_cast<off_t>(start / page_size * sizeof entries[0]));
    if (got < static_cast<ssize_t>(sizeof entries[0])) {
      if (got < 0 && errno == EINTR) continue;
      throw error(std::error_code(got < 0 ? errno : EIO, std::system_category()),
                  "reading /proc/self/pagemap failed");
    }
    pages = static_cast<std::size_t>(got) / sizeof entries[0];
    for (std::size_t i = 0; i < pages; ++i, start += page_size) visit(start, entries[i]);
  }
}

template <class F> void page_scanner::read_pagemap(std::uintptr_t start, std::uintptr_t end, F& found) {
  // Kernels before 6.7: bit 61 file page or shared, bit 62 swapped, bit 63 present.
  std::uintptr_t run = 0;
  for_each_entry(start, end, [&](std::uintptr_t page, std::uint64_t entry) {
    bool dirty = (entry >> 62) != 0 && ((entry >> 61) & 1) == 0;
    if (dirty && run == 0) run = page;
    if (!dirty && run != 0) {
      found(reinterpret_cast<char*>(run), page - run);
      run = 0;
    }
  });
  if (run != 0) found(reinterpret_cast<char*>(run), end - run);
}

template <class F>
void page_scanner::take_from_pagemap(std::uintptr_t start, std::uintptr_t end, bool protect, F& found) {
  // Bit 57: protected by userfaultfd, which a page is from when it was taken until it is written; bit 61: still one of the
  // image's file, so nobody has written it. A page that comes between being looked at and its neighbours being protected is not protected with them, and is seen the next time.
  std::uintptr_t run = 0;
  auto take = [&](std::uintptr_t to) {
    if (protect) {
      uffdio_writeprotect request{};
      request.range = {run, to - run};
      request.mode = UFFDIO_WRITEPROTECT_MODE_WP;
      ::ioctl(userfault_, UFFDIO_WRITEPROTECT, &request); // pages of mapped files refuse, and are listed again the next time
    }
    found(reinterpret_cast<char*>(run), to - run);
    run = 0;
  };
  for_each_entry(start, end, [&](std::uintptr_t page, std::uint64_t entry) {
    bool written = (entry >> 62) != 0 && ((entry >> 57) & 1) == 0 && ((entry >> 61) & 1) == 0;
    if (written && run == 0) run = page;
    if (!written && run != 0) take(page);
  });
  if (run != 0) take(end);
}

} // namespace migrate::detail
