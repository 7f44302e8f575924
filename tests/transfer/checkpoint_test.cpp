#include <migrate/task/this_task.hpp>

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"
#include "witness.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <migrate/file.hpp>
#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>
#include <migrate/signal.hpp>
#include <migrate/streams.hpp>

using namespace migrate;
using migrate_test::folder, migrate_test::lines_of, migrate_test::note, migrate_test::wanted;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

const migrate_test::no_cluster_of_its_own here;

// Node 1 is everybody's home. A task writes down all that it does, so that two runners, or one that was restarted from
// where it should not, would be seen.

void say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

[[noreturn]] void die_with_node() {
  // Nothing stands between the look and the end at which the task could be moved.
  for (;;) {
    if (this_task::node() != this_task::home()) ::raise(SIGKILL);
    this_task::migrate_to(nodes().back());
  }
}

void go_away() {
  while (this_task::node() == this_task::home()) this_task::migrate_to(nodes()[1]);
}

template <class T> std::string outcome_of(task<T>& which) {
  try {
    return "value " + std::to_string(which.join());
  } catch (const error& thrown) {
    return "error " + std::to_string(thrown.code().value()) + " " + thrown.what();
  }
}

bool tortured() { return std::getenv("MIGRATE_TORTURE") != nullptr; }

struct cluster {
  folder place;
  std::string file = place.path / "lines";
  migrate_test::program nodes;

  explicit cluster(const char* scenario, migrate_test::environment extra = {})
      : nodes({migrate_test::own_path()}, [&] {
          extra.insert(extra.end(),
                       {{"MIGRATE_SCENARIO", scenario}, {"MIGRATE_QUIET", "1"}, {"CHECKPOINT_FILE", file}});
          extra.emplace_back("MIGRATE_KEEPALIVE", "500");
          if (tortured()) extra.emplace_back("MIGRATE_TORTURE", wanted("MIGRATE_TORTURE"));
          return extra;
        }()) {}

  std::map<std::string, int> counted() const {
    std::map<std::string, int> count;
    for (const std::string& each : lines_of(file)) ++count[each];
    return count;
  }
};

// ---------------------------------------------------------------------------------------------------

const migrate_test::scenario_entry once_more{
    "once more", [] {
      std::string file = wanted("CHECKPOINT_FILE");
      auto worker = spawn({.name = "worker", .recover = true}, [file] {
        std::vector<std::uint64_t> data(1 << 18);
        for (std::size_t i = 0; i < data.size(); ++i) data[i] = i * i;
        go_away();
        print("before\n");
        bool again = this_task::checkpoint();
        print("%s\n", again ? "after, again" : "after");
        data[7] += 1;
        note(file, "after " + std::to_string(this_task::restarts()));
        if (!again) die_with_node();
        std::uint64_t sum = 0;
        for (std::uint64_t each : data) sum = sum * 31 + each;
        std::uint64_t right = 0;
        for (std::size_t i = 0; i < data.size(); ++i) right = right * 31 + i * i + (i == 7);
        return static_cast<int>(this_task::restarts()) + (sum == right ? 0 : 100);
      });
      say(outcome_of(worker));
      return 0;
    }};

const migrate_test::scenario_entry too_early{"too early", [] {
                                               bool asked = wanted("ASKED") == "1",
                                                    committed = wanted("COMMITTED") == "1";
                                               auto worker =
                                                   spawn({.name = "worker", .recover = asked}, [committed] {
                                                     go_away();
                                                     if (committed) this_task::checkpoint();
                                                     die_with_node();
                                                     return 0;
                                                   });
                                               say(outcome_of(worker));
                                               return 0;
                                             }};

// Goes from node to node with checkpoints, and dies at a fault point or behind the last.
const migrate_test::scenario_entry three_places{
    "three places", [] {
      std::string file = wanted("CHECKPOINT_FILE");
      auto worker = spawn({.name = "worker", .recover = true}, [file] {
        std::vector<std::uint64_t> data(1 << 19, 1);
        std::vector<node_id> all = nodes();
        this_task::migrate_to(all[2]);
        if (this_task::checkpoint()) {
          note(file, "from the first");
          return static_cast<int>(data[0]);
        }
        for (auto& each : data) each = 2;
        std::error_code code;
        this_task::migrate_to(all[1], code); // through the store: the images before it are old ones
        note(file, "moved");
        if (this_task::checkpoint()) {
          note(file, "from the second");
          return static_cast<int>(data[0]);
        }
        for (auto& each : data) each = 3;
        note(file, "behind");
        die_with_node();
      });
      say(outcome_of(worker));
      return 0;
    }};

const migrate_test::scenario_entry moved_since{
    "moved since", [] {
      std::string file = wanted("CHECKPOINT_FILE");
      auto worker = spawn({.name = "worker", .recover = true}, [file] {
        std::vector<std::uint64_t> data(1 << 19, 1);
        std::vector<node_id> all = nodes();
        this_task::migrate_to(all[1]);
        bool again = this_task::checkpoint();
        note(file, again ? "again" : "first");
        for (int round = 0; round < 3 && !again; ++round) { // each leaves images that the next makes garbage
          for (auto& each : data) each += 1;
          this_task::migrate_to(all[round % 2 == 0 ? 2 : 1]);
        }
        if (!again) die_with_node();
        return static_cast<int>(std::count(data.begin(), data.end(), 1u) == 1 << 19);
      });
      say(outcome_of(worker));
      return 0;
    }};

int newest_generation(const std::string& folder) {
  int found = 0;
  std::error_code none;
  for (const auto& each : fs::directory_iterator(folder, none))
    if (each.path().extension() == ".image") found = std::max(found, std::stoi(each.path().stem()));
  return found;
}

const migrate_test::scenario_entry periodic{
    "periodic", [] {
      std::string images = migrate_test::cluster_store() + "/images";
      std::string file = wanted("CHECKPOINT_FILE");
      auto worker = spawn({.name = "worker", .recover = true}, [images, file] {
        go_away();
        const std::string mine = images + "/" + to_string(this_task::id());
        int steps = 0;
        while (this_task::restarts() == 0) {
          note(file, "step " + std::to_string(steps++));
          this_task::yield();
          if (newest_generation(mine) >= 3 && this_task::restarts() == 0) {
            note(file, "dies at " + std::to_string(steps));
            die_with_node();
          }
        }
        note(file, "back at " + std::to_string(steps));
        return static_cast<int>(this_task::restarts());
      });
      say(outcome_of(worker));
      return 0;
    }};

const migrate_test::scenario_entry by_handle{
    "by handle", [] {
      auto worker = spawn({.name = "worker", .recover = true}, [] {
        go_away();
        mailbox<int> orders;
        int sum = 0;
        for (int got = orders.receive(); got != 0; got = orders.receive()) {
          if (got == -1) die_with_node();
          sum += got;
        }
        return sum;
      });
      migrate_test::run([id = worker.id()] {
        send(id, 1);
        send(id, 2);
      });
      auto until = [&](auto&& holds) {
        while (!holds(worker.where())) migrate_test::run([] { this_task::sleep_for(1ms); });
      };
      until([](node_id now) { return now != node_id(1); });
      worker.checkpoint(); // with what was read of them, and what was not
      node_id place = worker.where();
      migrate_test::run([id = worker.id()] { send(id, -1); });
      say("told");
      until([&](node_id now) { return now != place; });
      migrate_test::run([id = worker.id()] {
        send(id, 10);
        send(id, 0);
      });
      say(outcome_of(worker));
      return 0;
    }};

const migrate_test::scenario_entry talk{
    "talk", [] {
      say(migrate_test::run([] {
        struct word {
          int what, life;
        };
        mailbox<word> answers;
        task_id me = this_task::id();
        auto worker = spawn({.name = "worker", .recover = true}, [me] {
          mailbox<int> orders;
          int signals = 0;
          on_signal(SIGUSR1, [&](const signal_info&) { ++signals; });
          send(me, word{0, 0});
          go_away();
          for (int seen = 0; seen < 2; ++seen) {
            while (signals == seen) this_task::yield();
            if (seen == 0) send(me, word{1, 0});
          }
          int sum = 0;
          for (int i = 0; i < 3; ++i) sum += orders.receive();
          send(me, word{sum, 0});
          bool again = this_task::checkpoint();
          send(me, word{1000 + sum, static_cast<int>(again)}); // in both lives
          if (!again) {
            sum += orders.receive() + orders.receive(); // gone with the node
            while (signals < 3) this_task::yield();     // as is this
            send(me, word{2000, 0});
            mailbox<std::string> never;
            if (never.receive() == "die") die_with_node();
          }
          while (signals < 3) this_task::yield();
          sum += orders.receive();
          send(me, word{3000 + sum, static_cast<int>(again)});
          return sum + 10000 * signals;
        });
        std::string log;
        auto hear = [&] {
          word got = answers.receive();
          log += std::to_string(got.what) + "/" + std::to_string(got.life) + " ";
        };
        hear(); // its handler is there
        send_signal(worker.id(), SIGUSR1);
        hear();
        send_signal(worker.id(), SIGUSR1); // two that wait would be one
        for (int i = 1; i <= 3; ++i) send(worker.id(), i);
        hear();
        hear();
        send(worker.id(), 50);
        send(worker.id(), 60);
        send_signal(worker.id(), SIGUSR1);
        hear();
        send(worker.id(), std::string("die"));
        hear(); // the other life
        send_signal(worker.id(), SIGUSR1);
        send(worker.id(), 100);
        hear();
        return log + std::to_string(worker.join());
      }));
      return 0;
    }};

const migrate_test::scenario_entry open_things{
    "open things", [] {
      std::string file = wanted("CHECKPOINT_FILE");
      auto worker = spawn({.name = "worker", .recover = true}, [file] {
        migrate::file out(fs::path(file), O_RDWR | O_CREAT | O_TRUNC, 0600);
        out.write("one ");
        std::vector<std::string> refused;
        auto refuses = [&] {
          try {
            this_task::checkpoint();
            refused.push_back("nothing");
          } catch (const error& thrown) {
            refused.push_back(thrown.code() == errc::not_movable ? thrown.what() : "otherwise");
          }
        };
        {
          pipe_ends pipe = make_pipe();
          refuses();
        }
        {
          pin_scope pin;
          refuses();
        }
        go_away();
        if (!this_task::checkpoint()) {
          out.write("lost ");
          die_with_node();
        }
        out.write("two");
        print("%s\n%s\n", refused[0].c_str(), refused[1].c_str());
        return static_cast<int>(out.tell());
      });
      say(outcome_of(worker));
      return 0;
    }};

const migrate_test::scenario_entry full_store{"full store", [] {
                                                auto worker = spawn({.name = "worker", .recover = true}, [] {
                                                  std::vector<std::uint64_t> data(1 << 17, 1);
                                                  go_away();
                                                  if (this_task::checkpoint())
                                                    return static_cast<int>(data[0]);
                                                  std::signal(SIGXFSZ, SIG_IGN);
                                                  rlimit limit{};
                                                  ::getrlimit(RLIMIT_FSIZE, &limit);
                                                  rlimit little{4096, limit.rlim_max};
                                                  ::setrlimit(RLIMIT_FSIZE, &little);
                                                  for (auto& each : data) each = 2;
                                                  std::error_code code;
                                                  this_task::checkpoint(code);
                                                  if (code != errc::store_full) return 100 + code.value();
                                                  if (this_task::node() == this_task::home()) return 99;
                                                  die_with_node(); // the one before it stands
                                                });
                                                say(outcome_of(worker));
                                                return 0;
                                              }};

// Memory that changes all over all the time, such that pieces of it from different moments are seen to be.
class books {
public:
  explicit books(std::size_t pages) : words_(pages * 512), entries_(500), at_(pages - 1) {
    for (std::string& each : entries_) total_ += (each = std::string(1000, 'a')).size();
  }

  void step() {
    if (++at_ == words_.size() / 512) {
      at_ = 0;
      ++turn_;
    }
    words_[at_ * 512] = turn_;
    draw_ = draw_ * 6364136223846793005u + 1442695040888963407u;
    std::string& one = entries_[(draw_ >> 33) % entries_.size()];
    total_ -= one.size();
    one = std::string((draw_ >> 40) % 5000, static_cast<char>('a' + turn_ % 26)); // another block of the heap
    total_ += one.size();
  }

  bool whole() const {
    std::size_t total = 0;
    for (const std::string& each : entries_) {
      total += each.size();
      if (each.find_first_not_of(each.empty() ? 'a' : each[0]) != std::string::npos) return false;
    }
    for (std::size_t i = 0; i < words_.size() / 512; ++i)
      if (words_[i * 512] != (i <= at_ ? turn_ : turn_ - 1)) return false;
    return total == total_;
  }

private:
  std::vector<std::uint64_t> words_;
  std::vector<std::string> entries_;
  std::size_t at_;
  std::uint64_t turn_ = 0, draw_ = 1;
  std::size_t total_ = 0;
};

// A task on node 2 changes its memory while others have it committed; it has been committed before, on node 3.
const migrate_test::scenario_entry at_work{
    "at work", [] {
      std::string file = wanted("CHECKPOINT_FILE");
      auto worker = spawn({.name = "worker", .recover = true}, [file] {
        books its(4096);
        this_task::migrate_to(node_id(3));
        this_task::checkpoint();
        if (this_task::restarts() == 0) {
          this_task::migrate_to(node_id(2), transfer::full_copy);
          note(file, "pid " + std::to_string(::getpid()));
        }
        while (this_task::restarts() == 0) {
          its.step();
          this_task::poll();
        }
        note(file, its.whole() ? "whole" : "broken");
        for (int i = 0; i < 10000; ++i) its.step();
        return its.whole() ? static_cast<int>(this_task::restarts()) : -1;
      });
      while (lines_of(file).empty()) migrate_test::run([] { this_task::sleep_for(1ms); });
      for (int i = 0; i < 3; ++i) {
        try {
          worker.checkpoint();
          note(file, "kept");
        } catch (const error&) {
          note(file, "failed");
        }
      }
      say(migrate_test::cluster_store() + "/images/" + to_string(worker.id()));
      say(outcome_of(worker));
      return 0;
    }};

// A task on node 2 ticks for ever, or until node 2 has died. The test stops, continues and kills that node.
const migrate_test::scenario_entry ticker{
    "ticker", [] {
      std::string file = wanted("CHECKPOINT_FILE");
      migrate_test::on_event([](const cluster_event& event) {
        if (event.what == cluster_event::kind::lost) say("lost");
        if (event.what == cluster_event::kind::restarted) say("restarted " + to_string(event.to));
      });
      auto worker = spawn({.name = "ticker", .recover = true}, [file] {
        this_task::migrate_to(node_id(2));
        if (!this_task::checkpoint()) note(file, "pid " + std::to_string(::getpid()));
        for (int i = 0; !fs::exists(file + ".end"); ++i) {
          note(file, "tick " + std::to_string(this_task::restarts()) + " " + std::to_string(i));
          this_task::yield();
        }
        return static_cast<int>(this_task::restarts());
      });
      say(outcome_of(worker));
      while (wanted("AWAIT_NODE") == "1") { // until it is one of the nodes again
        try {
          spawn({.on = node_id(2)}, [] {}).join();
          say("back");
          break;
        } catch (const error&) {
          migrate_test::run([] { this_task::sleep_for(5ms); });
        }
      }
      return 0;
    }};

int process_of_task(const cluster& all) {
  for (auto until = std::chrono::steady_clock::now() + 20s; std::chrono::steady_clock::now() < until;) {
    for (const std::string& each : lines_of(all.file))
      if (each.starts_with("pid ")) return std::stoi(each.substr(4));
    std::this_thread::sleep_for(5ms);
  }
  FAIL("the task did not begin");
  return 0;
}

// Nodes 1 and 2, which stay until a line comes; node 3 joins them and is the home of a task on node 1.
const migrate_test::scenario_entry hosts{"hosts", [] {
                                           say(migrate_test::cluster_address());
                                           say(migrate_test::cluster_store());
                                           while (std::getchar() != '\n') {
                                           }
                                           return 0;
                                         }};

const migrate_test::scenario_entry distant_home{
    "distant home", [] {
      std::string file = wanted("CHECKPOINT_FILE");
      auto worker = spawn({.name = "worker", .recover = true}, [file] {
        this_task::migrate_to(node_id(1));
        this_task::checkpoint();
        note(file, "committed");
        std::error_code code;
        while (!code) this_task::checkpoint(code);
        note(file, "refused " + std::to_string(code.value()) + " restarts " +
                       std::to_string(this_task::restarts()));
        return 0;
      });
      worker.join();
      return 0;
    }};

} // namespace

TEST_CASE("a task that asked for it is restarted elsewhere from its checkpoint when its node dies") {
  cluster all("once more");
  CHECK(all.nodes.line() == "before");
  CHECK(all.nodes.line() == "after");
  CHECK(all.nodes.line() == "after, again");
  CHECK(all.nodes.line() == "value 1");
  CHECK(all.nodes.wait(20s) == 0);
  CHECK(lines_of(all.file) == std::vector<std::string>{"after 0", "after 1"});
}

TEST_CASE("without a checkpoint, or when it did not ask, its waiters hear which node died") {
  for (auto [asked, committed] : {std::pair("1", "0"), {"0", "1"}, {"0", "0"}}) {
    CAPTURE(asked, committed);
    cluster all("too early", {{"ASKED", asked}, {"COMMITTED", committed}});
    std::string line = all.nodes.line();
    CHECK_THAT(line, Catch::StartsWith("error " + std::to_string(static_cast<int>(errc::node_lost)) + " "));
    if (tortured())
      CHECK_THAT(line, Catch::Contains("was on node "));
    else
      CHECK_THAT(line, Catch::Contains("was on node 2"));
    CHECK(all.nodes.wait(20s) == 0);
  }
}

TEST_CASE("a node that dies in the midst of a checkpoint leaves the one before it") {
  if (tortured()) return; // the places are what this is about
  for (const char* point : {"checkpoint.frozen", "checkpoint.committed"}) {
    CAPTURE(point);
    cluster all("three places", {{"MIGRATE_FAULT", std::string("2:") + point}});
    CHECK(all.nodes.line() == "value 1");
    CHECK(all.nodes.wait(20s) == 0);
    CHECK(all.counted() == std::map<std::string, int>{{"moved", 1}, {"from the first", 1}});
  }
  cluster all("three places");
  CHECK(all.nodes.line() == "value 2");
  CHECK(all.nodes.wait(20s) == 0);
  CHECK(all.counted() == std::map<std::string, int>{{"moved", 1}, {"behind", 1}, {"from the second", 1}});
}

TEST_CASE("a node that dies while a task with a checkpoint moves leaves one runner") {
  if (tortured()) return;
  for (const char* point :
       {"3:source.frozen", "3:source.flushed", "3:source.offered", "3:source.taken", "3:source.vacated",
        "2:target.offered", "2:target.laid_out", "2:target.granted", "2:target.taken"}) {
    CAPTURE(point);
    cluster all("three places", {{"MIGRATE_FAULT", point}});
    std::string line = all.nodes.line();
    CHECK(all.nodes.wait(20s) == 0);
    auto count = all.counted();
    INFO(line);
    for (const auto& [what, times] : count) {
      INFO(what);
      CHECK(times == 1);
    }
    CHECK(count["from the first"] + count["from the second"] == 1);
    CHECK(line == (count["from the first"] == 1 ? "value 1" : "value 2"));
  }
}

TEST_CASE("a target that dies while it restarts a task does not lose it") {
  if (tortured()) return;
  for (const char* point :
       {"target.offered", "target.laid_out"}) { // of the first offer, and then of the restart
    CAPTURE(point);
    cluster all("once more", {{"MIGRATE_FAULT", std::string("3:") + point}});
    CHECK(all.nodes.line() == "before");
    CHECK(all.nodes.line() == "after");
    CHECK(all.nodes.line() == "after, again");
    CHECK(all.nodes.line() == "value 1"); // on home: nobody else is left
    CHECK(all.nodes.wait(20s) == 0);
  }
}

TEST_CASE("a checkpoint outlives the images of the moves after it") {
  if (tortured()) return;
  cluster all("moved since");
  CHECK(all.nodes.line() == "value 1");
  CHECK(all.nodes.wait(20s) == 0);
  CHECK(all.counted() == std::map<std::string, int>{{"first", 1}, {"again", 1}});
}

TEST_CASE("checkpoints are made from time to time, and the last counts") {
  cluster all("periodic", {{"MIGRATE_CHECKPOINT", "0.05"}});
  CHECK(all.nodes.line() == "value 1");
  CHECK(all.nodes.wait(20s) == 0);
  int died = 0, back = -1;
  for (const std::string& each : lines_of(all.file)) {
    if (each.starts_with("dies at ")) died = std::stoi(each.substr(8));
    if (each.starts_with("back at ")) back = std::stoi(each.substr(8));
  }
  CHECK(back > 0);
  CHECK(back <= died);
}

TEST_CASE("what is committed of a task that works meanwhile is its memory of one moment") {
  if (tortured()) return; // it stays where it is
  for (int more : {0, 4}) {
    cluster all("at work", {{"MIGRATE_CHECKPOINT", "0.02"}});
    std::string images = all.nodes.line();
    int before = newest_generation(images);
    CHECK(before >= 5); // in rounds, as it does not stand still for all of it
    REQUIRE(migrate_test::becomes_true([&] { return newest_generation(images) >= before + more; }));
    ::kill(process_of_task(all), SIGKILL);
    CHECK(all.nodes.line() == "value 1");
    CHECK(all.nodes.wait(20s) == 0);
    CHECK(lines_of(all.file).back() == "whole");
  }
}

TEST_CASE("a node that dies while a task is committed that works meanwhile leaves the one before it") {
  if (tortured()) return;
  for (const char* point : {"source.round", "source.flushed", "checkpoint.copied", "checkpoint.committed"}) {
    CAPTURE(point);
    cluster all("at work", {{"MIGRATE_FAULT", std::string("2:") + point}});
    all.nodes.line();
    CHECK(all.nodes.line() == "value 1");
    CHECK(all.nodes.wait(20s) == 0);
    auto count = all.counted();
    CHECK(count["whole"] == 1);
    CHECK(count["failed"] > 0);
  }
}

TEST_CASE("a task's parent has it committed") {
  if (tortured()) return; // whoever sends to it would die with it
  cluster all("by handle");
  CHECK(all.nodes.line() == "told");
  CHECK(all.nodes.line() == "value 13");
  CHECK(all.nodes.wait(20s) == 0);
}

TEST_CASE("messages and signals reach a task that was restarted, and what it says again is heard") {
  if (tortured()) return;
  cluster all("talk");
  CHECK(all.nodes.line() == "0/0 1/0 6/0 1006/0 2000/0 1006/1 3106/1 30106");
  CHECK(all.nodes.wait(20s) == 0);
}

TEST_CASE(
    "files are opened again at their offsets, and what cannot be part of a checkpoint refuses it by name") {
  cluster all("open things");
  CHECK_THAT(all.nodes.line(), Catch::Contains("pipe"));
  CHECK_THAT(all.nodes.line(), Catch::Contains("pin_scope"));
  CHECK(all.nodes.line() == "value 7");
  CHECK(all.nodes.wait(20s) == 0);
  std::ifstream file(all.file);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  CHECK(text == "one twot "); // what was written since the checkpoint is there, and written over
}

TEST_CASE("a full store fails the checkpoint, and the one before stands") {
  if (tortured()) return;
  cluster all("full store");
  CHECK(all.nodes.line() == "value 1");
  CHECK(all.nodes.wait(20s) == 0);
}

TEST_CASE("a node that is only out of reach for a while keeps its tasks") {
  if (tortured()) return;
  cluster all("ticker");
  int process = process_of_task(all);
  ::kill(process, SIGSTOP);
  CHECK(all.nodes.line() == "lost");
  ::kill(process, SIGCONT);
  auto before = lines_of(all.file).size();
  while (lines_of(all.file).size() < before + 50) std::this_thread::sleep_for(5ms);
  std::ofstream(all.file + ".end").put('1');
  CHECK(all.nodes.line() == "value 0");
  CHECK(all.nodes.wait(20s) == 0);
  for (const auto& [what, times] : all.counted()) {
    INFO(what);
    CHECK(times == 1);
  }
}

TEST_CASE("a node that was out of reach and then is found dead has its tasks restarted") {
  if (tortured()) return;
  cluster all("ticker");
  int process = process_of_task(all);
  ::kill(process, SIGSTOP);
  CHECK(all.nodes.line() == "lost");
  ::kill(process, SIGKILL);
  CHECK_THAT(all.nodes.line(), Catch::StartsWith("restarted "));
  std::ofstream(all.file + ".end").put('1');
  CHECK(all.nodes.line() == "value 1");
  CHECK(all.nodes.wait(20s) == 0);
}

TEST_CASE("a node that stays out of reach loses its tasks, which run nowhere when it is back") {
  if (tortured()) return;
  cluster all("ticker", {{"AWAIT_NODE", "1"}});
  int process = process_of_task(all);
  ::kill(process, SIGSTOP);
  CHECK(all.nodes.line() == "lost");
  std::string line = all.nodes.line();
  CHECK_THAT(line, Catch::StartsWith("error " + std::to_string(static_cast<int>(errc::node_lost)) + " "));
  CHECK_THAT(line, Catch::Contains("not restarted"));
  ::kill(process, SIGCONT);
  CHECK(all.nodes.line() == "back");
  CHECK(all.nodes.wait(20s) == 0);
  for (const auto& [what, times] : all.counted()) {
    INFO(what);
    CHECK(times == 1);
    CHECK_THAT(what, !Catch::StartsWith("tick 1"));
  }
}

TEST_CASE("a task whose home has died goes on, and is told that it cannot be restarted") {
  if (tortured()) return;
  cluster all("hosts", {{"MIGRATE_NODES", "2"}});
  std::string address = all.nodes.line(), store = all.nodes.line();
  migrate_test::program home(
      {migrate_test::own_path(), "--migrate-join=" + address, "--migrate-store=" + store},
      {{"MIGRATE_SCENARIO", "distant home"},
       {"MIGRATE_NODES", "1"},
       {"MIGRATE_KEEPALIVE", "500"},
       {"MIGRATE_QUIET", "1"},
       {"CHECKPOINT_FILE", all.file}});
  auto wait_for = [&](const std::string& begin) {
    for (auto until = std::chrono::steady_clock::now() + 20s; std::chrono::steady_clock::now() < until;) {
      for (const std::string& each : lines_of(all.file))
        if (each.starts_with(begin)) return each;
      std::this_thread::sleep_for(5ms);
    }
    return std::string();
  };
  CHECK(wait_for("committed") == "committed");
  ::kill(home.id(), SIGKILL);
  CHECK(wait_for("refused") ==
        "refused " + std::to_string(static_cast<int>(errc::home_unreachable)) + " restarts 0");
  all.nodes.say("");
  CHECK(all.nodes.wait(20s) == 0);
}
