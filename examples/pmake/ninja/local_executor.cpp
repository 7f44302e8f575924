#include "local_executor.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk.hpp"
#include "error.hpp"
#include "recipe_call.hpp"

extern char** environ;

namespace pmake {

namespace {

using clock = std::chrono::steady_clock;

int open_pidfd(pid_t of) noexcept {
#ifdef SYS_pidfd_open
  return static_cast<int>(::syscall(SYS_pidfd_open, of, 0));
#else
  return static_cast<int>(::syscall(434, of, 0));
#endif
}

class spawn_request {
public:
  spawn_request() {
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_init(&actions);
  }
  ~spawn_request() {
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  spawn_request(const spawn_request&) = delete;
  spawn_request& operator=(const spawn_request&) = delete;

  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
};

timespec until(clock::time_point deadline) {
  auto left = std::max(std::chrono::nanoseconds(0), std::chrono::nanoseconds(deadline - clock::now()));
  return {static_cast<time_t>(left.count() / 1'000'000'000), static_cast<long>(left.count() % 1'000'000'000)};
}

} // namespace

local_executor::local_executor(interruption& signals, unsigned most, double most_load)
    : signals_(signals), most_(most), most_load_(most_load) {}

local_executor::~local_executor() { stop(); }

bool local_executor::can_start(bool) {
  if (running_.size() + guests_ >= most_) return false;
  double load = 0;
  return most_load_ <= 0 || running_.empty() || ::getloadavg(&load, 1) != 1 || load < most_load_;
}

unsigned local_executor::free_slot() const {
  unsigned slot = 0;
  while (std::any_of(running_.begin(), running_.end(), [&](const auto& each) { return each->slot == slot; }))
    ++slot;
  return slot;
}

void local_executor::start(job what) {
  auto made = std::make_unique<process>();
  made->what = std::move(what);
  made->slot = free_slot();
  spawn_request request;
  short flags = POSIX_SPAWN_SETSIGMASK;
  ::posix_spawnattr_setsigmask(&request.attributes, &signals_.outer_mask());
  int ends[2] = {-1, -1};
  if (!made->what.console) {
    if (::pipe2(ends, O_CLOEXEC) != 0) throw build_error("pipe: " + reason_text(errno));
    // A group of its own, so that all of it can be ended, and the terminal's Ctrl-C reaches only us.
    flags |= POSIX_SPAWN_SETPGROUP;
    ::posix_spawnattr_setpgroup(&request.attributes, 0);
    ::posix_spawn_file_actions_addopen(&request.actions, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_adddup2(&request.actions, ends[1], 1);
    ::posix_spawn_file_actions_adddup2(&request.actions, ends[1], 2);
  }
  ::posix_spawnattr_setflags(&request.attributes, flags);
  std::vector<std::string> words = command_words(made->what.command);
  std::vector<char*> arguments;
  for (std::string& each : words) arguments.push_back(each.data());
  arguments.push_back(nullptr);
  int reason = ::posix_spawn(&made->id, arguments[0], &request.actions, &request.attributes, arguments.data(),
                             environ);
  made->begin = clock::now();
  if (ends[1] >= 0) ::close(ends[1]);
  made->output = ends[0];
  if (reason != 0) {
    if (ends[0] >= 0) ::close(ends[0]);
    // As a shell would say it: a command line that is too long is that command's failure, not the build's.
    made->text = "posix_spawn: " + reason_text(reason) + "\n";
    made->id = -1;
    made->output = -1;
  } else if (made->what.console) {
    made->ended = open_pidfd(made->id);
  }
  running_.push_back(std::move(made));
}

bool local_executor::read_output(process& from) {
  // False at its end.
  static constexpr std::size_t chunk = std::size_t{64} << 10;
  char bytes[chunk];
  for (;;) {
    auto got = ::read(from.output, bytes, chunk);
    if (got > 0) from.text.append(bytes, static_cast<std::size_t>(got));
    if (got < 0 && errno == EINTR) continue;
    return got > 0;
  }
}

event local_executor::wait_any(finished_job& one) {
  std::vector<pollfd> what;
  for (;;) {
    what.clear();
    for (std::size_t i = 0; i < running_.size(); ++i) {
      process& each = *running_[i];
      int fd = each.output >= 0 ? each.output : each.ended;
      if (fd < 0) { // it did not start, or a kernel without pidfds makes us wait for it alone
        reap(i, one);
        return event::finished;
      }
      what.push_back({fd, POLLIN, 0});
    }
    what.push_back({watched_, POLLIN, 0});
    // With a limit on the load, what is waiting to be started looks at it again each second.
    timespec second = {1, 0};
    bool limited = most_load_ > 0 && running_.size() + guests_ < most_;
    int ready = signals_.poll(what.data(), what.size(), limited ? &second : nullptr);
    if (signals_.signal() != 0) return event::interrupted;
    if (ready == 0) return event::room;
    for (std::size_t i = 0; i < running_.size(); ++i) {
      if (what[i].revents == 0) continue;
      process& each = *running_[i];
      if (each.output >= 0) {
        if (read_output(each)) continue;
        ::close(std::exchange(each.output, -1));
        siginfo_t gone = {};
        ::waitid(P_PID, static_cast<id_t>(each.id), &gone, WEXITED | WNOHANG | WNOWAIT);
        if (gone.si_pid == 0) { // it has only closed its output
          each.ended = open_pidfd(each.id);
          continue;
        }
      }
      reap(i, one);
      return event::finished;
    }
    if (what.back().revents != 0) return event::room;
  }
}

void local_executor::reap(std::size_t index, finished_job& one) {
  process& ended = *running_[index];
  if (ended.output >= 0) ::close(ended.output);
  if (ended.ended >= 0) ::close(ended.ended);
  int status = -1;
  if (ended.id > 0)
    while (::waitpid(ended.id, &status, 0) < 0 && errno == EINTR && signals_.signal() == 0) {
    }
  one = {};
  one.what = ended.what.what;
  one.output = std::move(ended.text);
  one.slot = ended.slot;
  one.begin = ended.begin;
  one.end = clock::now();
  if (ended.id <= 0 || (WIFEXITED(status) && WEXITSTATUS(status) != 0))
    one.how = outcome::failed;
  else if (WIFSIGNALED(status))
    one.how = WTERMSIG(status) == SIGINT || WTERMSIG(status) == SIGTERM || WTERMSIG(status) == SIGHUP
                  ? outcome::interrupted
                  : outcome::failed;
  one.killed = one.how == outcome::failed && ended.id > 0 && ended_by_signal(status);
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
}

void local_executor::signal_all(int number, bool console_too) const {
  for (const auto& each : running_) {
    if (each->id <= 0) continue;
    if (!each->what.console)
      ::kill(-each->id, number);
    else if (console_too)
      ::kill(each->id, number);
  }
}

std::vector<edge*> local_executor::stop() {
  static constexpr std::chrono::seconds grace{2}, console_grace{10};
  std::vector<edge*> stopped;
  for (const auto& each : running_) stopped.push_back(each->what.what);
  int number = signals_.signal() != 0 ? signals_.signal() : SIGTERM;
  signals_.forget();
  // Ctrl-C has reached whoever has the terminal.
  signal_all(number, number != SIGINT);
  auto begin = clock::now();
  while (!running_.empty()) {
    bool console = running_.front()->what.console;
    process& each = *running_.front();
    if (each.id > 0) {
      int fd = each.ended >= 0 ? each.ended : open_pidfd(each.id);
      each.ended = fd;
      pollfd what{fd, POLLIN, 0};
      timespec left = until(begin + (console ? console_grace : grace));
      bool ended = fd >= 0 && signals_.poll(&what, 1, &left) > 0;
      // Time is up, or the user is; or it has left processes behind in its group.
      if (!console)
        ::kill(-each.id, SIGKILL);
      else if (!ended)
        ::kill(each.id, SIGKILL);
      int status;
      while (::waitpid(each.id, &status, 0) < 0 && errno == EINTR) {
      }
      // Those that it has left behind are killed, and may take a moment to be gone; a zombie may stay for longer.
      for (int round = 0; !console && round < 50 && ::kill(-each.id, 0) == 0; ++round) ::poll(nullptr, 0, 1);
    }
    if (each.output >= 0) ::close(each.output);
    if (each.ended >= 0) ::close(each.ended);
    running_.erase(running_.begin());
  }
  return stopped;
}

} // namespace pmake
