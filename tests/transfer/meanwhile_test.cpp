// What a task does, and what is done to it, in the middle of a move by each strategy: it is what it would be without.
#include <migrate/task/transfer.hpp>

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"
#include "witness.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <migrate/fork.hpp>
#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>
#include <migrate/process.hpp>
#include <migrate/signal.hpp>

using namespace migrate;
using namespace migrate_test;
using namespace std::chrono_literals;

namespace {

const no_cluster_of_its_own here;

// A child of a task on node 1 is on node 2, and writes its memory all the time. Node 1 has it moved to node 3. On the way
// a thread of the move is held up, or, with copy on reference, the rest of the memory comes only when it is touched: then
// it happens.

enum class deed { exits, forks, allocates, handles, is_killed, is_stopped };
constexpr const char* deed_names[] = {"exits",     "forks",     "allocates", "handles a signal",
                                      "is killed", "is stopped"};

constexpr int right = 7, wrong = 1;
constexpr std::size_t page = 4096;

struct plot {
  deed what;
  transfer how;
  std::string file; // in which everybody writes what happens; files beside it say that something has

  bool by_reference() const { return how == transfer::on_reference; }
  bool runs_meanwhile() const { return how != transfer::flush && how != transfer::full_copy; }
  std::string of(const char* name) const { return file + "." + name; }
};

class memory {
public:
  explicit memory(std::size_t bytes) : words_(bytes / 8) {
    for (std::size_t i = 0; i < words_.size(); ++i) words_[i] = i;
  }
  void step() {
    ++turn_;
    for (std::size_t i = turn_ % 5 * 512; i < words_.size(); i += 512 * 5) ++words_[i];
  }
  bool whole() const {
    // Page k has been stepped each time that the turn was k modulo 5.
    for (std::size_t i = 0; i < words_.size(); ++i) {
      std::size_t k = i / 512 % 5;
      std::uint64_t times = i % 512 != 0 ? 0 : (turn_ + 5 - k) / 5 - (k == 0 ? 1 : 0);
      if (words_[i] != i + times) return false;
    }
    return true;
  }

private:
  std::vector<std::uint64_t> words_;
  std::uint64_t turn_ = 0;
};

bool grow() {
  // A gigabyte, of which every fourth page is written.
  constexpr std::size_t bytes = std::size_t{1} << 30;
  auto grown = std::make_unique_for_overwrite<char[]>(bytes);
  for (std::size_t at = 0; at < bytes; at += 4 * page) grown[at] = static_cast<char>(at / page % 127);
  this_task::poll();
  for (std::size_t at = 0; at < bytes; at += 4 * page)
    if (grown[at] != static_cast<char>(at / page % 127)) return false;
  return true;
}

int play_part(plot in, task_id parent) {
  memory mine(4 << 20);
  this_task::migrate_to(node_id(2), transfer::flush);
  int handled = 0;
  on_signal(SIGTERM, [&](const signal_info&) {
    ++handled;
    note(in.file, "handled");
    note(in.of("done"), "");
  });
  send(parent, 1);
  while (!is_there(in.of("held")) &&
         (in.by_reference() || !is_there(in.of("moved")))) { // it may stand still meanwhile
    if (in.by_reference() && this_task::residual()) note(in.of("held"), "");
    mine.step();
    this_task::poll();
  }
  bool good = true;
  switch (in.what) {
  case deed::exits: note(in.file, mine.whole() ? "exits" : "its memory is wrong"); this_task::exit(right);
  case deed::forks: {
    task_id copy = migrate::fork();
    if (!copy) {
      note(in.file, "copy");
      mine.step();
      this_task::exit(mine.whole() ? right : wrong);
    }
    child_status how = wait_child(copy);
    good = how.exited() && how.exit_code() == right;
    note(in.of("done"), "");
    break;
  }
  case deed::allocates:
    good = grow();
    note(in.of("done"), "");
    break;
  default: break;
  }
  // A signal may come a moment later than the task itself.
  auto has_happened = [&] {
    if (in.what == deed::is_killed) return false;
    if (in.what == deed::handles || in.what == deed::is_stopped) return is_there(in.of("done"));
    return true;
  };
  while (!is_there(in.of("moved")) || !has_happened()) {
    mine.step();
    this_task::poll();
  }
  good = good && mine.whole() && handled == (in.what == deed::handles ? 1 : 0);
  note(in.file, "ends on " + to_string(this_task::node()));
  return good ? right : wrong;
}

std::string watch(plot in) {
  task_id child =
      start_child({.name = "moved", .region = region_class::large}, play_part, in, this_task::id());
  mailbox<int>().receive();
  note(in.of("child"), std::to_string(child.bits()));
  auto until = [&](const char* what) {
    while (!is_there(in.of(what))) this_task::sleep_for(1ms);
  };
  auto let_go = [&] {
    if (!in.by_reference()) ::unlink(in.of("held").c_str());
  };
  until("held");
  std::string said;
  auto collect = [&] {
    child_status how = wait_child(child);
    said += how.killed() ? "killed by " + std::to_string(how.signal())
                         : "exited with " + std::to_string(how.exit_code());
  };
  switch (in.what) {
  case deed::exits:
    collect();
    let_go();
    break;
  case deed::is_killed:
    send_signal(child, SIGKILL);
    if (!in.runs_meanwhile()) let_go();
    collect();
    if (in.runs_meanwhile()) let_go();
    break;
  case deed::is_stopped: {
    send_signal(child, SIGSTOP);
    if (!in.runs_meanwhile()) let_go();
    child_status how = wait_child(child, {.stopped = true});
    said += how.stopped() ? "stopped, " : "not stopped, ";
    if (in.runs_meanwhile()) let_go();
    until("moved");
    send_signal(child, SIGCONT);
    note(in.of("done"), "");
    collect();
    break;
  }
  case deed::handles:
    send_signal(child, SIGTERM);
    if (!in.runs_meanwhile()) let_go();
    until("done");
    if (in.runs_meanwhile()) let_go();
    collect();
    break;
  case deed::forks: // which waits for the move, or the move for it
    let_go();
    collect();
    break;
  case deed::allocates:
    until("done");
    let_go();
    collect();
    break;
  }
  std::error_code code;
  try_wait_child({}, code);
  return said + (code.value() == ECHILD ? "" : ", and once more");
}

const scenario_entry the_plot{
    "in the middle of a move", [] {
      plot in{static_cast<deed>(std::stoi(wanted("PLOT_DEED"))), *transfer_named(wanted("PLOT_HOW")),
              wanted("PLOT_FILE")};
      auto parent = spawn({.name = "parent"}, watch, in);
      std::string number;
      becomes_true([&] { return !(number = line_with(lines_of(in.of("child")), "")).empty(); });
      std::error_code code;
      migrate_task(task_id(std::stoull(number)), node_id(3), in.how, code);
      note(in.of("moved"), "");
      std::printf("%s\n%s\n", code ? code.message().c_str() : "moved", parent.join().c_str());
      std::fflush(stdout);
      return 0;
    }};

struct row {
  transfer how;
  const char* point; // of the source, at which the move is held up
  deed what;
};

struct result {
  std::string moved, ended;
  int status = 0;
  std::vector<std::string> lines;
};

result play(const row& what) {
  folder place;
  const std::string file = place.path / "lines";
  program cluster({own_path()},
                  {{"MIGRATE_SCENARIO", "in the middle of a move"},
                   {"MIGRATE_FAULT", what.point == nullptr ? "" : std::string("hold:2:") + what.point},
                   {"MIGRATE_FAULT_FILE", file + ".held"},
                   {"MIGRATE_PUSH", "0"},
                   {"MIGRATE_QUIET", "1"},
                   {"PLOT_DEED", std::to_string(static_cast<int>(what.what))},
                   {"PLOT_HOW", std::string(name_of(what.how))},
                   {"PLOT_FILE", file}});
  result seen;
  seen.moved = cluster.line();
  seen.ended = cluster.line();
  seen.status = cluster.wait(20s);
  seen.lines = lines_of(file);
  return seen;
}

} // namespace

TEST_CASE("a task that exits, forks, is signalled or allocates a gigabyte in mid-move is what it would be "
          "without, by each strategy") {
  std::vector<row> rows;
  for (auto [how, point] :
       {std::pair{transfer::flush, "source.flushing"}, {transfer::full_copy, "source.streaming"}})
    for (deed what : {deed::handles, deed::is_killed, deed::is_stopped})
      rows.push_back({how, point, what}); // it stands still
  for (auto [how, point] : {std::pair<transfer, const char*>{transfer::pre_copy, "source.round"},
                            {transfer::pre_copy, "source.streaming"},
                            {transfer::on_reference, nullptr},
                            {transfer::pre_flush, "source.round"},
                            {transfer::pre_flush, "source.flushed"}})
    for (deed what :
         {deed::exits, deed::forks, deed::allocates, deed::handles, deed::is_killed, deed::is_stopped})
      if (point == nullptr || std::string_view(point) != "source.streaming" || what != deed::allocates)
        rows.push_back({how, point, what});
  std::vector<result> results(rows.size());
  std::atomic<std::size_t> next{0};
  auto work = [&] {
    for (std::size_t i; (i = next++) < rows.size();) results[i] = play(rows[i]);
  };
  std::thread other(work); // two at a time: they mostly wait
  work();
  other.join();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto& [how, point, what] = rows[i];
    const result& seen = results[i];
    CAPTURE(std::string(name_of(how)), point == nullptr ? "" : point, deed_names[static_cast<int>(what)]);
    INFO(all_of(seen.lines));
    CHECK(seen.status == 0);
    CHECK(said_twice(seen.lines) == "");
    const bool gone = how != transfer::on_reference && (what == deed::exits || what == deed::is_killed);
    if (gone && !(what == deed::is_killed && (how == transfer::flush || how == transfer::full_copy)))
      CHECK(seen.moved == make_error_code(errc::no_such_task).message());
    else if (what != deed::forks && !gone)
      CHECK(seen.moved == "moved");
    switch (what) {
    case deed::exits: CHECK(seen.ended == "exited with 7"); break;
    case deed::is_killed: CHECK(seen.ended == "killed by 9"); break;
    case deed::is_stopped: CHECK(seen.ended == "stopped, exited with 7"); break;
    default: CHECK(seen.ended == "exited with 7");
    }
    if (what == deed::exits || what == deed::is_killed) {
      CHECK(line_with(seen.lines, "ends on") == "");
    } else if (what != deed::forks) {
      CHECK(line_with(seen.lines, "ends on") == "ends on 3");
    }
  }
}
