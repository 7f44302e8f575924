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
  struct next_edge {
    edge* what;
    bool may_leave;
  };
  bool start_one(executor& on, status& shown);
  bool take_next(executor& on);
  void start(const next_edge& next, executor& on, status& shown);
  void finish(finished_job& done, executor& on, status& shown);
  void succeed(edge& what, const finished_job& done);
  bool take_deps(edge& of, finished_job& done, std::vector<node*>& inputs);
  void stop(executor& on) noexcept;
  file_time clock_of_disk();

  graph& graph_;
  build_log& log_;
  deps_log& deps_;
  const build_options& options_;
  scan scan_;
  plan plan_;
  std::vector<next_edge> held_; // next, but nobody has taken them yet
  std::chrono::steady_clock::time_point begin_;

  struct clock_file {
    int fd = -1; // of a file without a name
    ~clock_file();
  } clock_;
};

} // namespace pmake
