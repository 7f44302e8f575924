// What nodes tell of themselves and their tasks.
#include <migrate/cluster/status.hpp>

#include "../support/cluster.hpp"

#include <algorithm>
#include <csignal>
#include <map>
#include <string>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>
#include <migrate/process.hpp>
#include <migrate/signal.hpp>

using namespace migrate;
using namespace std::chrono_literals;

namespace {

std::map<std::string, task_status> by_name(const std::vector<node_status>& all) {
  std::map<std::string, task_status> made;
  for (const node_status& node : all)
    for (const task_status& each : node.tasks) made[each.name] = each;
  return made;
}

void hold(task_id starter) {
  send(starter, true);
  mailbox<int>().receive();
}

template <class F> task_id begin(const char* name, node_id where, F body) {
  auto made = spawn({.name = name, .on = where}, body, this_task::id());
  mailbox<bool>().receive();
  task_id id = made.id();
  new task<void>(std::move(made)); // its end would detach the task
  return id;
}

void finish(const std::vector<task_id>& tasks) {
  migrate_test::run([tasks] {
    for (task_id each : tasks) {
      send(each, 1);
      task<void>(each).join();
    }
  });
}

// Until it is so: what a task says of itself comes a moment before it waits.
template <class F> bool soon(F&& so) {
  for (auto until = std::chrono::steady_clock::now() + 20s; std::chrono::steady_clock::now() < until;)
    if (so()) return true;
  return false;
}

constexpr std::size_t mib = std::size_t{1} << 20;

} // namespace

TEST_CASE("every node tells what it is and which tasks are on it") {
  auto tasks = migrate_test::run([] {
    return std::vector{begin("far", node_id{2},
                             [](task_id starter) {
                               std::vector<char> memory(3 * mib, 'x');
                               asm volatile("" : : "r"(memory.data()) : "memory"); // or Clang leaves it out
                               hold(starter);
                             }),
                       begin("near", node_id{1}, [](task_id starter) {
                         pin_scope stays;
                         hold(starter);
                       })};
  });
  std::vector<node_status> all;
  CHECK(soon([&] {
    all = migrate_test::status(20s);
    auto found = by_name(all);
    return found["far"].state == "waits" && found["near"].state == "waits, pinned";
  }));
  REQUIRE(all.size() == 3);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(number(all[i].node) == i + 1);
    CHECK(!all[i].host.empty());
    CHECK(all[i].process != 0);
    CHECK(all[i].address.starts_with("127.0.0.1:"));
    CHECK(all[i].workers > 0);
    CHECK(all[i].state.empty());
    CHECK(all[i].tasks_here >= all[i].tasks.size());
  }
  auto found = by_name(all);
  CHECK(found["far"].task == tasks[0]);
  CHECK(found["far"].place == node_id{2});
  CHECK(found["far"].task.home() == node_id{1});
  CHECK(found["far"].moves == 1); // to where it began
  CHECK(found["far"].bytes >= 3 * mib);
  CHECK(found["far"].bytes < 5 * mib);
  CHECK(found["near"].place == node_id{1});
  CHECK(found["near"].moves == 0);
  finish(tasks);
  CHECK(soon([] { return by_name(migrate_test::status(20s)).count("far") == 0; }));
}

TEST_CASE("a task that a signal has stopped is shown as stopped, and goes on being shown where it moves") {
  auto stopped = migrate_test::run([] {
    return std::vector{begin("stopped", node_id{3}, [](task_id starter) {
      send(starter, true);
      mailbox<int> in;
      while (!in.receive_for(1ms)) this_task::yield();
    })};
  });
  migrate_test::run([stopped] { send_signal(stopped[0], SIGSTOP); });
  CHECK(soon([] { return by_name(migrate_test::status(20s))["stopped"].state == "stopped"; }));
  migrate_test::run([stopped] { send_signal(stopped[0], SIGCONT); });
  finish(stopped);
}

TEST_CASE("moves are told with their reasons, the last one last") {
  auto tasks = migrate_test::run([] {
    return std::vector{begin("traveller", node_id{2}, [](task_id starter) {
      // Each node tells ages as of its own answer: what lies less far apart than the answers is in no order.
      this_task::sleep_for(100ms);
      this_task::migrate_to(node_id{3});
      this_task::sleep_for(100ms);
      this_task::migrate_to(node_id{1});
      hold(starter);
    })};
  });
  std::vector<std::string> seen;
  auto all = migrate_test::status(20s);
  std::vector<cluster_event> events;
  for (const node_status& node : all) events.insert(events.end(), node.events.begin(), node.events.end());
  std::stable_sort(events.begin(), events.end(),
                   [](const auto& a, const auto& b) { return a.when > b.when; });
  for (const cluster_event& each : events)
    if (each.name == "traveller") seen.push_back(detail::text_of(each) + ": " + each.reason);
  std::string task = "task " + to_string(tasks[0]) + " (traveller) moved from node ";
  CHECK(seen == std::vector<std::string>{task + "1 to node 2: spawned", task + "2 to node 3: asked",
                                         task + "3 to node 1: asked"});
  finish(tasks);
}

TEST_CASE("a task that moves all the time is never told of twice") {
  auto tasks = migrate_test::run([] {
    std::vector<task_id> made;
    for (int i = 0; i < 4; ++i)
      made.push_back(begin("wanderer", node_id{1}, [](task_id starter) {
        send(starter, true);
        for (unsigned k = 0; !mailbox<int>().try_receive(); ++k)
          this_task::migrate_to(node_id{static_cast<std::uint16_t>(k % 3 + 1)});
      }));
    return made;
  });
  std::size_t seen = 0;
  for (int i = 0; i < 50; ++i) {
    std::map<task_id, int> times;
    for (const node_status& node : migrate_test::status(20s))
      for (const task_status& each : node.tasks)
        if (each.name == "wanderer") ++times[each.task];
    seen += times.size();
    for (const auto& [id, count] : times) CHECK(count == 1);
  }
  CHECK(seen > 0);
  finish(tasks);
}

TEST_CASE("a task is told of once when both the node that it leaves and the one that it goes to have it") {
  node_status from, to;
  from.node = node_id{1};
  to.node = node_id{2};
  task_id one(node_id{1}, 4, 0), other(node_id{1}, 5, 0);
  from.tasks.push_back({one, "one", node_id{1}, "moves to 2", 3, 100, false});
  to.tasks.push_back({one, "", node_id{2}, "arrives", 0, 0, true});
  to.tasks.push_back({other, "", node_id{2}, "arrives", 0, 0, true});
  to.events.push_back({cluster_event::kind::left, node_id{3}, no_node, {}, {}, {}, 5});
  to.events.push_back({cluster_event::kind::moved, node_id{2}, node_id{3}, one, {}, {}, 4});
  std::vector<node_status> all{from, to};
  detail::make_one(all, node_id{1});
  CHECK(all[0].tasks.size() == 1);
  REQUIRE(all[1].tasks.size() == 1);
  CHECK(all[1].tasks[0].task == other);
  REQUIRE(all[1].events.size() == 1);
  CHECK(all[1].events[0].what == cluster_event::kind::moved);
}

TEST_CASE("a node that does not answer is named, and the others are shown") {
  int silent = migrate_test::run([] { return spawn({.on = node_id{3}}, [] { return ::getpid(); }).join(); });
  REQUIRE(::kill(silent, SIGSTOP) == 0);
  siginfo_t stopped{}; // not all of its threads are at once
  REQUIRE(::waitid(P_PID, static_cast<id_t>(silent), &stopped, WSTOPPED | WNOWAIT) == 0);
  auto all = migrate_test::status(300ms);
  ::kill(silent, SIGCONT);
  REQUIRE(all.size() == 3);
  CHECK(all[1].state.empty());
  CHECK(all[2].state == "has not answered within 300 ms");
  CHECK(soon([] { return migrate_test::status(20s)[2].state.empty(); }));
}

TEST_CASE("events of nodes are kept however many tasks move") {
  detail::event_log log;
  int heard = 0;
  log.listen([&](const cluster_event&) { ++heard; });
  log.add({cluster_event::kind::lost, node_id{4}, no_node, {}, {}, "it died", 0});
  for (int i = 0; i < 1000; ++i) log.add({cluster_event::kind::moved, node_id{1}, node_id{2}, {}, {}, {}, 0});
  auto last = log.last(10'000);
  CHECK(heard == 1001);
  CHECK(last.size() == detail::event_log::kept + 1);
  CHECK(last.front().what == cluster_event::kind::lost);
  CHECK(log.last(5).size() == 5);
}
