// An application on idle hosts, with the programs as they are installed: migrated and migrate-hostd.
#include <migrate/hosts.hpp>

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"

#include <cstdio>
#include <fstream>
#include <string>

#include <poll.h>
#include <unistd.h>

using namespace migrate_test;
using namespace std::chrono_literals;

#ifndef MIGRATE_EXAMPLES_DIR
#define MIGRATE_EXAMPLES_DIR "examples"
#endif

namespace {

const no_cluster_of_its_own none;

std::string next(migrate::host_pool& pool) {
  auto event = pool.next_event(30s);
  if (!event) return "nothing";
  static constexpr const char* names[] = {"came", "leaving", "gone"};
  return std::string(names[static_cast<int>(event->what)]) + " " + event->host.host;
}

const scenario_entry borrow{
    "borrow", [] {
      auto lines = run([] {
        std::vector<std::string> said;
        migrate::host_pool pool({.wanted = 1, .name = {}});
        auto event = pool.next_event(30s);
        if (!event) return std::vector<std::string>{"no host came"};
        said.push_back((event->what == migrate::host_event::kind::came ? "came " : "not ") +
                       event->host.host + " " + event->reason);
        if (event->what != migrate::host_event::kind::came) return said;
        migrate::host_pool other({.wanted = 1, .name = {}}); // which has taken nothing yet
        pollfd ready{other.event_descriptor(), POLLIN, 0};
        said.push_back(::poll(&ready, 1, 0) == 1 && other.next_event(0s) ? "readable" : "silent");
        said.push_back(!other.next_event(0s) && ::poll(&ready, 1, 0) == 0 ? "taken" : "still readable");
        said.push_back(std::to_string(pool.hosts().size()));
        migrate::this_task::migrate_to(event->host.node);
        said.push_back(migrate::this_task::node() == event->host.node ? "there" : "elsewhere");
        pool.give_back(event->host.grant);
        said.push_back(next(pool)); // waits away from the first node
        said.push_back(next(pool));
        said.push_back(migrate::this_task::node() == migrate::this_task::home() ? "home" : "away");
        said.push_back(::poll(&ready, 1, 0) == 1 ? "readable" : "silent");
        said.push_back(std::to_string(pool.hosts().size()));
        return said;
      });
      for (const std::string& each : lines) std::printf("%s\n", each.c_str());
      return 0;
    }};

const scenario_entry alone{"alone", [] {
                             std::string why = run([] {
                               try {
                                 migrate::host_pool pool({.wanted = 1, .name = {}});
                               } catch (const migrate::error& problem) {
                                 return std::string(problem.what());
                               }
                               return std::string("no error");
                             });
                             std::printf("%s\n", why.c_str());
                             return 0;
                           }};

} // namespace

namespace {

std::vector<std::string> lending_to(const std::string& database, const folder& proc) {
  std::vector<std::string> agent{MIGRATE_EXAMPLES_DIR "/migrate-hostd",
                                 "--database",
                                 database,
                                 "--name",
                                 "lent",
                                 "--start",
                                 "idle>=0",
                                 "--preempt",
                                 "busy>1000000",
                                 "--lend-unwatched",
                                 "--quiet",
                                 "--proc",
                                 proc.path.string()};
  if (::geteuid() == 0) agent.push_back("--run-as-root");
  return agent;
}

void idle(const folder& proc) {
  // Whatever else this machine does.
  std::ofstream((proc.path / "loadavg").string()) << "0.00 0.00 0.00 1/100 1\n";
}

void check_borrowing(program& application) {
  CHECK(application.line(60s) == "came lent ");
  CHECK(application.line() == "readable");
  CHECK(application.line() == "taken");
  CHECK(application.line() == "1");
  CHECK(application.line() == "there");
  CHECK(application.line() == "leaving lent");
  CHECK(application.line() == "gone lent");
  CHECK(application.line() == "home");
  CHECK(application.line() == "readable");
  CHECK(application.line() == "0");
  CHECK(application.wait(30s) == 0);
}

} // namespace

TEST_CASE("an application gets an idle host, runs a task there, and gives it back") {
  folder runtime, store, proc;
  idle(proc);
  environment with{{"XDG_RUNTIME_DIR", runtime.path.string()}, {"MIGRATE_NODES", "1"}};
  program database({MIGRATE_EXAMPLES_DIR "/migrated", "--listen", "127.0.0.1:0", "--quiet"}, with);
  std::string address = database.line();
  program lender(lending_to(address, proc), with);
  REQUIRE(lender.line() != "");
  with.emplace_back("MIGRATE_SCENARIO", "borrow");
  with.emplace_back("MIGRATE_HOSTS", address);
  with.emplace_back("MIGRATE_STORE", (store.path / "store").string());
  program application({own_path()}, with);
  check_borrowing(application);
}

TEST_CASE("an application's first node is the host database itself") {
  folder runtime, store, proc;
  idle(proc);
  std::string address = "unix:" + (runtime.path / "database").string();
  environment with{{"XDG_RUNTIME_DIR", runtime.path.string()}, {"MIGRATE_NODES", "1"}};
  program lender(lending_to(address, proc), with); // and waits for it
  REQUIRE(lender.line() != "");
  with.emplace_back("MIGRATE_SCENARIO", "borrow");
  with.emplace_back("MIGRATE_HOST_DATABASE", address);
  with.emplace_back("MIGRATE_HOSTS", address);
  with.emplace_back("MIGRATE_STORE", (store.path / "store").string());
  program application({own_path()}, with);
  check_borrowing(application);
}

TEST_CASE("an application without a host database is told so") {
  program application({own_path()}, {{"MIGRATE_SCENARIO", "alone"}, {"MIGRATE_NODES", "1"}});
  CHECK(application.line().find("--migrate-hosts") != std::string::npos);
  CHECK(application.wait(30s) == 0);
}
