// pmake as the parent of GNU make.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <sched.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "make/leaves_home.hpp"
#include "make/make_arguments.hpp"
#include "make/shell_of_makefile.hpp"
#include "shell/plain_line.hpp"

#include "../support/folder.hpp"
#include "../support/program.hpp"

namespace fs = std::filesystem;
using namespace pmake;
using Catch::Contains;
using namespace std::chrono_literals;

namespace {

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct make_tree {
  explicit make_tree(const std::string& makefile) { write("Makefile", makefile); }

  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((folder.path / name).parent_path());
    std::ofstream(folder.path / name, std::ios::binary) << text;
  }
  std::vector<std::string> command(const std::string& arguments, const std::string& before = "") const {
    return {"/bin/sh", "-c", "cd '" + folder.path.string() + "' && exec " + before + arguments + " 2>&1"};
  }
  struct ended {
    int status;
    std::string out;
  };
  ended run(const std::string& arguments = "", const std::string& before = "") const {
    migrate_test::program running(command("'" MIGRATE_EXAMPLES_DIR "/pmake' make " + arguments, before),
                                  {{"MAKEFLAGS", ""}, {"PATH", "/usr/local/bin:/usr/bin:/bin"}});
    int status = running.wait(60s);
    return {status, running.rest()};
  }

  migrate_test::folder folder;
};

using words = std::vector<std::string>;

} // namespace

TEST_CASE("make gets its arguments without -j") {
  auto rest = [](const words& given) { return split_make_arguments(given).rest; };
  auto jobs = [](const words& given) { return split_make_arguments(given).jobs; };
  CHECK(rest({"-j8", "all", "-k"}) == words{"all", "-k"});
  CHECK(jobs({"-j8"}) == 8u);
  CHECK(jobs({"-j", "4", "all"}) == 4u);
  CHECK(rest({"-j", "all"}) == words{"all"});
  CHECK(jobs({"-j", "all"}) == 0u);
  CHECK(jobs({"all"}) == std::nullopt);
  CHECK(rest({"-kj3", "x"}) == words{"-k", "x"});
  CHECK(jobs({"-kj3"}) == 3u);
  // What make complains about is left to it.
  CHECK(rest({"-j0", "-kj3s", "-jx", "-j-1", "-j", "0", "--jobs", "0", "--jobs=", "--jobs=-1"}) ==
        words{"-j0", "-kj3s", "-jx", "-j-1", "-j0", "--jobs=0", "--jobs=", "--jobs=-1"});
  CHECK(rest({"-f", "-", "-j2", "-kf", "-"}) == words{"-f", "-", "-kf", "-"});
  CHECK(rest({"--jobs=5", "--jobs", "x", "--jobs", "7"}) == words{"x"});
  CHECK(rest({"-C", "-j8", "-fj4", "-I", "j"}) == words{"-C", "-j8", "-fj4", "-I", "j"});
  CHECK(rest({"-kC", "dir", "-l", "--", "-j2"}) == words{"-kC", "dir", "-l", "--", "-j2"});
  CHECK(make_flags("", "-j2 --auth") == " -j2 --auth");
  CHECK(make_flags("ks -j4 --jobserver-auth=3,4 -- A=b", "-j2 --auth") == "ks -j2 --auth -- A=b");
}

TEST_CASE("the shell that a makefile asks for") {
  make_tree tree("all:\n\tSHELL=/bin/false true\n");
  auto shell = [&](const std::string& makefile) {
    tree.write("Makefile", makefile);
    return shell_in_makefile(tree.folder.path / "Makefile");
  };
  CHECK(shell("all:\n\tSHELL=/bin/false true\n") == "/bin/sh");
  CHECK(shell("SHELL = /bin/bash\n") == "/bin/bash");
  CHECK(shell("export SHELL:=/bin/bash # for arrays\n") == "/bin/bash");
  CHECK(shell("override SHELL ?= \\\n  /bin/bash\t-e\n") == "/bin/bash -e");
  CHECK(shell("SHELL := /usr/bin/env bash\n") == "/usr/bin/env bash");
  CHECK(shell("SHELL := bash -euo pipefail # strict\n") == "bash -euo pipefail");
  CHECK(shell("B = /bin/bash\nSHELL = $(B)\n") == "/bin/bash");
  CHECK(shell("SHELL = $(shell which bash)\n") == "bash");
  CHECK(shell("SHELL = /no/such/cmd.exe\n") == "/bin/sh");
  CHECK(shell("# SHELL = /bin/bash\nMYSHELL = /bin/bash\n") == "/bin/sh");
  tree.write("sub/config.mk", "SHELL = /bin/bash\n");
  CHECK(shell("D = sub\n-include $(D)/config.mk\n") == "/bin/bash");
  CHECK(shell("include Makefile\n") == "/bin/sh");
  tree.write("other", "");
  CHECK(makefiles_of({"make", "-f", "a", "-fb", "--file=/c"}, "/d") == words{"/d/a", "/d/b", "/c"});
  CHECK(makefiles_of({"make"}, tree.folder.path) == words{tree.folder.path / "Makefile"});
}

TEST_CASE("compilers that only compile may leave, and nothing else that is not told to") {
  leaving_rules rules;
  for (const char* line :
       {"gcc -O2 -c a.c -o a.o", "/usr/bin/x86_64-linux-gnu-gcc-12 -c a.c", "ccache g++ -c x.cc",
        "clang-14 -S a.c", "cd sub && cc -c a.c", "echo CC a.o; gcc -DX='a b' -c a.c && mv -f .a.Tpo .a.Po",
        "if gcc -c a.c; then mv a.Tpo a.Po; else rm -f a.Tpo; exit 1; fi", "CPATH=x gcc -c a.c 2>&1 >log",
        "depbase=`echo a.o | sed 's|x|y|'`; gcc -c -o a.o `test -f 'a.c' || echo './'`a.c",
        "env A=b nice -n5 gcc -c a.c", "libtool --tag=CC --mode=compile gcc -c a.c"}) {
    CAPTURE(line);
    CHECK(rules.may_leave(line));
  }
  for (const char* line : {"gcc -o prog a.o b.o", "ar rcs lib.a a.o", "make -C sub", "./generate > x.c",
                           "gcc -E a.c", "echo hello", "", "for i in a b; do gcc -c $i.c; done",
                           "gcc -c a.c && ./run", "gcc -c `./which-file`", "cat <<E | gcc -c -",
                           "gcc -c 'unfinished", "install -c a b", "sh -c 'gcc -c a.c'"}) {
    CAPTURE(line);
    CHECK_FALSE(rules.may_leave(line));
  }
  rules.let_leave("convert");
  rules.keep("clang*");
  CHECK(rules.may_leave("convert a.png b.jpg"));
  CHECK_FALSE(rules.may_leave("clang -c a.c"));
  CHECK(rules.may_leave("gcc -c a.c"));
}

TEST_CASE("a line of plain words is started without a shell, as make does") {
  auto split = [](std::string line, std::size_t most = 10) {
    std::vector<char*> at(most);
    words found;
    if (split_plain_line(line.data(), at.data(), most))
      for (char** each = at.data(); *each != nullptr; ++each) found.emplace_back(*each);
    return found;
  };
  CHECK(split("cc -c a.c") == words{"cc", "-c", "a.c"});
  CHECK(split(" \tcc\t-DA=1  a.c ") == words{"cc", "-DA=1", "a.c"});
  CHECK(split("true") == words{"true"});
  for (const char* each : {"", " ", "cd sub", ": x", "A=1 cc", "cc a.c >x", "cc 'a b'", "cc \"a\"", "cc $x",
                           "cc *.c", "a\nb", "a; b", "a\\ b", "exit 3", "test x", "cc ~/a.c", "cc a.c #"}) {
    INFO(each);
    CHECK(split(each).empty());
  }
  CHECK(split("a b c", 4) == words{"a", "b", "c"});
  CHECK(split("a b c d", 4).empty());

  // A shell would lose a variable whose name it does not take. What is not there is said as make says it.
  make_tree tree("export not.a.name = kept\nall: script\n\t@printenv not.a.name\n\t@./script one "
                 "two\n\t@no-such-program x\n"
                 "script:\n\t@printf 'echo script $$1 $$2\\n' >script\n\t@chmod +x script\n");
  auto done = tree.run();
  CHECK(done.status != 0);
  CHECK_THAT(done.out, Contains("kept\nscript one two\n"));
  CHECK_THAT(done.out,
             Contains("make: no-such-program: No such file or directory\n") && Contains("Error 127"));
  for (const char* each : {"./script", "chdir /", "local x", "done"}) { // which a shell would end otherwise
    INFO(each);
    make_tree other("all:\n\t@" + std::string(each) + "\n");
    other.write("script", "not executable");
    CHECK_THAT(other.run().out, Contains("all] Error 127"));
  }
  // Within a recipe it is a shell.
  make_tree inside("all:\n\t@x=; $(SHELL) -c 'chdir /' && seq 9000 | xargs $(SHELL) -c 'echo $$# of them'\n");
  CHECK_THAT(inside.run().out, Contains("8999 of them\n"));
  make_tree outer("all:\n\t@$(MAKE) --no-print-directory inner\ninner:\n\t@no-such-program x\n");
  CHECK_THAT(outer.run().out, Contains("make[1]: no-such-program: No such file or directory\n"));
}

TEST_CASE("make runs as it would alone") {
  make_tree tree("SHELL = /bin/bash\nX := $(shell echo from a shell)\n"
                 ".PHONY: sub\nall: array sub nested\narray:\n\t@a=(1 2 3); echo $${a[2]} '$(X)' \"$$0\"\n"
                 "sub:\n\t@$(MAKE) --no-print-directory -C sub\nnested:\n\t@$(SHELL) -c 'echo nested'\n"
                 "fail:\n\texit 7\n");
  tree.write("sub/Makefile", "all: one two\none two:\n\t@echo $@ in sub\n");
  auto ended = tree.run("-j4");
  CAPTURE(ended.out);
  CHECK(ended.status == 0);
  CHECK_THAT(ended.out, Contains("3 from a shell /bin/bash\n") && Contains("one in sub\n") &&
                            Contains("two in sub\n") && Contains("nested\n") && !Contains("warning"));
  ended = tree.run("fail");
  CHECK(ended.status == 2);
  CHECK_THAT(ended.out, Contains("fail] Error 7"));
  ended = tree.run("-f nothing");
  CHECK(ended.status == 2);
  CHECK_THAT(ended.out, Contains("nothing: No such file or directory"));
}

TEST_CASE("the shell of a makefile has options, or is started by another program") {
  for (const char* shell : {"/usr/bin/env bash", "/bin/bash --norc"}) {
    make_tree tree("SHELL := " + std::string(shell) +
                   "\nall:\n\t@a=(1 2 3); echo $${a[2]} nested $$($(SHELL) -c 'b=(4 5); echo $${b[1]}')\n");
    CHECK(tree.run().out == "3 nested 5\n");
  }
  make_tree tree("SHELL = /bin/bash -e\nall:\n\t@false; echo after\n");
  auto ended = tree.run();
  CHECK(ended.status == 2);
  CHECK_THAT(ended.out, Contains("Error 1") && !Contains("after"));
}

TEST_CASE("a make that is started by its name has the shell of its own makefile") {
  make_tree tree("all:\n\t@make --no-print-directory -f inner\n");
  tree.write(
      "inner",
      "SHELL = /bin/bash\nall:\n\t@a=(1 2 3); echo $${a[2]} $$($(SHELL) -c 'b=(4 5); echo $${b[1]}')\n");
  CHECK_THAT(tree.run("", "taskset -c 0 ").out, Contains("3 5\n"));
}

TEST_CASE("makes within makes do not wait for each other, even on one processor") {
  make_tree tree("all: a b\na b:\n\t@$(MAKE) --no-print-directory -C sub $@\n");
  tree.write("sub/Makefile", "a b:\n\t@$(MAKE) --no-print-directory -C sub $@\n");
  tree.write("sub/sub/Makefile", "a b:\n\t@echo made $@\n");
  auto ended = tree.run("", "taskset -c 0 ");
  CAPTURE(ended.out);
  CHECK(ended.status == 0);
  CHECK_THAT(ended.out, Contains("made a\n") && Contains("made b\n"));
}

TEST_CASE("all lines of a recipe are one script when the makefile says so") {
  make_tree tree(".ONESHELL:\nall:\n\t@x=2\n\t@echo $$x\n");
  CHECK(tree.run().out == "2\n");
}

TEST_CASE("make runs no more at a time than the machine has processors, and as many as that") {
  std::string makefile = "all:", rules;
  for (int i = 0; i < 24; ++i) makefile += " o" + std::to_string(i);
  make_tree tree(makefile + "\no%:\n\t@echo + >>log; sleep 0.05; echo - >>log\n");
  CHECK(tree.run("-j100").status == 0);
  cpu_set_t allowed;
  REQUIRE(::sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  int now = 0, most = 0;
  for (char c : text_of(tree.folder.path / "log")) {
    if (c == '+') most = std::max(most, ++now);
    if (c == '-') --now;
  }
  CHECK(most == CPU_COUNT(&allowed));
}

TEST_CASE("a make that is told to stop takes its commands along") {
  make_tree tree("all:\n\techo $$$$ >id; echo part >all; exec sleep 1000\n");
  int which = GENERATE(SIGINT, SIGTERM);
  fs::remove(tree.folder.path / "id");
  migrate_test::program running(tree.command("'" MIGRATE_EXAMPLES_DIR "/pmake' make"), {{"MAKEFLAGS", ""}});
  auto deadline = std::chrono::steady_clock::now() + 30s;
  while (text_of(tree.folder.path / "id").empty()) {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    ::usleep(2000);
  }
  ::kill(running.id(), which);
  int status = running.wait(20s);
  CHECK((status == 2 || status == 128 + which));
  pid_t id = 0;
  std::ifstream(tree.folder.path / "id") >> id;
  std::string stat = text_of("/proc/" + std::to_string(id) + "/stat");
  bool gone = stat.empty() || stat[stat.rfind(") ") + 2] == 'Z';
  CHECK(gone);
  CHECK_FALSE(fs::exists(tree.folder.path / "all"));
}

TEST_CASE("a make that Ctrl-C ends tells the shell that started it") {
  make_tree tree("all:\n\ttouch began; exec sleep 1000\n");
  // A shell goes on with its script unless what it waited for was ended by the signal itself. Make alone ends with status 2
  // now and then, when it sees the end of its command first.
  bool told = false;
  for (int i = 0; i < 20 && !told; ++i) {
    for (const char* each : {"began", "after"}) fs::remove(tree.folder.path / each);
    migrate_test::program script(
        {"/bin/bash", "-c",
         "cd '" + tree.folder.path.string() + "' && '" MIGRATE_EXAMPLES_DIR "/pmake' make 2>&1; touch after"},
        {{"MAKEFLAGS", ""}});
    auto deadline = std::chrono::steady_clock::now() + 30s;
    while (!fs::exists(tree.folder.path / "began")) {
      REQUIRE(std::chrono::steady_clock::now() < deadline);
      ::usleep(2000);
    }
    ::kill(-script.id(), SIGINT);
    told = script.wait(20s) == 128 + SIGINT && !fs::exists(tree.folder.path / "after");
  }
  CHECK(told);
}

TEST_CASE("a trace has the last line of a make, too, which ends at the same time") {
  make_tree tree("all:\n\t@echo $$PPID >id; while test ! -e go; do sleep 0.01; done\n");
  migrate_test::program running(tree.command("'" MIGRATE_EXAMPLES_DIR "/pmake' --trace trace.json make"),
                                {{"MAKEFLAGS", ""}});
  auto until = [deadline = std::chrono::steady_clock::now() + 30s](auto&& holds) {
    while (!holds()) {
      REQUIRE(std::chrono::steady_clock::now() < deadline);
      ::usleep(2000);
    }
  };
  std::string id;
  until([&] { return (id = text_of(tree.folder.path / "id")).find('\n') != id.npos; });
  id.pop_back();
  ::kill(running.id(), SIGSTOP); // pmake sees both ends at once
  tree.write("go", "");
  until([&] { return text_of("/proc/" + id + "/stat").find(") Z ") != std::string::npos; });
  ::kill(running.id(), SIGCONT);
  CHECK(running.wait(20s) == 0);
  CHECK_THAT(text_of(tree.folder.path / "trace.json"), Contains("\"ph\":\"X\""));
}
