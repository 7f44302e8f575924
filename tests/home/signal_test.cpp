// Signals: what a task has set and what waits for it move with it, and whoever sends need not know where it is.
#include <migrate/posix/signal.hpp>
#include <migrate/signal.hpp>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

#include "../support/cluster.hpp"

using namespace migrate;
using namespace std::chrono_literals;
namespace posix = migrate::posix;
using migrate_test::run;

namespace {

void go_on(std::size_t step = 1) {
  // To another node than this one.
  auto all = nodes();
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i] == this_task::node()) {
      this_task::migrate_to(all[(i + step) % all.size()]);
      return;
    }
}

posix::pid_t self_pid() { return static_cast<posix::pid_t>(this_task::id().bits()); }

sigset_t set_of(std::initializer_list<int> numbers) {
  sigset_t made;
  posix::sigemptyset(&made);
  for (int each : numbers) posix::sigaddset(&made, each);
  return made;
}

template <class... M> std::string end_of(task<M...>& ended) {
  try {
    ended.join();
  } catch (const error& thrown) {
    return thrown.what();
  }
  return "it has not been killed";
}

void pester(task_id to) {
  // Signals until it is told that it is enough: what it is for may not have begun when the first one comes.
  mailbox<int> enough;
  do send_signal(to, SIGUSR1);
  while (!enough.receive_for(2ms));
}

void forever() {
  for (;;) this_task::sleep_for(1h);
}

} // namespace

TEST_CASE("A handler moves with its task and runs where the task is") {
  auto seen = run([] {
    std::vector<int> got;
    on_signal(SIGUSR1, [&](const signal_info& what) { got.push_back(what.number); });
    for (int i = 0; i < 4; ++i) {
      raise_signal(SIGUSR1);
      go_on();
    }
    return got;
  });
  CHECK(seen == std::vector<int>(4, SIGUSR1));
}

TEST_CASE("A POSIX handler gets the sender and the value, and its mask holds while it runs") {
  struct report {
    bool same_sender = false, masked = false, code = false;
    int value = 0, runs = 0;
  };
  auto seen = run([] {
    report made;
    struct posix::sigaction action {};
    action.sa_sigaction = [](int number, posix::siginfo_t* info, void* context) {
      sigset_t mask;
      posix::sigprocmask(SIG_BLOCK, nullptr, &mask);
      auto* here = static_cast<report*>(reinterpret_cast<void*>(info->si_value.sival_ptr));
      here->masked = posix::sigismember(&mask, SIGUSR2) == 1 && posix::sigismember(&mask, SIGRTMIN) == 1 &&
                     number == SIGRTMIN && context != nullptr;
      here->same_sender = info->si_pid == self_pid();
      here->code = info->si_code == SI_QUEUE;
      ++here->runs;
    };
    action.sa_mask = set_of({SIGUSR2});
    action.sa_flags = SA_SIGINFO;
    posix::sigaction(SIGRTMIN, &action, nullptr);
    go_on();
    sigval value{};
    value.sival_ptr = &made;
    posix::sigqueue(self_pid(), SIGRTMIN, value);
    sigset_t mask;
    posix::sigprocmask(SIG_BLOCK, nullptr, &mask);
    made.value = posix::sigismember(&mask, SIGUSR2);
    struct posix::sigaction old {};
    posix::sigaction(SIGRTMIN, nullptr, &old);
    made.code = made.code && old.sa_sigaction == action.sa_sigaction && old.sa_flags == SA_SIGINFO;
    return std::vector<int>{made.same_sender, made.masked, made.code, made.value, made.runs};
  });
  CHECK(seen == std::vector<int>{1, 1, 1, 0, 1});
}

TEST_CASE("A blocked signal stays pending on the target of a move") {
  auto seen = run([] {
    std::vector<std::string> got;
    sigset_t blocked = set_of({SIGUSR1, SIGUSR2, SIGRTMIN + 1});
    posix::sigprocmask(SIG_BLOCK, &blocked, nullptr);
    on_signal(SIGUSR1, [&](const signal_info&) { got.push_back("usr1"); });
    on_signal(SIGRTMIN + 1, [&](const signal_info& what) { got.push_back("rt" + std::to_string(what.value)); });
    auto other = spawn([](task_id to) {
      send_signal(to, SIGUSR1);
      send_signal(to, SIGUSR1); // coalesces
      for (std::uint64_t i = 1; i <= 3; ++i) queue_signal(to, SIGRTMIN + 1, i);
    }, this_task::id());
    other.join();
    go_on();
    got.push_back(pending_signals().contains(SIGUSR1) && pending_signals().contains(SIGRTMIN + 1) &&
                          !pending_signals().contains(SIGUSR2) ? "pending" : "not pending");
    go_on();
    posix::sigprocmask(SIG_UNBLOCK, &blocked, nullptr);
    got.push_back(pending_signals().empty() ? "none" : "some");
    return got;
  });
  CHECK(seen == std::vector<std::string>{"pending", "usr1", "rt1", "rt2", "rt3", "none"});
}

TEST_CASE("By default a signal ends the task, wherever it is, and who joins it hears of it") {
  auto ends = run([] {
    std::vector<std::string> got;
    for (int number : {SIGTERM, SIGKILL, SIGUSR1, SIGRTMIN + 3}) {
      auto victim = spawn([] {
        signal_block most(signal_set{SIGCHLD, SIGKILL}); // SIGKILL is never blocked
        forever();
      });
      if (number != SIGTERM) migrate_test::move_there(victim, nodes().back());
      send_signal(victim.id(), number);
      got.push_back(end_of(victim));
    }
    return got;
  });
  REQUIRE(ends.size() == 4);
  int numbers[] = {SIGTERM, SIGKILL, SIGUSR1, SIGRTMIN + 3};
  for (std::size_t i = 0; i < 4; ++i)
    CHECK_THAT(ends[i], Catch::Contains("was ended by signal " + std::to_string(numbers[i])));
}

TEST_CASE("A task that computes is ended at its next safe point") {
  auto end = run([] {
    auto victim = spawn([] {
      for (;;) this_task::poll();
    });
    send_signal(victim.id(), SIGINT);
    return end_of(victim);
  });
  CHECK_THAT(end, Catch::Contains("was ended by signal 2"));
}

TEST_CASE("Signals that are ignored, or by default without effect, do nothing") {
  auto passed = run([] {
    ignore_signal(SIGTERM);
    for (int number : {SIGTERM, SIGCHLD, SIGURG, SIGWINCH, SIGCONT}) {
      raise_signal(number);
      go_on();
    }
    default_signal(SIGTERM);
    return true;
  });
  CHECK(passed);
}

TEST_CASE("What SIGKILL and SIGSTOP do cannot be changed") {
  auto seen = run([] {
    struct posix::sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    bool kill = posix::sigaction(SIGKILL, &ignore, nullptr) == -1 && errno == EINVAL;
    bool stop = posix::sigaction(SIGSTOP, &ignore, nullptr) == -1 && errno == EINVAL;
    sigset_t all;
    posix::sigfillset(&all);
    posix::sigprocmask(SIG_SETMASK, &all, nullptr);
    sigset_t mask;
    posix::sigprocmask(SIG_SETMASK, nullptr, &mask);
    return kill && stop && posix::sigismember(&mask, SIGKILL) == 0 && posix::sigismember(&mask, SIGSTOP) == 0 &&
           posix::sigismember(&mask, SIGTERM) == 1;
  });
  CHECK(seen);
}

TEST_CASE("SA_RESETHAND and SA_NODEFER") {
  auto seen = run([] {
    int depth = 0, deepest = 0, runs = 0;
    on_signal(SIGUSR1, [&](const signal_info&) {
      ++runs;
      deepest = std::max(deepest, ++depth);
      if (runs < 3) raise_signal(SIGUSR1);
      go_on();
      --depth;
    }, {.nested = true});
    raise_signal(SIGUSR1);
    int nested = deepest;
    depth = deepest = runs = 0;
    on_signal(SIGUSR1, [&](const signal_info&) {
      ++runs;
      deepest = std::max(deepest, ++depth);
      if (runs < 3) raise_signal(SIGUSR1);
      --depth;
    });
    raise_signal(SIGUSR1);
    int in_turn = deepest;
    on_signal(SIGUSR2, [](const signal_info&) {}, {.once = true});
    raise_signal(SIGUSR2);
    struct posix::sigaction now {};
    posix::sigaction(SIGUSR2, nullptr, &now);
    return std::vector<int>{nested, in_turn, runs, now.sa_handler == SIG_DFL};
  });
  CHECK(seen == std::vector<int>{3, 1, 3, 1});
}

TEST_CASE("sigsuspend waits with another mask until a handler has run") {
  auto seen = run([] {
    std::vector<int> got;
    signal_block hold(signal_set{SIGUSR1, SIGUSR2});
    on_signal(SIGUSR1, [&](const signal_info&) {
      got.push_back(1);
      go_on();
    });
    on_signal(SIGUSR2, [&](const signal_info&) { got.push_back(2); });
    auto other = spawn([](task_id to) {
      send_signal(to, SIGUSR2); // stays blocked
      send_signal(to, SIGUSR1);
    }, this_task::id());
    sigset_t only = set_of({SIGUSR2});
    got.push_back(posix::sigsuspend(&only));
    got.push_back(errno == EINTR);
    got.push_back(blocked_signals().contains(SIGUSR1));
    other.join();
    return got;
  });
  CHECK(seen == std::vector<int>{1, -1, 1, 1});
}

TEST_CASE("pause, sigwait, sigwaitinfo and sigtimedwait") {
  auto seen = run([] {
    std::vector<std::int64_t> got;
    task_id me = this_task::id();
    on_signal(SIGUSR1, [](const signal_info&) {});
    auto first = spawn(pester, me);
    got.push_back(posix::pause() == -1 && errno == EINTR);
    send(first.id(), 1);
    first.join();

    sigset_t waited = set_of({SIGUSR2, SIGRTMIN});
    posix::sigprocmask(SIG_BLOCK, &waited, nullptr);
    auto second = spawn([](task_id to) {
      go_on();
      queue_signal(to, SIGRTMIN, 77);
    }, me);
    posix::siginfo_t info{};
    got.push_back(posix::sigwaitinfo(&waited, &info));
    got.push_back(info.si_value.sival_int);
    got.push_back(info.si_pid == static_cast<posix::pid_t>(second.id().bits()));
    second.join();
    go_on();
    raise_signal(SIGUSR2);
    int number = 0;
    got.push_back(posix::sigwait(&waited, &number) == 0 && number == SIGUSR2);
    timespec soon{0, 20'000'000};
    auto begun = std::chrono::steady_clock::now();
    got.push_back(posix::sigtimedwait(&waited, nullptr, &soon) == -1 && errno == EAGAIN);
    got.push_back(std::chrono::steady_clock::now() - begun >= 20ms);
    auto third = spawn(pester, me);
    got.push_back(posix::sigwaitinfo(&waited, nullptr) == -1 && errno == EINTR);
    send(third.id(), 1);
    third.join();
    return got;
  });
  CHECK(seen == std::vector<std::int64_t>{1, SIGRTMIN, 77, 1, 1, 1, 1, 1});
}

TEST_CASE("Joins and mailboxes go on waiting after a handler has run") {
  auto seen = run([] {
    int handled = 0;
    task_id me = this_task::id();
    on_signal(SIGUSR1, [&](const signal_info& what) {
      ++handled;
      send(what.sender, 1);
    });
    auto joined = spawn([](task_id to) {
      mailbox<int> in;
      for (int i = 0; i < 3; ++i) {
        send_signal(to, SIGUSR1);
        in.receive(); // the handler has run
      }
      return 5;
    }, me);
    int value = joined.join();
    auto writer = spawn([](task_id to) {
      mailbox<int> in;
      send_signal(to, SIGUSR1);
      in.receive();
      send(to, std::string("letter"));
    }, me);
    mailbox<std::string> letters;
    std::string letter = letters.receive();
    writer.join();
    return std::to_string(value) + letter + std::to_string(handled);
  });
  CHECK(seen == "5letter4");
}

TEST_CASE("A stopped task can be moved and stays stopped until it is continued") {
  auto seen = run([] {
    std::vector<int> got;
    auto child = spawn([](task_id parent) {
      mailbox<int> in;
      for (;;) send(parent, in.receive());
    }, this_task::id());
    mailbox<int> in;
    send(child.id(), 1);
    got.push_back(in.receive());
    send_signal(child.id(), SIGSTOP);
    send(child.id(), 2);
    for (node_id where : nodes()) migrate_test::move_there(child, where);
    got.push_back(in.receive_for(50ms).value_or(-1));
    send_signal(child.id(), SIGCONT);
    got.push_back(in.receive());
    send_signal(child.id(), SIGTSTP);
    send_signal(child.id(), SIGKILL); // ends a stopped task too
    got.push_back(end_of(child).find("signal 9") != std::string::npos);
    return got;
  });
  CHECK(seen == std::vector<int>{1, -1, 2, 1});
}

TEST_CASE("A timer set before a move fires after it, once") {
  auto seen = run([] {
    std::vector<std::int64_t> got;
    int fired = 0;
    on_signal(SIGALRM, [&](const signal_info&) { ++fired; });
    auto begun = std::chrono::steady_clock::now();
    itimerval in_50ms{{0, 0}, {0, 50'000}};
    posix::setitimer(ITIMER_REAL, &in_50ms, nullptr);
    go_on();
    itimerval left{};
    posix::getitimer(ITIMER_REAL, &left);
    got.push_back(left.it_value.tv_sec == 0 && left.it_value.tv_usec > 0 && left.it_value.tv_usec <= 50'000);
    go_on();
    posix::pause();
    got.push_back(std::chrono::steady_clock::now() - begun >= 50ms);
    this_task::sleep_for(60ms);
    got.push_back(fired);
    posix::getitimer(ITIMER_REAL, &left);
    got.push_back(left.it_value.tv_sec + left.it_value.tv_usec);
    got.push_back(posix::alarm(100));
    go_on();
    got.push_back(posix::alarm(0));
    got.push_back(posix::alarm(0));
    return got;
  });
  CHECK(seen == std::vector<std::int64_t>{1, 1, 1, 0, 0, 100, 0});
}

TEST_CASE("timer_create: intervals, overruns, values and deletion") {
  auto seen = run([] {
    std::vector<std::int64_t> got;
    sigevent how{};
    how.sigev_notify = SIGEV_SIGNAL;
    how.sigev_signo = SIGRTMIN + 2;
    how.sigev_value.sival_int = 9;
    sigset_t waited = set_of({SIGRTMIN + 2});
    posix::sigprocmask(SIG_BLOCK, &waited, nullptr);
    posix::timer_t timer = 0;
    got.push_back(posix::timer_create(CLOCK_MONOTONIC, &how, &timer));
    itimerspec every{{0, 5'000'000}, {0, 5'000'000}};
    got.push_back(posix::timer_settime(timer, 0, &every, nullptr));
    go_on();
    posix::siginfo_t info{};
    for (int i = 0; i < 3; ++i) {
      posix::sigwaitinfo(&waited, &info);
      got.push_back(info.si_signo == SIGRTMIN + 2 && info.si_code == SI_TIMER && info.si_value.sival_int == 9);
      go_on();
    }
    this_task::sleep_for(30ms);
    posix::sigwaitinfo(&waited, &info);
    got.push_back(info.si_overrun >= 3 && posix::timer_getoverrun(timer) == info.si_overrun);
    itimerspec left{};
    posix::timer_gettime(timer, &left);
    got.push_back(left.it_interval.tv_nsec == 5'000'000 && left.it_value.tv_nsec > 0);
    got.push_back(posix::timer_delete(timer));
    got.push_back(posix::timer_delete(timer) == -1 && errno == EINVAL);
    got.push_back(posix::timer_create(CLOCK_PROCESS_CPUTIME_ID, nullptr, &timer) == -1 && errno == ENOTSUP);
    itimerval some{{0, 0}, {1, 0}};
    got.push_back(posix::setitimer(ITIMER_PROF, &some, nullptr) == -1 && errno == ENOTSUP);
    return got;
  });
  CHECK(seen == std::vector<std::int64_t>{0, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1});
}

TEST_CASE("kill: what is there, what was, and what never was") {
  auto seen = run([] {
    std::vector<int> got;
    auto child = spawn([] {});
    auto id = static_cast<posix::pid_t>(child.id().bits());
    got.push_back(posix::kill(self_pid(), 0));
    while (!child.wait_for(1s)) {}
    got.push_back(posix::kill(id, SIGTERM)); // it has ended and was not joined
    go_on();
    child.join();
    got.push_back(posix::kill(id, 0) == -1 && errno == ESRCH);
    got.push_back(posix::kill(self_pid(), 65) == -1 && errno == EINVAL);
    std::error_code code;
    send_signal(child.id(), SIGTERM, code);
    got.push_back(code == std::errc::no_such_process);
    return got;
  });
  CHECK(seen == std::vector<int>{0, 0, 1, 1, 1});
}

TEST_CASE("sigaltstack is kept and reported") {
  auto seen = run([] {
    std::vector<char> memory(65536);
    stack_t none{}, given{}, back{};
    posix::sigaltstack(nullptr, &none);
    given.ss_sp = memory.data();
    given.ss_size = memory.size();
    int set = posix::sigaltstack(&given, nullptr);
    go_on();
    posix::sigaltstack(nullptr, &back);
    return none.ss_flags == SS_DISABLE && set == 0 && back.ss_sp == memory.data() && back.ss_size == memory.size();
  });
  CHECK(seen);
}

TEST_CASE("A child begins with its parent's mask and actions, and nothing pending") {
  auto seen = run([] {
    sigset_t blocked = set_of({SIGUSR1});
    posix::sigprocmask(SIG_BLOCK, &blocked, nullptr);
    posix::signal(SIGUSR2, SIG_IGN);
    on_signal(SIGTERM, [](const signal_info&) {});
    raise_signal(SIGUSR1);
    return spawn(spawn_options{.on = nodes().back()}, [] {
      struct posix::sigaction usr2 {}, term {};
      posix::sigaction(SIGUSR2, nullptr, &usr2);
      posix::sigaction(SIGTERM, nullptr, &term);
      return std::vector<int>{blocked_signals().contains(SIGUSR1), pending_signals().empty(),
                              usr2.sa_handler == SIG_IGN, term.sa_handler == SIG_DFL};
    }).join();
  });
  CHECK(seen == std::vector<int>{1, 1, 1, 1});
}

TEST_CASE("A handler may throw, and the mask is as it was") {
  auto seen = run([] {
    on_signal(SIGUSR1, [](const signal_info&) { throw std::runtime_error("from the handler"); });
    try {
      raise_signal(SIGUSR1);
    } catch (const std::runtime_error& thrown) {
      return std::string(thrown.what()) + (blocked_signals().contains(SIGUSR1) ? ", blocked" : "");
    }
    return std::string("nothing thrown");
  });
  CHECK(seen == "from the handler");
}

TEST_CASE("Threads send signals too, and other calls need a task") {
  auto victim = spawn(forever);
  send_signal(victim.id(), SIGTERM);
  CHECK_THAT(end_of(victim), Catch::Contains("was ended by signal 15"));
  CHECK((posix::sigprocmask(SIG_BLOCK, nullptr, nullptr) == -1 && errno == ENOSYS));
  CHECK_THROWS_AS(on_signal(SIGUSR1, [](const signal_info&) {}), error);
}
