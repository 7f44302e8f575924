// A file's bytes as memory of the running task.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <system_error>
#include <utility>

#include <migrate/file.hpp>
#include <migrate/file/mappings.hpp>

namespace migrate {

class mapping {
  // A private copy of a part of a file, in the task's own memory, which moves with it; freed when the object goes. What
  // is written to it does not reach the file. There is no shared one: tasks share no memory, and a copy that passed for
  // shared memory would be wrong in silence.

public:
  mapping() noexcept = default;
  mapping(const file& from, std::size_t bytes, std::error_code& code, std::uint64_t offset = 0) {
    detail::checked(code, [&] { return make(from, bytes, offset); });
  }
  explicit mapping(const file& from, std::size_t bytes, std::uint64_t offset = 0) {
    detail::checked("mapping", "descriptor " + std::to_string(from.descriptor()),
                    [&] { return make(from, bytes, offset); });
  }
  explicit mapping(file& from) : mapping(from, static_cast<std::size_t>(from.bytes())) {}
  // The offset is of whole pages. Throws migrate::error with the operating system's code: ENODEV for what is no regular
  // file, EACCES for one that may not be read, ENOMEM when the task's region has no room.

  mapping(mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  mapping& operator=(mapping&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~mapping() {
    if (!bytes_.empty()) detail::files::unmap(bytes_.data(), bytes_.size());
  }

  std::span<std::byte> bytes() const noexcept { return bytes_; }

private:
  long make(const file& from, std::size_t bytes, std::uint64_t offset) {
    void* made = nullptr;
    long done = detail::files::map(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, from.descriptor(),
                                   static_cast<off_t>(offset), made);
    if (done >= 0) bytes_ = {static_cast<std::byte*>(made), bytes};
    return done;
  }

  std::span<std::byte> bytes_;
};

} // namespace migrate
