// Commands as processes of this machine.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include <sys/types.h>

#include "executor.hpp"
#include "interruption.hpp"

namespace pmake {

class local_executor final : public executor {
public:
  local_executor(interruption& signals, unsigned most, double most_load);
  // At most so many at a time, and none more while the machine's load is above most_load (no limit: 0).
  ~local_executor() override;

  bool can_start(bool may_leave = false) override;
  void start(job what) override;
  event wait_any(finished_job& one) override;
  std::vector<edge*> stop() override;

  std::size_t running() const noexcept { return running_.size(); }
  void leave_free(std::size_t places) noexcept { guests_ = places; }
  // So many less at a time: something else runs in them.
  void watch(int fd) noexcept { watched_ = fd; }
  // wait_any() returns event::room when it can be read. It may then be called when nothing runs.

private:
  struct process {
    job what;
    pid_t id = -1;
    int output = -1; // where to read it; -1 when it has the console
    int ended = -1;  // a pidfd, for one that has the console
    unsigned slot = 0;
    std::string text;
    std::chrono::steady_clock::time_point begin;
  };

  unsigned free_slot() const;
  bool read_output(process& from);
  void reap(std::size_t index, finished_job& one);
  void signal_all(int number, bool console_too) const;

  interruption& signals_;
  unsigned most_;
  std::size_t guests_ = 0;
  double most_load_;
  int watched_ = -1;
  std::vector<std::unique_ptr<process>> running_;
};

} // namespace pmake
