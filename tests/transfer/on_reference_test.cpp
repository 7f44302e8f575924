#include <migrate/transfer/page_office.hpp>

#include "../support/cluster.hpp"
#include "../support/program.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <migrate/file.hpp>
#include <migrate/fork.hpp>
#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>
#include <migrate/process.hpp>
#include <migrate/signal.hpp>

using namespace migrate;
using namespace std::chrono_literals;

namespace {

const migrate_test::no_cluster_of_its_own here;

// Each play is a cluster of its own, in which what is left behind goes only when it is touched, unless it is said otherwise.

constexpr std::size_t heap_bytes = std::size_t{10} << 20;
constexpr std::size_t words = heap_bytes / 8;
constexpr std::size_t page_words = 512;

struct numbers {
  std::vector<std::uint64_t> all = std::vector<std::uint64_t>(words);

  numbers() { std::iota(all.begin(), all.end(), 7); }
  std::uint64_t sum(std::size_t first, std::size_t pages) const {
    std::uint64_t wrong = 0;
    for (std::size_t i = first * page_words; i < (first + pages) * page_words; ++i) wrong += all[i] != i + 7;
    return wrong;
  }
  bool right() const { return sum(0, words / page_words) == 0; }
};

node_id other(std::size_t which = 0) {
  std::vector<node_id> all = nodes();
  std::erase(all, this_task::node());
  return all.at(which % all.size());
}

std::uint64_t missing() {
  auto left = this_task::residual();
  return left ? left->bytes : 0;
}

bool waits_until_whole(std::chrono::seconds limit = 10s) {
  auto end = std::chrono::steady_clock::now() + limit;
  while (this_task::residual()) {
    if (std::chrono::steady_clock::now() > end) return false;
    this_task::yield();
  }
  return true;
}

std::string said(bool good, const char* what) { return good ? std::string() : std::string(what) + "; "; }

std::string fetches() {
  // Nothing is pushed.
  numbers mine;
  node_id before = this_task::node();
  this_task::migrate_to(other(), transfer::on_reference);
  std::string wrong = said(this_task::node() != before, "it is where it was");
  auto left = this_task::residual();
  wrong += said(left && left->on == before, "it depends on nobody");
  std::uint64_t at_first = missing();
  wrong += said(at_first > heap_bytes * 9 / 10, "most of it has come at once");
  wrong += said(mine.sum(100, 3) == 0, "three pages are not what they were");
  std::uint64_t then = missing();
  wrong += said(then <= at_first - 3 * 4096 && then >= at_first - 16 * 4096, "more has come than was touched");
  for (auto end = std::chrono::steady_clock::now() + 50ms; std::chrono::steady_clock::now() < end;) this_task::yield();
  wrong += said(missing() + 16 * 4096 >= then, "something comes unasked");
  wrong += said(mine.right(), "its memory is not what it was");
  this_task::migrate_to(other(), transfer::flush); // fetches what is left
  wrong += said(!this_task::residual(), "it has left and still depends");
  wrong += said(mine.right(), "its memory is not what it was after a flush");
  this_task::migrate_to(other(), transfer::on_reference);
  wrong += said(this_task::residual().has_value(), "the second time it depends on nobody");
  this_task::migrate_to(other(), transfer::on_reference);
  wrong += said(mine.right(), "its memory is not what it was after three");
  return wrong;
}

std::string pushes() {
  std::string wrong;
  numbers mine;
  for (std::size_t turn = 0; turn < 4; ++turn) {
    this_task::migrate_to(other(turn), transfer::on_reference);
    for (std::size_t page = turn; page < words / page_words; page += 97) wrong += said(mine.sum(page, 1) == 0, "a page");
    wrong += said(waits_until_whole(), "the dependency does not end");
    wrong += said(mine.right(), "its memory is not what it was");
  }
  return wrong;
}

std::string writes_and_frees() {
  // New memory where the old one has not come yet, and memory given back before it came.
  std::string wrong;
  auto* mine = new numbers;
  std::vector<char> kept(1 << 20, 'k');
  this_task::migrate_to(other(), transfer::on_reference);
  delete mine; // untouched
  std::vector<std::string> grown;
  for (int i = 0; i < 100; ++i) grown.emplace_back(100'000, static_cast<char>('a' + i % 26));
  std::vector<std::uint64_t> zeros(words);
  wrong += said(std::count(zeros.begin(), zeros.end(), 0) == static_cast<long>(words), "fresh memory is not zero");
  for (int i = 0; i < 100; ++i)
    wrong += said(grown[static_cast<std::size_t>(i)] == std::string(100'000, static_cast<char>('a' + i % 26)), "a string");
  wrong += said(std::count(kept.begin(), kept.end(), 'k') == 1 << 20, "what was kept");
  return wrong;
}

std::string forks_while_it_depends() {
  numbers mine;
  this_task::migrate_to(other(), transfer::on_reference);
  task_id copy = migrate::fork();
  bool right = mine.right();
  if (!copy) this_task::exit(right ? 0 : 1);
  return said(right, "the parent's memory") + said(!this_task::residual(), "a task with a copy still depends");
}

std::string is_checkpointed_while_it_depends() {
  numbers mine;
  this_task::migrate_to(other(), transfer::on_reference);
  std::string wrong = said(this_task::residual().has_value(), "it depends on nobody");
  this_task::checkpoint();
  return wrong + said(!this_task::residual(), "its checkpoint is not whole") + said(mine.right(), "its memory");
}

std::atomic<int> handled{0};

std::string is_signalled_while_it_depends() {
  numbers mine;
  on_signal(SIGUSR1, [](const signal_info&) { ++handled; });
  this_task::migrate_to(other(), transfer::on_reference);
  int before = handled;
  raise_signal(SIGUSR1);
  return said(handled == before + 1, "no handler ran") + said(mine.right(), "its memory");
}

std::string reads_into_what_is_missing() {
  // The kernel touches it before the task does.
  std::vector<char> text(3 << 20, 'x');
  numbers mine;
  this_task::migrate_to(other(), transfer::on_reference);
  file from("/proc/self/exe", O_RDONLY);
  std::size_t got = from.read(std::as_writable_bytes(std::span(text)).subspan(1 << 20, 1 << 20));
  std::string wrong = said(got > 0, "nothing was read");
  wrong += said(text[(1 << 20) + 1] == 'E' && text[(1 << 20) - 1] == 'x' && text.back() == 'x', "what was read");
  return wrong + said(mine.right(), "its memory");
}

std::string ends_while_it_depends() {
  // What it has left behind goes, and its addresses are another task's.
  std::string wrong;
  for (int i = 0; i < 8; ++i) {
    auto ends = spawn([] {
      numbers mine;
      this_task::migrate_to(other(), transfer::on_reference);
      return mine.sum(5, 1) + (missing() > 0 ? 1 : 0);
    });
    wrong += said(ends.join() == 1, "it has ended otherwise");
  }
  return wrong;
}

// --- with a node that dies: a task of node 1 is on node 3, and has left its memory on node 2 -------------

enum class pursuit { touches, waits, moves_on };

std::string loses(pursuit how) {
  // What the fault is, and who is to blame for it, the environment says.
  auto moved = spawn([how] {
    numbers mine;
    this_task::migrate_to(node_id(2), transfer::flush);
    this_task::migrate_to(node_id(3), transfer::on_reference);
    mailbox<int> never;
    switch (how) {
    case pursuit::touches: return mine.right();
    case pursuit::waits: return never.receive() == 0;
    case pursuit::moves_on: this_task::migrate_to(node_id(1), transfer::flush); return mine.right();
    }
    return false;
  });
  try {
    moved.join();
  } catch (const error& thrown) {
    std::string text = thrown.what();
    return said(thrown.code() == errc::node_lost, text.c_str()) +
           said(text.find(std::getenv("BLAMED")) != std::string::npos, text.c_str());
  }
  return "it has not ended by an error";
}
std::string loses_touching() { return loses(pursuit::touches); }
std::string loses_waiting() { return loses(pursuit::waits); }
std::string loses_moving_on() { return loses(pursuit::moves_on); }

struct scene {
  const char* name;
  std::string (*play)();
};
constexpr scene scenes[] = {{"fetches", fetches},
                            {"pushes", pushes},
                            {"writes and frees", writes_and_frees},
                            {"forks", forks_while_it_depends},
                            {"is checkpointed", is_checkpointed_while_it_depends},
                            {"is signalled", is_signalled_while_it_depends},
                            {"reads", reads_into_what_is_missing},
                            {"ends", ends_while_it_depends},
                            {"loses, touching", loses_touching},
                            {"loses, waiting", loses_waiting},
                            {"loses, moving on", loses_moving_on}};

int play_scene() {
  std::string name = std::getenv("SCENE");
  for (const scene& each : scenes)
    if (name == each.name) {
      std::string wrong;
      try {
        wrong = migrate_test::run([play = each.play] { return spawn([play] { return play(); }).join(); });
        if (name == "pushes")
          wrong += said(migrate_test::statistics().bytes_followed > heap_bytes * 9 / 10, "what has followed it is not counted");
      } catch (const std::exception& thrown) {
        wrong = thrown.what();
      }
      std::printf("%s\n", wrong.empty() ? "right" : wrong.c_str());
    }
  std::fflush(stdout);
  return 0;
}
const migrate_test::scenario_entry the_scene{"a scene of copy on reference", play_scene};

void check_scene(const char* name, const char* push, const char* fault = "", const char* blamed = "") {
  CAPTURE(name, push, fault);
  migrate_test::program cluster({migrate_test::own_path()}, {{"MIGRATE_SCENARIO", "a scene of copy on reference"},
                                                             {"MIGRATE_PUSH", push},
                                                             {"MIGRATE_QUIET", "1"},
                                                             {"MIGRATE_FAULT", fault},
                                                             {"MIGRATE_KEEPALIVE", "1500"},
                                                             {"BLAMED", blamed},
                                                             {"SCENE", name}});
  CHECK(cluster.line(20s) == "right");
  if (std::string(fault).starts_with("stop:")) ::kill(-cluster.id(), SIGCONT);
  CHECK(cluster.wait(10s) == 0);
}

} // namespace

TEST_CASE("only what is touched comes, and it says on whom it depends; then it moves on by other ways") {
  check_scene("fetches", "0");
}

TEST_CASE("what is left behind follows by itself, and the dependency ends") { check_scene("pushes", "1"); }

TEST_CASE("memory that is freed and taken anew before it has come is what it would be without a move") {
  for (const char* push : {"0", "1"}) check_scene("writes and frees", push);
}

TEST_CASE("a task that forks, is checkpointed or signalled while it depends has all of its memory for it") {
  for (const char* name : {"forks", "is checkpointed", "is signalled"}) check_scene(name, "0");
}

TEST_CASE("a system call into memory that has not come is like any other") { check_scene("reads", "0"); }

TEST_CASE("when a task ends that depends, what it has left behind goes") { check_scene("ends", "0"); }

TEST_CASE("a source that is killed while pages are missing ends the task, whatever it does, with an error that names it") {
  check_scene("loses, touching", "0", "2:source.fetched", "node 2");
  check_scene("loses, touching", "1", "2:source.pushing", "node 2");
  check_scene("loses, waiting", "1", "2:source.pushing", "node 2");
  check_scene("loses, moving on", "0", "2:source.pushing", "node 2");
}

TEST_CASE("a source that falls silent while pages are missing ends the task with an error that names it") {
  check_scene("loses, touching", "0", "stop:2:source.fetched", "node 2");
}

TEST_CASE("a target that is killed while pages are missing is told of by its name") {
  check_scene("loses, touching", "0", "3:target.touched", "node 3");
  check_scene("loses, touching", "1", "3:target.fetched", "node 3");
}
