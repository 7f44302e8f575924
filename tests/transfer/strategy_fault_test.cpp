#include <migrate/transfer/fault_point.hpp>

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"
#include "witness.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using namespace migrate;
using migrate_test::folder, migrate_test::lines_of, migrate_test::note, migrate_test::wanted,
    migrate_test::written_words;
using namespace std::chrono_literals;

namespace {

const migrate_test::no_cluster_of_its_own here;

// A task of node 1 goes to node 2, where it writes its memory all the time. Its parent has it moved from there to node 3
// by a strategy; somebody dies, or stops, on the way. It writes down what it does afterwards: two runners would be seen.

constexpr std::size_t words = (6 << 20) / 8;
constexpr int ticks = 20;

std::uint64_t traveller(std::string file, task_id parent) {
  written_words memory(words);
  this_task::migrate_to(node_id(2));
  mailbox<int> stop;
  send(parent, 1);
  while (!stop.try_receive()) {
    memory.write();
    this_task::poll();
  }
  note(file, "after " + to_string(this_task::node()));
  for (int i = 0; i < ticks; ++i) {
    note(file, "tick " + std::to_string(i));
    this_task::yield();
  }
  return memory.wrong();
}

std::string move_by_strategy(std::string file, transfer how, std::string filler) {
  try {
    auto moved = spawn({.name = "traveller"}, traveller, file, this_task::id());
    mailbox<int>().receive();
    if (!filler.empty()) {
      int to = ::open(filler.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
      std::vector<char> block(1 << 16, 'f');
      while (::write(to, block.data(), block.size()) > 0) {
      }
      ::close(to);
    }
    std::string said;
    try {
      moved.migrate_to(node_id(3), how);
      said = "moved";
    } catch (const error& thrown) {
      said = "refused " + std::to_string(thrown.code().value());
    }
    try {
      send(moved.id(), 1);
    } catch (const error&) {
      // join says what has become of it
    }
    return (moved.join() == 0 ? "right, " : "wrong, ") + said;
  } catch (const error& thrown) {
    return "error " + std::to_string(thrown.code().value());
  }
}

int one_move() {
  std::string outcome = migrate_test::run(move_by_strategy, wanted("FAULT_FILE"),
                                          *transfer_named(wanted("FAULT_HOW")), wanted("FAULT_FILL"));
  std::printf("%s\n", outcome.c_str());
  std::fflush(stdout);
  return 0;
}
const migrate_test::scenario_entry the_move{"one move by strategy", one_move};

// A task of node 1 is on its way from node 2 to a target that takes long to lay it out. It ends meanwhile, and a task is
// born on that target, at the same addresses.

std::uint64_t end_on_the_way(std::string held_up, task_id parent) {
  std::vector<std::uint64_t> data(words, 1);
  this_task::migrate_to(node_id(2));
  send(parent, 1);
  while (::access(held_up.c_str(), F_OK) != 0) this_task::yield();
  return data[words / 2];
}

bool be_born(std::string held_up, task_id parent) {
  constexpr int looks = 100;
  std::vector<std::uint64_t> data(words);
  for (std::size_t i = 0; i < words; ++i) data[i] = i;
  send(parent, 1);
  while (::access(held_up.c_str(), F_OK) == 0) this_task::yield();
  std::uint64_t wrong = 0;
  for (int look = 0; look < looks; ++look)
    for (std::size_t i = 0; i < words; i += 32) wrong += data[i] != i;
  return wrong == 0;
}

std::string end_and_be_born(std::string held_up, node_id target) {
  auto ends = spawn({.name = "first"}, end_on_the_way, held_up, this_task::id());
  mailbox<int> ready;
  ready.receive();
  std::error_code code;
  ends.migrate_to(target, transfer::pre_flush, code);
  std::string said = code == errc::no_such_task ? "ended, " : "moved, ";
  ends.join();
  auto born = spawn({.name = "second", .on = target}, be_born, held_up, this_task::id());
  // At other addresses it may run at once; at the same ones, not before the first one's have been given up.
  const auto limit = std::chrono::steady_clock::now() + 300ms;
  bool ran = false;
  while (!ran && std::chrono::steady_clock::now() < limit) {
    ran = static_cast<bool>(ready.try_receive());
    this_task::yield();
  }
  ::unlink(held_up.c_str());
  if (!ran) ready.receive();
  return said + (ran ? "ran at once, " : "waited, ") + (born.join() ? "right" : "wrong");
}

int one_birth() {
  std::string outcome = migrate_test::run(end_and_be_born, wanted("MIGRATE_FAULT_FILE"),
                                          node_id(static_cast<std::uint16_t>(std::stoi(wanted("FAULT_TO")))));
  std::printf("%s\n", outcome.c_str());
  std::fflush(stdout);
  return 0;
}
const migrate_test::scenario_entry the_birth{"a birth where another was to arrive", one_birth};

// A task of node 1 that has most of its memory from an image asks to be moved itself while a move in rounds waits for its
// target.

bool ask_meanwhile(std::string held_up, task_id parent) {
  constexpr std::size_t all = (136 << 20) / 8; // more than is copied when an image is laid out
  constexpr std::size_t written = (1 << 20) / 8;
  std::vector<std::uint64_t> data(all);
  for (std::size_t i = 0; i < all; ++i) data[i] = i;
  this_task::migrate_to(node_id(2), transfer::flush);
  for (std::size_t i = 0; i < written; ++i) ++data[i];
  send(parent, 1);
  while (::access(held_up.c_str(), F_OK) != 0) this_task::yield();
  std::error_code code;
  this_task::migrate_to(node_id(3), code);
  bool right = !code && this_task::node() == node_id(3);
  for (std::size_t i = 0; i < all; ++i) right = right && data[i] == i + (i < written);
  return right;
}

bool move_who_asks(std::string held_up, transfer how) {
  auto moved = spawn({.region = region_class::large}, ask_meanwhile, held_up, this_task::id());
  mailbox<int>().receive();
  auto release = spawn([held_up] {
    while (::access(held_up.c_str(), F_OK) != 0) this_task::yield();
    this_task::sleep_for(200ms); // in which it asks: nobody sees that it has
    ::unlink(held_up.c_str());
  });
  std::error_code code;
  moved.migrate_to(node_id(3), how, code);
  release.join();
  return moved.join() && !code;
}

int one_haste() {
  std::puts(
      migrate_test::run(move_who_asks, wanted("MIGRATE_FAULT_FILE"), *transfer_named(wanted("FAULT_HOW")))
          ? "right"
          : "wrong");
  std::fflush(stdout);
  return 0;
}
const migrate_test::scenario_entry the_haste{"a task that asks during its rounds", one_haste};

struct result {
  int status = 0;
  std::string outcome;
  std::vector<std::string> lines;
};

result play(transfer how, const std::string& fault, const std::string& store = "",
            const std::string& filler = "") {
  folder place;
  std::string file = place.path / "lines";
  migrate_test::program cluster({migrate_test::own_path()}, {{"MIGRATE_SCENARIO", "one move by strategy"},
                                                             {"MIGRATE_FAULT", fault},
                                                             {"MIGRATE_KEEPALIVE", "1500"},
                                                             {"MIGRATE_QUIET", "1"},
                                                             {"MIGRATE_STORE", store},
                                                             {"FAULT_FILL", filler},
                                                             {"FAULT_FILE", file},
                                                             {"FAULT_HOW", std::string(name_of(how))}});
  result seen;
  seen.outcome = cluster.line(30s);
  if (fault.starts_with("stop:")) ::kill(-cluster.id(), SIGCONT);
  seen.status = cluster.wait(30s);
  seen.lines = lines_of(file);
  return seen;
}

void check_one_runner(const result& seen) {
  std::map<std::string, int> count;
  std::ostringstream all;
  for (const std::string& line : seen.lines) {
    ++count[line];
    all << line << "\n";
  }
  INFO("it wrote:\n" << all.str());
  INFO("outcome: " << seen.outcome);
  CHECK(seen.status == 0);
  for (const auto& [line, times] : count) {
    INFO(line);
    CHECK(times == 1);
  }
  if (seen.outcome.starts_with("right, "))
    CHECK(seen.lines.size() == ticks + 1);
  else
    CHECK(seen.outcome == "error " + std::to_string(static_cast<int>(errc::node_lost)));
}

struct way {
  transfer how;
  std::vector<std::string> source, target; // where it comes by
};

const std::vector<way> ways{
    {transfer::full_copy,
     {"source.streaming", "source.offered"},
     {"target.receiving", "target.pages", "target.granted"}},
    {transfer::pre_copy,
     {"source.round", "source.streaming", "source.frozen", "source.taken"},
     {"target.pages", "target.offered", "target.laid_out"}},
    {transfer::on_reference,
     {"source.offered", "source.fetched", "source.pushing"},
     {"target.offered", "target.laid_out", "target.granted"}},
    {transfer::pre_flush,
     {"source.flushing", "source.flushed", "source.offered"},
     {"target.laying", "target.offered", "target.taken"}},
};

} // namespace

TEST_CASE("without a fault the task arrives by each strategy") {
  for (const way& each : ways) {
    CAPTURE(std::string(name_of(each.how)));
    result seen = play(each.how, "");
    check_one_runner(seen);
    CHECK(seen.outcome == "right, moved");
    CHECK(std::find(seen.lines.begin(), seen.lines.end(), "after 3") != seen.lines.end());
  }
}

TEST_CASE("a source that is killed at any step of any strategy leaves one runner or a named error") {
  for (const way& each : ways)
    for (const std::string& point : each.source) {
      CAPTURE(std::string(name_of(each.how)), point);
      result seen = play(each.how, "2:" + point);
      check_one_runner(seen);
      if (point == "source.taken")
        CHECK(seen.outcome.starts_with("right")); // who asked may have lost the answer
    }
}

TEST_CASE("a target that is killed at any step of any strategy leaves the task where it was, and says so") {
  for (const way& each : ways)
    for (const std::string& point : each.target) {
      CAPTURE(std::string(name_of(each.how)), point);
      result seen = play(each.how, "3:" + point);
      check_one_runner(seen);
      if (point != "target.taken") CHECK(seen.outcome.starts_with("right, refused"));
    }
}

TEST_CASE("a node that stops in mid-transfer and comes back does not run what goes on elsewhere") {
  for (const char* fault : {"stop:3:target.pages", "stop:2:source.streaming"}) {
    CAPTURE(fault);
    check_one_runner(play(transfer::pre_copy, fault));
  }
}

TEST_CASE("with the store full only what needs it is refused, by name, and the task goes on") {
  for (transfer how : {transfer::flush, transfer::pre_flush, transfer::full_copy, transfer::pre_copy}) {
    CAPTURE(std::string(name_of(how)));
    folder place;
    if (::mount("migrate-test", place.path.c_str(), "tmpfs", 0, "size=64m,mode=700") != 0) {
      WARN("skipped: no file system can be mounted here: " << std::strerror(errno));
      return;
    }
    result seen = play(how, "", place.path / "store", place.path / "filler");
    ::umount2(place.path.c_str(), MNT_DETACH);
    check_one_runner(seen);
    bool by_image = how == transfer::flush || how == transfer::pre_flush;
    CHECK(seen.outcome == (by_image ? "right, refused " + std::to_string(static_cast<int>(errc::store_full))
                                    : "right, moved"));
  }
}

TEST_CASE("a task born at the addresses of one that has ended on its way there has its memory for itself") {
  for (const auto& [target, expected] :
       {std::pair{"3", "ended, waited, right"}, {"1", "ended, ran at once, right"}}) {
    CAPTURE(target);
    folder place;
    migrate_test::program cluster({migrate_test::own_path()},
                                  {{"MIGRATE_SCENARIO", "a birth where another was to arrive"},
                                   {"MIGRATE_FAULT", std::string("hold:") + target + ":target.laying"},
                                   {"MIGRATE_FAULT_FILE", place.path / "held up"},
                                   {"MIGRATE_QUIET", "1"},
                                   {"FAULT_TO", target}});
    CHECK(cluster.line(30s) == expected);
    CHECK(cluster.wait(30s) == 0);
  }
}

TEST_CASE("a task that asks for a move before its first round has all of its memory when it arrives") {
  for (transfer how : {transfer::pre_flush, transfer::pre_copy}) {
    CAPTURE(std::string(name_of(how)));
    folder place;
    migrate_test::program cluster({migrate_test::own_path()},
                                  {{"MIGRATE_SCENARIO", "a task that asks during its rounds"},
                                   {"MIGRATE_FAULT", "hold:3:target.receiving"},
                                   {"MIGRATE_FAULT_FILE", place.path / "held up"},
                                   {"MIGRATE_QUIET", "1"},
                                   {"FAULT_HOW", std::string(name_of(how))}});
    CHECK(cluster.line(30s) == "right");
    CHECK(cluster.wait(30s) == 0);
  }
}
