#include <migrate/task/compression.hpp>

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"
#include "../support/test_hosts.hpp"

#include <cstdint>
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include <migrate/nodes.hpp>
#include <migrate/process.hpp>

using namespace migrate;
using namespace std::chrono_literals;
using migrate_test::test_hosts;

namespace {

const migrate_test::no_cluster_of_its_own here;

constexpr std::size_t words = (std::size_t{16} << 20) / 8;

bool moves(transfer how) {
  std::vector<std::uint64_t> mine(words);
  for (std::size_t i = 0; i < words; ++i) mine[i] = i / 64 + 1;
  std::vector<node_id> all = nodes();
  this_task::migrate_to(all.back(), how);
  if (this_task::node() != all.back()) return false;
  for (std::size_t i = 0; i < words; ++i)
    if (mine[i] != i / 64 + 1) return false;
  while (this_task::residual()) this_task::yield();
  return true;
}

int play() {
  std::puts("ready");
  std::fflush(stdout);
  while (migrate_test::run([] { return nodes().size(); }) < 2) {
  }
  for (transfer how : {transfer::full_copy, transfer::on_reference}) {
    move_statistics before = migrate_test::statistics();
    bool right = migrate_test::run([how] { return spawn([how] { return moves(how); }).join(); });
    move_statistics after = migrate_test::statistics();
    for (int i = 0; i < 1000 && after.bytes_compressed == before.bytes_compressed; ++i)
      after = migrate_test::statistics();
    std::printf("%s %llu %llu %s\n", right ? "right" : "wrong",
                static_cast<unsigned long long>(after.bytes_compressed - before.bytes_compressed),
                static_cast<unsigned long long>(after.bytes_instead - before.bytes_instead),
                after.last_compression.c_str());
    std::fflush(stdout);
  }
  return 0;
}
const migrate_test::scenario_entry first{"moves over a slow link", play};
const migrate_test::scenario_entry second{"the other end of a slow link",
                                          [] { return migrate_test::serve(); }};

} // namespace

TEST_CASE("over a link that is slower than the compressor most of a task's memory travels compressed, as "
          "measured") {
  test_hosts hosts(2, {.processor = 0, .link = "100mbit"});
  if (!hosts.made()) return;
  migrate_test::folder folder;
  migrate_test::cluster_credentials keys(folder.path.string() + "/keys");
  auto start = [&](unsigned host, const char* scenario, const char* join) {
    return migrate_test::environment{{"MIGRATE_SCENARIO", scenario},
                                     {"MIGRATE_QUIET", "1"},
                                     {"MIGRATE_NODES", "1"},
                                     {"MIGRATE_PUSH", "1"},
                                     {"MIGRATE_STORE", folder.path.string() + "/store"},
                                     {"MIGRATE_CREDENTIALS", keys.path()},
                                     {"MIGRATE_LISTEN", test_hosts::address(host) + ":7000"},
                                     {"MIGRATE_JOIN", join}};
  };
  migrate_test::program one(hosts.on(1, {migrate_test::own_path()}), start(1, "moves over a slow link", ""));
  REQUIRE(one.line() == "ready");
  migrate_test::program two(
      hosts.on(2, {migrate_test::own_path()}),
      start(2, "the other end of a slow link", (test_hosts::address(1) + ":7000").c_str()));
  for (const char* how : {"full-copy", "on-reference"}) {
    std::string text = one.line(60s);
    CAPTURE(how, text);
    std::istringstream line(text);
    std::string right;
    std::size_t before = 0, after = 0;
    line >> right >> before >> after;
    CHECK(right == "right");
    CHECK(before >= words * 8 / 2);
    CHECK(after < before / 4);
  }
}
