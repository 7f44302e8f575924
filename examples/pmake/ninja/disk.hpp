// Files, as far as a build cares.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "graph.hpp"

namespace pmake {

file_time time_of(const std::string& path);
file_time time_of(const char* path);
// When the file was last changed; `missing` when there is none. Throws build_error when that cannot be found out.

void look_at(node& what);
// Asks for the file's time unless it is known.

struct file_text {
  std::unique_ptr<char[]> bytes; // a zero byte follows the text
  std::size_t size = 0;
  int reason = 0; // why there is none: an errno

  std::string_view view() const noexcept { return {bytes.get(), size}; }
};
file_text read_file(const std::string& path);

void write_file(const std::string& path, std::string_view text);
void make_folders_of(std::string_view path);
bool remove_file(const std::string& path);
// False when there was none. These three throw build_error.

std::string reason_text(int error_number);

} // namespace pmake
