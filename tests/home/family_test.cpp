#include <migrate/posix/process.hpp>
#include <migrate/posix/wait.hpp>

#include "../support/cluster.hpp"
#include "../support/random.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using namespace migrate;

namespace {

// What went wrong, told by the task in which it did. Tasks share no memory with the test.
struct notes {
  std::vector<std::string> wrong;
  void expect(bool holds, const std::string& what) {
    if (!holds) wrong.push_back(what);
  }
  template <class A, class B> void equal(const A& got, const B& wanted, const std::string& what) {
    if (!(got == wanted)) wrong.push_back(what + ": " + std::to_string(got) + ", not " + std::to_string(wanted));
  }
};

node_id node_number(std::size_t which) {
  std::vector<node_id> all = nodes();
  return all.at(which % all.size());
}

template <class Body> void at_home_and_away(Body body) {
  // body(notes&, go): go(i) moves the task away, to another place for each i, or nowhere.
  for (bool away : {false, true}) {
    INFO((away ? "away" : "at home"));
    std::vector<std::string> wrong = migrate_test::run([away, body] {
      notes log;
      std::size_t step = 0;
      auto go = [away, step]() mutable {
        if (away) this_task::migrate_to(node_number(++step));
      };
      go();
      body(log, go);
      return log.wrong;
    });
    CHECK(wrong == std::vector<std::string>{});
  }
}

void release(task_id child) { send(child, true); }
bool held_back() { return mailbox<bool>().receive(); }

template <class F> int errno_of(F&& call) {
  try {
    call();
  } catch (const std::system_error& refused) {
    return refused.code().value();
  }
  return 0;
}

} // namespace

TEST_CASE("getpid and gettid are the task's id, wherever it is") {
  at_home_and_away([](notes& log, auto go) {
    posix::pid_t before = posix::getpid();
    go();
    log.equal(posix::getpid(), before, "getpid");
    log.equal(posix::gettid(), before, "gettid");
    log.equal(before, static_cast<posix::pid_t>(this_task::id().bits()), "the task's id");
  });
}

TEST_CASE("a child's exit status reaches its parent") {
  at_home_and_away([](notes& log, auto go) {
    struct ending {
      int status;
      task_id (*start)();
    };
    const std::vector<ending> endings{
        {0, [] { return start_child([] {}); }},
        {7 << 8, [] { return start_child([] { return 7; }); }},
        {0x34 << 8, [] { return start_child([] { return 0x1234; }); }},
        {9 << 8, [] { return start_child([] { posix::exit(9); }); }},
        {10 << 8, [] { return start_child([] { posix::_exit(10); return 3; }); }},
        {SIGABRT, [] { return start_child([] { throw std::runtime_error("test: not caught"); }); }},
    };
    for (const ending& each : endings) {
      task_id child = each.start();
      go();
      int status = -1;
      posix::pid_t got = posix::wait(&status);
      log.equal(got, static_cast<posix::pid_t>(child.bits()), "wait's child");
      log.equal(status, each.status, "status");
    }
    log.equal(posix::wait(nullptr), -1, "wait without children");
    log.equal(errno, ECHILD, "its errno");
  });
}

TEST_CASE("a child inherits its home from its parent, and its id names it there") {
  at_home_and_away([](notes& log, auto go) {
    task_id me = this_task::id();
    task_id child = start_child([me] { return this_task::home() == me.home() && posix::getppid() > 0 ? 0 : 1; });
    log.expect(child.home() == me.home(), "home");
    go();
    log.equal(wait_child(child).exit_code(), 0, "what the child saw");
  });
}

TEST_CASE("waitpid for one child leaves the others' ends for later") {
  at_home_and_away([](notes& log, auto go) {
    std::vector<task_id> children;
    for (int i = 0; i < 4; ++i) children.push_back(start_child([i] { return 20 + i; }));
    for (int i : {2, 0, 3, 1}) {
      go();
      int status = 0;
      auto wanted = static_cast<posix::pid_t>(children[static_cast<std::size_t>(i)].bits());
      log.equal(posix::waitpid(wanted, &status, 0), wanted, "waitpid");
      log.equal(WEXITSTATUS(status), 20 + i, "status");
      log.equal(posix::waitpid(wanted, &status, 0), -1, "a second waitpid");
      log.equal(errno, ECHILD, "its errno");
    }
  });
}

TEST_CASE("WNOHANG returns at once") {
  at_home_and_away([](notes& log, auto go) {
    task_id child = start_child([] { held_back(); return 5; });
    go();
    int status = -1;
    log.equal(posix::waitpid(-1, &status, WNOHANG), 0, "while the child runs");
    log.equal(status, -1, "the status then");
    release(child);
    log.equal(wait_child(wait_options{.keep = true}).exit_code(), 5, "what is kept");
    go();
    log.equal(posix::waitpid(-1, &status, WNOHANG), static_cast<posix::pid_t>(child.bits()), "after its end");
    log.equal(WEXITSTATUS(status), 5, "status");
    log.equal(posix::waitpid(-1, &status, WNOHANG), -1, "without children");
  });
}

TEST_CASE("spawned tasks are not for wait, and children not for join") {
  at_home_and_away([](notes& log, auto go) {
    auto joined = spawn([] { return 4; });
    log.equal(posix::waitpid(-1, nullptr, WNOHANG), -1, "wait with a spawned task");
    go();
    log.equal(joined.join(), 4, "join");
    task_id child = start_child([] { return 4; });
    log.equal(wait_child(child).exit_code(), 4, "wait");
  });
}
