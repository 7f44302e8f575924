#include <migrate/program.hpp>

#include "../support/cluster.hpp"
#include "../support/folder.hpp"

#include <cstdio>
#include <string>
#include <vector>

#include <migrate/nodes.hpp>

using namespace migrate;
using migrate_test::folder;
using migrate_test::run;

namespace {
using text = std::string;
} // namespace

TEST_CASE("a program's end is told as wait(2) tells it") {
  auto seen = run([] {
    std::vector<int> found;
    for (node_id node : nodes()) {
      this_task::migrate_to(node);
      found.push_back(run_program({"true"}).status);
      found.push_back(run_program({"false"}).exit_code());
      found.push_back(run_program({"sh", "-c", "exit 42"}).exit_code());
      found.push_back(run_program({"sh", "-c", "kill -TERM $$"}).signal());
    }
    return found;
  });
  CHECK(seen == std::vector<int>{0, 1, 42, SIGTERM, 0, 1, 42, SIGTERM, 0, 1, 42, SIGTERM});
}
