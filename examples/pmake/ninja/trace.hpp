// A record of a build for chrome://tracing and Perfetto: one row for each host and slot.
#pragma once

#include <chrono>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "executor.hpp"

namespace pmake {

class trace {
public:
  explicit trace(const std::string& path);
  // Throws build_error when it cannot be written.
  ~trace();
  trace(const trace&) = delete;
  trace& operator=(const trace&) = delete;

  struct run {
    std::string name, kind, command;
    bool succeeded = false;
    std::string host; // "": this one
    unsigned slot = 0;
    std::chrono::steady_clock::time_point begin, end;
  };
  void add(const run& done);
  void add(const finished_job& done);
  void note(const std::string& host, const std::string& what);
  // Something that happened to a host just now.

private:
  unsigned row_of(const std::string& host);
  void append(const std::string& event);
  double microseconds(std::chrono::steady_clock::time_point when) const;

  std::FILE* file_;
  bool any_ = false;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::map<std::string, unsigned> hosts_;
  std::set<std::pair<unsigned, unsigned>> slots_;
};

} // namespace pmake
