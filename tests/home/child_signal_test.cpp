// Where families and signals meet: SIGCHLD, children that are stopped, continued and killed, orphaned groups.
#include <migrate/posix/signal.hpp>
#include <migrate/posix/wait.hpp>

#include "family_fixture.hpp"

#include <string>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using namespace migrate;
using migrate_test::at_home_and_away;
using migrate_test::notes;

namespace {

posix::pid_t pid_of(task_id task) { return static_cast<posix::pid_t>(task.bits()); }
void release(task_id child) { send(child, true); }
bool held_back() { return mailbox<bool>().receive(); }

posix::sigset_t only(int number) {
  posix::sigset_t set;
  posix::sigemptyset(&set);
  posix::sigaddset(&set, number);
  return set;
}

} // namespace

TEST_CASE("SIGCHLD says which child ended, and how") {
  at_home_and_away([](notes& log, auto go) {
    posix::sigset_t chld = only(SIGCHLD);
    posix::sigprocmask(SIG_BLOCK, &chld, nullptr);
    task_id exits = start_child([] { held_back(); return 23; });
    release(exits);
    posix::siginfo_t info{};
    log.equal(posix::sigwaitinfo(&chld, &info), SIGCHLD, "sigwaitinfo");
    log.equal(info.si_pid, pid_of(exits), "si_pid");
    log.equal(info.si_code, CLD_EXITED, "si_code");
    log.equal(info.si_status, 23, "si_status");
    go();
    log.equal(posix::wait(nullptr), pid_of(exits), "wait");
    task_id killed = start_child([] { held_back(); });
    posix::kill(pid_of(killed), SIGKILL);
    log.equal(posix::sigwaitinfo(&chld, &info), SIGCHLD, "sigwaitinfo");
    log.equal(info.si_code, CLD_KILLED, "si_code of one that was killed");
    log.equal(info.si_status, SIGKILL, "its si_status");
    int status = 0;
    log.equal(posix::wait(&status), pid_of(killed), "wait");
    log.expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status " + std::to_string(status));
  });
}

TEST_CASE("a child that stops and goes on is reported to who asks for it") {
  at_home_and_away([](notes& log, auto go) {
    task_id child = start_child([] {
      held_back();
      held_back();
      return 6;
    });
    log.equal(posix::kill(pid_of(child), SIGSTOP), 0, "kill");
    int status = 0;
    log.equal(posix::waitpid(pid_of(child), &status, WUNTRACED), pid_of(child), "WUNTRACED");
    log.expect(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "status " + std::to_string(status));
    log.equal(posix::waitpid(-1, &status, WNOHANG | WUNTRACED), 0, "the same stop again");
    go();
    release(child);
    log.equal(posix::waitpid(-1, &status, WNOHANG), 0, "while it is stopped");
    posix::kill(pid_of(child), SIGCONT);
    posix::siginfo_t info{};
    log.equal(posix::waitid(P_PID, pid_of(child), &info, WCONTINUED), 0, "WCONTINUED");
    log.expect(info.si_pid == pid_of(child) && info.si_code == CLD_CONTINUED && info.si_status == SIGCONT, "its siginfo");
    release(child);
    go();
    log.equal(posix::wait(&status), pid_of(child), "wait");
    log.equal(WEXITSTATUS(status), 6, "exit status");
  });
}

TEST_CASE("waitid fills in a siginfo, and keeps the child there when asked") {
  at_home_and_away([](notes& log, auto go) {
    task_id child = start_child([] { held_back(); return 77; });
    posix::siginfo_t info{};
    info.si_pid = 5;
    log.equal(posix::waitid(P_ALL, 0, &info, WEXITED | WNOHANG), 0, "WNOHANG");
    log.equal(info.si_pid, 0, "its si_pid");
    release(child);
    for (int options : {WEXITED | WNOWAIT, WEXITED | WNOWAIT, WEXITED}) {
      info = {};
      log.equal(posix::waitid(P_PGID, posix::getpgrp(), &info, options), 0, "P_PGID");
      log.equal(info.si_pid, pid_of(child), "si_pid");
      log.equal(info.si_signo, SIGCHLD, "si_signo");
      log.equal(info.si_code, CLD_EXITED, "si_code");
      log.equal(info.si_status, 77, "si_status");
      go();
    }
    log.equal(posix::waitid(P_ALL, 0, &info, WEXITED), -1, "without children");
    log.equal(errno, ECHILD, "its errno");
    log.equal(posix::waitid(P_ALL, 0, &info, WNOHANG), -1, "for nothing");
    log.equal(errno, EINVAL, "its errno");
  });
}

TEST_CASE("ignoring SIGCHLD leaves no zombies, and a wait ends when all children have") {
  at_home_and_away([](notes& log, auto go) {
    posix::signal(SIGCHLD, SIG_IGN);
    task_id child = start_child([] { held_back(); return 1; });
    go();
    release(child);
    log.equal(posix::wait(nullptr), -1, "wait");
    log.equal(errno, ECHILD, "its errno");
    posix::signal(SIGCHLD, SIG_DFL);
    task_id other = start_child([] { return 2; });
    log.equal(posix::wait(nullptr), pid_of(other), "a wait that is not ignored");
  });
}

TEST_CASE("a handler interrupts a wait, or the wait goes on with SA_RESTART") {
  at_home_and_away([](notes& log, auto go) {
    task_id me = this_task::id();
    for (int flags : {0, SA_RESTART}) {
      struct posix::sigaction with {};
      with.sa_handler = [](int) {};
      with.sa_flags = flags;
      posix::sigaction(SIGUSR1, &with, nullptr);
      go();
      task_id child = start_child([me] {
        while (!mailbox<bool>().try_receive()) { // the parent may not wait yet
          posix::kill(pid_of(me), SIGUSR1);
          this_task::sleep_for(std::chrono::milliseconds(5));
        }
        return 3;
      });
      if (flags == SA_RESTART) {
        auto releases = spawn([child] {
          this_task::sleep_for(std::chrono::milliseconds(20));
          release(child);
        });
        log.equal(posix::wait(nullptr), pid_of(child), "a wait that goes on");
        releases.join();
      } else {
        log.equal(posix::wait(nullptr), -1, "a wait that is interrupted");
        log.equal(errno, EINTR, "its errno");
        release(child);
        posix::pid_t got = 0;
        do got = posix::wait(nullptr);
        while (got == -1 && errno == EINTR);
        log.equal(got, pid_of(child), "a later one");
      }
    }
  });
}

TEST_CASE("a stopped group that is orphaned gets SIGHUP and SIGCONT") {
  at_home_and_away([](notes& log, auto go) {
    task_id me = this_task::id();
    task_id leader = start_child([me] {
      this_task::begin_session();
      task_id member = start_child([me] {
        posix::sigset_t hangup = only(SIGHUP);
        posix::sigprocmask(SIG_BLOCK, &hangup, nullptr);
        send(me, this_task::id());
        held_back();
        int number = 0;
        posix::sigwait(&hangup, &number);
        send(me, number);
      });
      set_group(member, member);
      held_back();
      posix::kill(pid_of(member), SIGSTOP);
      posix::waitpid(pid_of(member), nullptr, WUNTRACED);
    });
    task_id member = mailbox<task_id>().receive();
    release(leader);
    release(member);
    go();
    log.equal(posix::wait(nullptr), pid_of(leader), "the leader's end");
    log.equal(mailbox<int>().receive(), SIGHUP, "what the member got, and went on after");
  });
}
