// What the fuzz targets share: the entry points of libFuzzer, seeds that are made by code, and a bounded run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace migrate_fuzz {

using input = std::vector<std::uint8_t>;

std::vector<input> seeds();
bool feed(std::span<const std::uint8_t> bytes);
// Each target defines these two. `feed` decodes and says whether the bytes were good; it throws nothing. Every seed must
// be good, so a seed that a change of the format has made worthless is noticed.

inline void append(input& to, const void* from, std::size_t bytes) {
  auto* first = static_cast<const std::uint8_t*>(from);
  to.insert(to.end(), first, first + bytes);
}

inline std::string corpus;
// A folder of this run's own, which goes with it: inputs that lead somewhere new are kept there.

inline int begin(int* count, char*** arguments) {
  std::string made = (std::filesystem::temp_directory_path() / "migrate-fuzz-XXXXXX").string();
  if (::mkdtemp(made.data()) == nullptr) std::abort();
  corpus = made;
  std::atexit([] {
    std::error_code ignored;
    std::filesystem::remove_all(corpus, ignored);
  });
  std::size_t number = 0;
  for (const input& each : seeds()) {
    if (!feed(each)) {
      std::fprintf(stderr, "seed %zu is not decoded any more\n", number);
      std::exit(1);
    }
    std::ofstream(corpus + "/seed-" + std::to_string(number++), std::ios::binary)
        .write(reinterpret_cast<const char*>(each.data()), static_cast<std::streamsize>(each.size()));
  }
  // An input that was found to fail is given by its name, alone: then nothing else is run.
  static std::vector<std::string> words(*arguments, *arguments + *count);
  bool replayed = false;
  for (std::size_t i = 1; i < words.size(); ++i) replayed |= words[i][0] != '-';
  if (!replayed) words.push_back(corpus);
  if (const char* seed = std::getenv("MIGRATE_FUZZ_SEED")) words.push_back(std::string("-seed=") + seed);
  static std::vector<char*> pointers;
  for (std::string& each : words) pointers.push_back(each.data());
  pointers.push_back(nullptr);
  *count = static_cast<int>(words.size());
  *arguments = pointers.data();
  return 0;
}

} // namespace migrate_fuzz

extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments);
extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments) {
  return migrate_fuzz::begin(count, arguments);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  migrate_fuzz::feed({data, bytes});
  return 0;
}
