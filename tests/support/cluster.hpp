// What a test program that needs nodes has of them. Its main() is in cluster_main.cpp, which is compiled once for
// all: list the test with CLUSTER in tests/CMakeLists.txt.
#pragma once

#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <migrate/cluster/cluster_event.hpp>
#include <migrate/cluster/eviction_report.hpp>
#include <migrate/task.hpp>
#include <migrate/transfer/statistics.hpp>

#include <catch2/catch.hpp>

namespace migrate {
struct node_status; // cluster/status.hpp
}

namespace migrate_test {

template <class F, class... A> auto run(F&& function, A&&... arguments) {
  return migrate::spawn(migrate::spawn_options{.name = "main"}, std::forward<F>(function), std::forward<A>(arguments)...)
      .join();
}
// As a task on the first node of a cluster of three, or of as many as MIGRATE_NODES says. Tasks share no
// memory with the test: they return what they saw, and the test checks it on the thread that runs it.

template <class Task> void move_there(Task& which, migrate::node_id where) {
  for (std::error_code failed;; migrate::this_task::yield()) {
    which.migrate_to(where, failed);
    if (failed == migrate::errc::move_in_progress) continue;
    if (failed) throw std::system_error(failed);
    return;
  }
}
// Moves another task, when no move of torture's has it on its way already.

migrate::move_statistics statistics();
// Of all nodes. Not from a task.

std::vector<int> other_processes();
// Of the nodes that the first one started and that still run.

std::string cluster_address();
std::string cluster_store();
// Of the first node. Not from a task.

migrate::eviction_report evict(migrate::node_id which, const std::string& reason, std::chrono::milliseconds within);
void stay(migrate::node_id which);
void on_event(std::function<void(const migrate::cluster_event&)> tell);
// Of the first node, or of the one that joined by address. Not from a task.

std::vector<migrate::node_status> status(std::chrono::milliseconds within);
// Of all nodes, as the first one sees them.

int serve();
// Until the node is stopped or evicted; the exit status of a program that does nothing else.

struct scenario {
  const char* name;
  int (*run)(); // on the main thread of the first node, or of one that joined by address; the exit status
};
inline std::vector<scenario>& scenarios() {
  static std::vector<scenario> all;
  return all;
}
struct scenario_entry {
  scenario_entry(const char* name, int (*run)()) { scenarios().push_back({name, run}); }
};
// A scenario is a cluster of its own, in processes of their own: the test starts this program again with
// MIGRATE_SCENARIO set to its name (see support/program.hpp). Declare each as
// `const scenario_entry name{"name", [] { ... return 0; }};`.

inline bool& scenarios_only() {
  static bool only = false;
  return only;
}
struct no_cluster_of_its_own {
  no_cluster_of_its_own() { scenarios_only() = true; }
};
// Such an object at namespace scope: the program's tests run without a node, and start scenarios.

} // namespace migrate_test
