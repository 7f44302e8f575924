#include <migrate/fork.hpp>

#include "../support/cluster.hpp"
#include "../support/program.hpp"

#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>
#include <migrate/posix/fork.hpp>
#include <migrate/posix/process.hpp>
#include <migrate/posix/wait.hpp>
#include <migrate/process.hpp>

using namespace migrate;
using namespace std::chrono_literals;

namespace {

struct seen {
  task_id who;
  std::string what;
  auto migrate_fields() { return std::tie(who, what); }
};

std::string receive_all(mailbox<seen>& box, std::size_t count) {
  std::multiset<std::string> lines;
  for (std::size_t i = 0; i < count; ++i) lines.insert(box.receive().what);
  std::string all;
  for (const std::string& line : lines) all += line + " ";
  return all;
}

} // namespace

TEST_CASE("fork returns twice, and the two change their memory on their own") {
  auto said = migrate_test::run([] {
    mailbox<seen> box;
    task_id me = this_task::id();
    auto list = std::make_unique<std::vector<int>>(1000, 7);
    int on_stack = 1;
    task_id child = migrate::fork();
    if (!child) {
      on_stack += 10;
      (*list)[5] = 100;
      for (int i = 0; i < 20; ++i) this_task::yield();
      send(me, seen{this_task::id(), std::to_string(on_stack) + ":" + std::to_string(std::accumulate(list->begin(), list->end(), 0))});
      return std::string("child");
    }
    on_stack += 20;
    (*list)[5] = 200;
    seen heard = box.receive();
    bool right = heard.who == child && this_task::id() == me && child != me;
    return heard.what + " " + std::to_string(on_stack) + ":" + std::to_string(std::accumulate(list->begin(), list->end(), 0)) +
           (right ? " right" : " wrong");
  });
  CHECK(said == "11:7093 21:7193 right");
}

TEST_CASE("the copy is a task like any other: it moves, spawns, throws and is waited for") {
  auto said = migrate_test::run([] {
    auto data = std::make_unique<std::vector<std::uint64_t>>(300'000);
    std::iota(data->begin(), data->end(), 0);
    mailbox<seen> box;
    task_id me = this_task::id();
    task_id child = migrate::fork();
    if (!child) {
      std::string log;
      for (node_id each : nodes()) {
        std::error_code code;
        this_task::migrate_to(each, code);
        if (code && code != errc::region_occupied) log += code.message();
      }
      auto sum = std::accumulate(data->begin(), data->end(), std::uint64_t{0});
      int spawned = spawn([] { return 42; }).join();
      send(me, seen{this_task::id(), log + std::to_string(sum) + " " + std::to_string(spawned)});
      throw std::runtime_error("from the copy");
    }
    std::string heard = box.receive().what;
    child_status end = wait_child(child);
    return heard + (end.killed() ? " " + std::to_string(end.signal()) : " not killed");
  });
  CHECK(said == "44999850000 42 " + std::to_string(SIGABRT));
}

TEST_CASE("more copies than nodes: others are started") {
  auto said = migrate_test::run([] {
    mailbox<seen> box;
    task_id me = this_task::id();
    int depth = 0;
    for (int i = 0; i < 4; ++i)
      if (!migrate::fork()) {
        depth = i + 1;
        break;
      }
    if (depth > 0) {
      mailbox<int> end;
      send(me, seen{this_task::id(), std::to_string(depth)});
      end.receive();
      return std::string();
    }
    std::vector<task_id> children;
    std::multiset<std::string> lines;
    for (int i = 0; i < 4; ++i) {
      seen heard = box.receive();
      children.push_back(heard.who);
      lines.insert(heard.what);
    }
    std::string all;
    for (const std::string& line : lines) all += line + " ";
    for (task_id child : children) send(child, 1);
    for (std::size_t i = 0; i < children.size(); ++i) wait_child();
    return all + (nodes().size() >= 5 ? "nodes" : "too few nodes");
  });
  CHECK(said == "1 2 3 4 nodes");
}

TEST_CASE("a task does not move to where a copy of it is") {
  auto code = migrate_test::run([] {
    mailbox<seen> box;
    task_id me = this_task::id();
    task_id child = migrate::fork();
    if (!child) {
      mailbox<int> end;
      pin_scope here;
      send(me, seen{this_task::id(), std::to_string(number(this_task::node()))});
      end.receive();
      return 0;
    }
    node_id there = static_cast<node_id>(std::stoi(box.receive().what));
    std::error_code refused;
    this_task::migrate_to(there, refused);
    send(child, 1);
    wait_child(child);
    return refused.value();
  });
  CHECK(code == static_cast<int>(errc::region_occupied));
}

TEST_CASE("handles of the caller's children hold nothing in the copy") {
  auto said = migrate_test::run([] {
    mailbox<seen> box;
    task_id me = this_task::id();
    auto worker = spawn([] {
      mailbox<int> go;
      return go.receive() + 1;
    });
    task_id child = migrate::fork();
    if (!child) {
      std::string what = "joined";
      try {
        worker.join();
      } catch (const error& refused) {
        what = refused.code() == errc::no_such_task ? "refused" : refused.what();
      }
      worker = {};
      send(me, seen{this_task::id(), what});
      return std::string();
    }
    std::string heard = receive_all(box, 1);
    wait_child(child);
    send(worker.id(), 1);
    return heard + std::to_string(worker.join());
  });
  CHECK(said == "refused 2");
}

TEST_CASE("a pinned task cannot be copied") {
  auto code = migrate_test::run([] {
    pin_scope here;
    try {
      return migrate::fork() ? 0 : 1;
    } catch (const error& refused) {
      return refused.code().value();
    }
  });
  CHECK(code == static_cast<int>(errc::not_movable));
}

TEST_CASE("regions of families of copies come back when the last one has ended") {
  auto said = migrate_test::run([] {
    std::string all;
    for (int round = 0; round < 20; ++round) {
      auto parent = spawn([round] {
        std::vector<int> values(100 + static_cast<std::size_t>(round), round);
        task_id child = migrate::fork();
        int sum = std::accumulate(values.begin(), values.end(), child ? 0 : 1) % 100;
        if (!child) migrate::this_task::exit(sum);
        return wait_child(child).exit_code() - sum;
      });
      all += std::to_string(parent.join());
    }
    return all;
  });
  CHECK(said == std::string(20, '1'));
}

namespace {

// A node is killed in the midst of taking a copy. The original goes on, and hears of the copy's end.
const migrate_test::scenario_entry killed_target{"killed target", [] {
  auto said = migrate_test::run([] {
    std::vector<std::uint64_t> data(4096);
    std::iota(data.begin(), data.end(), 0);
    task_id child = migrate::fork();
    auto sum = std::accumulate(data.begin(), data.end(), std::uint64_t{0});
    if (!child) migrate::this_task::exit(static_cast<int>(sum % 251));
    child_status end = wait_child(child);
    return std::to_string(sum % 251) + " " + (end.exited() ? std::to_string(end.exit_code()) : "lost");
  });
  std::printf("%s\n", said.c_str());
  std::fflush(stdout);
  return 0;
}};

} // namespace

TEST_CASE("a node that is killed while it takes a copy costs that copy at most") {
  for (std::string point : {"target.offered", "target.laid_out", "target.claimed", "target.granted", "target.taken"}) {
    CAPTURE(point);
    migrate_test::program cluster({migrate_test::own_path()}, {{"MIGRATE_SCENARIO", "killed target"},
                                                               {"MIGRATE_NODES", "3"},
                                                               {"MIGRATE_FAULT", "3:" + point},
                                                               {"MIGRATE_QUIET", "1"}});
    std::string said = cluster.line();
    INFO(said);
    bool whole = said == "148 148", lost_it = said == "148 lost";
    CHECK((whole || lost_it));
    if (point == "target.offered" || point == "target.laid_out") CHECK(whole); // another node takes it
    CHECK(cluster.wait(20s) == 0);
  }
}

TEST_CASE("a node that is stopped while it takes a copy, and comes back, does not run a second one") {
  for (std::string point : {"target.offered", "target.laid_out", "target.granted"}) {
    CAPTURE(point);
    migrate_test::program cluster({migrate_test::own_path()}, {{"MIGRATE_SCENARIO", "killed target"},
                                                               {"MIGRATE_NODES", "3"},
                                                               {"MIGRATE_FAULT", "stop:3:" + point},
                                                               {"MIGRATE_KEEPALIVE", "500"},
                                                               {"MIGRATE_QUIET", "1"}});
    std::string said = cluster.line();
    CHECK(said == (point == "target.granted" ? "148 lost" : "148 148"));
    int status = -1;
    for (int i = 0; i < 200 && status == -1; ++i) { // each further offer stops it again
      ::kill(-cluster.id(), SIGCONT);
      status = cluster.wait(100ms);
    }
    CHECK(status == 0);
  }
}

TEST_CASE("a copy may go to a node that the original has just left") {
  auto ended = migrate_test::run([] {
    std::vector<char> memory(1 << 20, 'x');
    int right = 0;
    for (int i = 0; i < 40; ++i) {
      migrate::this_task::migrate_to(nodes().back());
      memory[static_cast<std::size_t>(i)] = 'y';
      migrate::this_task::migrate_to(nodes().front());
      task_id child = migrate::fork();
      if (!child) migrate::this_task::quick_exit(memory[static_cast<std::size_t>(i)]);
      right += wait_child(child).exit_code() == 'y';
    }
    return right;
  });
  CHECK(ended == 40);
}

TEST_CASE("posix::fork") {
  auto said = migrate_test::run([] {
    auto me = posix::getpid();
    auto child = posix::fork();
    if (child == 0) posix::exit(posix::getppid() == me && posix::getpid() != me ? 7 : 8);
    int status = 0;
    return posix::waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  });
  CHECK(said == 7);
  CHECK(posix::fork() == -1);
  CHECK(errno == ENOSYS);
}
