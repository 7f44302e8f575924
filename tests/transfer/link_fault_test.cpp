// A link is cut for a moment, or slow, while a task moves: see the table in docs/transfer.md.
#include "three_hosts.hpp"

#include <string>

using namespace migrate_test;

TEST_CASE(
    "a link that is cut for less than the keepalive delays moves, by whatever strategy, and does no harm") {
  test_hosts hosts(3, {.processor = 0, .link = "200mbit"});
  if (!hosts.made()) return;
  const std::uint64_t seed = new_seed("cut links");
  random_choices random(seed);
  constexpr std::size_t moves = 10;
  site all(hosts, {{"MIGRATE_KEEPALIVE", "4000"},
                   {"LINK_HOW", "each"},
                   {"LINK_MOVES", std::to_string(moves)},
                   {"LINK_BYTES", std::to_string(2 << 20)},
                   {"LINK_SEED", std::to_string(seed)}});
  for (std::size_t i = 0; i < moves; ++i) {
    std::string what = all.home().line();
    REQUIRE(what.starts_with("move "));
    CAPTURE(i, what);
    const auto host = static_cast<unsigned>(1 + random.below(3));
    std::this_thread::sleep_for(random.below(60) * 1ms);
    hosts.unplug(host);
    std::this_thread::sleep_for(random.below(200) * 1ms);
    hosts.plug(host);
    CHECK(all.home().line().starts_with("did 0 "));
  }
  check_ends(all, false);
}

TEST_CASE("a slow link makes moves slow, and nothing is given up that still goes on") {
  test_hosts hosts(3, {.processor = 0, .link = "8mbit"});
  if (!hosts.made()) return;
  site all(hosts, {{"MIGRATE_KEEPALIVE", "600"},
                   {"LINK_HOW", "each"},
                   {"LINK_MOVES", "5"},
                   {"LINK_BYTES", std::to_string(2 << 20)},
                   {"LINK_SEED", "1"}});
  for (int i = 0; i < 5; ++i) {
    CHECK(all.home().line().starts_with("move "));
    std::string did = all.home().line();
    CHECK(did.starts_with("did 0 "));
  }
  check_ends(all, false);
}
