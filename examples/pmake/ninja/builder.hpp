// Brings targets up to date.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "build_log.hpp"
#include "deps_log.hpp"
#include "executor.hpp"
#include "graph.hpp"
#include "plan.hpp"
#include "scan.hpp"
#include "status.hpp"

namespace pmake {

struct build_options {
  std::size_t failures_allowed = 1;
  unsigned parallel = 1;
  bool dry_run = false;
  bool keep_depfiles = false;
  bool keep_response_files = false;
  std::function<void(const finished_job&)> on_finished;
};

struct build_result {
  bool complete = true;
  bool interrupted = false;
  std::string reason; // why it is not complete
};

class builder {
public:
  builder(graph& of, build_log& log, deps_log& deps, const build_options& options, explanation explain);

  void add(node& target);
  // Throws build_error.
  bool up_to_date() const noexcept { return !plan_.more_to_do(); }

  build_result run(executor& on, status& shown);
  // Runs what is needed. Throws build_error when it cannot go on at all; nothing that it started is left then.

private:
  void start(edge& what, executor& on, status& shown);
  void finish(finished_job& done, executor& on, status& shown);
  void succeed(edge& what, const finished_job& done);
  bool take_deps(edge& of, finished_job& done, std::vector<node*>& inputs);
  void stop(executor& on) noexcept;
  void remove_partial(const edge& of) const noexcept;
  file_time clock_of_disk();

  graph& graph_;
  build_log& log_;
  deps_log& deps_;
  const build_options& options_;
  scan scan_;
  plan plan_;
  std::chrono::steady_clock::time_point begin_;

  struct clock_file {
    int fd = -1; // of a file without a name
    ~clock_file();
  } clock_;
};

} // namespace pmake
