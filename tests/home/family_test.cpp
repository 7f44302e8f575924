#include <migrate/posix/process.hpp>
#include <migrate/posix/wait.hpp>

#include "family_fixture.hpp"
#include "../support/random.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using namespace migrate;
using migrate_test::at_home_and_away;
using migrate_test::node_number;
using migrate_test::notes;

namespace {

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

TEST_CASE("waitpid chooses by process group") {
  at_home_and_away([](notes& log, auto go) {
    task_id own = start_child([] { held_back(); return 1; });
    task_id other = start_child([] { held_back(); return 2; });
    task_id second = start_child([] { held_back(); return 3; });
    set_group(other, other);
    set_group(second, other);
    go();
    auto group = static_cast<posix::pid_t>(other.bits());
    log.equal(posix::waitpid(-group, nullptr, WNOHANG), 0, "the group while it runs");
    release(own);
    int status = 0;
    log.equal(posix::waitpid(0, &status, 0), static_cast<posix::pid_t>(own.bits()), "the own group");
    log.equal(posix::waitpid(0, &status, 0), -1, "the own group without children");
    release(other);
    log.equal(wait_group(other).exit_code(), 2, "the first of the other group");
    log.equal(posix::waitpid(-group, nullptr, WNOHANG), 0, "the group, whose leader is gone");
    release(second);
    go();
    log.equal(posix::waitpid(-group, &status, 0), static_cast<posix::pid_t>(second.bits()), "its second member");
    log.equal(posix::waitpid(-group, &status, 0), -1, "the group without members");
    log.equal(errno, ECHILD, "its errno");
    log.equal(errno_of([&] { set_group(this_task::id(), other); }), EPERM, "joining a group that is gone");
  });
}

TEST_CASE("a wait is asked for with options that exist") {
  at_home_and_away([](notes& log, auto) {
    log.equal(posix::waitpid(-1, nullptr, 0x40), -1, "waitpid");
    log.equal(errno, EINVAL, "its errno");
  });
}

TEST_CASE("a parent's end gives its children to the home's init, which reaps them") {
  at_home_and_away([](notes& log, auto go) {
    task_id me = this_task::id();
    task_id parent = start_child([me] {
      start_child([] { return 1; }); // nobody waits for it
      task_id child = start_child([me] {
        task_id before = this_task::parent();
        send(me, this_task::id());
        held_back();
        send(me, std::pair(before, this_task::parent()));
      });
      held_back();
      return child.home() == me.home() ? 0 : 1;
    });
    task_id child = mailbox<task_id>().receive();
    release(parent);
    go();
    log.expect(wait_child().id() == parent, "the end of the parent");
    log.equal(errno_of([&] { group_of(parent); }), ESRCH, "the parent, reaped");
    log.expect(this_task::id() == me, "the task's id");
    release(child);
    auto [before, after] = mailbox<std::pair<task_id, task_id>>().receive();
    log.expect(before == parent, "its parent before");
    log.expect(after == init_task(me.home()), "its parent after");
    log.equal(posix::wait(nullptr), -1, "a wait for a grandchild");
    log.equal(errno, ECHILD, "its errno");
  });
}

TEST_CASE("a zombie is there until it is waited for, and not after") {
  at_home_and_away([](notes& log, auto go) {
    task_id child = start_child([] { return 1; });
    set_group(child, child);
    wait_child(child, wait_options{.keep = true});
    go();
    log.expect(group_of(child) == child, "the zombie's group");
    wait_child(child);
    log.equal(errno_of([&] { group_of(child); }), ESRCH, "the reaped child's group");
    log.equal(posix::getpgid(static_cast<posix::pid_t>(child.bits())), -1, "getpgid");
    log.equal(errno, ESRCH, "its errno");
  });
}

TEST_CASE("children of a task that ignores their ends are no zombies") {
  at_home_and_away([](notes& log, auto go) {
    detail::the_processes->set_child_policy(true, false); // as sigaction does for SIG_IGN and SA_NOCLDWAIT
    std::vector<task_id> children;
    for (int i = 0; i < 3; ++i) children.push_back(start_child([] { held_back(); }));
    go();
    for (task_id each : children) release(each);
    log.equal(posix::wait(nullptr), -1, "a wait until all have ended");
    log.equal(errno, ECHILD, "its errno");
    for (task_id each : children) log.equal(errno_of([&] { group_of(each); }), ESRCH, "a child");
  });
}

TEST_CASE("groups and sessions are inherited, and changed by the manual's rules") {
  at_home_and_away([](notes& log, auto go) {
    task_id me = this_task::id();
    task_id init = init_task(me.home());
    log.expect(this_task::process_group() == init && this_task::session() == init, "the first group and session");
    task_id leader = start_child([me] {
      task_id own = this_task::begin_session();
      bool leads = this_task::process_group() == own && this_task::session() == own && own == this_task::id();
      int again = errno_of([] { this_task::begin_session(); });
      int moved = posix::setpgid(0, 0) == -1 ? errno : 0;
      task_id child = start_child([] { held_back(); });
      bool inherits = group_of(child) == own && session_of(child) == own;
      set_group(child, child);
      bool own_group = group_of(child) == child && session_of(child) == own;
      int elsewhere = errno_of([&] { set_group(child, init_task(child.home())); });
      send(me, child);
      held_back();
      release(child);
      wait_child();
      return leads && inherits && own_group && again == EPERM && moved == EPERM && elsewhere == EPERM ? 0 : 1;
    });
    task_id grandchild = mailbox<task_id>().receive();
    go();
    log.expect(session_of(grandchild) == leader, "the session of another's child");
    log.equal(errno_of([&] { set_group(grandchild, grandchild); }), ESRCH, "another's child");
    log.equal(errno_of([&] { set_group(leader, leader); }), EPERM, "a session's leader");
    log.equal(errno_of([&] { set_group(this_task::id(), leader); }), EPERM, "a group of another session");
    release(leader);
    log.equal(wait_child(leader).exit_code(), 0, "what the leader saw");

    log.equal(posix::setpgid(0, 0), 0, "setpgid");
    log.equal(posix::getpgrp(), posix::getpid(), "getpgrp");
    log.equal(posix::setsid(), -1, "setsid of a group's leader");
    log.equal(posix::setpgid(0, -1), -1, "a negative group");
    log.equal(errno, EINVAL, "its errno");
    task_id joins = start_child([me] {
      held_back();
      bool in_group = this_task::process_group() == me;
      set_group(this_task::id(), init_task(me.home()));
      return in_group && this_task::process_group() != me ? 0 : 1;
    });
    go();
    release(joins);
    log.equal(wait_child().exit_code(), 0, "a member that leaves");
  });
}

TEST_CASE("exit calls what atexit was given, the last first, and destroys nothing automatic") {
  at_home_and_away([](notes& log, auto go) {
    task_id me = this_task::id();
    auto run = [&](int how) {
      task_id child = start_child([me, how] {
        struct automatic {
          task_id to;
          ~automatic() { send(to, 'd'); }
        } object{me};
        this_task::at_exit([me] { send(me, '1'); });
        this_task::at_exit([me] {
          send(me, '2');
          this_task::at_exit([me] { send(me, '3'); });
        });
        if (how == 0) this_task::exit(40);
        if (how == 1) this_task::quick_exit(41);
        if (how == 3) throw std::runtime_error("as by abort()");
        return 42;
      });
      go();
      child_status end = wait_child(child);
      int code = end.killed() ? -end.signal() : end.exit_code();
      std::string text;
      mailbox<char> letters;
      while (auto next = letters.try_receive()) text += *next;
      return text + std::to_string(code);
    };
    for (auto& [how, wanted] : {std::pair(0, "23140"), std::pair(1, "41"), std::pair(2, "d23142"), std::pair(3, "d-6")}) {
      std::string got = run(how);
      log.expect(got == wanted, got + ", not " + wanted);
    }
  });
}

TEST_CASE("whoever joins a task that calls exit is told so") {
  at_home_and_away([](notes& log, auto go) {
    auto exits = spawn([] { this_task::exit(3); });
    go();
    try {
      exits.join();
      log.wrong.push_back("no exception");
    } catch (const error& thrown) {
      log.expect(thrown.code() == errc::task_exited, thrown.what());
      log.expect(std::string(thrown.what()).find("exit(3)") != std::string::npos, thrown.what());
    }
  });
}

TEST_CASE("usage that a child had is its parent's children's when it is waited for") {
  at_home_and_away([](notes& log, auto go) {
    task_id child = start_child([] {
      start_child([] { detail::self().control->process.used = {.user = 1'000'000'000, .minor_faults = 5}; });
      posix::wait(nullptr);
      detail::self().control->process.used = {.user = 2'000'000'000, .system = 500'000, .minor_faults = 1};
    });
    wait_child(child, wait_options{.keep = true});
    log.expect(this_task::children_usage().user == 0, "before the wait");
    go();
    rusage used{};
    int status = -1;
    log.equal(posix::wait4(-1, &status, 0, &used), static_cast<posix::pid_t>(child.bits()), "wait4");
    log.expect(used.ru_utime.tv_sec == 3 && used.ru_stime.tv_usec == 500 && used.ru_minflt == 6, "what it returns");
    go();
    log.expect(this_task::children_usage().user == 3'000'000'000, "after the wait");
  });
}

TEST_CASE("what is refused is told by an error code as well") {
  at_home_and_away([](notes& log, auto go) {
    std::error_code code;
    task_id nobody(this_task::home(), 4'000'000, 7);
    log.expect(!group_of(nobody, code) && code == std::errc::no_such_process, "group_of");
    log.expect(!session_of(nobody, code) && code == std::errc::no_such_process, "session_of");
    set_group(nobody, nobody, code);
    log.expect(code == std::errc::no_such_process, "set_group");
    go();
    set_group(this_task::id(), this_task::id(), code);
    log.expect(!code && group_of(this_task::id(), code) == this_task::id() && !code, "a group of its own");
    log.expect(!this_task::begin_session(code) && code == std::errc::operation_not_permitted, "begin_session");
    log.expect(!wait_group(this_task::id(), {}, code) && code == std::errc::no_child_process, "wait_group");
    task_id child = start_child([] {
      std::error_code none;
      return this_task::begin_session(none) == this_task::id() && !none ? 3 : 4;
    });
    go();
    auto ended = wait_child(child, {}, code);
    log.expect(!code && ended && ended->exit_code() == 3, "its child's session");
    log.expect(!try_wait_group(this_task::id(), {}, code) && code == std::errc::no_child_process, "try_wait_group");
  });
}

TEST_CASE("a thread that runs no task has no family") {
  CHECK(posix::getpid() == -1);
  CHECK(errno == ENOSYS);
  CHECK(posix::wait(nullptr) == -1);
  CHECK(errno == ENOSYS);
  CHECK(posix::getpgrp() == -1);
  CHECK(posix::setsid() == -1);
  CHECK_THROWS_AS(wait_child(), error);
  CHECK_THROWS_AS(start_child([] {}), error);
}
