// Who runs the commands: on this machine, on others, or not at all.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include <sys/wait.h>

#include "graph.hpp"

namespace pmake {

struct job {
  edge* what = nullptr;
  std::string command;    // for /bin/sh -c
  bool console = false;   // it has the terminal to itself
  bool may_leave = false; // the machine
};

enum class outcome { succeeded, failed, interrupted };

struct finished_job {
  edge* what = nullptr;
  outcome how = outcome::succeeded;
  bool killed = false;    // it failed by a signal
  std::string output; // standard output and error, whole
  std::string host;   // where it ran; "" is here
  unsigned slot = 0;  // which of the places there
  std::chrono::steady_clock::time_point begin, end;
};

struct capacity {
  std::size_t hosts = 0;   // other machines that would take commands now
  std::size_t foreign = 0; // commands that run there
};

enum class event { finished, room, interrupted };
// room: can_start() may have become true.

constexpr bool ended_by_signal(int status) noexcept {
  // In the form of wait(2); a shell says so of what it has started by a number above 128.
  return WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) > 128 && WEXITSTATUS(status) <= 128 + 64);
}

class executor {
public:
  executor() = default;
  executor(const executor&) = delete;
  executor& operator=(const executor&) = delete;
  virtual ~executor() = default;
  // Nothing that it started runs any more.

  virtual bool may_leave(const edge&) { return false; }
  // The machine. Asked once for each command.
  virtual bool can_start(bool may_leave) = 0;
  virtual void start(job what) = 0;
  // Throws build_error when it can not.
  virtual event wait_any(finished_job& one) = 0;
  // Blocks until something happens. Not called when nothing runs.
  virtual std::vector<edge*> stop() = 0;
  // Ends what runs, however unwilling, and returns which those were.
  virtual capacity now() const { return {}; }
};

class dry_executor final : public executor {
  // -n: every command succeeds at once.
public:
  bool can_start(bool) override { return true; }
  void start(job what) override { waiting_.push_back(what.what); }
  event wait_any(finished_job& one) override {
    one = {};
    one.what = waiting_.front();
    waiting_.erase(waiting_.begin());
    return event::finished;
  }
  std::vector<edge*> stop() override { return {}; }

private:
  std::vector<edge*> waiting_;
};

} // namespace pmake
