// The placement policies in a cluster of three nodes on this machine.
#include <migrate/placement.hpp>

#include "../support/cluster.hpp"
#include "../support/program.hpp"

#include <migrate/mailbox.hpp>

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

using namespace migrate;
using namespace migrate_test;
using namespace std::chrono_literals;

namespace {

const no_cluster_of_its_own here;

struct report {
  task_id from;
  node_id node;
};

struct stop {};

void compute(task_id to) {
  // Until it is told to stop, saying now and then where it is.
  mailbox<stop> stopped(1);
  volatile std::uint64_t sum = 0;
  while (!stopped.try_receive()) {
    for (int round = 0; round < 100; ++round) {
      for (int i = 0; i < 20'000; ++i) sum = sum + static_cast<std::uint64_t>(i);
      this_task::yield();
    }
    send(to, report{this_task::id(), this_task::node()});
  }
}

std::map<node_id, int> spread(unsigned count, const std::function<bool(const std::map<node_id, int>&)>& enough) {
  // Begins them all on node 2, which is not their home, and waits until they have spread.
  mailbox<report> reports(100'000);
  std::vector<task<>> tasks;
  for (unsigned i = 0; i < count; ++i)
    tasks.push_back(spawn({.name = "worker", .on = node_id(2)}, compute, this_task::id()));
  std::map<task_id, node_id> where;
  std::map<node_id, int> on;
  auto deadline = std::chrono::steady_clock::now() + 60s;
  while (std::chrono::steady_clock::now() < deadline) {
    report got = reports.receive();
    where[got.from] = got.node;
    on.clear();
    for (const auto& [which, node] : where) ++on[node];
    if (where.size() == count && enough(on)) break;
  }
  for (auto& each : tasks) send(each.id(), stop{});
  for (auto& each : tasks) each.join();
  return on;
}

const scenario_entry evens_out{"evens out", [] {
  auto on = migrate_test::run([] {
    auto found = spread(9, [](const auto& now) {
      return now.size() == 3 && std::all_of(now.begin(), now.end(), [](const auto& each) { return each.second >= 2; });
    });
    std::string text;
    for (const auto& [node, tasks] : found) text += std::to_string(tasks) + " ";
    this_task::migrate_to(node_id(2));
    auto decided = recent_decisions();
    auto moved = std::count_if(decided.begin(), decided.end(), [](const placement_decision& each) {
      return each.outcome == placement_outcome::moved && each.from == node_id(2) && each.reason[0] != 0 && each.gain > 0;
    });
    text += moved >= 4 && placement_counts().moved >= 4 ? "decided" : "undecided";
    return text;
  });
  std::printf("%s\n", on.c_str());
  return 0;
}};

const scenario_entry stays{"stays", [] {
  // What may not be moved does not, while what may does.
  auto on = migrate_test::run([] {
    mailbox<report> reports(100'000);
    std::vector<task<>> fixed, free;
    for (int i = 0; i < 3; ++i) fixed.push_back(spawn({.by_policy = false}, compute, this_task::id()));
    for (int i = 0; i < 3; ++i) free.push_back(spawn(compute, this_task::id()));
    bool wrong = false;
    std::map<task_id, node_id> away;
    auto deadline = std::chrono::steady_clock::now() + 60s;
    while (away.size() < 2 && std::chrono::steady_clock::now() < deadline) {
      report got = reports.receive();
      if (got.node == node_id(1)) continue;
      away[got.from] = got.node;
      for (auto& each : fixed) wrong |= each.id() == got.from;
    }
    for (auto& each : fixed) send(each.id(), stop{});
    for (auto& each : free) send(each.id(), stop{});
    for (auto& each : fixed) each.join();
    for (auto& each : free) each.join();
    return std::string(wrong ? "a fixed task moved" : away.size() >= 2 ? "only those that may" : "none moved");
  });
  std::printf("%s\n", on.c_str());
  return 0;
}};

const scenario_entry spawns{"spawns", [] {
  // Where six tasks begin that are left to the policy, one after the other, and each computes on.
  auto where = migrate_test::run([] {
    std::vector<task<>> tasks;
    mailbox<report> reports;
    auto deadline = std::chrono::steady_clock::now() + 20s;
    while (placement() != placement_policy::manual && node_loads().size() < nodes().size() &&
           std::chrono::steady_clock::now() < deadline)
      this_task::sleep_for(20ms);
    std::map<node_id, int> on;
    for (int i = 0; i < 6; ++i) {
      tasks.push_back(spawn({.on = any_node, .by_policy = false}, compute, this_task::id()));
      for (report got = reports.receive();; got = reports.receive()) {
        if (got.from != tasks.back().id()) continue;
        ++on[got.node];
        break;
      }
    }
    for (auto& each : tasks) send(each.id(), stop{});
    for (auto& each : tasks) each.join();
    return std::to_string(on.size()) + " nodes";
  });
  std::printf("%s\n", where.c_str());
  return 0;
}};

const scenario_entry places{"places", [] {
  // A task at a point of its own: under the application's policy it goes to where there is least to do.
  auto where = migrate_test::run([] {
    std::vector<task<>> tasks;
    mailbox<report> reports(100'000);
    for (int i = 0; i < 6; ++i) tasks.push_back(spawn({.by_policy = false}, compute, this_task::id()));
    auto deadline = std::chrono::steady_clock::now() + 20s;
    do {
      this_task::sleep_for(50ms); // its node hears of the others
      this_task::place();
    } while (this_task::node() == node_id(1) && placement() == placement_policy::application &&
             std::chrono::steady_clock::now() < deadline);
    bool moved = this_task::node() != node_id(1);
    for (auto& each : tasks) send(each.id(), stop{});
    for (auto& each : tasks) each.join();
    return std::string(moved ? "away" : "here");
  });
  std::printf("%s\n", where.c_str());
  return 0;
}};

std::string run_scenario(const std::string& name, const std::string& policy) {
  program running({own_path()}, {{"MIGRATE_SCENARIO", name},
                                 {"MIGRATE_NODES", "3"},
                                 {"MIGRATE_WORKERS", "1"},
                                 {"MIGRATE_POLICY", policy}});
  std::string line = running.line(100s);
  CHECK(running.wait(20s) == 0);
  return line;
}

} // namespace

TEST_CASE("the automatic policy evens out what begins on one node, and says what it did") {
  std::string found = run_scenario("evens out", "automatic");
  INFO(found);
  CHECK(std::count(found.begin(), found.end(), ' ') == 3);
  CHECK(found.find("0") == std::string::npos);
  CHECK(found.find(" decided") != std::string::npos);
}

TEST_CASE("a task that no policy may move stays") {
  CHECK(run_scenario("stays", "automatic") == "only those that may");
}

TEST_CASE("a task that is left to the policy at its birth begins on the least loaded node") {
  CHECK(run_scenario("spawns", "application") == "3 nodes");
  CHECK(run_scenario("spawns", "manual") == "1 nodes");
}

TEST_CASE("a task's own points are the application's to decide at, and nobody else's") {
  CHECK(run_scenario("places", "application") == "away");
  CHECK(run_scenario("places", "manual") == "here");
}
