// Builds on test hosts, of which one is pulled: what comes out is what one machine alone makes.
#include <algorithm>
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
#include <nlohmann/json.hpp>

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
  // The compiler takes its time, and the build does not end before it is told to. On a loaded machine all of it could be
  // made at home before the hosts are there, so until both have begun to compile no file is.
  std::ofstream(folder / "slow-gcc")
      << "#!/bin/sh\n: >here.$(uname -n)\n"
      << "until [ -e go ] || [ -e here.host2 -a -e here.host3 ]; do sleep 0.02; done\n"
      << "gcc \"$@\"\nsleep 0.1\n";
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

  std::vector<std::string> pmake(const fs::path& tree, const std::string& compiler = "slow-gcc") const {
    return hosts_.on(1, {MIGRATE_EXAMPLES_DIR "/pmake", "-C", tree.string(), "--leave", compiler, "--trace",
                         (tree / "trace").string(), "--migrate-hosts=" + address(1, 7400),
                         "--migrate-listen=" + test_hosts::address(1) + ":7402",
                         "--migrate-credentials=" + keys_.path(),
                         "--migrate-store=" + (folder_.path / "store").string(), "--migrate-keepalive=1000"});
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

enum class pulled { dies, owner_returns, hangs, link_is_cut };

std::map<std::string, std::string> hosts_in(const std::string& trace) {
  // By output. Every event has what Perfetto asks of its kind.
  auto read = nlohmann::json::parse(trace);
  std::map<int, std::string> hosts;
  for (const auto& event : read.at("traceEvents"))
    if (event.at("ph") == "M" && event.at("name") == "process_name")
      hosts[event.at("pid")] = event.at("args").at("name");
  std::map<std::string, std::string> ran;
  for (const auto& event : read.at("traceEvents")) {
    std::string kind = event.at("ph");
    REQUIRE(hosts.count(event.at("pid")) == 1);
    if (kind == "M") continue;
    CHECK(event.at("ts").get<double>() >= 0);
    CHECK(event.at("tid").is_number_unsigned());
    if (kind == "X") {
      CHECK(event.at("dur").get<double>() >= 0);
      ran[event.at("name")] = hosts.at(event.at("pid"));
    } else {
      CHECK(kind == "i");
      CHECK(event.at("s") == "p");
    }
  }
  return ran;
}

} // namespace

TEST_CASE("a host that is pulled in the middle of a build leaves the output as it is") {
  test_hosts hosts(3, {.processor = 0});
  if (!hosts.made()) return;
  folder work;
  static const auto expected = [&] {
    write_tree(work.path / "alone");
    std::ofstream(work.path / "alone/go");
    program alone({MIGRATE_EXAMPLES_DIR "/pmake", "-C", (work.path / "alone").string()},
                  {{"MIGRATE_HOSTS", ""}});
    REQUIRE(alone.wait(60s) == 0);
    return made(work.path / "alone");
  }();
  REQUIRE(expected.size() == files + 2);

  lent_test_hosts lent(hosts, 3);
  auto how = GENERATE(pulled::dies, pulled::owner_returns, pulled::hangs, pulled::link_is_cut);
  CAPTURE(static_cast<int>(how));
  write_tree(work.path / "tree");
  program building(lent.pmake(work.path / "tree"), lent.runtime(1));
  auto read_until = [&](const std::string& what) {
    for (std::string line; line.find(what) == std::string::npos;) {
      line = building.line(60s);
      REQUIRE(line != "");
    }
  };
  read_until(" 2 foreign] ");
  switch (how) {
  case pulled::dies: hosts.kill(3); break;
  case pulled::owner_returns: lent.busy(3); break;
  case pulled::hangs:
    for (int each : hosts.processes(3)) ::kill(each, SIGSTOP);
    break;
  case pulled::link_is_cut: hosts.unplug(3); break;
  }
  read_until(" 1 hosts, ");
  std::ofstream(work.path / "tree/go");
  CHECK(building.wait(120s) == 0);
  std::string out = building.rest();
  CAPTURE(out);
  CHECK(made(work.path / "tree") == expected);
  std::string trace = text_of(work.path / "tree/trace");
  CHECK_THAT(trace, Catch::Contains("\"name\":\"granted\""));
  CHECK_THAT(trace, Catch::Contains(how == pulled::owner_returns ? "taken back: " : "gone: ") &&
                        Catch::Contains("runs again: "));
  auto ran = hosts_in(trace);
  CHECK(ran.size() == files + 3);
  CHECK(ran.at("program") == "this host"); // what links stays
  CHECK(std::count_if(ran.begin(), ran.end(), [](const auto& each) { return each.second == "h2"; }) > 0);
}

TEST_CASE("a compiler that the kernel kills on a host for want of memory runs again at home") {
  test_hosts hosts(2, {.processor = 0, .memory = 400ull << 20});
  if (!hosts.made()) return;
  lent_test_hosts lent(hosts, 2);
  folder work;
  const fs::path& tree = work.path;
  auto script = [&](const std::string& name, const std::string& text) {
    std::ofstream(tree / name) << "#!/bin/sh\n" << text;
    fs::permissions(tree / name, fs::perms::owner_all);
  };
  script("hold", "until [ -e go ]; do sleep 0.02; [ -e hungry.c ] || exit 1; done\n");
  // Away from home it takes more than there is.
  script("hungry-gcc", "uname -n >>runs\n[ $(uname -n) = host1 ] || set -- -DHUGE \"$@\"\nexec gcc \"$@\"\n");
  std::ofstream(tree / "hungry.c") << "#ifdef HUGE\n#define A(x) x, x, x, x, x, x, x, x, x, x\n"
                                   << "int many[] = {A(A(A(A(A(A(A(1)))))))};\n#endif\nint one = 1;\n";
  std::ofstream manifest(tree / "build.ninja");
  manifest
      << "rule hold\n  command = ./hold\nrule touch\n  command = touch $out\n"
      << "rule cc\n  command = ./hungry-gcc -c $in -o $out\nbuild hungry.o: cc hungry.c\nbuild held: touch";
  // The longer chains go first, and take the places at home.
  const long here = ::sysconf(_SC_NPROCESSORS_ONLN);
  for (long i = 0; i < here; ++i) manifest << " held" << i;
  manifest << "\n";
  for (long i = 0; i < here; ++i) manifest << "build held" << i << ": hold\n";
  manifest.close();
  program building(lent.pmake(tree, "hungry-gcc"), lent.runtime(1));
  auto deadline = std::chrono::steady_clock::now() + 60s;
  while (text_of(tree / "trace").find("runs again: hungry.o: it failed there") == std::string::npos) {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    ::usleep(5000);
  }
  std::ofstream(tree / "go");
  CHECK(building.wait(60s) == 0);
  CHECK(text_of(tree / "runs") == "host2\nhost1\n");
  CHECK(fs::exists(tree / "hungry.o"));
  CHECK(hosts_in(text_of(tree / "trace")).at("hungry.o") == "this host");
}
