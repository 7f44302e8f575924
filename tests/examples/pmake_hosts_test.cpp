// pmake on granted hosts, which here are this machine under other names.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <sched.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "../support/lent_hosts.hpp"

namespace fs = std::filesystem;
using Catch::Contains;
using migrate_test::program;
using namespace std::chrono_literals;

namespace {

unsigned processors() {
  cpu_set_t allowed;
  return ::sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? static_cast<unsigned>(CPU_COUNT(&allowed))
                                                               : 1;
}

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::map<std::string, int> lines_of(const fs::path& path) {
  std::map<std::string, int> counts;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) ++counts[line];
  return counts;
}

void await(const std::function<bool()>& what) {
  auto deadline = std::chrono::steady_clock::now() + 60s;
  while (!what()) {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    ::usleep(5000);
  }
}

// Programs for recipes. `hold` keeps this machine's places taken until the file go is there; the others may leave. None
// outlives its tree, which goes when a test fails, or two minutes.
constexpr const char* until_there = "until_there() { n=0; while [ ! -e $1 ] && [ -e rules ] && [ $((n += 1)) "
                                    "-lt 6000 ]; do sleep 0.02; done; }\n";
constexpr const char* hold = "echo $$ >>holding; until_there go; [ -z \"$1\" ] || touch $1";
constexpr const char* work = "echo $1 >>runs; echo half >$1; until_there finish; echo whole >$1";
constexpr const char* noise = "head -c 100000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo whole >$1";
constexpr const char* fault = "echo $1 >>runs; echo half >$1; exit 7";
constexpr const char* stubborn = "trap '' TERM INT; echo $$ >>stubborn-ids; echo half >$1; until_there never";
constexpr const char* full =
    "echo $1 >>runs; echo half >$1; case $TMPDIR in ?*) head -c 9 /dev/zero >/dev/full || "
    "exit 1;; esac; echo whole >$1";
constexpr const char* killed =
    "echo $1 >>runs; echo half >$1; case $TMPDIR in ?*) kill -9 $$;; esac; echo whole >$1";

struct build_tree {
  explicit build_tree(const std::string& statements) {
    const std::pair<const char*, const char*> scripts[] = {
        {"hold", hold}, {"work", work},         {"noise", noise},  {"fault", fault},
        {"full", full}, {"stubborn", stubborn}, {"killed", killed}};
    std::string rules;
    fs::create_directories(folder.path / "bin");
    for (const auto& [name, text] : scripts) {
      write(std::string("bin/") + name, std::string("#!/bin/sh\n") + until_there + text + "\n");
      fs::permissions(folder.path / "bin" / name, fs::perms::owner_all);
      rules += std::string("rule ") + name + "\n  command = bin/" + name + " $out\n";
    }
    std::string manifest = rules + "rule touch\n  command = touch $out\n", held;
    for (unsigned i = 0; i < processors(); ++i) {
      manifest += "build held" + std::to_string(i) + ": hold\n";
      held += " held" + std::to_string(i);
    }
    // The longer chain goes first.
    write("build.ninja",
          manifest + "build between: touch" + held + "\nbuild held: touch between\n" + statements);
    write("rules", "# those of the test\nleave work\nleave noise\nleave fault\nleave stubborn\nleave "
                   "full\nleave killed\n");
  }

  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder.path / name, std::ios::binary) << text;
  }
  bool has(const std::string& name) const { return fs::exists(folder.path / name); }
  std::string text(const std::string& name) const { return text_of(folder.path / name); }
  std::map<std::string, int> runs() const { return lines_of(folder.path / "runs"); }

  std::vector<std::string> command(const std::string& arguments, const std::string& program = "pmake") const {
    return {"/bin/sh", "-c",
            "cd '" + folder.path.string() + "' && unset TMPDIR MAKEFLAGS && exec '" MIGRATE_EXAMPLES_DIR "/" +
                program + "' --rules rules " + arguments + " 2>&1"};
  }
  migrate_test::folder folder;
};

migrate_test::environment with(const migrate_test::lent_hosts& hosts) {
  auto all = hosts.surroundings();
  all.emplace_back("MIGRATE_HOSTS", hosts.address());
  all.emplace_back("TERM", "dumb");
  return all;
}

bool runs_still(pid_t process) {
  std::string stat = text_of("/proc/" + std::to_string(process) + "/stat");
  return !stat.empty() && stat[stat.rfind(") ") + 2] != 'Z';
}

} // namespace

TEST_CASE("commands leave for granted hosts, and those of a host that dies run again, no others") {
  migrate_test::lent_hosts hosts({"one", "two"});
  build_tree tree("build a: work\nbuild b: work\nbuild all: phony held a b\ndefault all\n");
  program running(tree.command("--trace trace.json"), with(hosts));
  await([&] { return tree.text("a") == "half\n" && tree.text("b") == "half\n"; });
  CHECK(lines_of(tree.folder.path / "holding").size() == processors());
  hosts.kill(0);
  // This machine has no place, and the other host neither.
  tree.write("finish", "");
  await([&] { return tree.runs()["a"] + tree.runs()["b"] == 3; });
  tree.write("go", "");
  CHECK(running.wait(60s) == 0);
  std::string out = running.rest();
  CAPTURE(out);
  CHECK(tree.text("a") == "whole\n");
  CHECK(tree.text("b") == "whole\n");
  CHECK(tree.runs()["a"] + tree.runs()["b"] == 3);
  CHECK_THAT(out, Contains(" hosts, ") && Contains(" foreign] "));
  std::string trace = tree.text("trace.json");
  CHECK_THAT(trace, Contains("\"name\":\"one\"") && Contains("\"name\":\"two\"") &&
                        Contains("\"name\":\"this host\"") && Contains("\"name\":\"granted\"") &&
                        Contains("\"name\":\"gone: ") && Contains("\"name\":\"runs again: "));
}

TEST_CASE("what runs on hosts whose owners come back runs again at home, where no more runs than there are "
          "processors") {
  migrate_test::lent_hosts hosts({"one", "two", "three"});
  build_tree tree("build a: work\nbuild b: work\nbuild c: work\nbuild all: phony held a b c\ndefault all\n");
  program running(tree.command("-j100 --trace trace.json"), with(hosts));
  await([&] { return tree.runs().size() == 3; });
  CHECK(hosts.busy() == 0);
  await([&] { return !tree.has("a") && !tree.has("b") && !tree.has("c"); }); // nothing half-written stays
  CHECK(tree.runs().size() == 3);
  CHECK(tree.runs()["a"] == 1);
  tree.write("finish", "");
  tree.write("go", "");
  CHECK(running.wait(60s) == 0);
  for (const char* each : {"a", "b", "c"}) {
    CHECK(tree.text(each) == "whole\n");
    CHECK(tree.runs()[each] == 2);
  }
  CHECK_THAT(tree.text("trace.json"), Contains("\"name\":\"taken back: ") && Contains("says busy"));
}

TEST_CASE("what goes wrong on a host") {
  migrate_test::lent_hosts hosts({"one"});
  SECTION("an error of the command stops the build with the same status, and is no reason to run it again") {
    build_tree tree("build a: fault\nbuild all: phony held a\ndefault all\n");
    program running(tree.command(""), with(hosts));
    await([&] { return tree.has("runs"); });
    tree.write("go", "");
    CHECK(running.wait(60s) == 1);
    CHECK_THAT(running.rest(), Contains("FAILED: a") && Contains("build stopped: subcommand failed."));
    CHECK(tree.runs()["a"] == 1);
  }
  SECTION("a full disk, or too little memory, is one: the second run is at home") {
    build_tree tree("build a: full\nbuild b: killed\nbuild all: phony held a b\ndefault all\n");
    program running(tree.command(""), with(hosts));
    await([&] { return tree.runs().size() == 2 && !tree.has("a") && !tree.has("b"); });
    tree.write("go", "");
    CHECK(running.wait(60s) == 0);
    CHECK(tree.text("a") == "whole\n");
    CHECK(tree.text("b") == "whole\n");
    CHECK(tree.runs() == std::map<std::string, int>{{"a", 2}, {"b", 2}});
  }
  SECTION("100 MB of output are shown whole") {
    build_tree tree("build a: noise\nbuild all: phony held a\ndefault all\n");
    program running(tree.command("all >out"), with(hosts));
    await([&] { return tree.has("a"); });
    tree.write("go", "");
    CHECK(running.wait(90s) == 0);
    CHECK(fs::file_size(tree.folder.path / "out") > 100'000'000);
    CHECK(std::system(("tail -c 50000000 '" + (tree.folder.path / "out").string() + "' | grep -q xxxxxxxx")
                          .c_str()) == 0);
  }
  SECTION("Ctrl-C ends what ignores it, there too") {
    build_tree tree("build a: stubborn\nbuild all: phony held a\ndefault all\n");
    int signal = GENERATE(SIGINT, SIGTERM);
    program running(tree.command(""), with(hosts));
    await([&] { return tree.text("a") == "half\n"; });
    ::kill(running.id(), signal);
    CHECK(running.wait(20s) == 2);
    CHECK_FALSE(tree.has("a"));
    for (const auto& [id, count] : lines_of(tree.folder.path / "stubborn-ids"))
      CHECK_FALSE(runs_still(std::stoi(id)));
    for (const auto& [id, count] : lines_of(tree.folder.path / "holding"))
      CHECK_FALSE(runs_still(std::stoi(id)));
  }
}

TEST_CASE("without a host database it builds here, and says so once") {
  build_tree tree("build a: work\nbuild b: work\nbuild all: phony a b\ndefault all\n");
  tree.write("finish", "");
  program running(tree.command("--migrate-hosts=127.0.0.1:1"), {{"TERM", "dumb"}, {"MIGRATE_NODES", "1"}});
  CHECK(running.wait(60s) == 0);
  std::string out = running.rest();
  CAPTURE(out);
  const std::string said = "no idle host has been granted so far: building on this machine";
  CHECK_THAT(out, Contains(said));
  CHECK(out.find(said) == out.rfind(said));
  CHECK(tree.text("a") == "whole\n");
  CHECK_THAT(out, !Contains("foreign"));
}

TEST_CASE("with a host database and nobody who lends it builds here, and says where to ask why") {
  migrate_test::lent_hosts hosts({});
  build_tree tree("build a: work\nbuild all: phony a\ndefault all\n");
  tree.write("finish", "");
  program running(tree.command(""), with(hosts));
  CHECK(running.wait(60s) == 0);
  CHECK_THAT(running.rest(), Contains("no idle host has been granted so far: building on this machine") &&
                                 Contains("'migrate status --database " + hosts.address() + "' says why"));
  CHECK(tree.text("a") == "whole\n");
}

TEST_CASE("make's lines that may leave do, with their own output, status and surroundings") {
  migrate_test::lent_hosts hosts({"one", "two"});
  build_tree tree("");
  std::string held;
  for (unsigned i = 0; i < processors(); ++i) held += " held" + std::to_string(i);
  tree.write("Makefile", "X := $(shell echo from the shell)\nall:" + held + " sub a b\n" + held +
                             ":\n\t@bin/hold $@\nsub:\n\t@$(MAKE) --no-print-directory -C below\n" +
                             "a b:\n\t@bin/work $@ && echo '$@: $(X)' && echo to stderr >&2\n" +
                             "fails:\n\tbin/fault $@\n.PHONY: all sub\n");
  fs::create_directories(tree.folder.path / "below/bin");
  fs::copy_file(tree.folder.path / "bin/work", tree.folder.path / "below/bin/work");
  tree.write("below/rules", ""); // without it, what is there would not wait for `finish`
  tree.write("below/Makefile",
             "c:\n\t@ln -s ../finish . && bin/work $@ && umask && echo \"$$V in $${PWD##*/}\"\n");
  auto surroundings = with(hosts);
  surroundings.emplace_back("V", "value");
  SECTION("a build") {
    program running(tree.command("--trace trace.json make -j100"), surroundings);
    await([&] { return tree.has("runs") && tree.has("below/runs"); });
    CHECK(lines_of(tree.folder.path / "holding").size() == processors());
    tree.write("finish", "");
    await([&] { return tree.text("below/c") == "whole\n"; });
    tree.write("go", "");
    CHECK(running.wait(60s) == 0);
    std::string out = running.rest();
    CAPTURE(out);
    CHECK_THAT(out, Contains("a: from the shell\n") && Contains("b: from the shell\n") &&
                        Contains("to stderr\n") && Contains("value in below\n"));
    CHECK(tree.text("a") == "whole\n");
    CHECK_THAT(tree.text("trace.json"), Contains("\"name\":\"one\"") && Contains("\"name\":\"two\""));
    CHECK_THAT(out, Contains("pmake: 3 of " + std::to_string(3 + processors()) +
                             " commands ran on idle hosts (one ") &&
                        Contains(", two "));
  }
  SECTION("an error") {
    program running(tree.command("make -j100" + held + " fails"), surroundings);
    await([&] { return tree.has("runs"); });
    tree.write("go", "");
    CHECK(running.wait(60s) == 2);
    CHECK_THAT(running.rest(), Contains("fails] Error 7"));
    CHECK(tree.runs()["fails"] == 1);
  }
  SECTION("Ctrl-C") {
    program running(tree.command("make -j100" + held + " a b"), surroundings);
    await([&] { return tree.text("a") == "half\n" && tree.text("b") == "half\n"; });
    ::kill(-running.id(), SIGINT);
    int status = running.wait(20s);
    CHECK((status == 2 || status == 128 + SIGINT));
    CHECK_FALSE(tree.has("a"));
    CHECK_FALSE(tree.has("b"));
  }
  SECTION("a host that dies") {
    program running(tree.command("make -j100" + held + " a b"), surroundings);
    await([&] { return tree.text("a") == "half\n" && tree.text("b") == "half\n"; });
    hosts.kill(1);
    tree.write("finish", "");
    await([&] { return tree.runs()["a"] + tree.runs()["b"] == 3; });
    tree.write("go", "");
    CHECK(running.wait(60s) == 0);
    CHECK(tree.text("a") == "whole\n");
    CHECK(tree.text("b") == "whole\n");
  }
}

TEST_CASE("recipes that are functions run as tasks, which move") {
  migrate_test::lent_hosts hosts({"one", "two"});
  build_tree tree(
      "rule rove\n  command = pmake-task rove $out 'a b'\nrule fail\n  command = pmake-task fail $args\n"
      "rule unknown\n  command = pmake-task unknown x\n"
      "build a: rove\nbuild all: phony held a\nbuild f: fail\nbuild t: fail\n  args = x y\n"
      "build u: unknown\ndefault all\n");
  const std::string own = "../tests/pmake_with_recipe";
  program running(tree.command("", own), with(hosts));
  await([&] { return tree.has("a"); });
  tree.write("go", "");
  CHECK(running.wait(60s) == 0);
  std::string out = running.rest();
  CAPTURE(out);
  CHECK_THAT(out, Contains("away, roved\n"));
  CHECK(tree.text("a") == "a b\n");

  fs::remove(tree.folder.path / "a");
  program alone(tree.command("a", own), {{"MIGRATE_NODES", "1"}});
  CHECK(alone.wait(60s) == 0);
  CHECK_THAT(alone.rest(), Contains("at home, stayed\n"));
  CHECK(tree.text("a") == "a b\n");
  program failing(tree.command("-k0 f t u", own), {{"MIGRATE_NODES", "1"}});
  CHECK(failing.wait(60s) == 1);
  out = failing.rest();
  CHECK_THAT(out,
             Contains("FAILED: f") && Contains("fail: thrown") && Contains("there is no function 'unknown'"));
}

TEST_CASE(
    "a function whose host is taken back goes on elsewhere, at last at home, where others make room for it") {
  if (processors() < 2) return; // then nothing else could run beside it
  migrate_test::lent_hosts hosts({"one", "two"});
  std::string paced, all;
  for (int i = 0; i < 12; ++i) {
    std::string name = "p" + std::to_string(i);
    paced += "build " + name + ": paced || held\n";
    all += " " + name;
  }
  build_tree tree("rule lasting\n  command = pmake-task lasting $out\n"
                  "rule paced\n  command = echo + >>log; sleep 0.05; echo - >>log; touch $out\n"
                  "build a: lasting\n" +
                  paced + "build finish: touch ||" + all + "\nbuild all: phony a finish\ndefault all\n");
  program running(tree.command("--trace trace.json", "../tests/pmake_with_recipe"), with(hosts));
  auto nodes = [&] { return lines_of(tree.folder.path / "nodes"); };
  await([&] { return nodes().size() == 1; });
  // It is on one of them, and goes to the other when that is still there; when both are gone, home.
  CHECK(hosts.busy(0) == 0);
  CHECK(hosts.busy(1) == 0);
  await([&] { return nodes().count("1") == 1; });
  await([&] { return tree.text("trace.json").find("a function came home from ") != std::string::npos; });
  CHECK(lines_of(tree.folder.path / "holding").size() == processors());
  tree.write("go", "");
  CHECK(running.wait(60s) == 0);
  CAPTURE(running.rest());
  CHECK(lines_of(tree.folder.path / "began")["a"] == 1);
  CHECK(tree.text("a") == std::to_string(nodes().size()) + "\n"); // its memory came along
  unsigned now = 0, most = 0;
  for (char c : tree.text("log")) {
    if (c == '+') most = std::max(most, ++now);
    if (c == '-') --now;
  }
  CHECK(most == processors() - 1);
}
