#include <migrate/process.hpp>

#include "family_fixture.hpp"

#include <map>
#include <string>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>
#include <migrate/posix/wait.hpp>

using namespace migrate;
using migrate_test::new_seed;
using migrate_test::random_choices;
using migrate_test::wander;

namespace {

int wandering_child(random_choices random, int code) {
  wander(random, random.below(10));
  if (random.one_in(3)) this_task::exit(code);
  return code;
}

std::vector<std::string> wandering_parent(random_choices random, int rounds) {
  // Starts children, and collects each once by whatever form of wait, while it and they are moved about.
  std::vector<std::string> wrong;
  auto complain = [&](const std::string& what) { wrong.push_back("task " + to_string(this_task::id()) + ": " + what); };
  for (int round = 0; round < rounds && wrong.empty(); ++round) {
    std::map<task_id, int> expected;
    std::size_t count = 1 + random.below(6);
    for (std::size_t i = 0; i < count; ++i) {
      int code = static_cast<int>(random.below(256));
      task_id child = start_child(wandering_child, random.branch(), code);
      if (!expected.emplace(child, code).second) complain("two children have the id " + to_string(child));
      if (random.one_in(3)) wander(random, 1);
    }
    while (!expected.empty()) {
      if (random.one_in(4)) wander(random, 1);
      int status = 0;
      posix::pid_t got = 0;
      auto one = static_cast<posix::pid_t>(expected.begin()->first.bits());
      switch (random.below(4)) {
      case 0: got = posix::waitpid(one, &status, 0); break;
      case 1: got = posix::waitpid(0, &status, 0); break;
      case 2: got = posix::waitpid(-1, &status, WNOHANG); break;
      default: got = posix::wait(&status); break;
      }
      if (got == 0) continue;
      auto found = expected.find(task_id(static_cast<std::uint64_t>(got)));
      if (got < 0) {
        complain("errno " + std::to_string(errno) + " with " + std::to_string(expected.size()) + " children left");
        return wrong;
      }
      if (found == expected.end()) {
        complain("task " + to_string(task_id(static_cast<std::uint64_t>(got))) + " was reported twice, or is no child");
        return wrong;
      }
      if (!WIFEXITED(status) || WEXITSTATUS(status) != found->second)
        complain("status " + std::to_string(status) + ", not that of exit(" + std::to_string(found->second) + ")");
      expected.erase(found);
    }
    if (posix::wait(nullptr) != -1 || errno != ECHILD) complain("a child too many");
  }
  return wrong;
}

} // namespace

TEST_CASE("no exit is lost or reported twice while parents and children move") {
  std::uint64_t seed = new_seed("wait and exit");
  std::uint64_t before = migrate_test::statistics().moves;
  auto wrong = migrate_test::run([seed] {
    random_choices random(seed);
    std::vector<task<std::vector<std::string>>> parents;
    for (int i = 0; i < 4; ++i) parents.push_back(spawn(wandering_parent, random.branch(), 160));
    std::vector<std::string> all;
    for (auto& each : parents) {
      // Moved from outside, too: most of the time it is in a wait.
      while (!each.wait_for(std::chrono::microseconds(200))) {
        std::error_code refused;
        each.migrate_to(random.node(), refused);
      }
      for (const std::string& text : each.join()) all.push_back(text);
    }
    return all;
  });
  CHECK(wrong == std::vector<std::string>{});
  std::uint64_t moves = migrate_test::statistics().moves - before;
  std::fprintf(stderr, "wait and exit: %llu moves\n", static_cast<unsigned long long>(moves));
  CHECK(moves >= 5000);
}
