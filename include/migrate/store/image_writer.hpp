// Writing one generation: a file that is complete or not there.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <migrate/store/data_file.hpp>
#include <migrate/store/directory.hpp>
#include <migrate/store/image.hpp>
#include <migrate/store/store_state.hpp>

namespace migrate::detail {

inline constexpr std::uint64_t trailer_magic = 0x646e'652d'7267'696d; // "migr-end"

struct image_trailer {
  std::uint64_t magic = trailer_magic;
  std::uint64_t manifest = 0; // bytes of the manifest, which ends where the trailer starts
  std::uint64_t bytes = 0;    // of the whole file
  std::uint64_t checksum = 0; // of the members above

  std::uint64_t sum() const noexcept { return detail::checksum(this, offsetof(image_trailer, checksum)); }
};
static_assert(sizeof(image_trailer) == 32);
// A generation's file: its pages, their checksums, the manifest, this.

class image_writer {
public:
  image_writer(store_state& store, task_id task, std::uint64_t after);
  // Starts the task's next generation after the given one: the number that follows it, or a higher one
  // when that is taken. Throws as store::commit.

  ~image_writer() {
    if (file_) discard();
  }
  image_writer(const image_writer&) = delete;
  image_writer& operator=(const image_writer&) = delete;

  std::uint64_t generation() const noexcept { return generation_; }
  std::uint32_t pages() const noexcept { return static_cast<std::uint32_t>(checksums_.size()); }

  void add_page(const void* page, std::uint64_t page_checksum) {
    checksums_.push_back(page_checksum);
    add(page, page_size);
  }
  // The memory is read no later than at the next flush(), which may happen here.

  void flush();

  image finish(task_id task, region_number region, std::uint32_t fresh_pages, std::vector<image_file> files,
               std::vector<image_extent> extents, std::span<const std::byte> metadata);
  // Writes the table and the manifest and commits. files lacks this generation's own, which extents
  // name by the index files.size().

private:
  void open_file(std::uint64_t after);
  void add(const void* from, std::size_t bytes) {
    auto address = static_cast<char*>(const_cast<void*>(from));
    if (!parts_.empty() && static_cast<char*>(parts_.back().iov_base) + parts_.back().iov_len == address)
      parts_.back().iov_len += bytes;
    else
      parts_.push_back({address, bytes});
    waiting_ += bytes;
    if (waiting_ >= page_buffer::bytes || parts_.size() >= IOV_MAX) flush();
  }
  void put_in_place();
  void discard() noexcept {
    file_.close();
    ::unlinkat(store_.images.get(), image_name(task_, generation_, false).c_str(), 0);
  }
  std::string what() const {
    return "write image " + std::to_string(generation_) + " of task " + to_string(task_);
  }
  [[noreturn, gnu::cold]] void fail(int reason) const {
    throw_store_error(reason, what(), store_.path + "/images/" + image_name(task_, generation_, false).str());
  }

  store_state& store_;
  task_id task_;
  std::uint64_t generation_ = 0;
  bool folder_may_be_new_; // so that its own name need not be on the disk yet
  descriptor file_;
  std::uint64_t written_ = 0;
  std::size_t waiting_ = 0;
  std::vector<iovec> parts_;
  std::vector<std::uint64_t> checksums_;
};
// Until finish() returns nothing of it can be seen, and when it does not get there nothing stays.

inline image_writer::image_writer(store_state& store, task_id task, std::uint64_t after)
    : store_(store), task_(task), folder_may_be_new_(after == 0) {
  if (after == 0) {
    folder_contents there = list_generations(store.images.get(), task);
    if (there.reason == 0) after = there.highest();
  }
  open_file(after);
}

inline void image_writer::open_file(std::uint64_t after) {
  // The unfinished file's name is also what keeps two writers from taking the same number.
  constexpr int attempts = 100;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    generation_ = after + 1;
    image_name name(task_, generation_, false);
    file_ = descriptor(::openat(store_.images.get(), name.c_str(),
                                O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (file_) {
      if (::faccessat(store_.images.get(), image_name(task_, generation_).c_str(), F_OK, 0) != 0) return;
      discard();
    } else if (errno == ENOENT) {
      if (::mkdirat(store_.images.get(), image_name(task_).c_str(), 0700) != 0 && errno != EEXIST)
        fail(errno);
      folder_may_be_new_ = true;
      continue;
    } else if (errno != EEXIST) {
      fail(errno);
    }
    after = std::max(after + 1, list_generations(store_.images.get(), task_).highest());
  }
  fail(EEXIST);
}

inline void image_writer::flush() {
  iovec* part = parts_.data();
  std::size_t count = parts_.size();
  while (count > 0) {
    ssize_t put = ::pwritev(file_.get(), part, static_cast<int>(count), static_cast<off_t>(written_));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) fail(put < 0 ? errno : ENOSPC);
    written_ += static_cast<std::uint64_t>(put);
    auto left = static_cast<std::size_t>(put);
    while (count > 0 && left >= part->iov_len) {
      left -= part->iov_len;
      ++part;
      --count;
    }
    if (left > 0) {
      part->iov_base = static_cast<char*>(part->iov_base) + left;
      part->iov_len -= left;
    }
  }
  parts_.clear();
  waiting_ = 0;
}

inline image image_writer::finish(task_id task, region_number region, std::uint32_t fresh_pages,
                                  std::vector<image_file> files, std::vector<image_extent> extents,
                                  std::span<const std::byte> metadata) {
  bool own = !checksums_.empty();
  image_trailer trailer;
  trailer.manifest = manifest_bytes(files.size() + (own ? 1 : 0), extents.size(), metadata.size());
  trailer.bytes = checksums_.size() * (page_size + checksum_bytes) + trailer.manifest + sizeof trailer;
  trailer.checksum = trailer.sum();
  std::size_t table_bytes = checksums_.size() * checksum_bytes;
  image_file mine{generation_, trailer.bytes, checksum(checksums_.data(), table_bytes), pages(), 0};
  if (own) files.push_back(mine);
  image value = image_access::make(task, region, generation_, store_.id, fresh_pages, std::move(files),
                                   std::move(extents), metadata);
  std::vector<std::byte> manifest = value.encode();
  if (own) add(checksums_.data(), table_bytes);
  add(manifest.data(), manifest.size());
  add(&trailer, sizeof trailer);
  flush();
  put_in_place();
  struct stat status;
  if (own && ::fstatat(store_.images.get(), image_name(task_, generation_).c_str(), &status, 0) == 0)
    store_.verified.add(task, generation_, file_state(status, mine.table_checksum), {{0, mine.pages}});
  return value;
}

inline void image_writer::put_in_place() {
  // Network file systems and quotas report what a write could not do at close, so it comes first.
  int images = store_.images.get();
  image_name from(task_, generation_, false), to(task_, generation_);
  int reason = store_.options.durable && ::fsync(file_.get()) != 0 ? errno : 0;
  if (int late = file_.close(); reason == 0) reason = late;
  if (reason == 0 && ::renameat(images, from.c_str(), images, to.c_str()) != 0) reason = errno;
  if (reason != 0) {
    discard();
    fail(reason);
  }
  if (!store_.options.durable) return;
  descriptor folder(::openat(images, image_name(task_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder && ::fsync(folder.get()) == 0 && (!folder_may_be_new_ || ::fsync(images) == 0)) return;
  reason = errno;
  ::unlinkat(images, to.c_str(), 0);
  fail(reason);
}

} // namespace migrate::detail
