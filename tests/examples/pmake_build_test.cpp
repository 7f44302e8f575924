// Builds by pmake that go wrong, or go on beside others.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <pty.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "../support/folder.hpp"
#include "../support/program.hpp"

namespace fs = std::filesystem;
using Catch::Contains;
using namespace std::chrono_literals;

namespace {

const std::string ninja = MIGRATE_EXAMPLES_DIR "/as-ninja/ninja";
const std::string pmake = MIGRATE_EXAMPLES_DIR "/pmake";

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void await(const std::function<bool()>& what) {
  auto deadline = std::chrono::steady_clock::now() + 30s;
  while (!what()) {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    ::usleep(2000);
  }
}

class build_tree {
public:
  explicit build_tree(const std::string& manifest) { write("build.ninja", manifest); }

  fs::path operator/(const std::string& name) const { return folder_.path / name; }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_.path / name, std::ios::binary) << text;
  }
  bool has(const std::string& name) const { return fs::exists(folder_.path / name); }

  std::vector<std::string> command(const std::string& arguments, const std::string& program = ninja) const {
    return {"/bin/sh", "-c",
            "cd '" + folder_.path.string() + "' && exec '" + program + "' " + arguments + " 2>&1"};
  }

  struct ended {
    int status;
    std::string out;
  };
  ended run(const std::string& arguments = "", const std::string& program = ninja) const {
    migrate_test::program running(command(arguments, program), {{"TERM", "dumb"}});
    int status = running.wait(60s);
    return {status, running.rest()};
  }

private:
  migrate_test::folder folder_;
};

bool alive(const fs::path& file_with_its_id) {
  std::ifstream file(file_with_its_id);
  pid_t id = 0;
  REQUIRE(file >> id);
  std::string stat = text_of("/proc/" + std::to_string(id) + "/stat");
  std::size_t state = stat.rfind(") ");
  return state != stat.npos && stat[state + 2] != 'Z'; // whose parent it is now may take its time
}

} // namespace

TEST_CASE("Ctrl-C ends everything, however unwilling, and removes what is half written") {
  build_tree tree("rule sh\n  command = $do\n"
                  "build half: sh\n  do = echo $$$$ >id1; echo part >half; exec sleep 1000\n"
                  "build deaf: sh\n  do = trap '' INT TERM HUP; echo $$$$ >id2; echo part >deaf; while :; do "
                  "sleep 1000; done\n"
                  "build untouched: sh\n  do = echo $$$$ >id3; exec sleep 1000\n"
                  "build parent: sh\n  do = (trap '' INT TERM; echo part >parent; exec sleep 1000) & echo "
                  "$$! >id4; wait\n");
  tree.write("untouched", "from before\n");
  struct way {
    int signal;
    std::string half_written, targets, id_file;
  };
  way one =
      GENERATE(way{SIGINT, "half", "half untouched", "id1"}, way{SIGTERM, "deaf", "deaf untouched", "id2"},
               way{SIGHUP, "parent", "parent untouched", "id4"});
  migrate_test::program running(tree.command(one.targets), {{"TERM", "dumb"}});
  await([&] { return !text_of(tree / one.half_written).empty() && !text_of(tree / one.id_file).empty(); });
  bool both = ::sysconf(_SC_NPROCESSORS_ONLN) > 1;
  if (both) await([&] { return !text_of(tree / "id3").empty(); });
  ::kill(running.id(), one.signal);
  CHECK(running.wait(20s) == 2);
  CHECK_THAT(running.rest(), Contains("ninja: build stopped: interrupted by user."));
  await([&] { return !alive(tree / one.id_file); }); // nobody waits for what is no child of pmake
  if (both) CHECK_FALSE(alive(tree / "id3"));
  CHECK_FALSE(tree.has(one.half_written));
  CHECK(text_of(tree / "untouched") == "from before\n");
  CHECK(tree.run("-n").status == 0); // the tree is in order
}

TEST_CASE("who is told to ignore hanging up does") {
  build_tree tree("rule sh\n  command = touch began; while [ ! -e go ]; do sleep 0.01; done; touch "
                  "$out\nbuild out: sh\n");
  migrate_test::program running(
      {"/bin/sh", "-c", "trap '' HUP; cd '" + (tree / "").string() + "' && exec '" + ninja + "'"},
      {{"TERM", "dumb"}});
  await([&] { return tree.has("began"); });
  ::kill(running.id(), SIGHUP);
  tree.write("go", "");
  CHECK(running.wait(20s) == 0);
  CHECK(tree.has("out"));
}

TEST_CASE("a recipe that ends itself fails, by whichever signal") {
  build_tree tree("rule sh\n  command = echo said; kill -$signal $$$$\nbuild kill: sh\n  signal = 9\n"
                  "build segv: sh\n  signal = SEGV\nbuild term: sh\n  signal = TERM\n");
  for (const char* name : {"kill", "segv"}) {
    auto ended = tree.run(name);
    CHECK(ended.status == 1);
    CHECK_THAT(ended.out, Contains(std::string("FAILED: ") + name + " \n") && Contains("said\n") &&
                              Contains("ninja: build stopped: subcommand failed."));
  }
  CHECK(tree.run("term").status == 2); // Ninja takes it for an interruption too
}

TEST_CASE("what a killed command has half written is removed, and what one that failed has written stays") {
  build_tree tree(
      "rule sh\n  command = echo half >$out; $then\nbuild killed: sh\n  then = kill -9 $$$$\n"
      "build within: sh\n  then = sh -c 'kill -9 $$$$'; exit $$?\nbuild report: sh\n  then = false\n");
  auto ended = tree.run("-k 0");
  CAPTURE(ended.out);
  CHECK(ended.status == 1);
  CHECK_FALSE(tree.has("killed"));
  CHECK_FALSE(tree.has("within"));
  CHECK_THAT(ended.out, Contains("removed what it had written: it was killed"));
  CHECK(tree.has("report"));
  // Nothing is said to be removed where nothing was written.
  tree.write("build.ninja", "rule sh\n  command = kill -9 $$$$\nbuild killed: sh\n");
  CHECK_THAT(tree.run().out, Contains("FAILED: killed") && !Contains("removed"));
}

TEST_CASE("a hundred megabytes of errors are shown whole, between the lines of others") {
  build_tree tree("rule loud\n  command = yes 'a line of forty-nine characters, and its line feed' | head -n "
                  "2000000 >&2; touch $out\n"
                  "rule quiet\n  command = echo quiet says; touch $out\n"
                  "build loud: loud\nbuild quiet: quiet\n");
  migrate_test::program running(tree.command("-j2 >whole"), {{"TERM", "dumb"}});
  CHECK(running.wait(60s) == 0);
  std::ifstream file(tree / "whole");
  std::size_t lines = 0, first = 0, last = 0, number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line != "a line of forty-nine characters, and its line feed") continue;
    if (lines++ == 0) first = number;
    last = number;
  }
  CHECK(lines == 2'000'000);
  CHECK(last - first + 1 == lines);
}

TEST_CASE("a recipe that leaves its output open or closes it early ends when it ends") {
  build_tree tree("rule sh\n  command = exec >&- 2>&-; sleep 0.2; touch $out\nbuild out: sh\n");
  CHECK(tree.run().status == 0);
  CHECK(tree.has("out"));
}

TEST_CASE("a command line that no program can take is that command's failure") {
  build_tree tree("rule sh\n  command = : $long; touch $out\nbuild out: sh\n  long = " +
                  std::string(3'000'000, 'x') + "\nrule ok\n  command = touch $out\nbuild other: ok\n");
  auto ended = tree.run("-k0");
  CHECK(ended.status == 1);
  CHECK_THAT(ended.out, Contains("FAILED: out") && Contains("Argument list too long"));
  CHECK(tree.has("other"));
}

TEST_CASE("never more at a time than the machine has processors") {
  std::string manifest = "rule sh\n  command = echo + >>log; sleep 0.05; echo - >>log\n";
  for (int i = 0; i < 24; ++i) manifest += "build o" + std::to_string(i) + ": sh\n";
  build_tree tree(manifest);
  CHECK(tree.run("-j100").status == 0);
  cpu_set_t allowed;
  REQUIRE(::sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  int now = 0, most = 0;
  for (char c : text_of(tree / "log")) {
    if (c == '+') most = std::max(most, ++now);
    if (c == '-') --now;
  }
  CHECK(most <= CPU_COUNT(&allowed));
}

TEST_CASE("two builds in one tree go one after the other, and do nothing twice") {
  build_tree tree("rule sh\n  command = echo $out >>ran; touch began; while [ ! -e go ]; do sleep 0.01; "
                  "done; touch $out\n"
                  "build a: sh\nbuild b: sh a\n");
  migrate_test::program first(tree.command(""), {{"TERM", "dumb"}});
  await([&] { return tree.has("began"); });
  migrate_test::program second(tree.command(""), {{"TERM", "dumb"}});
  CHECK(second.line() == "ninja: waiting for another build in this directory");
  tree.write("go", "");
  CHECK(first.wait(30s) == 0);
  CHECK(second.wait(30s) == 0);
  CHECK(second.rest() == "ninja: no work to do.\n");
  CHECK(text_of(tree / "ran") == "a\nb\n");
}

TEST_CASE("a recipe may build in the same tree") {
  build_tree tree("rule outer\n  command = '" + ninja +
                  "' inner && touch $out\nrule sh\n  command = touch $out\n"
                  "build outer: outer\nbuild inner: sh\ndefault outer\n");
  auto ended = tree.run();
  CAPTURE(ended.out);
  CHECK(ended.status == 0);
  CHECK(tree.has("inner"));
}

TEST_CASE("damaged logs cost a build, and no more") {
  build_tree tree("rule cc\n  command = echo $out >>ran; echo '$out: $in h' >$out.d; cp $in $out\n  depfile "
                  "= $out.d\n  deps = gcc\n"
                  "build a: cc x\nbuild b: cc a\n");
  tree.write("x", "");
  tree.write("h", "");
  REQUIRE(tree.run().status == 0);
  REQUIRE(tree.run().out == "ninja: no work to do.\n");
  for (const char* name : {".ninja_log", ".ninja_deps"}) {
    const std::string whole = text_of(tree / name);
    for (std::string damaged :
         {whole.substr(0, whole.size() / 2), whole.substr(0, whole.size() - 3), std::string("\0\xff\n\t", 4),
          whole + std::string(100, '\0'), std::string()}) {
      CAPTURE(name, damaged.size());
      tree.write(name, damaged);
      auto again = tree.run();
      CAPTURE(again.out);
      CHECK(again.status == 0);
      CHECK(tree.run().out == "ninja: no work to do.\n");
    }
  }
  fs::remove(tree / ".ninja_log");
  fs::create_directory(tree / ".ninja_log");
  auto refused = tree.run();
  CHECK(refused.status == 1);
  CHECK_THAT(refused.out, Contains("ninja: error: loading build log .ninja_log: Is a directory"));
}

TEST_CASE("a disk that fills up fails the build and keeps nothing half written, and with room again the next "
          "one goes on") {
  // A file system of a mebibyte, which only the builds see.
  build_tree tree("");
  tree.write(
      "rules",
      "rule fill\n  command = head -c 3000000 /dev/zero >$out\nrule small\n  command = echo small >$out\n"
      "build first: small\nbuild big: fill\nbuild second: small\n");
  tree.write(
      "go",
      "set -e\nmkdir disk\nmount -t tmpfs -o size=1m none disk\ncp rules disk/build.ninja\ncd disk\nset +e\n"
      "say() { echo \"$@\"; }\n\"$1\" first\nsay first $?\n\"$1\" big\nsay big $? $(ls)\n"
      "head -c 3000000 /dev/zero >other 2>/dev/null\n\"$1\" second\nsay second $? $(ls)\nrm other\n"
      "sed -i s/3000000/3/ build.ninja\n\"$1\"\nsay all $? $(cat second)\n\"$1\"\nsay again $?\n");
  migrate_test::program running({"/bin/sh", "-c",
                                 "cd '" + (tree / "").string() +
                                     "' && exec unshare --map-root-user --mount sh go '" + ninja + "' 2>&1"},
                                {{"TERM", "dumb"}});
  int status = running.wait(60s);
  std::string said = running.rest();
  CAPTURE(said);
  if (status != 0 && said.find("unshare") != said.npos) {
    WARN("mounts of its own are refused here: " << said);
    return;
  }
  CHECK_THAT(said, Contains("\nfirst 0\n"));
  CHECK_THAT(said, Contains("FAILED: big") &&
                       Contains("No space left on device\nremoved what it had written: the disk is full\n"));
  CHECK_THAT(said, Contains("\nbig 1 build.ninja first\n"));
  CHECK_THAT(said, Contains("FAILED: second"));
  CHECK_THAT(said, Contains("\nsecond 1 build.ninja first other\n"));
  CHECK_THAT(said, Contains("\nall 0 small\n"));
  CHECK_THAT(said, Contains("no work to do.\nagain 0\n"));
}

TEST_CASE("an input that changes while its command runs is seen the next time") {
  build_tree tree(
      "rule cp\n  command = cp $in $out; touch began; while [ ! -e go ]; do sleep 0.01; done; touch $out\n"
      "build out: cp in\n");
  tree.write("in", "old");
  migrate_test::program running(tree.command(""), {{"TERM", "dumb"}});
  await([&] { return tree.has("began"); });
  tree.write("in", "new");
  tree.write("go", "");
  CHECK(running.wait(30s) == 0);
  CHECK(text_of(tree / "out") == "old");
  CHECK(tree.run().status == 0);
  CHECK(text_of(tree / "out") == "new");
  CHECK(tree.run().out == "ninja: no work to do.\n");
}

TEST_CASE("a manifest is made by its own rule first, and read again") {
  build_tree tree(
      "rule make\n  command = cp next build.ninja\n  generator = 1\nrule sh\n  command = touch $out\n"
      "build build.ninja: make next\nbuild old: sh\n");
  tree.write("next", text_of(tree / "build.ninja") + "build new: sh\n");
  fs::last_write_time(tree / "build.ninja", fs::last_write_time(tree / "next") - 10s);
  auto ended = tree.run();
  CAPTURE(ended.out);
  CHECK(ended.status == 0);
  CHECK(tree.has("new"));
  tree.write("next", "nonsense\n");
  fs::last_write_time(tree / "build.ninja", fs::last_write_time(tree / "next") - 10s);
  ended = tree.run();
  CHECK(ended.status == 1);
  CHECK_THAT(
      ended.out,
      Contains("ninja: error: build.ninja:1: expected '=', got newline\nnonsense\n        ^ near here"));
}

TEST_CASE("a build that fails while the manifest is made says so") {
  build_tree tree("rule make\n  command = false\n  generator = 1\nbuild build.ninja: make next\n");
  tree.write("next", "");
  fs::last_write_time(tree / "build.ninja", fs::last_write_time(tree / "next") - 10s);
  auto ended = tree.run();
  CHECK(ended.status == 1);
  CHECK_THAT(ended.out, Contains("ninja: error: rebuilding 'build.ninja': subcommand failed"));
}

TEST_CASE("under its own name it speaks as pmake") {
  build_tree tree("rule sh\n  command = touch $out\nbuild a: sh\n");
  CHECK(tree.run("", pmake).status == 0);
  CHECK(tree.run("", pmake).out == "pmake: no work to do.\n");
  CHECK_THAT(tree.run("nothing", pmake).out, Contains("pmake: error: unknown target 'nothing'"));
}

TEST_CASE("a trace has a row for each place where commands ran") {
  build_tree tree("rule sh\n  command = sleep 0.05; touch $out # \"quoted\\\nbuild a: sh\nbuild b: sh\nbuild "
                  "c: sh a b\n");
  CHECK(tree.run("-j2 --trace trace.json").status == 0);
  std::string trace = text_of(tree / "trace.json");
  CHECK(std::count(trace.begin(), trace.end(), '{') == std::count(trace.begin(), trace.end(), '}'));
  CHECK(std::count(trace.begin(), trace.end(), '[') == std::count(trace.begin(), trace.end(), ']'));
  CHECK_THAT(trace, Contains("\"name\":\"this host\"") && Contains("\"name\":\"slot 0\"") &&
                        Contains("\"name\":\"c\"") && Contains("\\\"quoted\\\\"));
  auto count = [&](const std::string& what) {
    std::size_t times = 0;
    for (std::size_t at = 0; (at = trace.find(what, at)) != trace.npos; ++at) ++times;
    return times;
  };
  CHECK(count("\"tid\":") == count("\"ph\":"));
  auto refused = tree.run("--trace nowhere/trace.json");
  CHECK(refused.status == 1);
  CHECK_THAT(refused.out, Contains("opening trace 'nowhere/trace.json': No such file or directory"));
}

TEST_CASE("on a terminal there is one line that changes") {
  build_tree tree(
      "rule sh\n  command = touch $out\n  description = MAKE $out\n"
      "rule say\n  command = printf '\\033[1mbold\\033[0m\\n'; touch $out\n  description = SAY $out\n"
      "build a: sh\nbuild b: say a\n");
  int master = -1;
  winsize size = {24, 80, 0, 0};
  pid_t child = ::forkpty(&master, nullptr, nullptr, &size);
  REQUIRE(child >= 0);
  if (child == 0) {
    ::setenv("TERM", "xterm", 1);
    auto command = tree.command("");
    ::execl("/bin/sh", "sh", "-c", command[2].c_str(), nullptr);
    ::_exit(127);
  }
  std::string out;
  char bytes[4096];
  for (ssize_t got; (got = ::read(master, bytes, sizeof bytes)) > 0;)
    out.append(bytes, static_cast<std::size_t>(got));
  int status = 0;
  ::waitpid(child, &status, 0);
  ::close(master);
  CHECK(status == 0);
  CHECK(out == "\r[0/2] MAKE a\x1B[K\r[1/2] MAKE a\x1B[K\r[1/2] SAY b\x1B[K\r[2/2] SAY b\x1B[K\r\n"
               "\x1B[1mbold\x1B[0m\r\n");
}
