#include <migrate/program.hpp>

#include "program_fixture.hpp"

#include <migrate/posix/unistd_files.hpp>
#include <migrate/streams.hpp>

namespace {

const migrate_test::no_cluster_of_its_own scenarios_are_all;

const migrate_test::scenario_entry in_order{"in order", [] {
  run([] {
    program_options how;
    how.error = redirection::with_output();
    for (node_id node : nodes()) {
      this_task::migrate_to(node);
      print("before\n");
      run_program({"sh", "-c", "echo one; echo two >&2; echo three"}, how);
      print("between ");
      run_program({"printf", "four"}, how);
      run_program({"printf", "\n"}, how);
      print("after\n");
    }
  });
  return 0;
}};

const migrate_test::scenario_entry whole_lines{"whole lines", [] {
  run([] {
    std::vector<task<>> all;
    for (node_id node : nodes())
      all.push_back(spawn(spawn_options{.on = node}, [] {
        // In pieces that end within lines.
        run_program({"sh", "-c", "i=0; while [ $i -lt 200 ]; do printf 'line of '; printf 'program %d\\n' $i; i=$((i+1)); done"});
      }));
    for (task<>& each : all) each.join();
  });
  return 0;
}};

const migrate_test::scenario_entry copied_input{"input", [] {
  run([] {
    this_task::migrate_to(nodes().back());
    program_options how;
    how.input = redirection::inherited();
    run_program({"sh", "-c", "read a; read b; echo \"$a and $b\""}, how);
    char next[6];
    print("then %.*s", static_cast<int>(migrate::posix::read(0, next, sizeof next)), next);
    how.output = redirection::capture();
    print("%s", run_program({"cat"}, how).output.c_str());
  });
  return 0;
}};

std::size_t most_resident() {
  // Of this node, in KiB.
  text status = contents("/proc/self/status");
  return std::stoul(status.substr(status.find("VmHWM:") + 6));
}

const migrate_test::scenario_entry much{"much", [] {
  bool bounded = run([] {
    task<std::size_t> growth = spawn(spawn_options{.on = nodes().back()}, [] {
      run_program({"true"});
      std::size_t before = most_resident();
      run_program({"sh", "-c", "yes complaint | head -c 100000000 >&2"});
      return most_resident() - before;
    });
    std::size_t before = most_resident();
    std::size_t most = growth.join();
    return std::max(most, most_resident() - before) < 24 * 1024;
  });
  std::printf("%s\n", bounded ? "bounded" : "too much");
  return 0;
}};

migrate_test::environment with(const char* scenario) {
  return {{"MIGRATE_SCENARIO", scenario}, {"MIGRATE_NODES", "3"}, {"MIGRATE_QUIET", "1"}};
}

} // namespace

TEST_CASE("what programs print appears at home, in order with what their task prints") {
  migrate_test::program other({migrate_test::own_path()}, with("in order"));
  REQUIRE(other.wait(60s) == 0);
  text once = "before\none\ntwo\nthree\nbetween four\nafter\n";
  CHECK(other.rest() == once + once + once);
}

TEST_CASE("lines of programs on several nodes stay whole") {
  migrate_test::program other({migrate_test::own_path()}, with("whole lines"));
  REQUIRE(other.wait(60s) == 0);
  std::vector<int> counts(200);
  for (int i = 0; i < 600; ++i) {
    text line = other.line();
    REQUIRE(line.substr(0, 16) == "line of program ");
    ++counts[std::stoul(line.substr(16))];
  }
  CHECK(counts == std::vector<int>(200, 3));
  CHECK(other.rest() == "");
}

TEST_CASE("what is typed at home reaches a program, and what it leaves its task") {
  migrate_test::program other({migrate_test::own_path()}, with("input"));
  for (const char* each : {"first", "second", "third", "fourth", "fifth"}) other.say(each);
  CHECK(other.line() == "first and second");
  CHECK(other.line() == "then third");
  other.close_input();
  CHECK(other.line() == "fourth");
  CHECK(other.line() == "fifth");
  CHECK(other.wait(60s) == 0);
}

TEST_CASE("a hundred million bytes of complaints to a reader that takes its time need little memory") {
  text command = "{ '" + migrate_test::own_path() + "' 2>&1 >&3 3>&- | { sleep 0.5; wc -c; }; } 3>&1";
  migrate_test::program other({"/bin/sh", "-c", command}, with("much"));
  REQUIRE(other.wait(100s) == 0);
  CHECK(other.line() == "bounded");
  CHECK(other.line() == "100000000");
}
