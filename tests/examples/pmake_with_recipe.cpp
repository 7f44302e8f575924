// A pmake with functions of its own, for the test of those.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <migrate/nodes.hpp>
#include <migrate/task.hpp>

#include "recipe.hpp"

namespace {

const pmake::recipe rove("rove", [](pmake::recipe_call& call) {
  // Works on each node in turn, and takes along what it has.
  std::vector<long> seen;
  bool away = migrate::this_task::node() != migrate::this_task::home();
  for (int round = 0; round < 3; ++round)
    for (migrate::node_id next : migrate::nodes()) {
      migrate::this_task::migrate_to(next);
      seen.push_back(static_cast<long>(seen.size()) * 3);
    }
  long sum = 0;
  for (long each : seen) sum += each;
  std::ofstream(call.path(call.arguments.at(0))) << call.arguments.at(1) << "\n";
  call.print(std::string(away ? "away, " : "at home, ") +
             (migrate::this_task::moves() > 1 ? "roved" : "stayed") +
             (sum == static_cast<long>(seen.size() * (seen.size() - 1) / 2) * 3 ? "\n" : ", forgot\n"));
  return 0;
});

const pmake::recipe lasting("lasting", [](pmake::recipe_call& call) {
  // Works until the file `finish` is there, and writes down where.
  std::ofstream(call.path("began"), std::ios::app) << call.arguments.at(0) << std::endl;
  std::vector<migrate::node_id> seen;
  while (!std::filesystem::exists(call.path("finish"))) {
    if (seen.empty() || seen.back() != migrate::this_task::node()) {
      seen.push_back(migrate::this_task::node());
      std::ofstream(call.path("nodes"), std::ios::app) << migrate::number(seen.back()) << std::endl;
    }
    migrate::this_task::sleep_for(std::chrono::milliseconds(10));
  }
  std::ofstream(call.path(call.arguments.at(0))) << seen.size() << std::endl;
  return 0;
});

const pmake::recipe fail("fail", [](pmake::recipe_call& call) {
  if (call.arguments.size() > 1) throw std::runtime_error("thrown");
  return 7;
});

} // namespace

int main(int argc, char** argv) { return pmake::run(argc, argv); }
