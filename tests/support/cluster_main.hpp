// main() of a test program that needs nodes: see support/cluster.hpp. Only one source file of a program
// includes this.
#pragma once

#define CATCH_CONFIG_RUNNER
#define CATCH_CONFIG_NO_POSIX_SIGNALS // a fault of a task is the node's to handle
#include "cluster.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <utility>

#include <migrate/node.hpp>

namespace migrate_test {

inline migrate::node* the_cluster = nullptr;

inline migrate::node& cluster() { return *the_cluster; }

migrate::move_statistics statistics() { return cluster().statistics(); }
std::vector<int> other_processes() { return cluster().started_processes(); }
std::string cluster_address() { return cluster().address(); }
std::string cluster_store() { return cluster().store_path(); }

migrate::eviction_report evict(migrate::node_id which, const std::string& reason, std::chrono::milliseconds within) {
  return cluster().evict(which, reason, within);
}
void stay(migrate::node_id which) { cluster().stay(which); }
void on_event(std::function<void(const migrate::cluster_event&)> tell) { cluster().on_event(std::move(tell)); }
std::vector<migrate::node_status> status(std::chrono::milliseconds within) { return cluster().status(within); }
int serve() {
  cluster().serve();
  return 0;
}

inline int run_on_node(int argc, char** argv) {
  const char* wanted = std::getenv("MIGRATE_SCENARIO");
  if (wanted == nullptr && scenarios_only()) return Catch::Session().run(argc, argv);
  ::setenv("MIGRATE_NODES", "3", 0);
  migrate::node_options options = migrate::node_options::from(argc, argv);
  bool helper = options.helper;
  migrate::node here(std::move(options));
  if (!here.first() && (helper || wanted == nullptr)) {
    here.serve();
    return 0;
  }
  the_cluster = &here;
  if (wanted == nullptr) return Catch::Session().run(argc, argv);
  for (const scenario& each : scenarios())
    if (std::strcmp(each.name, wanted) == 0) return each.run();
  std::fprintf(stderr, "there is no scenario '%s'\n", wanted);
  return 2;
}

} // namespace migrate_test

int main(int argc, char** argv) {
  try {
    return migrate_test::run_on_node(argc, argv);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "migrate: %s\n", problem.what());
    return 1;
  }
}
