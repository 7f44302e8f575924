// The home of a task is killed while the task moves, at each step of each strategy: see the table in docs/transfer.md.
#include <migrate/transfer/fault_point.hpp>

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"
#include "witness.hpp"

#include <atomic>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include <migrate/cluster/node_status.hpp>
#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using namespace migrate;
using namespace migrate_test;
using namespace std::chrono_literals;

namespace {

const no_cluster_of_its_own here;

// Nodes 1 and 2 stay. Node 3 joins them; it is the home of a task that moves, and of its parent, which asks for that.

constexpr std::size_t words = (3 << 20) / 8;
constexpr int ticks = 10;
constexpr node_id home{3};

std::uint64_t traveller(std::string file, node_id from, task_id parent) {
  written_words memory(words);
  if (from != home) this_task::migrate_to(from);
  send(parent, 1);
  while (!is_there(file + ".stop")) {
    memory.write();
    this_task::poll();
  }
  note(file, "after " + to_string(this_task::node()));
  for (int i = 0; i < ticks; ++i) {
    note(file, "tick " + std::to_string(i));
    this_task::yield();
  }
  const std::uint64_t wrong = memory.wrong();
  note(file, wrong == 0 ? "memory right" : "memory wrong");
  return wrong;
}

void ask(std::string file, node_id place, node_id from, node_id target, transfer how) {
  auto moved = spawn({.name = "traveller"}, traveller, file, from, this_task::id());
  this_task::migrate_to(place);
  mailbox<int>().receive();
  note(file, "ready");
  while (!is_there(file + ".go")) this_task::yield();
  std::error_code code;
  moved.migrate_to(target, how, code);
  note(file, "said " + std::to_string(code.value()) + " " + code.category().name());
  note(file + ".stop", "");
  try {
    note(file, "joined " + std::to_string(moved.join()));
  } catch (const error& thrown) {
    note(file, "joined error " + std::to_string(thrown.code().value()));
  }
}

node_id wanted_node(const char* name) { return node_id{static_cast<std::uint16_t>(std::stoi(wanted(name)))}; }

const scenario_entry two_that_stay{"two that stay", [] {
                                     std::printf("%s\n%s\n", cluster_address().c_str(),
                                                 cluster_store().c_str());
                                     std::fflush(stdout);
                                     while (std::getchar() != '\n') {
                                     }
                                     // Whoever runs has ended.
                                     for (;;) {
                                       std::uint64_t tasks = 0;
                                       for (const node_status& each : status(1s)) tasks += each.tasks_here;
                                       if (tasks == 0) return 0;
                                       std::this_thread::sleep_for(2ms);
                                     }
                                   }};

const scenario_entry the_home{"the home", [] {
                                std::string file = wanted("FAULT_FILE"), point = wanted("FAULT_POINT");
                                auto parent =
                                    spawn({.name = "parent"}, ask, file, wanted_node("FAULT_PARENT"),
                                          wanted_node("FAULT_FROM"), wanted_node("FAULT_TO"),
                                          *transfer_named(wanted("FAULT_HOW")));
                                becomes_true([&] { return !line_with(lines_of(file), "ready").empty(); });
                                if (!point.empty()) { // not before: it has been a source already
                                  detail::requested_fault().point = point;
                                  detail::requested_fault().pending = true;
                                }
                                note(file + ".go", "");
                                parent.join();
                                return 0;
                              }};

enum class homes { elsewhere, source, target };

struct row {
  homes where;
  transfer how;
  const char* point; // at which somebody is when home dies
};

struct result {
  bool came_there = false; // to the point
  bool ended = false;      // the parent has heard of everything
  int status = 0;
  std::vector<std::string> lines;
};

result play(const row& what) {
  folder place;
  const std::string file = place.path / "lines", held = place.path / "held";
  const bool of_source = std::string_view(what.point).starts_with("source.");
  const std::string point = (of_source ? "1:" : "2:") + std::string(what.point);
  const int from = what.where == homes::source ? 3 : 1, to = what.where == homes::target ? 3 : 2;
  const int parent = what.where == homes::target ? 2 : 1;
  program stay({own_path()}, {{"MIGRATE_SCENARIO", "two that stay"},
                              {"MIGRATE_NODES", "2"},
                              {"MIGRATE_FAULT", what.where == homes::elsewhere ? "hold:" + point : ""},
                              {"MIGRATE_FAULT_FILE", held},
                              {"MIGRATE_KEEPALIVE", "1500"},
                              {"MIGRATE_QUIET", "1"}});
  const std::string address = stay.line(), store = stay.line();
  program its_home({own_path(), "--migrate-join=" + address, "--migrate-store=" + store},
                   {{"MIGRATE_SCENARIO", "the home"},
                    {"MIGRATE_NODES", "1"},
                    {"MIGRATE_KEEPALIVE", "1500"},
                    {"MIGRATE_QUIET", "1"},
                    {"FAULT_POINT", what.where == homes::elsewhere ? "" : what.point},
                    {"FAULT_FILE", file},
                    {"FAULT_PARENT", std::to_string(parent)},
                    {"FAULT_FROM", std::to_string(from)},
                    {"FAULT_TO", std::to_string(to)},
                    {"FAULT_HOW", std::string(name_of(what.how))}});
  result seen;
  if (what.where == homes::elsewhere) {
    seen.came_there = becomes_true([&] { return is_there(held); });
    ::kill(its_home.id(), SIGKILL);
    ::unlink(held.c_str());
  }
  const int died = its_home.wait(30s);
  if (what.where != homes::elsewhere) seen.came_there = died == 128 + SIGKILL;
  seen.ended = becomes_true([&] { return !line_with(lines_of(file), "joined").empty(); });
  stay.say("");
  seen.status = stay.wait(30s);
  seen.lines = lines_of(file);
  return seen;
}

void check(const row& what, const result& seen) {
  CAPTURE(std::string(name_of(what.how)), what.point);
  INFO(all_of(seen.lines));
  CHECK(seen.came_there);
  CHECK(seen.ended);
  CHECK(seen.status == 0);
  CHECK(said_twice(seen.lines) == "");
  const std::string said = line_with(seen.lines, "said "), after = line_with(seen.lines, "after ");
  CHECK((said.starts_with("said 0 ") || said.ends_with(" migrate")));
  if (!after.empty()) {
    const std::string its_memory = line_with(seen.lines, "memory ");
    // On reference it ends when it touches what its source had.
    const bool ends = its_memory.empty() && what.where == homes::source && what.how == transfer::on_reference;
    CHECK((ends || its_memory == "memory right"));
    if (!ends)
      CHECK(std::count_if(seen.lines.begin(), seen.lines.end(),
                          [](auto& each) { return each.starts_with("tick "); }) == ticks);
  }
  // Without its source it may touch what is missing before it says anything.
  const bool may_be_silent =
      what.where == homes::source && what.how == transfer::on_reference && after.empty();
  if (said.starts_with("said 0 ") && !may_be_silent)
    CHECK(after == "after " + std::string(what.where == homes::target ? "3" : "2"));
  // Nobody answers for the task any more.
  const std::string joined = line_with(seen.lines, "joined ");
  CHECK((joined == "joined 0" ||
         joined == "joined error " + std::to_string(static_cast<int>(errc::node_unreachable)) ||
         joined == "joined error " + std::to_string(static_cast<int>(errc::home_unreachable))));
  if (joined == "joined 0") CHECK(!after.empty());
}

void check_all(const std::vector<row>& rows, const std::function<void(const row&, const result&)>& more) {
  // Two at a time: they mostly wait.
  std::vector<result> results(rows.size());
  std::atomic<std::size_t> next{0};
  auto work = [&] {
    for (std::size_t i; (i = next++) < rows.size();) results[i] = play(rows[i]);
  };
  std::thread other(work);
  work();
  other.join();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    check(rows[i], results[i]);
    CAPTURE(std::string(name_of(rows[i].how)), rows[i].point, all_of(results[i].lines));
    more(rows[i], results[i]);
  }
}

} // namespace

TEST_CASE("a task whose home is killed while it moves elsewhere goes on, on its source or on its target") {
  check_all({{homes::elsewhere, transfer::flush, "source.flushing"},
             {homes::elsewhere, transfer::flush, "source.offered"},
             {homes::elsewhere, transfer::flush, "target.laid_out"},
             {homes::elsewhere, transfer::flush, "target.granted"},
             {homes::elsewhere, transfer::full_copy, "source.streaming"},
             {homes::elsewhere, transfer::full_copy, "target.pages"},
             {homes::elsewhere, transfer::full_copy, "target.laid_out"},
             {homes::elsewhere, transfer::full_copy, "source.taken"},
             {homes::elsewhere, transfer::pre_copy, "source.round"},
             {homes::elsewhere, transfer::pre_copy, "target.receiving"},
             {homes::elsewhere, transfer::pre_copy, "source.frozen"},
             {homes::elsewhere, transfer::pre_copy, "target.laid_out"},
             {homes::elsewhere, transfer::on_reference, "source.offered"},
             {homes::elsewhere, transfer::on_reference, "target.laid_out"},
             {homes::elsewhere, transfer::on_reference, "source.pushing"},
             {homes::elsewhere, transfer::on_reference, "target.fetched"},
             {homes::elsewhere, transfer::pre_flush, "source.flushing"},
             {homes::elsewhere, transfer::pre_flush, "target.laying"},
             {homes::elsewhere, transfer::pre_flush, "target.laid_out"},
             {homes::elsewhere, transfer::pre_flush, "source.vacated"}},
            [](const row&, const result& seen) { CHECK(line_with(seen.lines, "after ") != ""); });
}

TEST_CASE(
    "a task whose home is killed as its source has begun on its target or is gone, and who asked is told") {
  check_all({{homes::source, transfer::flush, "source.frozen"},
             {homes::source, transfer::flush, "source.flushed"},
             {homes::source, transfer::flush, "source.vacated"},
             {homes::source, transfer::full_copy, "source.streaming"},
             {homes::source, transfer::pre_copy, "source.round"},
             {homes::source, transfer::pre_copy, "source.taken"},
             {homes::source, transfer::on_reference, "source.offered"},
             {homes::source, transfer::on_reference, "source.pushing"},
             {homes::source, transfer::pre_flush, "source.flushed"},
             {homes::source, transfer::pre_flush, "source.offered"}},
            [](const row& what, const result& seen) {
              const std::string_view point = what.point;
              if (point == "source.taken" || point == "source.vacated")
                CHECK(line_with(seen.lines, "after ") == "after 2");
              if (point == "source.streaming" || point == "source.round" || point == "source.frozen" ||
                  point == "source.flushed")
                CHECK(line_with(seen.lines, "after ") == "");
            });
}

TEST_CASE("a task whose home is killed as its target goes on where it was, and who asked is told") {
  check_all({{homes::target, transfer::flush, "target.offered"},
             {homes::target, transfer::flush, "target.granted"},
             {homes::target, transfer::full_copy, "target.pages"},
             {homes::target, transfer::full_copy, "target.laid_out"},
             {homes::target, transfer::pre_copy, "target.receiving"},
             {homes::target, transfer::pre_copy, "target.granted"},
             {homes::target, transfer::on_reference, "target.offered"},
             {homes::target, transfer::on_reference, "target.laid_out"},
             {homes::target, transfer::pre_flush, "target.laying"},
             {homes::target, transfer::pre_flush, "target.granted"}},
            [](const row&, const result& seen) {
              CHECK(line_with(seen.lines, "after ") == "after 1");
              CHECK(line_with(seen.lines, "said 0 ") == "");
            });
}
