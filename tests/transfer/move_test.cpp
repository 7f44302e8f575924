#include <migrate/task.hpp>

#include "../support/cluster.hpp"
#include "../support/random.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using namespace migrate;
using namespace std::chrono_literals;
using migrate_test::new_seed;
using migrate_test::random_choices;

namespace {

bool torture() { return std::getenv("MIGRATE_TORTURE") != nullptr; }

template <class F> int code_of(F&& act) {
  try {
    act();
  } catch (const error& thrown) {
    return thrown.code().value();
  }
  return 0;
}

constexpr int value(errc code) { return static_cast<int>(code); }

node_id other_than(node_id one, std::size_t which = 0) {
  std::vector<node_id> all = nodes();
  std::erase(all, one);
  return all.at(which % all.size());
}

} // namespace

TEST_CASE("a task moves to each node and its memory with it") {
  auto visited = migrate_test::run([] {
    auto task = spawn([] {
      std::vector<std::string> log;
      for (node_id next : nodes()) {
        this_task::migrate_to(next);
        pin_scope here;
        log.push_back(std::to_string(number(this_task::node())));
      }
      return std::pair(log, this_task::moves());
    });
    return std::tuple_cat(task.join(), std::tuple(nodes().size()));
  });
  if (!torture()) {
    CHECK(std::get<0>(visited) == std::vector<std::string>{"1", "2", "3"});
    CHECK(std::get<1>(visited) == 2); // it began on node 1
  }
  CHECK(std::get<2>(visited) == 3);
}

TEST_CASE("a move to the node the task is on does nothing") {
  auto [moves, code, asked] = migrate_test::run([] {
    node_id here = this_task::node();
    std::error_code own;
    this_task::migrate_to(here, own);
    auto waits = spawn([] { return mailbox<int>().receive(); });
    int from_outside = code_of([&] { waits.migrate_to(waits.where()); });
    send(waits.id(), 5);
    return std::tuple(this_task::moves(), own.value() + from_outside, waits.join());
  });
  if (!torture()) CHECK(moves == 0);
  CHECK(code == 0);
  CHECK(asked == 5);
}

TEST_CASE("a move to a node that does not exist is refused by name and the task goes on") {
  auto [own, what, outside, sum] = migrate_test::run([] {
    std::vector<int> data(1000, 3);
    int own_code = 0;
    std::string text;
    try {
      this_task::migrate_to(node_id(4711));
    } catch (const error& thrown) {
      own_code = thrown.code().value();
      text = thrown.what();
    }
    auto waits = spawn([] { return mailbox<int>().receive(); });
    int code = code_of([&] { waits.migrate_to(node_id(4711)); });
    send(waits.id(), 1);
    int total = waits.join();
    for (int each : data) total += each;
    return std::tuple(own_code, text, code, total);
  });
  CHECK(own == value(errc::no_such_node));
  CHECK_THAT(what, Catch::Contains("4711"));
  CHECK(outside == value(errc::no_such_node));
  CHECK(sum == 3001);
}

TEST_CASE("a task is moved from outside whatever it is doing") {
  if (torture()) return; // where it is says nothing then
  auto places = migrate_test::run([] {
    std::vector<std::string> wrong;
    task_id me = this_task::id();
    auto check = [&](const char* what, auto&& task, auto&& finish) {
      for (std::size_t i = 0; i < 6; ++i) {
        node_id target = other_than(task.where(), i);
        int code = code_of([&] { task.migrate_to(target); });
        if (code != 0) wrong.push_back(std::string(what) + ": code " + std::to_string(code));
        if (task.where() != target) wrong.push_back(std::string(what) + ": elsewhere");
      }
      finish();
      if (std::uint64_t moves = task.join(); moves != 6)
        wrong.push_back(std::string(what) + ": " + std::to_string(moves) + " moves");
    };
    {
      auto task = spawn([] {
        mailbox<bool> stop;
        while (!stop.try_receive()) {
          for (int i = 0; i < 1000; ++i) asm volatile("" : : : "memory");
          this_task::poll();
        }
        return this_task::moves();
      });
      check("running", task, [&] { send(task.id(), true); });
    }
    {
      auto task = spawn([] {
        mailbox<bool>().receive();
        return this_task::moves();
      });
      check("parked", task, [&] { send(task.id(), true); });
    }
    {
      auto task = spawn([] {
        auto begun = std::chrono::steady_clock::now();
        this_task::sleep_for(700ms);
        return std::chrono::steady_clock::now() - begun >= 700ms ? this_task::moves() : 0;
      });
      check("sleeping", task, [] {});
    }
    {
      auto task = spawn([] {
        auto child = spawn([] { mailbox<bool>().receive(); });
        mailbox<task_id> ask;
        send(ask.receive(), child.id());
        child.join();
        return this_task::moves();
      });
      mailbox<task_id> answer;
      send(task.id(), me);
      task_id child = answer.receive();
      check("joining", task, [&] { send(child, true); });
    }
    {
      auto task = spawn([] {
        mailbox<bool> stop;
        while (!stop.try_receive()) this_task::yield();
        return this_task::moves();
      });
      auto beside = spawn([] {
        mailbox<bool> stop;
        while (!stop.try_receive()) this_task::yield();
      });
      check("ready", task, [&] { send(task.id(), true); });
      send(beside.id(), true);
      beside.join();
    }
    return wrong;
  });
  CHECK(places == std::vector<std::string>{});
}

TEST_CASE("a running task moves when asked, on a node that has taken in a large one") {
  if (torture()) return;
  bool there = migrate_test::run([] {
    std::vector<node_id> all = nodes();
    auto runs = spawn({.on = all[1]}, [] {
      mailbox<bool> stop;
      while (!stop.try_receive()) this_task::poll();
    });
    spawn([to = all[1]] {
      std::vector<std::uint64_t> data(1 << 17, 1);
      this_task::migrate_to(to);
    }).join();
    runs.migrate_to(all[2]);
    bool moved = runs.where() == all[2];
    send(runs.id(), true);
    runs.join();
    return moved;
  });
  CHECK(there);
}

TEST_CASE("a task spawned on another node begins there and its home is its maker's") {
  auto seen = migrate_test::run([] {
    std::vector<bool> right;
    node_id there = nodes().back();
    auto report = [] {
      pin_scope here;
      return std::tuple(number(this_task::node()), number(this_task::home()), this_task::moves(), this_task::name());
    };
    auto first = spawn({.name = "abroad", .on = there}, report).join();
    right.push_back(std::get<0>(first) == number(there) || std::getenv("MIGRATE_TORTURE") != nullptr);
    right.push_back(std::get<1>(first) == number(this_task::home()));
    right.push_back(std::get<3>(first) == "abroad");
    // A foreign task's child has the same home as its parent.
    auto homes = spawn({.on = there}, [report] {
                   auto child = spawn(report);
                   auto grandchild = spawn([report] { return spawn({.on = nodes().front()}, report).join(); });
                   return std::pair(child.join(), grandchild.join());
                 }).join();
    right.push_back(std::get<1>(homes.first) == number(this_task::home()));
    right.push_back(std::get<1>(homes.second) == number(this_task::home()));
    int code = code_of([&] { spawn({.on = node_id(999)}, [] {}).join(); });
    right.push_back(code == 0); // it begins here, and the node says so
    return right;
  });
  CHECK(seen == std::vector<bool>(6, true));
}

TEST_CASE("values and exceptions come back wherever the task and its joiner are") {
  std::uint64_t seed = new_seed("joins");
  std::string wrong = migrate_test::run([seed] {
    random_choices random(seed);
    for (int i = 0; i < 300; ++i) {
      auto child = spawn({.on = random.node()}, [i, r = random.branch()]() mutable -> std::vector<std::string> {
        for (std::size_t k = r.below(3); k > 0; --k) this_task::migrate_to(r.node());
        if (i % 3 == 0) throw std::out_of_range("number " + std::to_string(i));
        return {std::to_string(i), std::string(static_cast<std::size_t>(i) * 50, 'x')};
      });
      if (random.one_in(2)) this_task::migrate_to(random.node());
      if (random.one_in(4)) child.wait_for(std::chrono::microseconds(random.below(500)));
      try {
        auto value = child.join();
        if (i % 3 == 0) return "no exception from " + std::to_string(i);
        if (value.at(0) != std::to_string(i) || value.at(1).size() != static_cast<std::size_t>(i) * 50)
          return "another value from " + std::to_string(i);
      } catch (const std::out_of_range& thrown) {
        if (thrown.what() != "number " + std::to_string(i)) return std::string("another exception: ") + thrown.what();
      }
    }
    return std::string();
  });
  CHECK(wrong == "");
}

TEST_CASE("each of two moves at once is made or refused by name") {
  std::uint64_t seed = new_seed("two moves");
  // Asked for by itself, its parent, and two threads of who runs its home.
  auto wanders = [](std::uint64_t from) {
    random_choices random(from);
    while (this_task::moves() < 60) {
      std::error_code asked_already;
      if (random.one_in(5)) this_task::migrate_to(random.node(), asked_already);
      this_task::sleep_for(1us);
    }
  };
  auto parent = spawn([=] {
    auto task = spawn(wanders, seed);
    mailbox<task_id> ask;
    send(ask.receive(), task.id());
    random_choices random(seed + 1);
    while (!task.wait_for(1us)) {
      std::error_code asked_already;
      task.migrate_to(random.node(), asked_already);
    }
    task.join();
  });
  task_id moved = migrate_test::run([id = parent.id()] {
    send(id, this_task::id());
    return mailbox<task_id>().receive();
  });
  std::vector<std::thread> owners;
  std::array<std::error_code, 2> wrong{};
  for (std::size_t i = 0; i < wrong.size(); ++i)
    owners.emplace_back([&, i] {
      random_choices random(seed + 2 + i);
      for (std::error_code code; code != errc::no_such_task;) {
        migrate_task(moved, random.node(), code);
        if (code && code != errc::move_in_progress && code != errc::no_such_task) wrong[i] = code;
      }
    });
  for (std::thread& each : owners) each.join();
  parent.join();
  CHECK(wrong[0] == std::error_code());
  CHECK(wrong[1] == std::error_code());
}

TEST_CASE("only a task itself, its parent and who runs its home may move it") {
  auto seen = migrate_test::run([] {
    std::vector<int> wrong;
    auto task = spawn([] { mailbox<bool>().receive(); });
    for (bool away : {false, true}) {
      std::size_t step = 0;
      for (node_id from : nodes()) { // a sibling, wherever it and the task are
        if (away) task.migrate_to(other_than(this_task::home(), step++));
        node_id before = task.where();
        int code = spawn({.on = from}, [id = task.id(), before] {
                     return code_of([&] { migrate_task(id, other_than(before)); });
                   }).join();
        bool was_there = torture() && code == 0; // a move to where it is does nothing
        if (code != value(errc::not_permitted) && !was_there) wrong.push_back(code);
        if (!torture() && task.where() != before) wrong.push_back(-1);
      }
    }
    // Its child, too, is somebody else.
    auto parent = spawn([] {
      node_id there = other_than(this_task::node());
      return spawn([id = this_task::id(), there] { return code_of([&] { migrate_task(id, there); }); }).join();
    });
    if (int code = parent.join(); code != value(errc::not_permitted) && !torture()) wrong.push_back(code);
    send(task.id(), true);
    task.join();
    return wrong;
  });
  CHECK(seen == std::vector<int>{});
  if (torture()) return;
  // Who runs the home: this thread may, where no task runs.
  auto task = spawn([] {
    mailbox<bool>().receive();
    return number(this_task::node());
  });
  CHECK(code_of([&] { migrate_task(task.id(), node_id(2)); }) == 0);
  migrate_test::run([id = task.id()] { send(id, true); });
  CHECK(task.join() == 2);
  CHECK(code_of([&] { migrate_task(task.id(), node_id(2)); }) == value(errc::no_such_task));
}

TEST_CASE("a task may end while a move is asked of it") {
  std::uint64_t seed = new_seed("ends");
  auto codes = migrate_test::run([seed] {
    random_choices random(seed);
    std::vector<int> found;
    for (int i = 0; i < 300; ++i) {
      auto task = spawn({.on = random.node()}, [r = random.branch()]() mutable {
        for (std::size_t k = r.below(200); k > 0; --k) this_task::yield();
        return 1;
      });
      std::error_code code;
      task.migrate_to(random.node(), code);
      if (code && code != errc::no_such_task && code != errc::move_in_progress) found.push_back(code.value());
      if (task.join() != 1) found.push_back(-1);
    }
    return found;
  });
  CHECK(codes == std::vector<int>{});
}

TEST_CASE("a pinned task stays and goes when it is free") {
  if (torture()) return;
  auto [own, before, after] = migrate_test::run([] {
    task_id me = this_task::id();
    auto task = spawn([me] {
      node_id start = this_task::node();
      int own_code = 0;
      bool stayed = true;
      {
        pin_scope here;
        own_code = code_of([&] { this_task::migrate_to(other_than(start)); });
        send(me, true);
        for (int i = 0; i < 2000; ++i) {
          this_task::yield();
          stayed &= this_task::node() == start;
        }
        mailbox<bool> go;
        go.receive();
        stayed &= this_task::node() == start;
      }
      this_task::poll();
      return std::tuple(own_code, stayed, this_task::node() != start);
    });
    mailbox<bool>().receive();
    auto releases = spawn([id = task.id()] {
      this_task::sleep_for(5ms);
      send(id, true);
    });
    std::error_code code;
    task.migrate_to(other_than(this_task::node()), code);
    releases.join();
    return task.join();
  });
  CHECK(own == value(errc::not_movable));
  CHECK(before);
  CHECK(after);
}

TEST_CASE("a sleep lasts as long as it was to however often the task moves") {
  std::uint64_t seed = new_seed("sleep");
  bool lasted = migrate_test::run([seed] {
    random_choices random(seed);
    auto task = spawn([] {
      auto begun = std::chrono::steady_clock::now(); // the same clock on all nodes of a machine
      this_task::sleep_for(400ms);
      return std::chrono::steady_clock::now() - begun >= 400ms;
    });
    for (int i = 0; i < 20; ++i) {
      std::error_code code;
      task.migrate_to(random.node(), code);
    }
    return task.join();
  });
  CHECK(lasted);
}

TEST_CASE("hundreds of tasks move at random spawn send and join and nothing is lost") {
  std::uint64_t seed = new_seed("crowd");
  auto [sum, moves] = migrate_test::run([seed] {
    random_choices random(seed);
    std::vector<task<std::pair<std::uint64_t, std::uint64_t>>> crowd;
    for (std::uint64_t i = 0; i < 200; ++i)
      crowd.push_back(spawn({.on = random.node()}, [i, r = random.branch()]() mutable {
        std::vector<std::uint64_t> mine(100 + i, i);
        std::uint64_t moved = 0;
        for (int k = 0; k < 10; ++k) {
          this_task::migrate_to(r.node());
          mine.push_back(spawn({.on = r.node()}, [i] { return i; }).join());
          if (r.one_in(3)) this_task::sleep_for(std::chrono::microseconds(r.below(2000)));
        }
        std::uint64_t total = 0;
        for (std::uint64_t each : mine) total += each;
        moved += this_task::moves();
        return std::pair(total, moved);
      }));
    std::uint64_t all = 0, moved = 0;
    for (auto& each : crowd) {
      auto [one, m] = each.join();
      all += one;
      moved += m;
    }
    return std::pair(all, moved);
  });
  std::uint64_t expected = 0;
  for (std::uint64_t i = 0; i < 200; ++i) expected += i * (110 + i);
  CHECK(sum == expected);
  CHECK(moves > 1000);
}

TEST_CASE("nodes that a task has left may be killed") {
  // The last of this program: two nodes are gone afterwards.
  if (torture()) return;
  auto traveller = spawn({.name = "traveller"}, [] {
    std::vector<std::uint64_t> data(1 << 18, 7);
    mailbox<node_id> next;
    std::vector<std::uint16_t> places;
    for (;;) {
      auto [from, to] = next.receive_envelope();
      if (to == no_node) break;
      this_task::migrate_to(to);
      places.push_back(number(this_task::node()));
      data[places.size()] += 1;
      send(from, true);
    }
    std::uint64_t sum = 0;
    for (std::uint64_t each : data) sum += each;
    return std::pair(places, sum);
  });
  auto go = [id = traveller.id()](node_id to) {
    migrate_test::run([id, to] {
      send(id, to);
      if (to != no_node) mailbox<bool>().receive();
    });
  };
  std::vector<node_id> all = nodes();
  for (node_id each : {all[1], all[2], all[0]}) go(each);
  // It is back at its home, through both.
  auto processes = migrate_test::other_processes();
  REQUIRE(processes.size() == 2);
  for (int each : processes) ::kill(each, SIGKILL);
  while (nodes().size() > 1) std::this_thread::yield();
  go(no_node);
  auto [places, sum] = traveller.join();
  CHECK(places == std::vector<std::uint16_t>{2, 3, 1});
  CHECK(sum == (std::uint64_t{7} << 18) + 3);
  CHECK(migrate_test::run([] { return 5; }) == 5);
}
