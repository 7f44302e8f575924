#include <migrate/cluster/options.hpp>

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"
#include "../support/random.hpp"

#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using namespace migrate;
using migrate_test::folder;
using namespace std::chrono_literals;
using migrate_test::program;
using migrate_test::random_choices;
namespace fs = std::filesystem;

namespace {

const migrate_test::no_cluster_of_its_own here;

void say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

std::string heard() {
  std::string line;
  for (int c = std::getchar(); c != '\n' && c != EOF; c = std::getchar()) line += static_cast<char>(c);
  return line;
}

// Says where it is, and answers each line: "nodes", or "visit N": a task goes there and back, "wander": tasks move
// about until the next line.
const migrate_test::scenario_entry host{"host", [] {
  say(migrate_test::cluster_address());
  say(migrate_test::cluster_store());
  for (std::string line = heard(); !line.empty(); line = heard()) {
    if (line == "nodes") {
      std::string all;
      for (node_id each : migrate_test::run([] { return nodes(); })) all += to_string(each) + " ";
      say(all);
    } else if (line.starts_with("visit ")) {
      node_id there{static_cast<std::uint16_t>(std::stoi(line.substr(6)))};
      try {
        say(std::to_string(migrate_test::run([there] {
          std::vector<int> data(10'000, 1);
          this_task::migrate_to(there);
          auto at = number(this_task::node());
          data.push_back(number(spawn([] { return this_task::node(); }).join()));
          this_task::migrate_to(node_id(1));
          return data.size() == 10'001 ? at : 0;
        })));
      } catch (const error& thrown) {
        say("error " + std::to_string(thrown.code().value()));
      }
    } else if (line == "wander") {
      auto moves = migrate_test::run([] {
        std::vector<task<std::uint64_t>> all;
        random_choices random(migrate_test::new_seed("wander"));
        for (int i = 0; i < 8; ++i)
          all.push_back(spawn([r = random.branch()]() mutable {
            std::vector<std::uint64_t> data(1000, 5);
            for (int k = 0; k < 300; ++k) this_task::migrate_to(r.node());
            std::uint64_t sum = 0;
            for (std::uint64_t each : data) sum += each;
            return sum == 5000 ? this_task::moves() : 0;
          }));
        std::uint64_t total = 0;
        for (auto& each : all) total += each.join();
        return total;
      });
      say(moves > 500 ? "wandered" : "stayed");
    }
  }
  return 0;
}};

// A node that joins by address and has a task of its own, whose home it is.
const migrate_test::scenario_entry guest{"guest", [] {
  auto seen = migrate_test::run([] {
    this_task::migrate_to(node_id(1));
    auto at = number(this_task::node());
    this_task::migrate_to(this_task::home());
    return std::pair(at, number(this_task::home()));
  });
  say("joined as " + std::to_string(seen.second) + ", was on " + std::to_string(seen.first));
  say(migrate_test::cluster_address());
  heard();
  return 0;
}};

struct running_host {
  program process{{migrate_test::own_path()},
                  {{"MIGRATE_SCENARIO", "host"}, {"MIGRATE_NODES", "2"}, {"MIGRATE_QUIET", "1"}}};
  std::string address = process.line();
  std::string store = process.line();

  std::string ask(const std::string& what) {
    process.say(what);
    return process.line();
  }
};

struct ended {
  int status;
  std::string text;
};

ended run_to_end(std::vector<std::string> command) {
  std::string line;
  for (const std::string& each : command) line += "'" + each + "' ";
  program shell({"/bin/sh", "-c", "exec " + line + "2>&1"}, {{"MIGRATE_SCENARIO", "guest"}});
  int status = shell.wait(30s);
  return {status, shell.rest()};
}

} // namespace

TEST_CASE("a node joins by address late and gets tasks") {
  running_host first;
  CHECK(first.ask("nodes") == "1 2 ");
  program late({migrate_test::own_path(), "--migrate-join=" + first.address, "--migrate-store=" + first.store},
               {{"MIGRATE_SCENARIO", "guest"}, {"MIGRATE_QUIET", "1"}});
  CHECK(late.line() == "joined as 3, was on 1");
  CHECK(first.ask("nodes") == "1 2 3 ");
  CHECK(first.ask("visit 3") == "3");
  late.say("");
  CHECK(late.wait(20s) == 0);
  // Its number is never given out again.
  for (int i = 0; i < 2000 && first.ask("nodes") != "1 2 "; ++i) std::this_thread::yield();
  CHECK(first.ask("nodes") == "1 2 ");
  CHECK(first.ask("visit 3") != "3");
  program later({migrate_test::own_path(), "--migrate-join=" + first.address, "--migrate-store=" + first.store},
                {{"MIGRATE_SCENARIO", "guest"}, {"MIGRATE_QUIET", "1"}});
  CHECK(later.line() == "joined as 4, was on 1");
  CHECK(first.ask("visit 4") == "4");
  later.say("");
  CHECK(later.wait(20s) == 0);
  first.process.say("");
  CHECK(first.process.wait(20s) == 0);
}

TEST_CASE("a node may join through another than the first") {
  running_host first;
  program second({migrate_test::own_path(), "--migrate-join=" + first.address, "--migrate-store=" + first.store,
                  "--migrate-listen=127.0.0.1:0"},
                 {{"MIGRATE_SCENARIO", "guest"}, {"MIGRATE_QUIET", "1"}});
  CHECK(second.line() == "joined as 3, was on 1");
  program third({migrate_test::own_path(), "--migrate-join=" + second.line(), "--migrate-store=" + first.store},
                {{"MIGRATE_SCENARIO", "guest"}, {"MIGRATE_QUIET", "1"}});
  CHECK(third.line() == "joined as 4, was on 1");
  CHECK(first.ask("nodes") == "1 2 3 4 ");
  third.say("");
  CHECK(third.wait(20s) == 0);
  second.say("");
  CHECK(second.wait(20s) == 0);
}

TEST_CASE("another program is refused and told the first difference") {
  running_host first;
  folder place;
  fs::path copy = place.path / "another-program";
  // The same program under another build id.
  fs::copy_file(migrate_test::own_path(), copy);
  std::string script = "objcopy --dump-section .note.gnu.build-id='" + (place.path / "id").string() + "' '" + copy.string() +
                       "' && printf '\\377\\376\\375' | dd of='" + (place.path / "id").string() +
                       "' bs=1 seek=16 conv=notrunc 2>/dev/null && objcopy --update-section .note.gnu.build-id='" +
                       (place.path / "id").string() + "' '" + copy.string() + "'";
  REQUIRE(std::system(script.c_str()) == 0);
  ended refused = run_to_end({copy, "--migrate-join=" + first.address, "--migrate-store=" + first.store});
  CHECK(refused.status == 1);
  CHECK_THAT(refused.text, Catch::Contains("build id"));
  CHECK(first.ask("nodes") == "1 2 ");
  CHECK(first.ask("visit 2") == "2");
}

TEST_CASE("a node with another store is refused and told so") {
  running_host first;
  folder place;
  fs::path other = place.path / "store";
  {
    program founder({migrate_test::own_path()}, {{"MIGRATE_SCENARIO", "host"},
                                                 {"MIGRATE_NODES", "1"},
                                                 {"MIGRATE_STORE", other.string()},
                                                 {"MIGRATE_QUIET", "1"}});
    founder.line();
    founder.line();
    founder.say("");
    REQUIRE(founder.wait(20s) == 0);
  }
  ended refused = run_to_end({migrate_test::own_path(), "--migrate-join=" + first.address, "--migrate-store=" + other.string()});
  CHECK(refused.status == 1);
  CHECK_THAT(refused.text, Catch::Contains("store"));
  CHECK(first.ask("nodes") == "1 2 ");
}

TEST_CASE("the store of a cluster that was killed goes with the next cluster's start, and that of one that lives stays") {
  running_host living;
  std::string killed;
  {
    running_host first;
    killed = first.store;
    ::kill(-first.process.id(), SIGKILL);
    CHECK(first.process.wait(20s) == 128 + SIGKILL);
  }
  REQUIRE(fs::exists(killed));
  running_host next;
  CHECK(!fs::exists(killed));
  CHECK(fs::exists(living.store));
  CHECK(living.ask("visit 2") == "2");
  for (running_host* each : {&living, &next}) {
    each->process.say("");
    CHECK(each->process.wait(20s) == 0);
    CHECK(!fs::exists(each->store));
  }
}

TEST_CASE("a node listens beyond this host only with credentials") {
  ended refused = run_to_end({migrate_test::own_path(), "--migrate-listen=0.0.0.0:0", "--migrate-nodes=1"});
  CHECK(refused.status == 1);
  CHECK_THAT(refused.text, Catch::Contains("credentials"));
}

TEST_CASE("joining with a store that is not there ends with an error that names it") {
  ended refused = run_to_end({migrate_test::own_path(), "--migrate-join=127.0.0.1:1", "--migrate-store=/nonexistent"});
  CHECK(refused.status == 1);
  CHECK_THAT(refused.text, Catch::Contains("/nonexistent"));
}

TEST_CASE("garbage sent to a node does no harm while tasks move") {
  running_host first;
  std::size_t colon = first.address.rfind(':');
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(first.address.substr(colon + 1))));
  REQUIRE(::inet_pton(AF_INET, first.address.substr(0, colon).c_str(), &to.sin_addr) == 1);
  first.process.say("wander");
  random_choices random(migrate_test::new_seed("garbage"));
  std::vector<int> silent;
  for (int i = 0; i < 60; ++i) {
    int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(::connect(socket, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
    std::vector<std::uint64_t> bytes(1 + random.below(500));
    for (auto& each : bytes) each = random.next();
    if (i % 4 == 0) bytes.assign(bytes.size(), ~std::uint64_t{0}); // an enormous length
    if (i % 4 == 1) bytes.assign(bytes.size(), 0);
    if (i % 4 != 2 && ::send(socket, bytes.data(), bytes.size() * 8, MSG_NOSIGNAL) < 0) { /* sent away already */
    }
    if (i % 3 == 0)
      silent.push_back(socket);
    else
      ::close(socket);
  }
  CHECK(first.process.line(60s) == "wandered");
  for (int each : silent) ::close(each);
  CHECK(first.ask("visit 2") == "2");
  first.process.say("");
  CHECK(first.process.wait(20s) == 0);
}
