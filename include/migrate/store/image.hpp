// An image: what one generation of a task consists of, and where its pages lie.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <migrate/error.hpp>
#include <migrate/id.hpp>
#include <migrate/memory/address_plan.hpp>
#include <migrate/store/checksum.hpp>
#include <migrate/store/page_run.hpp>
#include <migrate/store/store_id.hpp>

namespace migrate {

namespace detail {
class image_access;
}

static_assert(std::endian::native == std::endian::little, "images are little-endian");

struct image_file {
  std::uint64_t generation = 0;     // the generation that wrote it
  std::uint64_t bytes = 0;          // its whole length
  std::uint64_t table_checksum = 0; // of its table of page checksums
  std::uint32_t pages = 0;          // pages of data, from the file's start
  std::uint32_t reserved = 0;

  friend constexpr bool operator==(const image_file&, const image_file&) noexcept = default;
};
// One data file that an image takes pages from: the pages, one 64-bit checksum for each of them, and
// the manifest of the generation that wrote the file.

struct image_extent {
  std::uint32_t first = 0; // page in the region
  std::uint32_t pages = 0;
  std::uint32_t file = 0;      // index into the image's files
  std::uint32_t file_page = 0; // page in that file

  constexpr std::uint32_t end() const noexcept { return first + pages; }
  friend constexpr bool operator==(const image_extent&, const image_extent&) noexcept = default;
};
// Neighbouring pages of a region that are neighbours in a data file too.

class image {
public:
  image() noexcept = default;

  bool valid() const noexcept { return generation_ != 0; }
  task_id task() const noexcept { return task_; }
  detail::region_number region() const noexcept { return region_; }
  std::uint64_t generation() const noexcept { return generation_; }
  store_id store() const noexcept { return store_; }
  std::span<const image_file> files() const noexcept { return files_; }
  std::span<const image_extent> extents() const noexcept { return extents_; }
  std::span<const std::byte> metadata() const noexcept { return metadata_; }
  std::uint64_t bytes() const noexcept {
    std::uint64_t pages = 0;
    for (const image_extent& extent : extents_) pages += extent.pages;
    return pages * detail::page_size;
  }
  // How much of the region the image fills.

  std::uint64_t bytes_written() const noexcept {
    return !files_.empty() && files_.back().generation == generation_
               ? std::uint64_t{files_.back().pages} * detail::page_size
               : 0;
  }
  // How much page data this generation added to the store.

  std::vector<std::byte> encode() const;
  // The manifest as bytes, to be stored or sent.

  static image parse(std::span<const std::byte> bytes);
  // The reverse of encode(). Throws errc::image_truncated when bytes end early, image_damaged when a
  // checksum or a bound does not hold, image_version when a newer version of the library made them.

  friend bool operator==(const image&, const image&) = default;

private:
  friend class detail::image_access;

  task_id task_;
  detail::region_number region_;
  std::uint64_t generation_ = 0;
  store_id store_;
  std::uint32_t fresh_pages_ = 0;
  std::vector<image_file> files_;
  std::vector<image_extent> extents_;
  std::vector<std::byte> metadata_;
};
// A value: the manifest of one generation of one task, immutable once committed. Extents are sorted by
// page and do not overlap; files are sorted by generation. Distinct objects may be used by distinct
// threads; a shared one only while nobody assigns to it.

inline std::string to_string(const image& value) {
  return "image " + std::to_string(value.generation()) + " of task " + to_string(value.task());
}

namespace detail {

class image_access {
public:
  static image make(task_id task, region_number region, std::uint64_t generation, store_id store,
                    std::uint32_t fresh_pages, std::vector<image_file> files,
                    std::vector<image_extent> extents, std::span<const std::byte> metadata) {
    image value;
    value.task_ = task;
    value.region_ = region;
    value.generation_ = generation;
    value.store_ = store;
    value.fresh_pages_ = fresh_pages;
    value.files_ = std::move(files);
    value.extents_ = std::move(extents);
    value.metadata_.assign(metadata.begin(), metadata.end());
    return value;
  }
  static std::uint32_t fresh_pages(const image& value) noexcept { return value.fresh_pages_; }
  static image_file& newest_file(image& value) noexcept { return value.files_.back(); }
};
// For the store's own use: makes images and sees which pages of the newest file were dirty.

inline constexpr std::uint64_t manifest_magic = 0x676d'692d'7267'696d; // "migr-img"
inline constexpr std::uint32_t manifest_version = 1;

struct manifest_header {
  std::uint64_t magic;
  std::uint64_t bytes;    // of the whole manifest
  std::uint64_t checksum; // of what follows this member
  std::uint32_t version;  // these first four members are the same in every version
  std::uint32_t region;
  std::uint64_t task;
  std::uint64_t generation;
  std::uint64_t store_high;
  std::uint64_t store_low;
  std::uint32_t fresh_pages;
  std::uint32_t files;
  std::uint64_t extents;
  std::uint64_t metadata;
};
static_assert(sizeof(manifest_header) == 88 && sizeof(image_file) == 32 && sizeof(image_extent) == 16);

inline constexpr std::size_t manifest_checked_from = offsetof(manifest_header, version);

inline std::size_t manifest_bytes(std::size_t files, std::size_t extents, std::size_t metadata) noexcept {
  return sizeof(manifest_header) + files * sizeof(image_file) + extents * sizeof(image_extent) +
         (metadata + 7) / 8 * 8;
}

inline void append_extent(std::vector<image_extent>& extents, image_extent extent) {
  if (extent.pages == 0) return;
  if (!extents.empty()) {
    image_extent& last = extents.back();
    if (last.end() == extent.first && last.file == extent.file &&
        last.file_page + last.pages == extent.file_page) {
      last.pages += extent.pages;
      return;
    }
  }
  extents.push_back(extent);
}
// Adds an extent behind the last one, or lengthens that when the new one goes on where it ends.

} // namespace detail

inline std::vector<std::byte> image::encode() const {
  using namespace detail;
  std::vector<std::byte> bytes(manifest_bytes(files_.size(), extents_.size(), metadata_.size()));
  manifest_header header{manifest_magic,
                         bytes.size(),
                         0,
                         manifest_version,
                         region_.bits(),
                         task_.bits(),
                         generation_,
                         store_.high,
                         store_.low,
                         fresh_pages_,
                         static_cast<std::uint32_t>(files_.size()),
                         extents_.size(),
                         metadata_.size()};
  std::byte* to = bytes.data() + sizeof header;
  auto put = [&to](const void* from, std::size_t size) {
    if (size > 0) std::memcpy(to, from, size);
    to += size;
  };
  put(files_.data(), files_.size() * sizeof(image_file));
  put(extents_.data(), extents_.size() * sizeof(image_extent));
  put(metadata_.data(), metadata_.size());
  std::memcpy(bytes.data(), &header, sizeof header);
  header.checksum = checksum(bytes.data() + manifest_checked_from, bytes.size() - manifest_checked_from);
  std::memcpy(bytes.data(), &header, sizeof header);
  return bytes;
}

inline image image::parse(std::span<const std::byte> bytes) {
  using namespace detail;
  auto refuse = [](errc code, std::string why) -> error {
    return error(code, "cannot use an image's manifest: " + std::move(why));
  };
  constexpr std::size_t prefix = manifest_checked_from + sizeof(std::uint32_t);
  manifest_header header{};
  if (bytes.size() < prefix)
    throw refuse(errc::image_truncated,
                 "it has " + std::to_string(bytes.size()) + " bytes and ends in its header");
  std::memcpy(&header, bytes.data(), prefix);
  if (header.magic != manifest_magic) throw refuse(errc::image_damaged, "it does not begin like one");
  if (header.bytes > bytes.size())
    throw refuse(errc::image_truncated, "it says that it has " + std::to_string(header.bytes) +
                                            " bytes, but " + std::to_string(bytes.size()) + " are there");
  if (header.bytes < bytes.size()) throw refuse(errc::image_damaged, "something follows its end");
  std::uint64_t found = checksum(bytes.data() + manifest_checked_from, bytes.size() - manifest_checked_from);
  if (found != header.checksum) throw refuse(errc::image_damaged, "its checksum does not hold");
  if (header.version != manifest_version)
    throw refuse(errc::image_version, "it is of version " + std::to_string(header.version) +
                                          ", this library knows version " + std::to_string(manifest_version) +
                                          "; run the same build on every node");
  if (bytes.size() < sizeof header) throw refuse(errc::image_damaged, "it ends in its header");
  std::memcpy(&header, bytes.data(), sizeof header);

  std::size_t room = bytes.size() - sizeof header;
  if (header.files > room / sizeof(image_file) || header.extents > room / sizeof(image_extent) ||
      header.metadata > room || manifest_bytes(header.files, header.extents, header.metadata) != bytes.size())
    throw refuse(errc::image_damaged, "its tables do not fit its length");

  image value;
  value.task_ = task_id(header.task);
  value.region_ = region_number::from_bits(header.region);
  value.generation_ = header.generation;
  value.store_ = {header.store_high, header.store_low};
  value.fresh_pages_ = header.fresh_pages;
  if (!value.task_) throw refuse(errc::image_damaged, "it names no task");
  if (!value.region_.valid()) throw refuse(errc::image_damaged, "it names no region of the address plan");
  if (value.generation_ == 0) throw refuse(errc::image_damaged, "it has no generation");

  value.files_.resize(header.files);
  value.extents_.resize(header.extents);
  value.metadata_.resize(header.metadata);
  const std::byte* from = bytes.data() + sizeof header;
  auto take = [&from](void* to, std::size_t size) {
    if (size > 0) std::memcpy(to, from, size);
    from += size;
  };
  take(value.files_.data(), value.files_.size() * sizeof(image_file));
  take(value.extents_.data(), value.extents_.size() * sizeof(image_extent));
  take(value.metadata_.data(), value.metadata_.size());

  std::uint64_t last_generation = 0;
  for (const image_file& file : value.files_) {
    if (file.generation <= last_generation || file.generation > value.generation_)
      throw refuse(errc::image_damaged, "its data files are not in order");
    if (file.pages == 0 || file.bytes / (page_size + sizeof(std::uint64_t)) < file.pages)
      throw refuse(errc::image_damaged, "a data file is shorter than its pages");
    last_generation = file.generation;
  }
  const std::uint64_t region_pages = value.region_.size() / page_size;
  std::uint64_t next = 0;
  for (const image_extent& extent : value.extents_) {
    if (extent.pages == 0 || extent.first < next || std::uint64_t{extent.first} + extent.pages > region_pages)
      throw refuse(errc::image_damaged, "its extents overlap or leave the region");
    if (extent.file >= value.files_.size() ||
        std::uint64_t{extent.file_page} + extent.pages > value.files_[extent.file].pages)
      throw refuse(errc::image_damaged, "an extent leaves its data file");
    next = std::uint64_t{extent.first} + extent.pages;
  }
  return value;
}

} // namespace migrate
