#include <migrate/task.hpp>

#include "../support/cluster.hpp"

#include <stdexcept>
#include <string>

#include <migrate/nodes.hpp>

using namespace migrate;

// This program does not include migrate/malloc.hpp, so exception objects lie in their node's memory.

TEST_CASE("a task that handles an exception outside its region is not moved and is told why") {
  auto [code, what, caught, after] = migrate_test::run([] {
    int refused = 0;
    std::string why, text;
    try {
      throw std::runtime_error("handled");
    } catch (const std::runtime_error& thrown) {
      try {
        this_task::migrate_to(nodes().back());
      } catch (const error& problem) {
        refused = problem.code().value();
        why = problem.what();
      }
      text = thrown.what();
    }
    this_task::migrate_to(nodes().back());
    return std::tuple(refused, why, text, number(this_task::node()));
  });
  CHECK(code == static_cast<int>(errc::not_movable));
  CHECK_THAT(what, Catch::Contains("migrate/malloc.hpp"));
  CHECK(caught == "handled");
  CHECK(after == 3);
}
