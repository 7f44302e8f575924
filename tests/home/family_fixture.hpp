// What the tests of families have in common.
#pragma once

#include "../support/cluster.hpp"
#include "../support/random.hpp"

#include <string>
#include <system_error>
#include <vector>

#include <migrate/nodes.hpp>
#include <migrate/task.hpp>

namespace migrate_test {

using namespace migrate;

// What went wrong, told by the task in which it did. Tasks share no memory with the test.
struct notes {
  std::vector<std::string> wrong;
  void expect(bool holds, const std::string& what) {
    if (!holds) wrong.push_back(what);
  }
  template <class A, class B> void equal(const A& got, const B& wanted, const std::string& what) {
    if (!(got == wanted)) wrong.push_back(what + ": " + std::to_string(got) + ", not " + std::to_string(wanted));
  }
};

inline node_id node_number(std::size_t which) {
  std::vector<node_id> all = nodes();
  return all.at(which % all.size());
}

template <class Body> void at_home_and_away(Body body) {
  // body(notes&, go): go(i) moves the task away, to another place for each i, or nowhere.
  for (bool away : {false, true}) {
    INFO((away ? "away" : "at home"));
    std::vector<std::string> wrong = migrate_test::run([away, body] {
      notes log;
      std::size_t step = 0;
      auto go = [away, step]() mutable {
        if (away) this_task::migrate_to(node_number(++step));
      };
      go();
      body(log, go);
      return log.wrong;
    });
    CHECK(wrong == std::vector<std::string>{});
  }
}

inline void wander(random_choices& random, std::size_t steps) {
  for (std::size_t i = 0; i < steps; ++i) {
    std::error_code refused;
    this_task::migrate_to(random.node(), refused);
  }
}

} // namespace migrate_test
