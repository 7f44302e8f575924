// Builds on test hosts, of which one is pulled: what comes out is what one machine alone makes.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <unistd.h>

#include <catch2/catch.hpp>

#include "../support/folder.hpp"
#include "../support/program.hpp"
#include "../support/test_hosts.hpp"

namespace fs = std::filesystem;
using namespace migrate_test;
using namespace std::chrono_literals;

#ifndef MIGRATE_EXAMPLES_DIR
#define MIGRATE_EXAMPLES_DIR "examples"
#endif

namespace {

constexpr int files = 30;

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_tree(const fs::path& folder) {
  fs::create_directories(folder);
  std::ofstream manifest(folder / "build.ninja");
  // The compiler takes its time, and the build does not end before it is told to.
  std::ofstream(folder / "slow-gcc") << "#!/bin/sh\ngcc \"$@\"\nsleep 0.1\n";
  fs::permissions(folder / "slow-gcc", fs::perms::owner_all);
  manifest << "rule cc\n  command = ./slow-gcc -O2 -c $in -o $out\nrule ld\n  command = gcc -o $out $in\n"
           << "rule gate\n  command = while [ ! -e go ]; do sleep 0.02; done; touch $out\nbuild gate: gate\n";
  std::string objects, calls;
  for (int i = 0; i < files; ++i) {
    std::string name = "f" + std::to_string(i);
    std::ofstream(folder / (name + ".c"))
        << "#include <stdio.h>\n#include <string.h>\nint " << name << "(int x) {\n  char text[64];\n"
        << "  snprintf(text, sizeof text, \"%d\", x * " << i << ");\n  return (int)strlen(text);\n}\n";
    manifest << "build " << name << ".o: cc " << name << ".c\n";
    objects += " " + name + ".o";
    calls += "int " + name + "(int);\n";
  }
  std::ofstream(folder / "main.c") << calls << "int main(void) { return f1(2) + f2(3) == 2 ? 0 : 1; }\n";
  manifest << "build main.o: cc main.c\nbuild program: ld" << objects << " main.o | gate\n";
}

std::map<std::string, std::string> made(const fs::path& folder) {
  std::map<std::string, std::string> all;
  for (const auto& each : fs::directory_iterator(folder)) {
    std::string name = each.path().filename();
    if (each.path().extension() == ".o" || name == "program") all[name] = text_of(each.path());
  }
  return all;
}

class lent_test_hosts {
  // The first host has the database and is where pmake runs; the others are lent.
public:
  lent_test_hosts(const test_hosts& hosts, unsigned count)
      : hosts_(hosts), keys_((folder_.path / "keys").string()),
        database_(hosts.on(1, {MIGRATE_EXAMPLES_DIR "/migrated", "--listen", address(1, 7400),
                               "--credentials", keys_.path(), "--quiet"}),
                  runtime(1)) {
    fs::create_directories(folder_.path / "proc");
    std::ofstream(folder_.path / "proc/loadavg") << "0.00 0.00 0.00 1/100 1\n";
    database_.line();
    for (unsigned host = 2; host <= count; ++host)
      agents_.push_back(std::make_unique<program>(hosts.on(host, {MIGRATE_EXAMPLES_DIR "/migrate-hostd",
                                                                  "--database",
                                                                  address(1, 7400),
                                                                  "--listen",
                                                                  address(host, 7401),
                                                                  "--credentials",
                                                                  keys_.path(),
                                                                  "--name",
                                                                  "h" + std::to_string(host),
                                                                  "--slots",
                                                                  "1",
                                                                  "--start",
                                                                  "idle>=1",
                                                                  "--suspend",
                                                                  "idle<1",
                                                                  "--continue",
                                                                  "idle>=1",
                                                                  "--preempt",
                                                                  "suspended>=0",
                                                                  "--proc",
                                                                  (folder_.path / "proc").string(),
                                                                  "--lend-unwatched",
                                                                  "--quiet",
                                                                  "--run-as-root"}),
                                                  runtime(host)));
    for (const auto& each : agents_) each->line();
  }

  static std::string address(unsigned host, unsigned port) {
    return test_hosts::address(host) + ":" + std::to_string(port);
  }

  environment runtime(unsigned host) const {
    fs::path path = folder_.path / ("run" + std::to_string(host));
    fs::create_directories(path);
    fs::permissions(path, fs::perms::owner_all);
    return {{"XDG_RUNTIME_DIR", path.string()}, {"MIGRATE_NODES", "1"}};
  }

  std::vector<std::string> pmake(const fs::path& tree) const {
    return hosts_.on(1, {MIGRATE_EXAMPLES_DIR "/pmake", "-C", tree.string(), "--leave", "slow-gcc", "--trace",
                         (tree / "trace").string(), "--migrate-hosts=" + address(1, 7400),
                         "--migrate-listen=" + test_hosts::address(1) + ":7402",
                         "--migrate-credentials=" + keys_.path(),
                         "--migrate-store=" + (folder_.path / "store").string()});
  }

  void busy(unsigned host) const {
    program said(hosts_.on(host, {MIGRATE_EXAMPLES_DIR "/migrate", "busy"}), runtime(host));
    REQUIRE(said.wait(30s) == 0);
  }

private:
  folder folder_;
  const test_hosts& hosts_;
  cluster_credentials keys_;
  program database_;
  std::vector<std::unique_ptr<program>> agents_;
};

} // namespace

TEST_CASE("a host that is pulled in the middle of a build leaves the output as it is") {
  test_hosts hosts(3, {.processor = 0});
  if (!hosts.made()) return;
  folder work;
  write_tree(work.path / "alone");
  std::ofstream(work.path / "alone/go");
  program alone({MIGRATE_EXAMPLES_DIR "/pmake", "-C", (work.path / "alone").string()},
                {{"MIGRATE_HOSTS", ""}});
  REQUIRE(alone.wait(60s) == 0);
  const auto expected = made(work.path / "alone");
  REQUIRE(expected.size() == files + 2);

  lent_test_hosts lent(hosts, 3);
  bool owner_returns = GENERATE(false, true);
  CAPTURE(owner_returns);
  write_tree(work.path / "tree");
  program building(lent.pmake(work.path / "tree"), lent.runtime(1));
  auto read_until = [&](const std::string& what) {
    for (std::string line; line.find(what) == std::string::npos;) {
      line = building.line(60s);
      REQUIRE(line != "");
    }
  };
  read_until(" 2 foreign] ");
  if (owner_returns)
    lent.busy(3);
  else
    hosts.kill(3);
  read_until(" 1 hosts, ");
  std::ofstream(work.path / "tree/go");
  CHECK(building.wait(120s) == 0);
  std::string out = building.rest();
  CAPTURE(out);
  CHECK(made(work.path / "tree") == expected);
  std::string trace = text_of(work.path / "tree/trace");
  CHECK_THAT(trace, Catch::Contains("\"name\":\"granted\"") && Catch::Contains("\"name\":\"h2\""));
  CHECK_THAT(trace,
             Catch::Contains(owner_returns ? "taken back: " : "gone: ") && Catch::Contains("runs again: "));
}
