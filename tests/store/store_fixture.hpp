// What the store's tests share: a directory of their own, and a region to work in.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <migrate/store.hpp>

namespace store_test {

inline constexpr std::size_t page = migrate::detail::page_size;

class directory {
public:
  directory() {
    std::string name = (std::filesystem::temp_directory_path() / "migrate-store-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = name;
  }
  ~directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  directory(const directory&) = delete;
  directory& operator=(const directory&) = delete;

  std::string path() const { return path_; }
  std::string store() const { return path_ + "/store"; }
  std::string image(migrate::task_id task, std::uint64_t generation) const {
    return store() + "/images/" + to_string(task) + "/" + std::to_string(generation) + ".image";
  }

private:
  std::string path_;
};
// Removed with all that is in it.

class region {
public:
  explicit region(std::uint32_t index = 7, migrate::region_class kind = migrate::region_class::medium)
      : number_(kind, index) {
    void* got = ::mmap(number_.base(), number_.size(), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (got != number_.base()) throw std::runtime_error("the test's region is not free");
  }
  ~region() { ::munmap(number_.base(), number_.size()); }
  region(const region&) = delete;
  region& operator=(const region&) = delete;

  void clear() const {
    ::mmap(number_.base(), number_.size(), PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  }
  // As a node that has never seen the task has it: all zeros.

  migrate::detail::region_number number() const { return number_; }
  char* base() const { return number_.base(); }
  char* at(std::size_t page_index) const { return base() + page_index * page; }
  migrate::page_range pages(std::size_t first, std::size_t count) const { return {at(first), count * page}; }

  void fill(std::size_t first, std::size_t count, std::uint64_t seed) const {
    for (std::size_t i = first; i < first + count; ++i) {
      auto words = reinterpret_cast<std::uint64_t*>(at(i));
      for (std::size_t j = 0; j < page / 8; ++j)
        words[j] = (seed + i) * 0x9e37'79b9'7f4a'7c15u + j * 0xbf58'476d'1ce4'e5b9u;
    }
  }

private:
  migrate::detail::region_number number_;
};

inline std::uint64_t new_seed() {
  if (const char* given = std::getenv("MIGRATE_TEST_SEED")) return std::strtoull(given, nullptr, 0);
  return std::random_device{}();
}

inline const migrate::task_id task(migrate::node_id(3), 42, 0);

inline std::vector<std::byte> bytes(std::string_view text) {
  auto start = reinterpret_cast<const std::byte*>(text.data());
  return {start, start + text.size()};
}

template <class F> migrate::error caught(F&& work) {
  try {
    work();
  } catch (const migrate::error& problem) {
    return problem;
  }
  FAIL("nothing was thrown");
  std::abort();
}

inline bool says(const migrate::error& problem, std::string_view text) {
  INFO(problem.what());
  return std::string_view(problem.what()).find(text) != std::string_view::npos;
}

inline void change_byte(const std::string& path, std::int64_t offset, unsigned bit = 0) {
  // From the end when the offset is negative.
  int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(fd >= 0);
  off_t at = offset < 0 ? ::lseek(fd, 0, SEEK_END) + offset : offset;
  unsigned char value = 0;
  REQUIRE(::pread(fd, &value, 1, at) == 1);
  value = static_cast<unsigned char>(value ^ (1u << bit));
  REQUIRE(::pwrite(fd, &value, 1, at) == 1);
  ::close(fd);
}

} // namespace store_test
