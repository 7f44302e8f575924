// Three hosts, and a task that moves between two of them. For the tests in which a link is cut, or slow.
#pragma once

#include "../support/test_hosts.hpp"

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"
#include "../support/random.hpp"
#include "witness.hpp"

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>
#include <migrate/streams.hpp>

namespace migrate_test {

using namespace migrate;
using namespace std::chrono_literals;

inline const no_cluster_of_its_own scenarios_of_three_hosts;

// Node 1, on host 1, is home. A task goes to and fro between nodes 2 and 3, on hosts 2 and 3, and writes its memory all the
// time; its parent at home asks for that.

inline constexpr transfer strategies[] = {transfer::flush, transfer::full_copy, transfer::pre_copy,
                                          transfer::on_reference, transfer::pre_flush};

inline std::string traveller(std::string file, std::size_t bytes, task_id parent) {
  std::vector<std::uint64_t> data(bytes / 8);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = i;
  this_task::migrate_to(node_id(2));
  send(parent, 1);
  mailbox<bool> stop;
  std::uint64_t turn = 0, visits = 0;
  node_id last = this_task::node();
  while (!stop.try_receive()) {
    for (std::size_t i = turn % 7; i < data.size(); i += 512 * 7) ++data[i];
    ++turn;
    if (this_task::node() != last) {
      last = this_task::node();
      note(file,
           "visit " + std::to_string(++visits) + " on " + to_string(last)); // two runners would count alike
    }
    this_task::yield();
  }
  note(file, "ends on " + to_string(last));
  for (std::uint64_t back = turn; back-- > 0;)
    for (std::size_t i = back % 7; i < data.size(); i += 512 * 7) --data[i];
  for (std::size_t i = 0; i < data.size(); ++i)
    if (data[i] != i) return "wrong";
  return "right";
}

inline int moves() {
  // Says each move before it is asked for, and what came of it.
  const std::string file = wanted("LINK_FILE"), how = wanted("LINK_HOW");
  const auto count = std::stoul(wanted("LINK_MOVES")), bytes = std::stoul(wanted("LINK_BYTES"));
  random_choices random(std::stoull(wanted("LINK_SEED")));
  on_event([](const cluster_event& event) {
    if (event.what != cluster_event::kind::lost) return;
    std::printf("lost\n");
    std::fflush(stdout);
  });
  std::printf("ready\n");
  std::fflush(stdout);
  while (!is_there(file + ".go")) std::this_thread::sleep_for(2ms);
  std::string end = run([=]() mutable {
    auto moved = spawn({.name = "traveller"}, traveller, file, bytes, this_task::id());
    mailbox<int>().receive();
    for (std::size_t i = 0; i < count; ++i) {
      transfer by = how == "each"     ? strategies[i % 5]
                    : how == "random" ? strategies[random.below(5)]
                                      : *transfer_named(how);
      print("move %s\n", std::string(name_of(by)).c_str());
      std::error_code code;
      moved.migrate_to(node_id(i % 2 == 0 ? 3 : 2), by, code);
      print("did %d %s\n", code.value(), code.message().c_str());
    }
    while (!is_there(file + ".stop")) this_task::sleep_for(2ms);
    try {
      send(moved.id(), true);
    } catch (const error&) {
      // join says what has become of it
    }
    try {
      return moved.join();
    } catch (const error& thrown) {
      return "error " + std::to_string(thrown.code().value());
    }
  });
  std::printf("%s\n", end.c_str());
  std::fflush(stdout);
  return 0;
}
inline const scenario_entry the_moves{"moves", moves};

inline const scenario_entry one_more{"one more", [] {
                                       std::printf("joined\n");
                                       std::fflush(stdout);
                                       return serve();
                                     }};

struct site {
  const test_hosts& hosts;
  folder place;
  cluster_credentials keys{(place.path / "keys").string()};
  std::string file = place.path / "lines", held = place.path / "held";
  std::vector<std::unique_ptr<program>> nodes;

  site(const test_hosts& on, environment with) : hosts(on) {
    for (unsigned host = 1; host <= 3; ++host) {
      const auto folder = place.path / ("run" + std::to_string(host));
      std::filesystem::create_directories(folder);
      std::filesystem::permissions(folder, std::filesystem::perms::owner_all);
      std::vector<std::string> command{own_path(),
                                       "--migrate-nodes=1",
                                       "--migrate-listen=" + test_hosts::address(host) + ":7000",
                                       "--migrate-credentials=" + keys.path(),
                                       "--migrate-quiet",
                                       "--migrate-store=" + (place.path / "store").string()};
      if (host > 1) command.push_back("--migrate-join=" + test_hosts::address(1) + ":7000");
      environment extra = with;
      extra.insert(extra.end(), {{"MIGRATE_SCENARIO", host == 1 ? "moves" : "one more"},
                                 {"XDG_RUNTIME_DIR", folder.string()},
                                 {"MIGRATE_FAULT_FILE", held},
                                 {"LINK_FILE", file}});
      nodes.push_back(std::make_unique<program>(hosts.on(host, command), extra));
      REQUIRE(nodes.back()->line() == (host == 1 ? "ready" : "joined"));
    }
    note(file + ".go", "");
  }
  program& home() { return *nodes.front(); }
};

inline void check_ends(site& all, bool may_be_lost) {
  note(all.file + ".stop", "");
  std::string end;
  do end = all.home().line();
  while (end == "lost");
  const std::vector<std::string> lines = lines_of(all.file);
  INFO(all_of(lines));
  CHECK(said_twice(lines) == "");
  if (may_be_lost && end != "right")
    CHECK(end == "error " + std::to_string(static_cast<int>(errc::node_lost)));
  else
    CHECK(end == "right");
  CHECK((line_with(lines, "ends on ") != "") == (end == "right"));
  CHECK(all.home().wait(20s) == 0);
}

} // namespace migrate_test
