// How a build goes on, as its user sees it.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <string>

#include "executor.hpp"
#include "graph.hpp"
#include "terminal.hpp"

namespace pmake {

enum class verbosity {
  quiet, // -- quiet: only what commands print
  normal,
  verbose // -v: whole commands instead of descriptions
};

class status {
public:
  status(terminal& to, verbosity how);
  status(const status&) = delete;
  status& operator=(const status&) = delete;
  // Reads NINJA_STATUS; throws fatal_error when it makes no sense.

  void total(std::size_t commands) { total_ = commands; }
  void begin(unsigned parallel);
  void started(const edge& what);
  void finished(const finished_job& what, const capacity& others);
  void end();

private:
  void print(const edge& what, std::chrono::steady_clock::time_point when);
  std::string progress(std::chrono::steady_clock::time_point when);

  terminal& terminal_;
  verbosity how_;
  std::string format_;
  bool default_format_ = false;
  std::size_t total_ = 0, started_ = 0, finished_ = 0, running_ = 0;
  capacity others_;
  std::chrono::steady_clock::time_point begin_;
  std::deque<double> ends_; // of the last commands, in seconds
  std::size_t window_ = 1;
};

} // namespace pmake
