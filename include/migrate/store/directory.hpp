// Where a task's images lie in a store: names, and what is there.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/id.hpp>
#include <migrate/store/descriptor.hpp>

namespace migrate::detail {

class image_name {
public:
  explicit image_name(task_id task) noexcept {
    int end =
        task.serial() > 0
            ? std::snprintf(text_, sizeof text_, "%u.%u.%u", number(task.home()), task.slot(), task.serial())
            : std::snprintf(text_, sizeof text_, "%u.%u", number(task.home()), task.slot());
    (void)end;
  }
  image_name(task_id task, std::uint64_t generation, bool committed = true) noexcept : image_name(task) {
    std::size_t end = std::char_traits<char>::length(text_);
    std::snprintf(text_ + end, sizeof text_ - end, committed ? "/%llu.image" : "/%llu.new",
                  static_cast<unsigned long long>(generation));
  }
  const char* c_str() const noexcept { return text_; }
  std::string str() const { return text_; }

private:
  char text_[64];
};
// "3.42": a task's folder, "3.42/17.image": a generation, "3.42/17.new": one that is being written;
// all relative to the store's folder of images.

inline std::optional<std::uint64_t> parse_number(std::string_view text, std::uint64_t most) noexcept {
  std::uint64_t value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || value > most) return std::nullopt;
  return value;
}

inline std::optional<task_id> parse_task_id(std::string_view text) {
  std::uint64_t part[3] = {};
  static constexpr std::uint64_t most[3] = {0xffff, 0xff'ffff, 0xff'ffff};
  std::size_t count = 0;
  for (std::string_view rest = text;; ++count) {
    if (count == 3) return std::nullopt;
    std::size_t dot = rest.find('.');
    auto value = parse_number(rest.substr(0, dot), most[count]);
    if (!value) return std::nullopt;
    part[count] = *value;
    if (dot == rest.npos) break;
    rest.remove_prefix(dot + 1);
  }
  task_id task(node_id(static_cast<std::uint16_t>(part[0])), static_cast<std::uint32_t>(part[1]),
               static_cast<std::uint32_t>(part[2]));
  if (count == 0 || !task || to_string(task) != text) return std::nullopt;
  return task;
}
// The reverse of to_string(task_id); none when the text is anything else.

template <class F> int for_each_name(int parent, const char* folder, F&& found) {
  int fd = ::openat(parent, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return errno;
  DIR* list = ::fdopendir(fd);
  if (list == nullptr) {
    int reason = errno;
    ::close(fd);
    return reason;
  }
  std::unique_ptr<DIR, int (*)(DIR*)> closer(list, &::closedir);
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(list);
    if (entry == nullptr) return errno;
    std::string_view name = entry->d_name;
    if (name != "." && name != "..") found(name);
  }
}
// Calls found(std::string_view) for each name in a folder; returns 0 or an errno.

struct folder_contents {
  std::vector<std::uint64_t> committed; // ascending
  std::vector<std::uint64_t> unfinished;
  int reason = 0; // why it could not be read: 0 or an errno

  std::uint64_t highest() const noexcept {
    std::uint64_t most = 0;
    for (std::uint64_t generation : committed) most = std::max(most, generation);
    for (std::uint64_t generation : unfinished) most = std::max(most, generation);
    return most;
  }
};

inline folder_contents list_generations(int images, task_id task) {
  folder_contents contents;
  contents.reason = for_each_name(images, image_name(task).c_str(), [&](std::string_view name) {
    std::size_t dot = name.find('.');
    if (dot == name.npos) return;
    auto generation = parse_number(name.substr(0, dot), ~std::uint64_t{0});
    if (!generation || *generation == 0) return;
    if (name.substr(dot) == ".image") contents.committed.push_back(*generation);
    if (name.substr(dot) == ".new") contents.unfinished.push_back(*generation);
  });
  std::sort(contents.committed.begin(), contents.committed.end());
  return contents;
}

} // namespace migrate::detail
