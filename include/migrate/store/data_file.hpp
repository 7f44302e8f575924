// Reading one data file of an image.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <migrate/hex.hpp>
#include <migrate/store/directory.hpp>
#include <migrate/store/image.hpp>
#include <migrate/store/store_state.hpp>

namespace migrate::detail {

inline constexpr std::size_t checksum_bytes = sizeof(std::uint64_t);

inline void check_owner(const struct stat& status, const std::string& path, const std::string& remedy) {
  if (status.st_uid != ::geteuid())
    throw error(errc::store_owner, path + " belongs to user " + std::to_string(status.st_uid) +
                                       ", this process runs as user " + std::to_string(::geteuid()) + "; " +
                                       remedy);
  if ((status.st_mode & 077) != 0) {
    char mode[16];
    std::snprintf(mode, sizeof mode, "%03o", static_cast<unsigned>(status.st_mode & 0777));
    throw error(errc::store_owner, path + " has mode " + mode +
                                       ", so others may read or write what this process would run; " +
                                       remedy);
  }
}
// Whoever can write an image can run code on its node, so only the owner may.

class data_file {
public:
  data_file(store_state& store, const image& of, std::size_t index)
      : store_(store), of_(of), entry_(of.files()[index]) {
    image_name name(of.task(), entry_.generation);
    file_ =
        descriptor(::openat(store.images.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY));
    struct stat status;
    if (!file_ || ::fstat(file_.get(), &status) != 0) {
      int reason = errno;
      if (reason == ENOENT || reason == ENOTDIR || reason == ESTALE)
        throw error(errc::image_missing, to_string(of) + ": its data file " + path() +
                                             " is gone; another node has removed it, because the task ended "
                                             "or a newer generation was taken over");
      throw_store_error(reason, "open a data file of " + to_string(of), path());
    }
    if (!S_ISREG(status.st_mode))
      throw error(errc::image_damaged, to_string(of) + ": " + path() + " is not a file");
    check_owner(status, path(), "remove the task's images, they are not to be trusted");
    auto size = static_cast<std::uint64_t>(status.st_size);
    if (size < entry_.bytes)
      throw error(errc::image_truncated, to_string(of) + ": data file " + std::to_string(entry_.generation) +
                                             " has " + std::to_string(size) + " bytes, its manifest says " +
                                             std::to_string(entry_.bytes));
    if (size > entry_.bytes)
      throw error(errc::image_damaged, to_string(of) + ": data file " + std::to_string(entry_.generation) +
                                           " has " + std::to_string(size) + " bytes, more than the " +
                                           std::to_string(entry_.bytes) + " its manifest says");
    state_ = file_state(status, entry_.table_checksum);
  }
  // Throws errc::image_missing, image_truncated, image_damaged or store_owner.

  int fd() const noexcept { return file_.get(); }
  const image_file& entry() const noexcept { return entry_; }
  const file_state& state() const noexcept { return state_; }

  std::string path() const {
    return store_.path + "/images/" + image_name(of_.task(), entry_.generation).str();
  }

  void read(const iovec* parts, std::size_t count, std::uint64_t offset) const {
    // At most IOV_MAX parts; the caller's array is copied only when the kernel stops half-way.
    std::vector<iovec> rest;
    while (count > 0) {
      ssize_t got = ::preadv(fd(), parts, static_cast<int>(count), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw_store_error(errno, "read " + to_string(of_), path());
      if (got == 0)
        throw error(errc::image_truncated, to_string(of_) + ": data file " +
                                               std::to_string(entry_.generation) +
                                               " ended while it was read");
      offset += static_cast<std::uint64_t>(got);
      auto left = static_cast<std::size_t>(got);
      while (count > 0 && left >= parts->iov_len) {
        left -= parts->iov_len;
        ++parts;
        --count;
      }
      if (count > 0 && left > 0) {
        rest.assign(parts, parts + count);
        rest[0].iov_base = static_cast<char*>(rest[0].iov_base) + left;
        rest[0].iov_len -= left;
        parts = rest.data();
      }
    }
  }

  void read(void* to, std::size_t bytes, std::uint64_t offset) const {
    iovec part{to, bytes};
    if (bytes > 0) read(&part, 1, offset);
  }

  void read_checksums(std::uint64_t* to, std::uint32_t page, std::size_t count) const {
    read(to, count * checksum_bytes, std::uint64_t{entry_.pages} * page_size + page * checksum_bytes);
  }
  // A part of the table as it stands in the file, unchecked.

  std::span<const std::uint64_t> table() {
    if (table_.empty()) {
      std::vector<std::uint64_t> found(entry_.pages);
      read_checksums(found.data(), 0, found.size());
      std::uint64_t sum = checksum(found.data(), found.size() * checksum_bytes);
      if (sum != entry_.table_checksum)
        throw error(errc::image_damaged, to_string(of_) + ": the table of checksums of data file " +
                                             std::to_string(entry_.generation) + " has checksum " + hex(sum) +
                                             ", the manifest says " + hex(entry_.table_checksum));
      table_ = std::move(found);
    }
    return table_;
  }
  // The checksums of all the file's pages, themselves checked. Throws errc::image_damaged.

  void check(const void* memory, std::uint32_t page, std::uint32_t pages) {
    std::span<const std::uint64_t> sums = table();
    auto bytes = static_cast<const std::byte*>(memory);
    for (std::uint32_t i = 0; i < pages; ++i, bytes += page_size)
      if (std::uint64_t sum = checksum(bytes, page_size); sum != sums[page + i]) throw_damaged(page + i, sum);
  }
  // Compares memory that was filled from the file with the table. Throws errc::image_damaged, naming
  // the block: a block is a page, counted from 1.

  void verify(std::uint32_t page, std::uint32_t pages, std::byte* buffer) {
    while (pages > 0) {
      auto now = static_cast<std::uint32_t>(std::min<std::size_t>(pages, page_buffer::pages));
      read(buffer, now * page_size, std::uint64_t{page} * page_size);
      check(buffer, page, now);
      page += now;
      pages -= now;
    }
  }
  // Reads the pages through a buffer of page_buffer::bytes and checks them.

private:
  [[noreturn, gnu::cold]] void throw_damaged(std::uint32_t page, std::uint64_t sum) {
    throw error(errc::image_damaged, to_string(of_) + ": block " + std::to_string(page + 1) + " of " +
                                         std::to_string(entry_.pages) + " of data file " +
                                         std::to_string(entry_.generation) + " has checksum " + hex(sum) +
                                         ", its table says " + hex(table_[page]));
  }

  store_state& store_;
  const image& of_;
  image_file entry_;
  descriptor file_;
  file_state state_;
  std::vector<std::uint64_t> table_;
};
// Open for as long as the object lives. One thread at a time.

inline std::vector<image_extent> by_file(const image& of) {
  std::vector<image_extent> extents(of.extents().begin(), of.extents().end());
  std::sort(extents.begin(), extents.end(), [](const image_extent& a, const image_extent& b) {
    return a.file != b.file ? a.file < b.file : a.file_page < b.file_page;
  });
  return extents;
}
// An image's extents in the order in which its files are read.

template <class F> void for_each_file(std::span<const image_extent> sorted, F&& visit) {
  while (!sorted.empty()) {
    std::size_t count = 1;
    while (count < sorted.size() && sorted[count].file == sorted[0].file) ++count;
    visit(sorted[0].file, sorted.first(count));
    sorted = sorted.subspan(count);
  }
}
// Calls visit(index of file, its extents) for what by_file() returned.

inline std::vector<page_run> file_pages(std::span<const image_extent> extents) {
  std::vector<page_run> runs;
  for (const image_extent& extent : extents) append(runs, {extent.file_page, extent.pages});
  return runs;
}
// Which pages of one file its extents, sorted by file page, take.

} // namespace migrate::detail
