// A link is cut until its nodes are given up, while a task moves, and restored: see the table in docs/transfer.md.
#include "three_hosts.hpp"

#include <filesystem>
#include <string>

using namespace migrate_test;

TEST_CASE(
    "a link that is cut for longer ends the move with a named error or leaves it made, and one runner") {
  test_hosts hosts(3, {.processor = 0});
  if (!hosts.made()) return;
  struct row {
    const char* how;
    const char* fault;
    unsigned host; // that is cut off
  };
  for (const row& each :
       {row{"flush", "hold:2:source.offered", 3}, row{"full-copy", "hold:2:source.streaming", 3},
        row{"pre-copy", "hold:3:target.pages", 2}, row{"on-reference", "hold:2:source.pushing", 3},
        row{"pre-flush", "hold:3:target.granted", 3}}) {
    CAPTURE(each.how, each.fault, each.host);
    site all(hosts, {{"MIGRATE_KEEPALIVE", "500"},
                     {"MIGRATE_FAULT", each.fault},
                     {"LINK_HOW", each.how},
                     {"LINK_MOVES", "1"},
                     {"LINK_BYTES", std::to_string(2 << 20)},
                     {"LINK_SEED", "1"}});
    CHECK(all.home().line().starts_with("move "));
    REQUIRE(becomes_true([&] { return is_there(all.held); }));
    hosts.unplug(each.host);
    std::filesystem::remove(all.held);
    std::string did;
    for (bool lost = false; did.empty() || !lost;) {
      std::string line = all.home().line();
      INFO("did: " << did << ", lost: " << lost);
      REQUIRE(line != "");
      if (line.starts_with("did ")) did = line;
      lost = lost || line == "lost";
    }
    CAPTURE(did);
    hosts.plug(each.host);
    check_ends(all, true);
  }
}
