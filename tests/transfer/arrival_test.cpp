// A task that is lost to its home while it arrives somewhere, and the next one at its addresses.
#include <migrate/task/transfer.hpp>

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"
#include "witness.hpp"

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using namespace migrate;
using namespace migrate_test;
using namespace std::chrono_literals;

namespace {

const no_cluster_of_its_own here;

// A task of node 1 moves from node 2 to node 3, which has laid it out and is about to claim it when node 2 dies. Home takes
// it for lost, and gives its addresses to a task that is born on node 3.

constexpr std::size_t words = (4 << 20) / 8;
constexpr std::uintptr_t region_size = 64u << 20;

std::uintptr_t own_region() {
  char local = 0;
  return reinterpret_cast<std::uintptr_t>(&local) / region_size;
}

std::uint64_t be_lost(std::string file, task_id parent) {
  std::vector<std::uint64_t> data(words, 1);
  this_task::migrate_to(node_id(2));
  note(file, std::to_string(::getpid()));
  send(parent, own_region());
  for (auto& each : data) ++each;
  mailbox<int>().receive();
  return data[0];
}

std::string be_born(std::uintptr_t region, std::string held, task_id parent) {
  std::vector<std::uint64_t> data(words);
  for (std::size_t i = 0; i < words; ++i) data[i] = i;
  send(parent, own_region());
  while (is_there(held)) this_task::yield();
  constexpr int looks = 100; // in which what was to arrive here is dropped
  for (int look = 0; look < looks; ++look) {
    for (std::size_t i = 0; i < words; i += 32)
      if (data[i] != i) return "wrong";
    this_task::sleep_for(1ms);
  }
  return own_region() == region ? "right" : "elsewhere";
}

std::string lose_one(std::string file, std::string held) {
  auto lost = spawn({.region = region_class::medium}, be_lost, file, this_task::id());
  mailbox<std::uintptr_t> regions;
  const std::uintptr_t region = regions.receive();
  std::error_code code;
  lost.migrate_to(node_id(3), transfer::flush, code);
  std::string said;
  try {
    lost.join();
    said = "not lost, ";
  } catch (const error& thrown) {
    said = thrown.code() == errc::node_lost ? "lost, " : thrown.what();
  }
  auto born =
      spawn({.region = region_class::medium, .on = node_id(3)}, be_born, region, held, this_task::id());
  // It is held back for as long as the other one is there; nobody can be asked whether that is so.
  bool ran = regions.receive_for(300ms).has_value();
  ::unlink(held.c_str());
  return said + (ran ? "ran at once, " : "waited, ") + born.join();
}

// A task leaves node 1 and comes back while what it has left there is still to be given back to the system.

std::string go_and_return(task_id parent) {
  std::vector<std::uint64_t> data(words);
  for (std::size_t i = 0; i < words; ++i) data[i] = i;
  this_task::migrate_to(node_id(2), transfer::flush);
  data[7] = 8;
  send(parent, 1);
  mailbox<int>().receive();
  this_task::migrate_to(node_id(1), transfer::flush);
  send(parent, 2);
  data[7] = 7;
  for (std::size_t i = 0; i < words; ++i)
    if (data[i] != i) return "wrong";
  return this_task::node() == node_id(1) ? "right" : "elsewhere";
}

std::string await_return(std::string held) {
  auto task = spawn({.region = region_class::medium}, go_and_return, this_task::id());
  mailbox<int> told;
  told.receive();
  while (!is_there(held)) this_task::yield();
  send(task.id(), 1);
  bool ran = told.receive_for(300ms).has_value();
  ::unlink(held.c_str());
  return std::string(ran ? "ran at once, " : "waited, ") + task.join();
}

const scenario_entry the_returned{"one that comes back at once", [] {
                                    std::printf("%s\n", run(await_return, wanted("MIGRATE_FAULT_FILE")).c_str());
                                    std::fflush(stdout);
                                    return 0;
                                  }};

const scenario_entry the_lost{
    "one that is lost as it arrives", [] {
      std::printf("%s\n", run(lose_one, wanted("LOST_FILE"), wanted("MIGRATE_FAULT_FILE")).c_str());
      std::fflush(stdout);
      return 0;
    }};

} // namespace

TEST_CASE("a task born where one was laid out that its home has lost waits until that one's memory is gone") {
  folder place;
  const std::string file = place.path / "lines", held = place.path / "held";
  program cluster({own_path()}, {{"MIGRATE_SCENARIO", "one that is lost as it arrives"},
                                 {"MIGRATE_FAULT", "hold:3:target.laid_out"},
                                 {"MIGRATE_FAULT_FILE", held},
                                 {"MIGRATE_WORKERS", "2"},
                                 {"MIGRATE_KEEPALIVE", "1500"},
                                 {"MIGRATE_QUIET", "1"},
                                 {"LOST_FILE", file}});
  REQUIRE(becomes_true([&] { return is_there(held); }));
  ::kill(std::stoi(lines_of(file).at(0)), SIGKILL);
  CHECK(cluster.line() == "lost, waited, right");
  CHECK(cluster.wait(20s) == 0);
}

TEST_CASE("a task that comes back before what it has left is gone waits for that") {
  folder place;
  const std::string held = place.path / "held";
  program cluster({own_path()}, {{"MIGRATE_SCENARIO", "one that comes back at once"},
                                 {"MIGRATE_FAULT", "hold:1:source.closing"},
                                 {"MIGRATE_FAULT_FILE", held},
                                 {"MIGRATE_WORKERS", "2"},
                                 {"MIGRATE_QUIET", "1"}});
  CHECK(cluster.line(20s) == "waited, right");
  CHECK(cluster.wait(20s) == 0);
}
