// Signals while their senders and receivers move at random: each is delivered once, and in order.
#include <migrate/posix/process.hpp>
#include <migrate/posix/signal.hpp>
#include <migrate/signal.hpp>

#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/process.hpp>

#include "../support/cluster.hpp"
#include "../support/random.hpp"

using namespace migrate;
using namespace std::chrono_literals;
namespace posix = migrate::posix;
using migrate_test::random_choices;
using migrate_test::run;

namespace {

constexpr int senders = 3;
constexpr int receivers = 3;
constexpr std::uint64_t signals_each = 800; // from each sender to each receiver

std::string receive_all(random_choices random) {
  // Every signal of every sender, once and in order; some by a handler and some by waiting. What is wrong, or nothing.
  std::map<task_id, std::uint64_t> next;
  std::uint64_t left = senders * signals_each;
  std::string wrong;
  auto take = [&](const signal_info& got) {
    std::uint64_t expected = ++next[got.sender];
    if (got.value != expected && wrong.empty())
      wrong = "value " + std::to_string(got.value) + " instead of " + std::to_string(expected);
    --left;
  };
  const signal_set queued{SIGRTMIN + 1};
  signal_block hold(queued);
  on_signal(SIGRTMIN + 1, take);
  send(mailbox<task_id>().receive(), 1); // ready
  while (left > 0 && wrong.empty()) {
    if (random.one_in(2)) {
      wait_for_handler({});
    } else if (auto got = wait_for_signal(queued, 20s)) {
      take(*got);
    } else {
      wrong = std::to_string(left) + " did not come";
    }
    this_task::migrate_to(random.node());
  }
  if (!pending_signals().empty()) wrong += " one too many";
  return wrong;
}

void send_all(const std::vector<task_id>& to, random_choices random) {
  for (std::uint64_t i = 1; i <= signals_each; ++i) {
    for (task_id each : to) queue_signal(each, SIGRTMIN + 1, i);
    this_task::migrate_to(random.node());
  }
}

} // namespace

TEST_CASE("Queued signals arrive once and in order while both sides move") {
  std::uint64_t seed = migrate_test::new_seed("signals");
  std::uint64_t moves_before = migrate_test::statistics().moves;
  auto wrong = run([](std::uint64_t with) {
    random_choices random(with);
    std::vector<task<std::string>> takers;
    std::vector<task_id> ids;
    for (int i = 0; i < receivers; ++i) {
      takers.push_back(spawn(spawn_options{.on = random.node()}, receive_all, random.branch()));
      ids.push_back(takers.back().id());
    }
    mailbox<int> ready;
    for (task_id each : ids) send(each, this_task::id());
    for (int i = 0; i < receivers; ++i) ready.receive();
    std::vector<task<>> givers;
    for (int i = 0; i < senders; ++i)
      givers.push_back(spawn(spawn_options{.on = random.node()}, send_all, ids, random.branch()));
    for (auto& each : givers) each.join();
    std::string all;
    for (auto& each : takers) all += each.join();
    return all;
  }, seed);
  CHECK(wrong == "");
  std::uint64_t moves = migrate_test::statistics().moves - moves_before;
  std::fprintf(stderr, "signals: %llu moves\n", static_cast<unsigned long long>(moves));
  CHECK(moves > 3000);
}

TEST_CASE("A signal and the end of its receiver meet in one way or the other") {
  std::uint64_t seed = migrate_test::new_seed("kill and exit");
  auto seen = run([](std::uint64_t with) {
    random_choices random(with);
    int ended = 0, killed = 0, other = 0;
    for (int i = 0; i < 250; ++i) {
      auto child = spawn(spawn_options{.on = random.node()}, [](random_choices mine) {
        for (std::size_t left = mine.below(4); left > 0; --left) this_task::migrate_to(mine.node());
        return 7;
      }, random.branch());
      if (random.one_in(2)) this_task::migrate_to(random.node());
      for (std::size_t left = random.below(3); left > 0; --left) this_task::yield();
      std::error_code code;
      send_signal(child.id(), random.one_in(2) ? SIGKILL : SIGTERM, code);
      if (code) ++other;
      try {
        child.join() == 7 ? ++ended : ++other;
      } catch (const error& thrown) {
        std::string(thrown.what()).find("ended by signal") != std::string::npos ? ++killed : ++other;
      }
      send_signal(child.id(), SIGTERM, code);
      if (code != std::errc::no_such_process) ++other;
    }
    return std::vector<int>{ended + killed, other};
  }, seed);
  CHECK(seen == std::vector<int>{250, 0});
}

TEST_CASE("A task that is moved and killed at the same time ends once, and of other signals it gets each once") {
  std::uint64_t seed = migrate_test::new_seed("kill and move");
  std::uint64_t moves_before = migrate_test::statistics().moves;
  auto wrong = run([](std::uint64_t with) {
    random_choices random(with);
    auto move_about = [&](task_id child, std::size_t times) -> std::string {
      while (times > 0) {
        std::error_code code;
        migrate_task(child, random.node(), code);
        if (code == errc::move_in_progress) continue; // to where it begins
        if (code && code != errc::no_such_task) return "moving: " + code.message();
        --times;
      }
      return "";
    };
    for (int round = 0; round < 300; ++round) {
      task_id child = start_child(spawn_options{.on = random.node()}, [] {
        for (;;) this_task::yield();
      });
      auto killer = spawn(spawn_options{.on = random.node()}, [child](std::size_t patience) {
        for (; patience > 0; --patience) this_task::yield();
        send_signal(child, SIGKILL);
      }, random.below(8));
      if (auto said = move_about(child, random.below(6)); !said.empty()) return said;
      killer.join();
      child_status end = wait_child(child);
      if (!end.killed() || end.signal() != SIGKILL) return "status " + std::to_string(end.status());
      std::error_code code;
      wait_child(child, {}, code);
      if (code != std::errc::no_child_process) return std::string("it ended twice");
      migrate_task(child, random.node(), code);
      if (code != errc::no_such_task) return std::string("it moves on");
    }
    for (int round = 0; round < 10; ++round) {
      constexpr int signals = 60;
      task_id child = start_child(spawn_options{.on = random.node()}, [](task_id parent) {
        int counted = 0;
        bool last = false;
        on_signal(SIGRTMIN, [&](const signal_info&) { ++counted; });
        on_signal(SIGTERM, [&](const signal_info&) { last = true; });
        send(parent, 1);
        while (!last || counted < signals) this_task::yield();
        return counted;
      }, this_task::id());
      mailbox<int>().receive();
      auto sender = spawn(spawn_options{.on = random.node()}, [child] {
        for (int i = 0; i < signals; ++i) {
          send_signal(child, SIGRTMIN);
          this_task::yield();
        }
        send_signal(child, SIGTERM);
      });
      if (auto said = move_about(child, 40); !said.empty()) return said;
      sender.join();
      if (int counted = wait_child(child).exit_code(); counted != signals)
        return std::to_string(counted) + " signals of " + std::to_string(signals);
    }
    return std::string();
  }, seed);
  CHECK(wrong == "");
  std::uint64_t moves = migrate_test::statistics().moves - moves_before;
  std::fprintf(stderr, "kill and move: %llu moves\n", static_cast<unsigned long long>(moves));
  CHECK(moves >= 400);
}

TEST_CASE("A group's signal reaches each member once while all move") {
  std::uint64_t seed = migrate_test::new_seed("groups");
  auto seen = run([](std::uint64_t with) {
    constexpr int members = 4, rounds = 40;
    random_choices random(with);
    std::vector<task<int>> group;
    task_id leader;
    for (int i = 0; i < members; ++i) {
      group.push_back(spawn(spawn_options{.on = random.node()}, [](task_id parent, random_choices mine) {
        signal_block hold(signal_set{SIGUSR2, SIGTERM});
        mailbox<int> begin;
        begin.receive();
        send(parent, 1);
        for (int got = 0;; ++got) {
          if (wait_for_signal(signal_set{SIGUSR2, SIGTERM}).number == SIGTERM) return got;
          this_task::migrate_to(mine.node());
          send(parent, 1);
        }
      }, this_task::id(), random.branch()));
      if (!leader) leader = group.front().id();
      posix::setpgid(static_cast<posix::pid_t>(group.back().id().bits()), static_cast<posix::pid_t>(leader.bits()));
    }
    for (auto& each : group) send(each.id(), 1);
    mailbox<int> done;
    for (int i = 0; i < members; ++i) done.receive(); // they block what is sent
    for (int round = 0; round < rounds; ++round) {
      signal_group(leader, SIGUSR2);
      this_task::migrate_to(random.node());
      for (int i = 0; i < members; ++i) done.receive();
    }
    posix::killpg(static_cast<posix::pid_t>(leader.bits()), SIGTERM);
    std::vector<int> counts;
    for (auto& each : group) counts.push_back(each.join());
    std::error_code gone;
    signal_group(leader, SIGTERM, gone);
    counts.push_back(gone == std::errc::no_such_process);
    return counts;
  }, seed);
  CHECK(seen == std::vector<int>{40, 40, 40, 40, 1});
}
