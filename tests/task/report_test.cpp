#include <migrate/task.hpp>

#include "../support/cluster.hpp"
#include "../support/program.hpp"

#include <csignal>
#include <stdexcept>
#include <string>

#include <migrate/nodes.hpp>

using namespace migrate;
using namespace std::chrono_literals;

namespace {

const migrate_test::no_cluster_of_its_own here;

const migrate_test::scenario_entry unheard{"unheard", [] {
  migrate_test::run([] {
    spawn({.name = "near"}, [] { throw std::runtime_error("nobody hears this"); }).detach();
    spawn({.name = "far", .on = nodes().back()}, [] { throw std::runtime_error("nor that"); }).detach();
    this_task::sleep_for(300ms);
  });
  return 0;
}};

const migrate_test::scenario_entry wild{"wild", [] {
  spawn({.name = "wild"}, [] {
    volatile int* nothing = nullptr;
    return *nothing;
  }).join();
  return 0;
}};

struct ended {
  int status;
  std::string text;
};

ended play(const std::string& scenario, const std::string& nodes) {
  migrate_test::program shell({"/bin/sh", "-c", "exec '" + migrate_test::own_path() + "' 2>&1"},
                              {{"MIGRATE_SCENARIO", scenario}, {"MIGRATE_NODES", nodes}});
  int status = shell.wait(30s);
  return {status, shell.rest()};
}

} // namespace

TEST_CASE("an exception of a detached task is reported at its home, wherever the task ended") {
  ended seen = play("unheard", "2");
  CHECK(seen.status == 0);
  CHECK_THAT(seen.text, Catch::Contains("task 1.2 (near) ended by an exception: nobody hears this"));
  CHECK_THAT(seen.text, Catch::Contains("ended by an exception: nor that"));
}

TEST_CASE("a wild pointer ends the node, which names the task that used it") {
  ended seen = play("wild", "1");
  CHECK(seen.status == 128 + SIGSEGV);
  CHECK_THAT(seen.text, Catch::Contains("task 1.1 (wild) touched (nil)") && Catch::Contains("ends the node"));
}
