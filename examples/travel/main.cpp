// The program of the README: a task that visits every node.
#include <migrate/migrate.hpp>
#include <cstdio>

int main(int argc, char** argv) {
  return migrate::run(argc, argv, [] {
    auto traveller = migrate::spawn([] {
      std::vector<int> seen;
      for (migrate::node_id next : migrate::nodes()) {
        migrate::this_task::migrate_to(next); // stack, heap and `seen` come along
        seen.push_back(migrate::number(migrate::this_task::node()));
      }
      return seen;
    });
    for (int node : traveller.join()) std::printf("was on node %d\n", node);
  });
}
