// Families when a node is killed: each task on it ends as by SIGKILL, for its parent and its children.
#include <migrate/posix/process.hpp>
#include <migrate/process.hpp>

#include "../support/cluster.hpp"
#include "../support/program.hpp"

#include <csignal>
#include <cstdio>
#include <string>

#include <unistd.h>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using namespace migrate;
using namespace std::chrono_literals;

namespace {

const migrate_test::no_cluster_of_its_own here;

struct answer_to_main {
  task_id task;
  int process; // of the operating system, where the task is
};

const migrate_test::scenario_entry node_killed{"node killed", [] {
  std::string text =
      migrate_test::run([] {
        task_id me = this_task::id();
        node_id away{2};
        task_id parent = start_child([me, away] {
          task_id child = start_child([me] {
            task_id before = this_task::parent();
            mailbox<bool>().receive();
            send(me, std::pair(before, this_task::parent()));
          });
          this_task::migrate_to(away);
          send(me, answer_to_main{child, ::getpid()});
          wait_child();
        });
        answer_to_main got = mailbox<answer_to_main>().receive();
        this_task::migrate_to(node_id{3}); // where a connection to the lost node does not matter
        ::kill(got.process, SIGKILL);
        child_status ended = wait_child(parent);
        send(got.task, true);
        auto [before, after] = mailbox<std::pair<task_id, task_id>>().receive();
        std::error_code code;
        wait_child({}, code);
        return std::string(ended.killed() ? "killed by " : "not killed ") + std::to_string(ended.signal()) +
               (before == parent ? ", child" : ", no child") + (after == init_task(me.home()) ? " of init" : " of another") +
               (code.value() == ECHILD ? ", none left" : ", some left");
      });
  std::printf("%s\n", text.c_str());
  return 0;
}};

} // namespace

TEST_CASE("a killed node's tasks are killed for their parents, and their children are init's") {
  migrate_test::program cluster({migrate_test::own_path(), "--migrate-quiet"},
                                {{"MIGRATE_SCENARIO", "node killed"}, {"MIGRATE_NODES", "3"}});
  CHECK(cluster.line(60s) == "killed by 9, child of init, none left");
  CHECK(cluster.wait(30s) == 0);
}
