// Programs on a node that is to be vacated, or that dies.
#include <migrate/program/office.hpp>

#include "program_fixture.hpp"

#include <atomic>

#include <migrate/signal.hpp>

namespace {

std::atomic<int> movable{0}; // of this node: how many tasks were said to be

void suspend() {
  node_heap_scope scope;
  detail::this_programs->suspend_all("its owner is back");
}
void resume() {
  node_heap_scope scope;
  detail::this_programs->resume_all();
}
int give_up() {
  // How many cannot be.
  node_heap_scope scope;
  movable = 0;
  return static_cast<int>(detail::this_programs->give_up_all([](task_id) { ++movable; }).size());
}

char state_of(int process) {
  text status = contents("/proc/" + std::to_string(process) + "/stat");
  auto name = status.rfind(')');
  return name == text::npos ? 'X' : status[name + 2];
}

text restartable_run(text directory) {
  // It writes half of its output, and all of it when it finds `go`.
  program_options how;
  how.restartable = true;
  how.outputs = {directory + "/out"};
  how.output = redirection::capture();
  program_result got = run_program({"sh", "-c", "cd " + directory + "; echo half > out; echo $$ > ready.new; mv ready.new ready; "
                                                "[ -e go ] || exec sleep 1000; echo all >> out; echo done"}, how);
  return got.output + std::to_string(got.starts) + " on " + std::to_string(number(got.node));
}

} // namespace

TEST_CASE("a program on a node that is vacated stops, and goes on when the owner leaves") {
  folder where;
  text wrong = run(
      [](text directory) {
        node_id there = nodes().back();
        task<text> runner = spawn(spawn_options{.on = there}, restartable_run, directory);
        int process = std::stoi(when_there(directory + "/ready"));
        spawn(spawn_options{.on = there}, [] { suspend(); }).join();
        EXPECT(becomes_true([&] { return state_of(process) == 'T'; }));
        std::error_code code;
        text why;
        try {
          runner.migrate_to(this_task::home());
        } catch (const error& refused) {
          why = refused.what();
        }
        EXPECT(why.find("'sh' (process " + std::to_string(process) + "), stopped because its owner is back") != text::npos);
        // What begins meanwhile is held back, and can leave.
        task<int> held = spawn([there] {
          this_task::migrate_to(there);
          return static_cast<int>(number(run_program({"true"}).node));
        });
        EXPECT(becomes_true([&] { return held.where() == there; }));
        EXPECT(!held.wait_for(30ms));
        held.migrate_to(this_task::home());
        EXPECT_EQUAL(held.join(), 1);
        spawn(spawn_options{.on = there}, [] { resume(); }).join();
        EXPECT(becomes_true([&] { return state_of(process) == 'S'; }));
        send_signal(runner.id(), SIGKILL);
        EXPECT(becomes_true([&] { return is_gone(process); }));
        return text();
      },
      where.path.native());
  CHECK(wrong == "");
}

TEST_CASE("a restartable program is given up, its outputs removed, and run again elsewhere") {
  folder where;
  text wrong = run(
      [](text directory) {
        node_id there = nodes().back();
        task<text> runner = spawn(spawn_options{.on = there}, restartable_run, directory);
        task<int> other = spawn(spawn_options{.on = there}, [] { return run_program({"sleep", "1000"}).signal(); });
        int process = std::stoi(when_there(directory + "/ready"));
        EXPECT(becomes_true([&] {
          return spawn(spawn_options{.on = there}, [] {
            node_heap_scope scope;
            return detail::this_programs->running().size();
          }).join() == 2;
        }));
        std::filesystem::remove(directory + "/ready");
        EXPECT_EQUAL(spawn(spawn_options{.on = there}, [] {
          suspend();
          int stay = give_up();
          return becomes_true([] { return movable == 1; }) ? stay : -1;
        }).join(), 1);
        EXPECT(is_gone(process));
        EXPECT(!std::filesystem::exists(directory + "/out"));
        EXPECT(!std::filesystem::exists(directory + "/ready")); // it does not begin again here
        std::ofstream(directory + "/go") << "go\n";
        runner.migrate_to(this_task::home());
        EXPECT_EQUAL(runner.join(), "done\n2 on 1");
        EXPECT_EQUAL(contents(directory + "/out"), "half\nall\n");
        std::error_code code;
        other.migrate_to(this_task::home(), code);
        EXPECT(code == errc::not_movable);
        send_signal(other.id(), SIGKILL);
        spawn(spawn_options{.on = there}, [] { resume(); }).join();
        return text();
      },
      where.path.native());
  CHECK(wrong == "");
}

TEST_CASE("a restartable program that was given up runs again where it is when its node is not vacated after all") {
  folder where;
  text wrong = run(
      [](text directory) {
        node_id there = nodes().back();
        task<text> runner = spawn(spawn_options{.on = there}, restartable_run, directory);
        when_there(directory + "/ready");
        EXPECT(spawn(spawn_options{.on = there}, [] {
          suspend();
          give_up();
          return becomes_true([] { return movable == 1; });
        }).join());
        std::ofstream(directory + "/go") << "go\n";
        spawn(spawn_options{.on = there}, [] { resume(); }).join();
        EXPECT_EQUAL(runner.join(), "done\n2 on " + std::to_string(number(there)));
        return text();
      },
      where.path.native());
  CHECK(wrong == "");
}

namespace {

struct program_and_daemon {
  static words command(const text& directory) {
    return {"sh", "-c", "cd " + directory + "; echo half > out; (env -i setsid sh -c 'echo $$ > daemon; sleep 1000' &); "
                        "echo $$ > program; sleep 1000"};
  }
  explicit program_and_daemon(const text& directory)
      : program(std::stoi(when_there(directory + "/program"))), daemon(std::stoi(when_there(directory + "/daemon"))) {}
  bool both_gone() const { return is_gone(program) && is_gone(daemon); }
  int program, daemon;
};

const migrate_test::scenario_entry node_killed{"node killed", [] {
  text directory = std::getenv("DIRECTORY");
  text seen = run([directory] {
    task<text> runner = spawn(spawn_options{.on = nodes().back()}, [directory] {
      std::ofstream(directory + "/node") << ::getpid() << "\n";
      program_options how;
      how.outputs = {directory + "/out"};
      run_program(program_and_daemon::command(directory), how);
      return text("it ended");
    });
    try {
      return runner.join();
    } catch (const error& lost) {
      return text(lost.code() == errc::node_lost ? "node lost" : lost.what());
    }
  });
  std::printf("%s\n", seen.c_str());
  return 0;
}};

const migrate_test::scenario_entry all_killed{"all killed", [] {
  text directory = std::getenv("DIRECTORY");
  run([directory] { run_program(program_and_daemon::command(directory)); });
  return 0;
}};

const migrate_test::scenario_entry keeper_killed{"keeper killed", [] {
  text directory = std::getenv("DIRECTORY");
  run([directory] {
    program_result got = run_program(program_and_daemon::command(directory));
    std::printf("signal %d\n", got.signal());
    std::printf("again %d\n", run_program({"sh", "-c", "exit 3"}).exit_code());
  });
  return 0;
}};

migrate_test::environment with(const char* scenario, const folder& where) {
  return {{"MIGRATE_SCENARIO", scenario}, {"MIGRATE_NODES", "2"}, {"MIGRATE_QUIET", "1"}, {"DIRECTORY", where.path.native()}};
}

} // namespace

TEST_CASE("with a node that is killed go its programs, what stems from them, and their unfinished outputs") {
  folder where;
  migrate_test::program other({migrate_test::own_path()}, with("node killed", where));
  program_and_daemon both(where.path.native());
  ::kill(std::stoi(when_there(where.path / "node")), SIGKILL);
  CHECK(becomes_true([&] { return both.both_gone(); }));
  CHECK(becomes_true([&] { return !std::filesystem::exists(where.path / "out"); }));
  CHECK(other.line() == "node lost");
  CHECK(other.wait(60s) == 0);
}

TEST_CASE("with a cluster that is killed go its programs") {
  folder where;
  migrate_test::program other({migrate_test::own_path()}, with("all killed", where));
  program_and_daemon both(where.path.native());
  ::kill(-other.id(), SIGKILL); // its process group, in which no keeper is
  CHECK(becomes_true([&] { return both.both_gone(); }));
}

TEST_CASE("a keeper that is killed takes its programs along, and the next program has another") {
  folder where;
  migrate_test::program other({migrate_test::own_path()}, with("keeper killed", where));
  program_and_daemon both(where.path.native());
  pid_t keeper = detail::processes::parent_of(both.program);
  CHECK(contents("/proc/" + std::to_string(keeper) + "/comm") == "migrate-keeper\n");
  ::kill(keeper, SIGKILL);
  CHECK(other.line() == "signal 9");
  CHECK(other.line() == "again 3");
  CHECK(other.wait(60s) == 0);
  CHECK(becomes_true([&] { return both.both_gone(); }));
}
