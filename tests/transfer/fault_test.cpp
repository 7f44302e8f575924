#include <migrate/transfer/fault_point.hpp>

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"
#include "witness.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include <migrate/nodes.hpp>

using namespace migrate;
using migrate_test::folder, migrate_test::lines_of, migrate_test::note, migrate_test::wanted;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

const migrate_test::no_cluster_of_its_own here;

constexpr int ticks = 20;

// A task of node 1 goes to node FROM undisturbed and then to node TO; somebody dies there. It writes down all that
// it does: two runners would both be seen.

std::uint64_t journey(std::string file, node_id from, node_id to, std::size_t bytes) {
  std::vector<std::uint64_t> data(bytes / 8);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = i * i;
  this_task::migrate_to(from);
  for (std::size_t i = 0; i < data.size(); i += 64) data[i] += 1;
  note(file, "start " + to_string(this_task::node()));
  std::error_code code;
  this_task::migrate_to(to, code);
  note(file, "after " + std::to_string(code.value()) + " " + to_string(this_task::node()));
  for (int i = 0; i < ticks; ++i) {
    note(file, "tick " + std::to_string(i));
    this_task::yield();
  }
  std::uint64_t sum = 0;
  for (std::uint64_t each : data) sum = sum * 31 + each;
  return sum;
}

std::uint64_t right_sum(std::size_t bytes) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < bytes / 8; ++i) sum = sum * 31 + i * i + (i % 64 == 0);
  return sum;
}

const migrate_test::scenario_entry one_move{"one move", [] {
  std::string file = wanted("FAULT_FILE");
  node_id from{static_cast<std::uint16_t>(std::stoi(wanted("FAULT_FROM")))};
  node_id to{static_cast<std::uint16_t>(std::stoi(wanted("FAULT_TO")))};
  auto bytes = std::stoul(wanted("FAULT_BYTES"));
  auto traveller = spawn({.name = "traveller"}, journey, file, from, to, bytes);
  try {
    std::uint64_t sum = traveller.join();
    std::printf("%s\n", sum == right_sum(bytes) ? "value" : "wrong value");
  } catch (const error& thrown) {
    std::printf("error %d\n", thrown.code().value());
    std::fprintf(stderr, "%s\n", thrown.what());
  }
  // The nodes that are left go on working.
  std::size_t answered = 0;
  for (node_id each : migrate_test::run([] { return nodes(); })) {
    try {
      answered += spawn({.on = each}, [] { return std::size_t{1}; }).join();
    } catch (const error& thrown) {
      // A stopped node is one of the nodes until its silence has been noticed.
      if (thrown.code() != errc::node_lost && thrown.code() != errc::node_unreachable) throw;
    }
  }
  std::printf("alive %zu\n", answered);
  std::fflush(stdout);
  return 0;
}};

struct result {
  int status;
  std::string outcome;
  std::vector<std::string> lines;
};

result play(const std::string& fault, int from, int to, std::size_t bytes, bool wake = false) {
  folder place;
  std::string file = place.path / "lines";
  migrate_test::program cluster({migrate_test::own_path()},
                                {{"MIGRATE_SCENARIO", "one move"},
                                 {"MIGRATE_FAULT", fault},
                                 {"MIGRATE_KEEPALIVE", wake ? "500" : "1500"},
                                 {"MIGRATE_QUIET", "1"},
                                 {"FAULT_FILE", file},
                                 {"FAULT_FROM", std::to_string(from)},
                                 {"FAULT_TO", std::to_string(to)},
                                 {"FAULT_BYTES", std::to_string(bytes)}});
  result seen;
  if (wake) { // the stopped node comes back when the others have done without it
    seen.outcome = cluster.line(20s);
    ::kill(-cluster.id(), SIGCONT);
    seen.status = cluster.wait(30s);
  } else {
    seen.status = cluster.wait(40s);
    seen.outcome = cluster.line(0s);
  }
  seen.lines = lines_of(file);
  return seen;
}

void check_one_runner(const result& seen) {
  std::map<std::string, int> count;
  for (const std::string& line : seen.lines) ++count[line];
  std::ostringstream all;
  for (const std::string& line : seen.lines) all << line << "\n";
  INFO("it wrote:\n" << all.str());
  INFO("outcome: " << seen.outcome);
  CHECK(seen.status == 0);
  for (const auto& [line, times] : count) {
    INFO(line);
    CHECK(times == 1);
  }
  auto afters = std::count_if(seen.lines.begin(), seen.lines.end(),
                              [](const std::string& line) { return line.starts_with("after"); });
  if (seen.outcome == "value") {
    CHECK(afters == 1);
    CHECK(seen.lines.size() == ticks + 2);
  } else {
    CHECK(seen.outcome == "error " + std::to_string(static_cast<int>(errc::node_lost)));
    CHECK(afters <= 1);
  }
}

const std::vector<std::string> source_points{"source.frozen", "source.offered", "source.taken", "source.vacated"};
const std::vector<std::string> store_points{"source.flushing", "source.flushed"};
const std::vector<std::string> target_points{"target.offered", "target.laid_out", "target.claimed", "target.granted",
                                             "target.taken"};

constexpr std::size_t small = 8 * 1024;
constexpr std::size_t large = 4 << 20; // through the store

// A task on node 2 writes ticks for ever. Node 2 is stopped, the task is reported lost, and node 2 goes on: the task
// must not.
const migrate_test::scenario_entry given_up{"given up", [] {
  std::string file = wanted("FAULT_FILE");
  auto ticker = spawn({.name = "ticker", .on = migrate_test::run([] { return nodes()[1]; })}, [file] {
    for (;;) {
      note(file, "tick");
      this_task::yield();
    }
  });
  while (!fs::exists(file)) migrate_test::run([] { this_task::yield(); });
  ::kill(migrate_test::run([] { return spawn({.on = nodes()[1]}, [] { return ::getpid(); }).join(); }), SIGSTOP);
  std::string fate = "went on";
  try {
    ticker.join();
  } catch (const error& thrown) {
    fate = "error " + std::to_string(thrown.code().value());
  }
  std::printf("%s\n", fate.c_str());
  std::fflush(stdout);
  auto size = fs::file_size(file);
  for (int still = 0; still < 50; ++still) {
    node_id back{2};
    for (;;) { // until it is one of the nodes again
      try {
        spawn({.on = back}, [] { this_task::yield(); }).join();
        break;
      } catch (const error&) {
        migrate_test::run([] { this_task::sleep_for(10ms); });
      }
    }
    if (auto now = fs::file_size(file); now != std::exchange(size, now)) still = 0;
  }
  std::printf("quiet\n");
  std::fflush(stdout);
  return 0;
}};

// Nodes 1 and 2, which stay until a line comes; node 3 joins them and is the home of a task that goes from node 1 to
// node FAULT_TO once there is a file FAULT_GO, and ends on node 2 when that file has gone.
const migrate_test::scenario_entry hosts{"hosts", [] {
  std::printf("%s\n%s\n", migrate_test::cluster_address().c_str(), migrate_test::cluster_store().c_str());
  std::fflush(stdout);
  while (std::getchar() != '\n') {}
  return 0;
}};

const migrate_test::scenario_entry distant_home{"distant home", [] {
  std::string file = wanted("FAULT_FILE"), go = wanted("FAULT_GO");
  auto bytes = std::stoul(wanted("FAULT_BYTES"));
  node_id to{static_cast<std::uint16_t>(std::stoi(wanted("FAULT_TO")))};
  auto traveller = spawn({.name = "traveller"}, [file, go, to, bytes] {
    std::vector<std::uint64_t> data(bytes / 8, 3);
    this_task::migrate_to(node_id(1));
    note(file, "start " + to_string(this_task::node()));
    while (!fs::exists(go)) this_task::sleep_for(1ms);
    std::error_code code;
    this_task::migrate_to(to, code);
    note(file, "after " + std::to_string(code.value()) + " " + to_string(this_task::node()));
    while (fs::exists(go)) this_task::sleep_for(1ms);
    this_task::migrate_to(node_id(2));
    std::uint64_t sum = 0;
    for (std::uint64_t each : data) sum += each;
    return std::pair(sum, number(this_task::node()));
  });
  try {
    auto [sum, where] = traveller.join();
    std::printf("%s on %u\n", sum == bytes / 8 * 3 ? "value" : "wrong value", unsigned{where});
  } catch (const error& thrown) {
    std::printf("error %d: %s\n", thrown.code().value(), thrown.what());
  }
  std::fflush(stdout);
  return 0;
}};

} // namespace

namespace {

struct distant_cluster {
  folder place;
  fs::path lines = place.path / "lines", go = place.path / "go";
  migrate_test::program cluster{{migrate_test::own_path()},
                                {{"MIGRATE_SCENARIO", "hosts"},
                                 {"MIGRATE_NODES", "2"},
                                 {"MIGRATE_KEEPALIVE", "500"},
                                 {"MIGRATE_QUIET", "1"}}};
  std::string address = cluster.line(), store = cluster.line();
  migrate_test::program home;

  distant_cluster(const std::string& fault, int to, std::size_t bytes)
      : home({migrate_test::own_path(), "--migrate-join=" + address, "--migrate-store=" + store},
             {{"MIGRATE_SCENARIO", "distant home"},
              {"MIGRATE_NODES", "1"},
              {"MIGRATE_FAULT", fault},
              {"MIGRATE_KEEPALIVE", "500"},
              {"MIGRATE_QUIET", "1"},
              {"FAULT_FILE", lines},
              {"FAULT_GO", go},
              {"FAULT_TO", std::to_string(to)},
              {"FAULT_BYTES", std::to_string(bytes)}}) {
    REQUIRE(wait_for_line("start") == "start 1");
  }

  std::string wait_for_line(const std::string& prefix, std::chrono::milliseconds limit = 20s) {
    for (auto until = std::chrono::steady_clock::now() + limit; std::chrono::steady_clock::now() < until;) {
      std::ifstream file(lines);
      for (std::string line; std::getline(file, line);)
        if (line.starts_with(prefix)) return line;
      std::this_thread::sleep_for(10ms);
    }
    return {};
  }

  void finish() {
    fs::remove(go);
    CHECK(home.line(20s) == "value on 2");
    CHECK(home.wait(20s) == 0);
    cluster.say("");
    CHECK(cluster.wait(20s) == 0);
    std::ifstream file(lines);
    std::string text{std::istreambuf_iterator<char>(file), {}};
    INFO("it wrote:\n" << text);
    CHECK(std::count(text.begin(), text.end(), '\n') == 2);
  }
};

} // namespace

TEST_CASE("a task whose home does not answer is told so and goes on, and its home finds it when it is back") {
  for (std::size_t bytes : {small, large}) {
    CAPTURE(bytes);
    distant_cluster all("", 2, bytes);
    ::kill(all.home.id(), SIGSTOP);
    std::ofstream(all.go).put('1');
    CHECK(all.wait_for_line("after") == "after " + std::to_string(static_cast<int>(errc::home_unreachable)) + " 1");
    ::kill(all.home.id(), SIGCONT);
    all.finish();
  }
}

TEST_CASE("a task that was offered to its home runs nowhere until its home says whether it has it") {
  for (const char* point : {"target.laid_out", "target.granted"}) {
    CAPTURE(point);
    distant_cluster all(std::string("stop:3:") + point, 3, small);
    std::ofstream(all.go).put('1');
    CHECK(all.wait_for_line("after", 5s) == ""); // time enough for node 1 to give node 3 up
    ::kill(all.home.id(), SIGCONT);
    CHECK(all.wait_for_line("after").starts_with("after "));
    all.finish();
  }
}

TEST_CASE("a task that was reported lost does not go on when its node comes back") {
  folder place;
  migrate_test::program cluster({migrate_test::own_path()}, {{"MIGRATE_SCENARIO", "given up"},
                                                             {"MIGRATE_KEEPALIVE", "500"},
                                                             {"MIGRATE_QUIET", "1"},
                                                             {"FAULT_FILE", place.path / "lines"}});
  CHECK(cluster.line(20s) == "error " + std::to_string(static_cast<int>(errc::node_lost)));
  ::kill(-cluster.id(), SIGCONT);
  CHECK(cluster.line(20s) == "quiet");
  CHECK(cluster.wait(20s) == 0);
}

TEST_CASE("without a fault the traveller arrives") {
  for (std::size_t bytes : {small, large}) {
    result seen = play("", 2, 3, bytes);
    check_one_runner(seen);
    CHECK(seen.outcome == "value");
    CHECK(std::find(seen.lines.begin(), seen.lines.end(), "after 0 3") != seen.lines.end());
  }
}

TEST_CASE("a source that is killed leaves one runner or a named error") {
  for (std::size_t bytes : {small, large})
    for (const std::string& point : source_points) {
      CAPTURE(point, bytes);
      result seen = play("2:" + point, 2, 3, bytes);
      check_one_runner(seen);
      if (point == "source.frozen") CHECK(seen.outcome != "value"); // its memory is gone
      if (point == "source.taken" || point == "source.vacated") CHECK(seen.outcome == "value");
    }
  for (const std::string& point : store_points) {
    CAPTURE(point);
    result seen = play("2:" + point, 2, 3, large);
    check_one_runner(seen);
  }
}

TEST_CASE("a source that is killed on the way home leaves one runner or a named error") {
  for (const std::string& point : source_points) {
    CAPTURE(point);
    check_one_runner(play("2:" + point, 2, 1, small));
  }
}

TEST_CASE("a target that is killed leaves one runner") {
  for (std::size_t bytes : {small, large})
    for (const std::string& point : target_points) {
      CAPTURE(point, bytes);
      result seen = play("3:" + point, 2, 3, bytes);
      check_one_runner(seen);
      // The source has it still, unless the answer to the claim came before the signal.
      if (point != "target.taken" && point != "target.claimed") CHECK(seen.outcome == "value");
    }
}

TEST_CASE("a target that is killed leaves one runner at home") {
  for (const std::string& point : target_points) {
    CAPTURE(point);
    result seen = play("2:" + point, 1, 2, small);
    check_one_runner(seen);
    if (point != "target.taken") CHECK(seen.outcome == "value");
  }
}

TEST_CASE("a target that stops and comes back does not run what went on elsewhere") {
  for (const std::string& point : target_points) {
    CAPTURE(point);
    check_one_runner(play("stop:3:" + point, 2, 3, small, true));
  }
}

TEST_CASE("a source that stops and comes back does not run what went on elsewhere") {
  for (const std::string& point : source_points) {
    CAPTURE(point);
    check_one_runner(play("stop:2:" + point, 2, 3, small, true));
  }
}
