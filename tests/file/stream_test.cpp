#include <migrate/streams.hpp>

#include "../support/cluster.hpp"
#include "../support/program.hpp"
#include "../support/random.hpp"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>
#include <migrate/posix/poll.hpp>
#include <migrate/posix/unistd_files.hpp>

using migrate::node_id;
using migrate::this_task::migrate_to;
using migrate_test::program;
using migrate_test::run;
using migrate_test::scenario_entry;

namespace {

const migrate_test::no_cluster_of_its_own scenarios_do_it_all;

constexpr int writers = 4;
constexpr int lines = 150;

std::uint64_t seed() { return std::strtoull(std::getenv("MIGRATE_TEST_SEED"), nullptr, 10); }

void move_somewhere(migrate_test::random_choices& random) {
  if (random.one_in(3)) migrate_to(random.node());
}

const scenario_entry order{"order", [] {
  run([start = seed()] {
    std::vector<migrate::task<>> all;
    for (int writer = 0; writer < writers; ++writer)
      all.push_back(migrate::spawn([writer, random = migrate_test::random_choices(start + writer)]() mutable {
        for (int line = 0; line < lines; ++line) {
          // Each line in two parts, in one of the ways there are.
          switch (line % 4) {
          case 0: migrate::cout() << "w" << writer; break;
          case 1: migrate::print("w%d", writer); break;
          case 2: std::cout << "w" << writer; break;
          default: std::printf("w%d", writer);
          }
          move_somewhere(random);
          switch (line / 4 % 4) {
          case 0: migrate::out << " line " << line << '\n'; break;
          case 1: migrate::out.print(" line %d\n", line); break;
          case 2: std::cout << " line " << line << std::endl; break;
          default: std::printf(" line %d\n", line);
          }
          move_somewhere(random);
        }
      }));
    for (auto& each : all) each.join();
  });
  return 0;
}};

const scenario_entry ended{"ended", [] {
  for (int way = 0; way < 3; ++way) {
    run([way] {
      migrate_to(node_id(2));
      if (way == 0) migrate::cout() << "cout without an end";
      if (way == 1) std::printf("printf without an end");
      if (way == 2) std::cout << "std::cout without an end";
    });
    if (::write(1, ", and joined\n", 13) != 13) return 1;
  }
  return 0;
}};

const scenario_entry killed{"killed", [] {
  run([] {
    migrate_to(node_id(2));
    int left = ::getpid();
    std::printf("half a line, ");
    migrate::cout() << std::hex;
    migrate_to(node_id(3));
    ::kill(left, SIGKILL);
    migrate::cout() << 255 << " and the other half\n";
  });
  return 0;
}};

const scenario_entry large{"large", [] {
  run([] {
    std::vector<migrate::task<bool>> all;
    for (int node : {1, 2, 3})
      all.push_back(migrate::spawn({.on = node_id(static_cast<std::uint16_t>(node))}, [node] {
        std::string text(300'000, static_cast<char>('0' + node));
        text.back() = '\n';
        bool whole = true;
        for (int i = 0; i < 3; ++i)
          whole = migrate::detail::stream_write(1, text.data(), text.size()) ==
                      static_cast<std::int64_t>(text.size()) && whole;
        return whole;
      }));
    for (auto& each : all)
      if (!each.join()) migrate::out << "not whole\n";
  });
  return 0;
}};

const scenario_entry full{"full", [] {
  int place = ::open("/dev/full", O_WRONLY);
  int before = ::dup(1);
  if (place < 0 || ::dup2(place, 1) < 0) return 1;
  auto seen = run([] {
    migrate_to(node_id(2));
    auto result = migrate::detail::stream_write(1, "text", 4);
    bool thrown = false;
    try {
      migrate::out.print("a line\n");
    } catch (const migrate::error&) {
      thrown = true;
    }
    migrate::cout() << "another" << std::endl;
    return std::pair(result, thrown && !migrate::cout());
  });
  ::dup2(before, 1);
  std::printf("%d %d\n", seen.first == -ENOSPC, seen.second);
  return 0;
}};

const scenario_entry echo{"echo", [] {
  run([start = seed()] {
    migrate_test::random_choices random(start);
    for (int i = 0;; ++i) {
      migrate_to(random.node());
      std::optional<std::string> line;
      if (i % 3 == 0) {
        line = migrate::in.line();
      } else if (std::string text; std::getline(i % 3 == 1 ? migrate::cin() : std::cin, text)) {
        line = text;
      }
      if (!line) break;
      migrate::print("%d: %s\n", i, line->c_str());
    }
    migrate::err << "the input has ended\n";
    migrate::print("end\n");
  });
  return 0;
}};

const scenario_entry moved_while_reading{"moved while reading", [] {
  run([] {
    auto reader = migrate::spawn({.on = node_id(2)}, [] {
      char text[64];
      for (;;) {
        auto got = migrate::detail::stream_read(text, sizeof text);
        if (got <= 0) return;
        migrate::out.write({text, static_cast<std::size_t>(got)});
      }
    });
    for (int i = 0; i < 30; ++i) {
      migrate::print("moved %d\n", i);
      try {
        reader.migrate_to(node_id(static_cast<std::uint16_t>(1 + i % 3)));
      } catch (const migrate::error& refused) {
        if (refused.code() != migrate::errc::move_in_progress) throw; // the last one, or torture's
      }
    }
    migrate::print("say something\n");
    reader.join();
  });
  return 0;
}};

const scenario_entry polled{"polled", [] {
  run([] {
    migrate::spawn({.on = node_id(2)}, [] {
      pollfd input{0, POLLIN, 0};
      int before = migrate::posix::poll(&input, 1, 20);
      migrate::print("before %d, terminal %d\n", before, migrate::posix::isatty(0));
      for (int expected = 0; expected < 2; ++expected) {
        migrate::this_task::migrate_to(node_id(static_cast<std::uint16_t>(3 - expected)));
        char byte = 0;
        std::string line;
        if (migrate::posix::poll(&input, 1, 30'000) != 1 || input.revents != POLLIN) line = "not ready: ";
        while (migrate::posix::read(0, &byte, 1) == 1 && byte != '\n') line += byte;
        migrate::print("said %s\n", line.c_str());
      }
    }).join();
  });
  return 0;
}};

struct started {
  // A scenario, under torture when this test is.
  explicit started(const char* name)
      : random_seed(migrate_test::new_seed(name)), process({migrate_test::own_path()}, settings(name)) {}

  std::vector<std::string> all_lines() {
    std::vector<std::string> found;
    for (std::string line = process.line(); !line.empty(); line = process.line()) found.push_back(line);
    CHECK(process.wait(std::chrono::seconds(20)) == 0);
    return found;
  }

  migrate_test::environment settings(const char* name) const {
    migrate_test::environment made{{"MIGRATE_SCENARIO", name},
                                   {"MIGRATE_NODES", "3"},
                                   {"MIGRATE_QUIET", "1"},
                                   {"MIGRATE_TEST_SEED", std::to_string(random_seed)}};
    if (const char* torture = std::getenv("MIGRATE_TORTURE")) made.emplace_back("MIGRATE_TORTURE", torture);
    return made;
  }

  std::uint64_t random_seed;
  program process;
};

} // namespace

TEST_CASE("what tasks print while they move appears at home, once, in order and in whole lines") {
  started test("order");
  std::map<int, int> next;
  auto seen = test.all_lines();
  CHECK(seen.size() == std::size_t{writers} * lines);
  for (const std::string& each : seen) {
    CAPTURE(each);
    int writer = -1;
    int line = -1;
    REQUIRE(std::sscanf(each.c_str(), "w%d line %d", &writer, &line) == 2);
    CHECK(each == "w" + std::to_string(writer) + " line " + std::to_string(line));
    CHECK(line == next[writer]++);
  }
}

TEST_CASE("what a task has printed is there when it has been joined") {
  CHECK(started("ended").all_lines() == std::vector<std::string>{"cout without an end, and joined",
                                                                 "printf without an end, and joined",
                                                                 "std::cout without an end, and joined"});
}

TEST_CASE("output that was not sent yet goes along, with the stream's format, and the node left may die") {
  CHECK(started("killed").all_lines() == std::vector<std::string>{"half a line, ff and the other half"});
}

TEST_CASE("a write is not mixed with another task's, however long") {
  auto seen = started("large").all_lines();
  REQUIRE(seen.size() == 9);
  std::map<char, int> count;
  for (const std::string& each : seen) {
    CHECK(each == std::string(299'999, each[0]));
    ++count[each[0]];
  }
  CHECK(count == std::map<char, int>{{'1', 3}, {'2', 3}, {'3', 3}});
}

TEST_CASE("a task hears of what home cannot write") {
  CHECK(started("full").all_lines() == std::vector<std::string>{"1 1"});
}

TEST_CASE("input reaches the task wherever it is, line by line and once") {
  started test("echo");
  for (int i = 0; i < 30; ++i) {
    std::string text = "line " + std::to_string(i * i);
    test.process.say(text);
    CHECK(test.process.line() == std::to_string(i) + ": " + text);
  }
  test.process.close_input();
  CHECK(test.all_lines() == std::vector<std::string>{"end"});
}

TEST_CASE("a task that is moved while it waits for input gets it") {
  started test("moved while reading");
  for (int i = 0; i < 30; ++i) CHECK(test.process.line() == "moved " + std::to_string(i));
  CHECK(test.process.line() == "say something");
  test.process.say("something");
  CHECK(test.process.line() == "something");
  test.process.close_input();
  CHECK(test.all_lines().empty());
}

TEST_CASE("poll and isatty say of standard input what it is at home") {
  started test("polled");
  CHECK(test.process.line() == "before 0, terminal 0");
  test.process.say("one");
  CHECK(test.process.line() == "said one");
  test.process.close_input();
  CHECK(test.process.line() == "said ");
  CHECK(test.process.wait(std::chrono::seconds(20)) == 0);
}

TEST_CASE("only a task has streams") { CHECK_THROWS_AS(migrate::cout(), migrate::error); }
