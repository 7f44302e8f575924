// The inputs that commands told about when they ran: the binary file .ninja_deps, version 4, as Ninja has it.
//
// Records of 32-bit words: a file's name, which gives it the next number; or an output, its time then, and the
// numbers of its inputs. A later record of an output replaces an earlier one.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "graph.hpp"

namespace pmake {

class deps_log {
public:
  struct record_of {
    file_time time = 0;
    const std::uint32_t* numbers = nullptr;
    std::uint32_t count = 0;
  };

  deps_log(graph& of, std::string path);
  ~deps_log();
  deps_log(const deps_log&) = delete;
  deps_log& operator=(const deps_log&) = delete;

  bool load(const std::function<void(const std::string&)>& warn);
  // False when there is none. A damaged file is cut off where the damage begins, with a warning.

  const record_of* find(const node& output) const noexcept;
  node& file(std::uint32_t number) const noexcept { return *nodes_[number]; }
  std::vector<node*> inputs_of(const record_of& what) const;

  void record(node& output, file_time time, const std::vector<node*>& inputs);
  void close() noexcept;

  bool bloated() const noexcept { return records_ > 1000 && records_ > 3 * outputs_; }
  void recompact();
  // Keeps what the manifest still makes with a rule that has `deps`.

  static bool is_live(const node& output);
  const std::vector<node*>& files() const noexcept { return nodes_; }

private:
  std::size_t read(std::string_view text);
  void write(const std::string& bytes);
  void append_record(std::string& to, node& output, file_time time, node* const* inputs, std::size_t count);
  void append_name(std::string& to, node& what);
  void remember(std::uint32_t number, const record_of& what);

  graph& graph_;
  std::string path_;
  std::vector<node*> nodes_;          // by number
  std::vector<record_of> records_of_; // by number of the output
  std::size_t records_ = 0, outputs_ = 0;
  int file_ = -1;
};

} // namespace pmake
