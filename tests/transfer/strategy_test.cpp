#include <migrate/task/transfer.hpp>

#include "../support/cluster.hpp"
#include "../support/random.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <migrate/fork.hpp>
#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>
#include <migrate/process.hpp>
#include <migrate/signal.hpp>

using namespace migrate;
using namespace std::chrono_literals;
using migrate_test::new_seed;
using migrate_test::random_choices;

namespace {

bool torture() { return std::getenv("MIGRATE_TORTURE") != nullptr; }

constexpr transfer strategies[] = {transfer::flush, transfer::full_copy, transfer::pre_copy,
                                   transfer::on_reference, transfer::pre_flush};

node_id other_than(node_id one, std::size_t which = 0) {
  std::vector<node_id> all = nodes();
  std::erase(all, one);
  return all.at(which % all.size());
}

// Memory that is written all the time, such that a page that is older or newer than the others is seen.
class ledger {
public:
  explicit ledger(std::size_t bytes) : words_(bytes / 8) { fill(0); }

  void fill(std::uint64_t value) { std::iota(words_.begin(), words_.end(), value); }

  bool step() {
    // Every 512th word moves on by one in each turn: one word of each page.
    ++turn_;
    bool right = true;
    for (std::size_t i = 0; i < words_.size(); i += 512) {
      right = right && words_[i] == i + turn_ - 1;
      words_[i] = i + turn_;
    }
    return right && whole();
  }

  bool whole() const {
    for (std::size_t i = 1; i < words_.size(); i += 509)
      if (i % 512 != 0 && words_[i] != i) return false;
    return true;
  }

private:
  std::vector<std::uint64_t> words_;
  std::uint64_t turn_ = 0;
};

int handled = 0; // nobody reads it: handlers run where the task is

std::uint64_t write_until_told(std::size_t bytes, task_id parent) {
  ledger memory(bytes);
  mailbox<bool> stop;
  send(parent, 1);
  while (!stop.try_receive()) {
    if (!memory.step()) throw std::runtime_error("its memory is not what it wrote");
    this_task::yield();
  }
  return this_task::moves();
}

task<std::uint64_t> start_writer(const spawn_options& options, std::size_t bytes) {
  auto writer = spawn(options, write_until_told, bytes, this_task::id());
  mailbox<int>().receive(); // it has the memory
  return writer;
}

} // namespace

TEST_CASE("a task that writes its memory is moved by each strategy, and its memory is what it wrote") {
  for (transfer how : strategies) {
    CAPTURE(std::string(name_of(how)));
    std::uint64_t before = torture() ? 0 : migrate_test::statistics().moves_by(how);
    std::uint64_t moves = migrate_test::run([how] {
      auto writer = start_writer({.name = "writer"}, std::size_t{8} << 20);
      for (std::size_t i = 0; i < 5; ++i) {
        std::error_code code;
        for (;; this_task::yield()) {
          writer.migrate_to(other_than(writer.where(), i), how, code);
          if (code != errc::move_in_progress) break; // one of torture's, which nobody waits for
        }
        if (code) return std::uint64_t{0};
      }
      send(writer.id(), true);
      return writer.join();
    });
    if (torture()) {
      CHECK(moves > 0);
    } else {
      CHECK(moves == 5);
      CHECK(migrate_test::statistics().moves_by(how) == before + 5);
    }
  }
}

TEST_CASE("a task that moves itself has the memory that it wrote, by each strategy and again by another") {
  bool right = migrate_test::run([] {
    return spawn([] {
             ledger memory(4 << 20);
             for (std::size_t i = 0; i < 3; ++i)
               for (transfer how : strategies) {
                 std::error_code code;
                 this_task::migrate_to(other_than(this_task::node(), i), how, code);
                 if (code && code != errc::move_in_progress) return false;
                 if (!memory.step()) return false;
               }
             return true;
           })
        .join();
  });
  CHECK(right);
}

TEST_CASE("what a task has written since the last round arrives, however much that is") {
  // Into one offer, ahead of it in pieces, and more than goes with a freeze.
  for (std::size_t bytes : {std::size_t{100} << 10, std::size_t{1} << 20, std::size_t{24} << 20})
    for (transfer how : {transfer::pre_copy, transfer::pre_flush}) {
      CAPTURE(bytes, std::string(name_of(how)));
      std::uint64_t moves = migrate_test::run([bytes, how] {
        auto writer = start_writer({.name = "writer"}, bytes);
        for (std::size_t i = 0; i < 3; ++i) {
          std::error_code code;
          do {
            writer.migrate_to(other_than(writer.where(), i), how, code);
          } while (code == errc::move_in_progress);
        }
        send(writer.id(), true);
        return writer.join();
      });
      CHECK(moves >= 3);
    }
}

TEST_CASE("a task's own strategy is used when a move names none") {
  if (torture()) return;
  std::uint64_t before = migrate_test::statistics().moves_by(transfer::pre_flush);
  migrate_test::run([] {
    auto writer = start_writer({.moves_by = transfer::pre_flush}, std::size_t{2} << 20);
    writer.migrate_to(other_than(writer.where()));
    writer.migrate_to(other_than(writer.where()));
    send(writer.id(), true);
    writer.join();
  });
  CHECK(migrate_test::statistics().moves_by(transfer::pre_flush) == before + 2);
}

TEST_CASE("what the library chooses by itself it says, with the reason") {
  if (torture()) return;
  migrate_test::run([] {
    auto writer = start_writer({.moves_by = transfer::automatic}, std::size_t{16} << 20);
    writer.migrate_to(other_than(writer.where()));
    send(writer.id(), true);
    writer.join();
  });
  std::string said = migrate_test::statistics().last_choice;
  CAPTURE(said);
  CHECK((said.starts_with("pre-flush") || said.starts_with("pre-copy")));
  CHECK_THAT(said, Catch::Contains("writes") && Catch::Contains("MB/s"));
}

TEST_CASE("memory that is free when a task moves stays behind, and pages of zeros do not travel") {
  if (torture()) return;
  for (transfer how : {transfer::full_copy, transfer::pre_copy}) {
    CAPTURE(std::string(name_of(how)));
    std::uint64_t before = migrate_test::statistics().bytes_flushed;
    migrate_test::run([how] {
      auto sparse = spawn([parent = this_task::id()] {
        std::vector<char> kept(4 << 20, 1);
        std::vector<char> zeros(16 << 20, 0); // written
        std::vector<char>(8 << 20, 1);        // and freed
        send(parent, 1);
        mailbox<bool>().receive();
        return kept[12345] + zeros[12345];
      });
      mailbox<int>().receive();
      sparse.migrate_to(other_than(sparse.where()), how);
      send(sparse.id(), true);
      return sparse.join();
    });
    std::uint64_t bytes = migrate_test::statistics().bytes_flushed - before;
    CHECK(bytes >= (4u << 20));
    CHECK(bytes < (5u << 20));
  }
}

TEST_CASE("a task that ends, forks, is signalled or allocates while its pages go ahead is what it would be "
          "without") {
  std::uint64_t seed = new_seed("in mid-move");
  auto wrong = migrate_test::run([seed] {
    random_choices random(seed);
    std::vector<std::string> problems;
    for (int turn = 0; turn < 24; ++turn) {
      transfer how = strategies[random.below(std::size(strategies))];
      int deed = turn % 4;
      auto busy = spawn({.region = region_class::large}, [deed, rest = random.branch()]() mutable -> int {
        ledger memory(16 << 20);
        std::vector<std::string> grown;
        task_id starter = mailbox<task_id>().receive();
        send(starter, 1);
        for (std::size_t i = rest.below(30); i > 0; --i)
          if (!memory.step()) return -1;
        switch (deed) {
        case 0: return 7; // it ends
        case 1: {
          task_id copy = migrate::fork();
          if (!copy) {
            memory.step();
            this_task::exit(memory.step() ? 0 : 1);
          }
          break;
        }
        case 2:
          on_signal(SIGUSR1, [](const signal_info&) { ++handled; });
          raise_signal(SIGUSR1);
          break;
        default:
          for (int i = 0; i < 200; ++i) grown.emplace_back(256 * 1024, static_cast<char>('a' + i % 26));
        }
        for (int i = 0; i < 20; ++i)
          if (!memory.step()) return -2;
        for (std::size_t i = 0; i < grown.size(); ++i)
          if (grown[i] != std::string(256 * 1024, static_cast<char>('a' + i % 26))) return -3;
        return 7;
      });
      send(busy.id(), this_task::id());
      mailbox<int>().receive();
      std::error_code code;
      busy.migrate_to(other_than(busy.where()), how, code);
      if (code && code != errc::no_such_task && code != errc::move_in_progress &&
          code != errc::region_occupied)
        problems.push_back(std::string(name_of(how)) + ", " + std::to_string(deed) + ": " + code.message());
      if (int value = busy.join(); value != 7)
        problems.push_back(std::string(name_of(how)) + ", " + std::to_string(deed) + ": " +
                           std::to_string(value));
    }
    return problems;
  });
  CHECK(wrong == std::vector<std::string>{});
}

TEST_CASE("tasks that go to and fro at once by all strategies keep their memory") {
  std::uint64_t seed = new_seed("to and fro");
  std::string wrong = migrate_test::run([seed] {
    std::vector<task<std::uint64_t>> writers;
    for (std::size_t i = 0; i < 6; ++i) writers.push_back(start_writer({}, (i % 3 + 1) << 20));
    random_choices random(seed);
    std::string refused;
    for (int i = 0; i < 40; ++i) {
      std::error_code code;
      auto& which = writers[random.below(writers.size())];
      which.migrate_to(random.node(), strategies[random.below(std::size(strategies))], code);
      if (code && code != errc::move_in_progress) refused = code.message();
    }
    for (auto& each : writers) send(each.id(), true);
    for (auto& each : writers) each.join();
    return refused;
  });
  CHECK(wrong == "");
}
