// Idle hosts as their users see them, on test hosts: a simulation spreads over them, gives one back and takes up another.
#include "../support/test_hosts.hpp"

#include "../support/folder.hpp"
#include "../support/program.hpp"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace migrate_test;
using namespace std::chrono_literals;
using nlohmann::json;

#ifndef MIGRATE_EXAMPLES_DIR
#define MIGRATE_EXAMPLES_DIR "examples"
#endif

namespace {

constexpr unsigned home = 1, taken_back = 2, last = 5; // the host with number `last` comes late

std::string name_of(unsigned host) { return "host" + std::to_string(host); }

class site {
public:
  explicit site(const test_hosts& hosts) : hosts_(hosts), credentials_((folder_.path / "keys").string()) {
    for (unsigned host = 1; host <= last; ++host) {
      std::filesystem::create_directory(runtime(host));
      std::filesystem::permissions(runtime(host), std::filesystem::perms::owner_all);
    }
    // Whatever else this machine does, its owner is away.
    std::filesystem::create_directories(folder_.path / "proc");
    std::filesystem::create_directories(folder_.path / "dev");
    std::ofstream(folder_.path / "proc" / "loadavg") << "0.00 0.00 0.00 1/100 1\n";
    std::ofstream(folder_.path / "idle") << "3600\n";
  }

  std::unique_ptr<program> start(unsigned host, std::vector<std::string> command) const {
    command[0] = MIGRATE_EXAMPLES_DIR "/" + command[0];
    return std::make_unique<program>(hosts_.on(host, std::move(command)), with(host));
  }
  std::unique_ptr<program> database() const {
    return start(
        home, {"migrated", "--listen", address(home, 7100), "--credentials", credentials_.path(), "--quiet"});
  }
  std::unique_ptr<program> agent(unsigned host) const {
    return start(host, {"migrate-hostd",
                        "--database",
                        address(home, 7100),
                        "--listen",
                        address(host, 7101),
                        "--credentials",
                        credentials_.path(),
                        "--slots",
                        "1",
                        "--policy",
                        "sprite",
                        "--idle-file",
                        path("idle"),
                        "--dev",
                        path("dev"),
                        "--proc",
                        path("proc"),
                        "--cache",
                        path("cache" + std::to_string(host)),
                        "--scratch",
                        path("scratch" + std::to_string(host)),
                        "--lend-unwatched",
                        "--run-as-root",
                        "--normal-scheduling",
                        "--quiet"});
  }
  std::unique_ptr<program> simulation() const {
    return start(home, {"pic",
                        "--no-progress",
                        "-g",
                        "200",
                        "-n",
                        "200000",
                        "-b",
                        "16",
                        "-s",
                        "900",
                        "--await-nodes",
                        "4",
                        "--migrate-nodes=1",
                        "--migrate-workers=1",
                        "--migrate-policy=automatic",
                        "--migrate-quiet",
                        "--migrate-hosts=" + address(home, 7100) + ",4",
                        "--migrate-listen=" + address(home, 7000),
                        "--migrate-credentials=" + credentials_.path(),
                        "--migrate-store=" + path("store")});
  }

  std::unique_ptr<program> database_status() const {
    return start(home, {"migrate", "status", "--json", "--database", address(home, 7100), "--credentials",
                        credentials_.path()});
  }
  program command(unsigned host, std::vector<std::string> what) const {
    what.insert(what.begin(), MIGRATE_EXAMPLES_DIR "/migrate");
    return {std::move(what), with(host)}; // by local sockets: without that host's limits
  }

private:
  static std::string address(unsigned host, unsigned port) {
    return test_hosts::address(host) + ":" + std::to_string(port);
  }
  std::string path(const std::string& name) const { return (folder_.path / name).string(); }
  std::filesystem::path runtime(unsigned host) const { return folder_.path / ("run" + std::to_string(host)); }
  environment with(unsigned host) const { return {{"XDG_RUNTIME_DIR", runtime(host).string()}}; }

  const test_hosts& hosts_;
  folder folder_;
  cluster_credentials credentials_;
};

class watched {
  // What `migrate status --watch --json` prints.
public:
  explicit watched(const site& where)
      : command_(where.command(home, {"status", "--watch", "--json", "--interval", "0.2"})) {}

  template <class F> json until(const char* what, F&& holds) {
    INFO(what);
    json all;
    for (auto limit = std::chrono::steady_clock::now() + 60s; std::chrono::steady_clock::now() < limit;) {
      all = json::parse(command_.line(), nullptr, false);
      if (all.is_discarded()) break;
      if (holds(all)) return all;
    }
    FAIL("not seen: " << what << "; the last that was seen: " << all.dump(1));
    return all;
  }

private:
  program command_;
};

int tasks_on(const json& all, unsigned host) {
  for (const json& program : all["programs"])
    for (const json& node : program["nodes"])
      if (node["host"] == name_of(host)) return node["tasks"].get<int>();
  return -1; // no node
}

json host_of(const json& all, unsigned number) {
  for (const json& each : all["hosts"])
    if (each["host"] == name_of(number)) return each;
  return json::object();
}

bool held(const json& all, unsigned host) {
  return !host_of(all, host).value("holders", json::array()).empty();
}

std::string reason_of(const json& all, const std::string& what) {
  std::string reason = "nothing happened that is " + what;
  for (const json& each : all["events"])
    if (each["what"].get<std::string>().find(what) != std::string::npos) reason = each["reason"];
  return reason;
}

} // namespace

TEST_CASE("a simulation spreads over idle hosts, gives one back, takes up one that joins, and is exact") {
  test_hosts hosts(last, {.processor = 12});
  if (!hosts.made()) return;
  site here(hosts);
  auto database = here.database();
  REQUIRE(database->line() != "");
  std::vector<std::unique_ptr<program>> agents(last + 1);
  std::vector<std::size_t> own(last + 1); // processes of the agents
  auto lend = [&](unsigned host) {
    agents[host] = here.agent(host);
    REQUIRE(agents[host]->line() != "");
    own[host] = hosts.processes(host).size();
  };
  for (unsigned host = 2; host < last; ++host) lend(host);
  watched status(here);
  status.until("three hosts are lendable", [](const json& all) {
    int lendable = 0;
    for (const json& each : all["hosts"]) lendable += each["lendable"].get<bool>();
    return lendable == 3;
  });

  auto simulation = here.simulation();
  status.until("its tasks are on all of them", [](const json& all) {
    return tasks_on(all, 1) > 0 && tasks_on(all, 2) > 0 && tasks_on(all, 3) > 0 && tasks_on(all, 4) > 0;
  });
  auto asked = here.database_status();
  CHECK(asked->wait(30s) == 0);
  CHECK(json::parse(asked->rest())["applications"].size() ==
        1); // found by its socket and by its address, shown once

  CHECK(here.command(taken_back, {"busy"}).wait(30s) == 0);
  json all = status.until("the host is its owner's again", [](const json& seen) {
    return tasks_on(seen, taken_back) < 0 && !held(seen, taken_back) &&
           reason_of(seen, name_of(taken_back) + " has a slot again").empty();
  });
  CHECK_FALSE(host_of(all, taken_back)["lendable"].get<bool>());
  CHECK_THAT(reason_of(all, "loses " + name_of(taken_back)), Catch::Contains("owner says busy"));
  CHECK(hosts.processes(taken_back).size() == own[taken_back]);
  {
    // It left by itself, within the 2.5 seconds after which its agent would have killed it.
    program agents_word = here.command(taken_back, {"status", "--json"});
    CHECK(agents_word.wait(30s) == 0);
    json its = json::parse(agents_word.rest());
    CHECK_THAT(reason_of(its, "has given up all its tasks"), Catch::Contains("owner says busy"));
    CHECK(reason_of(its, "is gone") == "it exited with status 0");
  }

  lend(last);
  status.until("tasks run on the host that came", [](const json& seen) { return tasks_on(seen, last) > 0; });

  for (unsigned host = 1; host <= last; ++host) hosts.loosen(host);
  CHECK(simulation->wait(60s) == 0);
  CHECK_THAT(simulation->rest(),
             Catch::Contains("verified: 200000 of 200000 particles at their exact places"));
  status.until("nobody holds a host", [](const json& seen) {
    for (unsigned host = 2; host <= last; ++host)
      if (held(seen, host)) return false;
    return seen["programs"].empty();
  });
  for (unsigned host = 2; host <= last; ++host) CHECK(hosts.processes(host).size() == own[host]);
}
