// Which of an image's older data files to merge into the one being written.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include <migrate/store/image.hpp>

namespace migrate::detail {

inline std::vector<bool> files_to_merge(std::span<const image_file> files,
                                        std::span<const std::uint32_t> live, std::uint64_t new_pages,
                                        std::size_t most_files) {
  std::vector<bool> merge(files.size(), false);
  std::vector<std::size_t> used;
  std::uint64_t needed = new_pages, held = new_pages, merged = new_pages;
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (live[i] == 0) continue;
    used.push_back(i);
    needed += live[i];
    held += files[i].pages;
  }
  auto take = [&](std::size_t file) {
    merge[file] = true;
    merged += live[file];
    held -= files[file].pages - live[file];
  };

  std::sort(used.begin(), used.end(), [&](std::size_t a, std::size_t b) {
    return std::uint64_t{live[a]} * files[b].pages < std::uint64_t{live[b]} * files[a].pages;
  });
  std::size_t wasteful = 0;
  while (wasteful < used.size() && needed * 2 < held) take(used[wasteful++]);
  used.erase(used.begin(), used.begin() + static_cast<std::ptrdiff_t>(wasteful));

  // Once there are too many, a file is merged with all that are no larger than what is being written
  // anyway, so that each page is rewritten a logarithmic number of times.
  if (used.size() + 1 > std::max<std::size_t>(most_files, 1)) {
    std::sort(used.begin(), used.end(), [&](std::size_t a, std::size_t b) { return live[a] < live[b]; });
    std::size_t left = used.size();
    for (std::size_t file : used) {
      if (left + 1 <= most_files && live[file] > merged) break;
      take(file);
      --left;
    }
  }
  return merge;
}
// live: for each file, how many of its pages the new image still uses. Afterwards an image spans at
// most most_files files, its own among them, and uses at least half of what they hold.

} // namespace migrate::detail
