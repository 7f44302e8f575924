// Signals in families: children that stop, go on and end, and the waits for them, while all may be anywhere.
#include <migrate/posix/signal.hpp>
#include <migrate/posix/wait.hpp>
#include <migrate/process.hpp>
#include <migrate/signal.hpp>

#include <chrono>
#include <vector>

#include <migrate/nodes.hpp>

#include "../support/cluster.hpp"

using namespace migrate;
using namespace std::chrono_literals;
namespace posix = migrate::posix;
using migrate_test::run;

namespace {

posix::pid_t pid_of(task_id id) { return static_cast<posix::pid_t>(id.bits()); }

void forever() {
  for (;;) this_task::sleep_for(1h);
}

void go_on() { this_task::migrate_to(this_task::node() == nodes().front() ? nodes().back() : nodes().front()); }

} // namespace

TEST_CASE("waitpid hears of stops, continuations and deaths by signals") {
  auto seen = run([] {
    std::vector<int> got;
    auto child = pid_of(start_child([] { forever(); }));
    int status = 0;
    posix::kill(child, SIGSTOP);
    go_on();
    got.push_back(posix::waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status) &&
                  WSTOPSIG(status) == SIGSTOP);
    posix::kill(child, SIGCONT);
    got.push_back(posix::waitpid(child, &status, WCONTINUED) == child && WIFCONTINUED(status));
    go_on();
    posix::kill(child, SIGTERM);
    got.push_back(posix::waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    got.push_back(posix::kill(child, 0) == -1 && errno == ESRCH);
    return got;
  });
  CHECK(seen == std::vector<int>{1, 1, 1, 1});
}

TEST_CASE("SIGCHLD says which child did what; SA_NOCLDSTOP leaves out stops") {
  auto seen = run([] {
    std::vector<int> got;
    signal_block hold(signal_set{SIGCHLD});
    on_signal(SIGCHLD, [](const signal_info&) {});
    task_id child = start_child([] { forever(); });
    auto next = [&](int code, int status) {
      auto what = wait_for_signal(signal_set{SIGCHLD}, 20s);
      got.push_back(what && what->sender == child && what->code == code && what->status == status);
      go_on();
    };
    send_signal(child, SIGSTOP);
    next(CLD_STOPPED, SIGSTOP);
    send_signal(child, SIGCONT);
    next(CLD_CONTINUED, SIGCONT);
    on_signal(SIGCHLD, [](const signal_info&) {}, {.stops = false});
    send_signal(child, SIGSTOP);
    wait_child(child, {.stopped = true});
    got.push_back(!pending_signals().contains(SIGCHLD));
    send_signal(child, SIGKILL);
    next(CLD_KILLED, SIGKILL);
    return got;
  });
  CHECK(seen == std::vector<int>{1, 1, 1, 1});
}

TEST_CASE("Who ignores SIGCHLD has no zombies") {
  auto seen = run([] {
    posix::signal(SIGCHLD, SIG_IGN);
    go_on();
    start_child([] { return 3; });
    start_child([] { return 4; });
    return posix::wait(nullptr) == -1 && errno == ECHILD; // when all have ended
  });
  CHECK(seen);
}

TEST_CASE("A wait that a handler interrupts ends with EINTR, or goes on with SA_RESTART") {
  auto seen = run([] {
    std::vector<int> got;
    int handled = 0;
    for (bool restart : {false, true}) {
      on_signal(SIGUSR1, [&](const signal_info&) { ++handled; }, {.restart = restart});
      handled = 0;
      task_id child = start_child([](task_id parent, bool once) {
        go_on();
        for (int i = 0; once ? i < 3 : i < 1000; ++i) { // until its parent has what it wants, and ends it
          send_signal(parent, SIGUSR1);
          this_task::sleep_for(5ms);
        }
        return 6;
      }, this_task::id(), restart);
      int status = 0;
      posix::pid_t ended = posix::waitpid(pid_of(child), &status, 0);
      if (restart) {
        got.push_back(ended == pid_of(child) && WEXITSTATUS(status) == 6 && handled == 3);
      } else {
        got.push_back(ended == -1 && errno == EINTR && handled > 0);
        posix::kill(pid_of(child), SIGKILL);
        while (posix::waitpid(pid_of(child), &status, 0) == -1 && errno == EINTR) {}
        got.push_back(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
      }
    }
    return got;
  });
  CHECK(seen == std::vector<int>{1, 1, 1});
}
