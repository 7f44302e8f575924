// Signals that reach the first node's process from outside go to the tasks in the foreground, wherever they are.
#include <migrate/posix/process.hpp>
#include <migrate/posix/signal.hpp>
#include <migrate/signal.hpp>

#include <cstdio>
#include <cstdlib>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

#include "../support/cluster.hpp"
#include "../support/program.hpp"

using namespace migrate;
using namespace migrate_test;
using namespace std::chrono_literals;

namespace {

const no_cluster_of_its_own here;

int say(const char* line) {
  std::printf("%s\n", line);
  return std::fflush(stdout);
}

const scenario_entry foreground{"foreground", [] {
  bool away = std::getenv("TASK_AWAY") != nullptr;
  bool heard = run([away] {
    auto child = spawn(spawn_options{.on = away ? nodes().back() : this_task::home()}, [away](task_id parent) {
      bool interrupted = false, resized = false;
      posix::setpgid(0, 0);
      signal_block hold(signal_set{SIGINT, SIGWINCH});
      on_signal(SIGINT, [&](const signal_info&) { interrupted = true; });
      on_signal(SIGWINCH, [&](const signal_info&) { resized = true; });
      posix::tcsetpgrp(0, posix::getpgrp());
      send(parent, posix::tcgetpgrp(0) == posix::getpgrp());
      while (!interrupted || !resized) wait_for_handler({});
      bool there = std::getenv("MIGRATE_TORTURE") != nullptr || (this_task::node() != this_task::home()) == away;
      return there;
    }, this_task::id());
    mailbox<bool> in_front;
    say(in_front.receive() ? "ready" : "not in the foreground");
    return child.join();
  });
  say(heard ? "interrupted" : "not interrupted");
  spawn([] { this_task::sleep_for(1h); }).join(); // nobody is in the foreground now
  return 0;
}};

environment with_signals(const char* scenario) {
  environment made{{"MIGRATE_SCENARIO", scenario}, {"MIGRATE_SIGNALS", "1"}, {"MIGRATE_QUIET", "1"}};
  if (const char* torture = std::getenv("MIGRATE_TORTURE")) made.emplace_back("MIGRATE_TORTURE", torture);
  return made;
}

} // namespace

TEST_CASE("An interrupt goes to the foreground group; without one it does what it does to any process") {
  for (bool away : {false, true}) {
    CAPTURE(away);
    environment how = with_signals("foreground");
    if (away) how.emplace_back("TASK_AWAY", "1");
    program started({own_path()}, how);
    REQUIRE(started.line() == "ready");
    ::kill(started.id(), SIGWINCH);
    ::kill(-started.id(), SIGINT); // as a terminal does: to all nodes' processes
    CHECK(started.line() == "interrupted");
    ::kill(started.id(), SIGTERM);
    CHECK(started.wait(20s) == 128 + SIGTERM);
  }
}
