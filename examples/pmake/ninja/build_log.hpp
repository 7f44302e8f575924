// What each output was built by, and when: the text file .ninja_log, version 5, which Ninja 1.11 reads and writes too.
//
// The time of an entry is when its command began, by the clock of the file system: an input that is changed while
// the command runs is newer, and the output is built again. Ninja 1.11 writes the output's own time there.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "graph.hpp"

namespace pmake {

struct log_entry {
  std::string_view output;
  std::uint64_t command = 0;       // its hash
  std::int32_t start = 0, end = 0; // milliseconds since the build that ran it began
  file_time time = 0;
};

class build_log {
public:
  build_log(graph& of, std::string path);
  ~build_log();
  build_log(const build_log&) = delete;
  build_log& operator=(const build_log&) = delete;

  bool load(const std::function<void(const std::string&)>& warn);
  // False when there is none. A line that makes no sense is as if it were not there; a file that is no log of this
  // version is removed with a warning. Throws build_error when it cannot be read.

  log_entry* find(node& output) noexcept;
  // What is known of it: also when the graph had no such file yet as the log was read.

  void record(const edge& of, std::uint64_t command, std::int32_t start, std::int32_t end, file_time time);
  // Opens the file when it is the first. Throws build_error.
  void close() noexcept;

  bool bloated() const noexcept { return lines_ > 100 && lines_ > 3 * entries_.size(); }
  void recompact();
  // Drops what the manifest does not make and is not there any more.
  void restat(const std::vector<std::string>& outputs);
  // Sets the recorded times, of these or all outputs, to those of the files.

  const std::vector<log_entry*>& entries() const noexcept { return entries_; }

private:
  log_entry& find_or_add(std::string_view output);
  void rewrite(const char* suffix);

  graph& graph_;
  std::string path_;
  std::vector<log_entry*> entries_;
  std::unordered_map<std::string_view, log_entry*> strangers_; // whose outputs are not in the graph
  std::size_t lines_ = 0;
  bool torn_ = false; // the file's last line has no end
  int file_ = -1;
};

} // namespace pmake
