// The parts of pmake's engine one by one.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <unistd.h>

#include <catch2/catch.hpp>

#include "ninja/build_log.hpp"
#include "ninja/builder.hpp"
#include "ninja/depfile.hpp"
#include "ninja/deps_log.hpp"
#include "ninja/error.hpp"
#include "ninja/manifest.hpp"
#include "ninja/murmur.hpp"
#include "ninja/path.hpp"
#include "ninja/show_includes.hpp"
#include "ninja/spelling.hpp"
#include "ninja/status.hpp"
#include "ninja/terminal.hpp"

#include "../support/folder.hpp"

using namespace pmake;
using Catch::Contains;

namespace {

std::string canonical(std::string path) {
  canonicalize(path);
  return path;
}

std::string quoted(std::string_view path) {
  std::string text;
  append_shell_quoted(text, path);
  return text;
}

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

struct tree {
  // A graph read from a manifest in a folder of its own, which is the working directory meanwhile.
  explicit tree(const std::string& manifest) {
    std::filesystem::current_path(folder.path);
    write("build.ninja", manifest);
    read_manifest(files, "build.ninja", {}, [&](const std::string& text) { warnings.push_back(text); });
  }
  ~tree() { std::filesystem::current_path("/"); }

  std::function<void(const std::string&)> warn() {
    return [this](const std::string& text) { warnings.push_back(text); };
  }
  node& at(const std::string& path) {
    node* found = files.find(path);
    REQUIRE(found != nullptr);
    return *found;
  }

  migrate_test::folder folder;
  graph files;
  std::vector<std::string> warnings;
};

const std::string two_outputs = "rule cc\n  command = cc $in -o $out\n  deps = gcc\n  depfile = $out.d\n"
                                "build a: cc a.c\nbuild b: cc b.c\n";

} // namespace

TEST_CASE("a path has one canonical form") {
  const std::map<std::string, std::string> forms{{"a", "a"},
                                                 {"./a", "a"},
                                                 {"a/b", "a/b"},
                                                 {"a/./b", "a/b"},
                                                 {"a//b", "a/b"},
                                                 {"a/../b", "b"},
                                                 {"../a", "../a"},
                                                 {"../../a", "../../a"},
                                                 {"a/../../b", "../b"},
                                                 {"a/", "a"},
                                                 {"a/.", "a"},
                                                 {"a/..", "."},
                                                 {"/", "/"},
                                                 {"/a/../b", "/b"},
                                                 {"/..", "/.."},
                                                 {".", "."},
                                                 {"./", "."},
                                                 {"..", ".."},
                                                 {".a/b", ".a/b"},
                                                 {"a/.b/..c", "a/.b/..c"},
                                                 {"a/...", "a/..."},
                                                 {"/a//b/./c", "/a/b/c"},
                                                 {"./../a", "../a"},
                                                 {"a/b/../../c", "c"}};
  for (const auto& [given, wanted] : forms) {
    CAPTURE(given);
    CHECK(canonical(given) == wanted);
    if (is_canonical(given)) CHECK(given == wanted);
  }
  CHECK(is_canonical("a/.b/..c"));
  CHECK(is_canonical("/usr/include/stdio.h"));
}

TEST_CASE("what a shell would interpret is quoted") {
  CHECK(quoted("src/a_b-c+d.1") == "src/a_b-c+d.1");
  CHECK(quoted("a b") == "'a b'");
  CHECK(quoted("it's") == "'it'\\''s'");
  CHECK(quoted("$x") == "'$x'");
}

TEST_CASE("words that are like others") {
  CHECK(edit_distance("abc", "abc", 3) == 0);
  CHECK(edit_distance("abc", "abd", 3) == 1);
  CHECK(edit_distance("", "abc", 3) == 3);
  CHECK(edit_distance("kitten", "sitting", 3) == 3);
  CHECK(edit_distance("kitten", "sitting", 2) == 3);
  CHECK(nearest_word("recompat", {"restat", "recompact"}).hint() == ", did you mean 'recompact'?");
  CHECK(nearest_word("xyzzy", {"restat", "recompact"}).hint().empty());
}

TEST_CASE("a depfile") {
  auto inputs = [](const std::string& text) { return parse_depfile(text).inputs; };
  using names = std::vector<std::string>;
  CHECK(inputs("a.o: a.c b.h\n") == names{"a.c", "b.h"});
  CHECK(inputs("a.o: a.c \\\n  b.h\\\n c.h") == names{"a.c", "b.h", "c.h"});
  CHECK(inputs("a.o: a.c \\\r\n  b.h\r\n") == names{"a.c", "b.h"});
  CHECK(inputs("a.o : a.c\n") == names{"a.c"});
  CHECK(inputs("a.o: a.c a.c b.h a.c\n") == names{"a.c", "b.h"});
  CHECK(inputs("a.o: a\\ b.c c\\#d $$e f\\:g c:/h\n") == names{"a b.c", "c#d", "$e", "f:g", "c:/h"});
  CHECK(inputs("a.o: a\\\\ b\\\\\\ c x\\y\n") == names{"a\\\\", "b\\ c", "x\\y"});
  CHECK(inputs("a.o: a.c b.h\n\nb.h:\n") == names{"a.c", "b.h"}); // gcc -MP
  CHECK(inputs("a.o: a.c\na.o: b.h\n") == names{"a.c", "b.h"});
  CHECK(parse_depfile("a.o b.o: a.c\n").outputs == names{"a.o", "b.o"});
  CHECK(parse_depfile("a.o:\n").inputs.empty());
  CHECK_THROWS_WITH(parse_depfile("a.o a.c\n"), "expected ':' in depfile");
  CHECK_THROWS_WITH(parse_depfile("a.o: b.h\nb.h: c.h\n"), "inputs may not also have inputs");
}

TEST_CASE("what Microsoft's compiler says about headers is taken out of its output") {
  shown_includes found =
      filter_includes("foo.cc\r\nNote: including file: foo.h\r\nwarning: x\r\n"
                      "Note: including file:   sub/bar.h\r\n"
                      "Note: including file: C:\\Program Files\\x.h\r\nNote: including file: foo.h\r\n",
                      "");
  CHECK(found.files == std::vector<std::string>{"foo.h", "sub/bar.h"});
  CHECK(found.rest == "warning: x\n");
  found = filter_includes("Hinweis: Einlesen: a.h\nfoo.cc\n", "Hinweis: Einlesen:");
  CHECK(found.files == std::vector<std::string>{"a.h"});
  CHECK(found.rest == "foo.cc\n");
}

TEST_CASE("commands are remembered by MurmurHash64A") {
  // As Ninja's own log has them.
  CHECK(command_hash("echo filelevel filex") == 0xf4461d8527a5114b);
  CHECK(command_hash("echo rulelevel filex") == 0x6575d0d385a97005);
}

// ---- the log of builds

TEST_CASE("the log of builds is read and written as Ninja's") {
  tree in(two_outputs);
  write(".ninja_log", "# ninja log v5\n1\t20\t300\ta\tdeadbeef\n1\t25\t400\tgone\t1\n2\t30\t500\ta\tcafe\n");
  build_log log(in.files, ".ninja_log");
  REQUIRE(log.load(in.warn()));
  CHECK(in.warnings.empty());
  REQUIRE(in.at("a").logged != nullptr);
  CHECK(in.at("a").logged->command == 0xcafe);
  CHECK(in.at("a").logged->time == 500);
  CHECK(in.at("a").logged->end == 30);
  CHECK(in.at("b").logged == nullptr);
  CHECK(log.entries().size() == 2);
  log.record(*in.at("b").in, 0xabc, 5, 6, 700);
  CHECK(in.at("b").logged->command == 0xabc);
  log.close();
  CHECK_THAT(text_of(".ninja_log"), Catch::EndsWith("2\t30\t500\ta\tcafe\n5\t6\t700\tb\tabc\n"));
  log.recompact(); // "gone" is not in the manifest, and not there
  CHECK(text_of(".ninja_log") == "# ninja log v5\n2\t30\t500\ta\tcafe\n5\t6\t700\tb\tabc\n");
}

TEST_CASE("a damaged log of builds loses what is damaged, and no more") {
  tree in(two_outputs);
  const std::string good = "1\t20\t300\ta\tdeadbeef\n";
  SECTION("lines of nonsense") {
    write(".ninja_log", "# ninja log v5\n\n1\t2\tx\ta\t1\nnothing\n1\t2\t3\n" + good + "1\t2\t3\tb\tzz\n" +
                            std::string("\0\0\0\n", 4) + "9999999999999999999\t2\t3\tb\t1\n");
    build_log log(in.files, ".ninja_log");
    CHECK(log.load(in.warn()));
    CHECK(log.entries().size() == 1);
    CHECK(in.at("a").logged->command == 0xdeadbeef);
  }
  SECTION("cut off anywhere") {
    const std::string whole = "# ninja log v5\n" + good + "1\t2\t3\tb\t1234\n";
    for (std::size_t size = 15 + good.size(); size <= whole.size(); ++size) {
      write(".ninja_log", whole.substr(0, size));
      in.at("a").logged = in.at("b").logged = nullptr;
      build_log log(in.files, ".ninja_log");
      CHECK(log.load(in.warn()));
      CHECK(in.at("a").logged->command == 0xdeadbeef);
      // What is written next does not run into the torn line.
      log.record(*in.at("a").in, 0x77, 1, 2, 3);
      log.close();
      in.at("a").logged = in.at("b").logged = nullptr;
      build_log again(in.files, ".ninja_log");
      CHECK(again.load(in.warn()));
      CHECK(in.at("a").logged->command == 0x77);
    }
  }
  SECTION("another version, or no log at all") {
    for (const char* head : {"# ninja log v4\n", "# ninja log v7\n", "# ninja log v\n", "garbage\n", "\n"}) {
      write(".ninja_log", head + good);
      in.warnings.clear();
      build_log log(in.files, ".ninja_log");
      CHECK(log.load(in.warn()));
      CHECK(log.entries().empty());
      REQUIRE(in.warnings.size() == 1);
      CHECK_THAT(in.warnings[0], Contains("starting over"));
      CHECK_FALSE(std::filesystem::exists(".ninja_log"));
    }
  }
}

// ---- the log of deps

TEST_CASE("the log of deps remembers the last inputs of each output") {
  tree in(two_outputs);
  {
    deps_log log(in.files, ".ninja_deps");
    CHECK_FALSE(log.load(in.warn()));
    log.record(in.at("a"), 100, {&in.files.file("a.c"), &in.files.file("some/header.h")});
    log.record(in.at("b"), 200, {});
    log.record(in.at("a"), 300, {&in.files.file("a.c"), &in.files.file("x.h")});
  }
  auto size = std::filesystem::file_size(".ninja_deps");
  graph fresh;
  read_manifest(fresh, "build.ninja", {}, in.warn());
  deps_log log(fresh, ".ninja_deps");
  REQUIRE(log.load(in.warn()));
  const auto* found = log.find(*fresh.find("a"));
  REQUIRE(found != nullptr);
  CHECK(found->time == 300);
  std::vector<node*> inputs = log.inputs_of(*found);
  REQUIRE(inputs.size() == 2);
  CHECK(inputs[0] == fresh.find("a.c"));
  CHECK(inputs[1]->path() == "x.h");
  REQUIRE(log.find(*fresh.find("b")) != nullptr);
  CHECK(log.find(*fresh.find("b"))->count == 0);
  CHECK(log.find(*fresh.find("a.c")) == nullptr);

  log.record(*fresh.find("a"), 300, inputs); // nothing new
  log.close();
  CHECK(std::filesystem::file_size(".ninja_deps") == size);
  log.recompact();
  CHECK(std::filesystem::file_size(".ninja_deps") < size);
  REQUIRE(log.find(*fresh.find("a")) != nullptr);
  CHECK(log.inputs_of(*log.find(*fresh.find("a"))) == inputs);
}

TEST_CASE("a log of deps that is cut off or damaged anywhere is recovered") {
  tree in(two_outputs);
  {
    deps_log log(in.files, ".ninja_deps");
    log.record(in.at("a"), 100, {&in.files.file("a.c"), &in.files.file("some/header.h")});
    log.record(in.at("b"), 200, {&in.files.file("some/header.h")});
  }
  const std::string whole = text_of(".ninja_deps");
  auto reopen_and_add = [&] {
    graph fresh;
    read_manifest(fresh, "build.ninja", {}, in.warn());
    deps_log log(fresh, ".ninja_deps");
    CHECK(log.load(in.warn()));
    if (const auto* found = log.find(*fresh.find("a"))) CHECK(found->count == 2);
    log.record(*fresh.find("b"), 999, {&fresh.file("new.h")});
    log.close();
    graph again;
    read_manifest(again, "build.ninja", {}, in.warn());
    deps_log reread(again, ".ninja_deps");
    std::size_t before = in.warnings.size();
    CHECK(reread.load(in.warn()));
    CHECK(in.warnings.size() == before);
    REQUIRE(reread.find(*again.find("b")) != nullptr);
    CHECK(reread.find(*again.find("b"))->time == 999);
  };
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    in.warnings.clear();
    write(".ninja_deps", whole.substr(0, size));
    reopen_and_add();
    if (size < 16) {
      REQUIRE(in.warnings.size() == 1);
      CHECK(in.warnings[0] == "bad deps log signature or version; starting over");
    }
  }
  for (std::size_t at = 16; at < whole.size(); ++at) {
    CAPTURE(at);
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x80);
    write(".ninja_deps", damaged);
    graph fresh;
    read_manifest(fresh, "build.ninja", {}, in.warn());
    deps_log log(fresh, ".ninja_deps");
    CHECK(log.load(in.warn())); // whatever it finds, it does not fall over it
  }
}

// ---- graphs

TEST_CASE("a chain as long as a graph takes no stack") {
  static constexpr int length = 50'000;
  std::string manifest = "rule touch\n  command = true\nbuild n0: touch source\n";
  for (int i = 1; i < length; ++i)
    manifest += "build n" + std::to_string(i) + ": " + (i % 2 != 0 ? "phony" : "touch") + " n" +
                std::to_string(i - 1) + "\n";
  SECTION("with an end") {
    tree in(manifest);
    write("source", "");
    build_log log(in.files, ".ninja_log");
    deps_log deps(in.files, ".ninja_deps");
    build_options options;
    options.dry_run = true;
    builder maker(in.files, log, deps, options, {});
    maker.add(in.at("n" + std::to_string(length - 1)));
    CHECK_FALSE(maker.up_to_date());
    terminal screen;
    status shown(screen, verbosity::quiet);
    dry_executor none;
    CHECK(maker.run(none, shown).complete);
    CHECK(maker.up_to_date());
  }
  SECTION("in a circle") {
    tree in(manifest + "build source: touch n" + std::to_string(length - 1) + "\n");
    build_log log(in.files, ".ninja_log");
    deps_log deps(in.files, ".ninja_deps");
    build_options options;
    builder maker(in.files, log, deps, options, {});
    CHECK_THROWS_WITH(maker.add(in.at("n0")),
                      Catch::StartsWith("dependency cycle: n0 -> source -> n49999 -> "));
  }
}

TEST_CASE("of what is ready the longest chain comes first, by what it took last time") {
  tree in("rule r\n  command = true\n"
          "build short: r\nbuild long1: r\nbuild long2: r long1\nbuild slow: r\nbuild all: phony short long2 "
          "slow\n");
  write(".ninja_log",
        "# ninja log v5\n0\t10\t1\tshort\t1\n0\t40\t1\tlong1\t1\n0\t40\t1\tlong2\t1\n0\t60\t1\tslow\t1\n");
  build_log log(in.files, ".ninja_log");
  log.load(in.warn());
  deps_log deps(in.files, ".ninja_deps");
  build_options options;
  options.dry_run = true;
  std::vector<std::string> order;
  options.on_finished = [&](const finished_job& done) { order.emplace_back(done.what->outputs[0]->path()); };
  builder maker(in.files, log, deps, options, {});
  maker.add(in.at("all"));
  terminal screen;
  status shown(screen, verbosity::quiet);
  struct one_at_a_time final : executor {
    bool can_start(bool) override { return !busy; }
    void start(job what) override {
      busy = true;
      last = what.what;
    }
    event wait_any(finished_job& one) override {
      busy = false;
      one = {};
      one.what = last;
      return event::finished;
    }
    std::vector<edge*> stop() override { return {}; }
    bool busy = false;
    edge* last = nullptr;
  } alone;
  CHECK(maker.run(alone, shown).complete);
  CHECK(order == std::vector<std::string>{"long1", "slow", "long2", "short"});
}

TEST_CASE("a status in the user's form") {
  terminal screen;
  auto refused = [&](const char* format) {
    ::setenv("NINJA_STATUS", format, 1);
    status made(screen, verbosity::quiet);
  };
  CHECK_NOTHROW(refused("[%f/%t %s %r %u %p %o %c %e %%] "));
  CHECK_THROWS_WITH(refused("%z"), "unknown placeholder '%z' in $NINJA_STATUS");
  CHECK_THROWS_WITH(refused("100%"), Contains("unknown placeholder"));
  ::unsetenv("NINJA_STATUS");
}

TEST_CASE("a line is shortened in its middle, and loses its colours elsewhere than on a terminal") {
  CHECK(shortened("abcdefghij", 10) == "abcdefghij");
  CHECK(shortened("abcdefghij", 7) == "ab...ij");
  CHECK(shortened("abcdefghij", 3) == "...");
  CHECK(shortened("abcdefghij", 2) == "..");
  CHECK(without_escapes("a\x1B[31mred\x1B[0m b\n") == "ared b\n");
  CHECK(without_escapes("cut \x1B[3") == "cut ");
}
