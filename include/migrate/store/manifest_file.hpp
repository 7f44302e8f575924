// Reading a generation's manifest from the end of its file.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/store/data_file.hpp>
#include <migrate/store/directory.hpp>
#include <migrate/store/image.hpp>
#include <migrate/store/image_writer.hpp>
#include <migrate/store/store_state.hpp>

namespace migrate::detail {

inline void check_ours(const store_state& store, const image& of) {
  if (of.store() != store.id)
    throw error(errc::image_foreign, to_string(of) + " belongs to store " + to_string(of.store()) +
                                         ", this is store " + to_string(store.id) + " (" + store.path +
                                         "); give every node of the cluster the same store");
}

inline image load_image(const store_state& store, task_id task, std::uint64_t generation) {
  const image_name name(task, generation);
  const std::string path = store.path + "/images/" + name.str();
  const std::string what = "image " + std::to_string(generation) + " of task " + to_string(task);
  descriptor file(::openat(store.images.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY));
  struct stat status;
  if (!file || ::fstat(file.get(), &status) != 0) {
    if (errno == ENOENT || errno == ENOTDIR || errno == ESTALE)
      throw error(errc::image_missing, what + ": there is none in the store " + store.path);
    throw_store_error(errno, "open " + what, path);
  }
  if (!S_ISREG(status.st_mode)) throw error(errc::image_damaged, what + ": " + path + " is not a file");
  check_owner(status, path, "remove the task's images, they are not to be trusted");

  const auto size = static_cast<std::uint64_t>(status.st_size);
  auto read = [&](void* to, std::size_t bytes, std::uint64_t offset) {
    auto at = static_cast<char*>(to);
    while (bytes > 0) {
      ssize_t got = ::pread(file.get(), at, bytes, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw_store_error(errno, "read " + what, path);
      if (got == 0) throw error(errc::image_truncated, what + ": its file ended while it was read");
      at += got;
      bytes -= static_cast<std::size_t>(got);
      offset += static_cast<std::uint64_t>(got);
    }
  };
  std::vector<std::byte> tail(std::min<std::uint64_t>(size, 8192));
  read(tail.data(), tail.size(), size - tail.size());
  image_trailer trailer;
  if (tail.size() < sizeof trailer)
    throw error(errc::image_truncated,
                what + ": its file has " + std::to_string(size) + " bytes, too few for an image");
  std::memcpy(&trailer, tail.data() + tail.size() - sizeof trailer, sizeof trailer);
  if (trailer.checksum != trailer.sum()) {
    if (trailer.magic != trailer_magic)
      throw error(errc::image_truncated,
                  what + ": its file of " + std::to_string(size) +
                      " bytes does not end as an image does: it is cut short or is none");
    throw error(errc::image_damaged, what + ": the last bytes of its file do not match their checksum");
  }
  if (trailer.magic != trailer_magic || trailer.bytes != size || trailer.manifest > size - sizeof trailer)
    throw error(errc::image_damaged, what + ": the last bytes of its file do not fit its length of " +
                                         std::to_string(size) + " bytes");
  auto bytes = static_cast<std::size_t>(trailer.manifest);
  std::vector<std::byte> longer;
  std::span<const std::byte> manifest;
  if (bytes + sizeof trailer <= tail.size()) {
    manifest = std::span(tail).subspan(tail.size() - sizeof trailer - bytes, bytes);
  } else {
    longer.resize(bytes);
    read(longer.data(), bytes, size - sizeof trailer - bytes);
    manifest = longer;
  }
  image value = [&] {
    try {
      return image::parse(manifest);
    } catch (const error& problem) {
      // The trailer has told how long it is, so what is missing here is missing inside.
      bool shorter = problem.code() == errc::image_truncated;
      throw error(shorter ? make_error_code(errc::image_damaged) : problem.code(),
                  what + ": " + problem.what());
    }
  }();
  if (value.task() != task || value.generation() != generation)
    throw error(errc::image_foreign, what + ": the file " + path + " holds " + to_string(value));
  check_ours(store, value);
  return value;
}
// Throws image_missing, image_truncated, image_damaged, image_version, image_foreign or store_owner.

} // namespace migrate::detail
