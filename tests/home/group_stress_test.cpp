// Groups that change while signals are sent to them, with senders and members on the move.
#include <migrate/process.hpp>
#include <migrate/signal.hpp>

#include "family_fixture.hpp"

#include <csignal>
#include <string>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using namespace migrate;
using migrate_test::new_seed;
using migrate_test::random_choices;
using migrate_test::wander;

namespace {

struct report {
  task_id member;
  int counted;
};

void wandering_member(random_choices random, task_id main) {
  int counted = 0;
  bool last = false;
  on_signal(SIGRTMIN, [&](const signal_info&) { ++counted; });
  on_signal(SIGRTMIN + 1, [&](const signal_info&) { last = true; });
  send(main, this_task::id());
  while (!last || this_task::moves() < 200) { // signals of one sender come in order
    wander(random, 1);
    this_task::yield();
  }
  send(main, report{this_task::id(), counted});
}

} // namespace

TEST_CASE("who is in a group when a signal is sent to it gets it once, and nobody else") {
  std::uint64_t seed = new_seed("setpgid and killpg");
  std::uint64_t before = migrate_test::statistics().moves;
  auto wrong = migrate_test::run([seed] {
    random_choices random(seed);
    constexpr std::size_t count = 6;
    std::vector<task_id> members;
    std::vector<int> expected(count, 0);
    std::vector<bool> inside(count, true);
    for (std::size_t i = 0; i < count; ++i) {
      members.push_back(start_child(wandering_member, random.branch(), this_task::id()));
      set_group(members[i], members[0]);
    }
    mailbox<task_id> ready;
    for (std::size_t i = 0; i < count; ++i) ready.receive();
    for (int round = 0; round < 150; ++round) {
      if (random.one_in(3)) wander(random, 1);
      std::size_t one = 1 + random.below(count - 1); // the first keeps the group there
      set_group(members[one], inside[one] ? members[one] : members[0]);
      inside[one] = !inside[one];
      signal_group(members[0], SIGRTMIN);
      for (std::size_t i = 0; i < count; ++i) expected[i] += inside[i];
    }
    for (task_id each : members) send_signal(each, SIGRTMIN + 1);
    std::vector<std::string> complaints;
    mailbox<report> reports;
    for (std::size_t i = 0; i < count; ++i) {
      report got = reports.receive();
      for (std::size_t j = 0; j < count; ++j)
        if (members[j] == got.member && expected[j] != got.counted)
          complaints.push_back("member " + std::to_string(j) + " got " + std::to_string(got.counted) + " signals, not " +
                               std::to_string(expected[j]));
    }
    for (std::size_t i = 0; i < count; ++i) wait_child();
    return complaints;
  });
  CHECK(wrong == std::vector<std::string>{});
  std::uint64_t moves = migrate_test::statistics().moves - before;
  std::fprintf(stderr, "setpgid and killpg: %llu moves\n", static_cast<unsigned long long>(moves));
  CHECK(moves >= 1200);
}
