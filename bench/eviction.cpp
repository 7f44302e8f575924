// Eviction: how long it takes until a machine is its owner's again.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/node.hpp>
#include <migrate/program.hpp>

#include "harness.hpp"

using namespace migrate;

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

std::uint64_t fill(std::vector<char>& memory, char value) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < memory.size(); i += 4096) {
    memory[i] = static_cast<char>(value + static_cast<char>(i >> 12));
    sum = sum * 31 + static_cast<unsigned char>(memory[i]);
  }
  return sum;
}

std::uint64_t sum_of(const std::vector<char>& memory) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < memory.size(); i += 4096)
    sum = sum * 31 + static_cast<unsigned char>(memory[i]);
  return sum;
}

bool hold(std::size_t bytes, task_id starter) {
  // Until a message comes.
  std::vector<char> memory(bytes);
  std::uint64_t sum = fill(memory, 7);
  mailbox<int> in;
  send(starter, 1);
  in.receive();
  return sum_of(memory) == sum;
}

bool run_until(const std::string& file, task_id starter) {
  // A program that has come no further than to wait for a file.
  program_options how;
  how.restartable = true;
  program waiter({"sh", "-c", "until [ -e \"$0\" ]; do sleep 0.1; done", file}, how);
  send(starter, 1);
  return waiter.wait().status == 0;
}

struct clearing {
  double whole; // until the evicting program knows that the node is clear
  double clear; // until the last task had gone
};

std::vector<task_id> begin(node& here, node_id where, int tasks, std::size_t bytes, const std::string& file) {
  // They hold so much memory or, when there is a file, wait for it.
  return here.run([=] {
    std::vector<task_id> all;
    mailbox<int> ready;
    spawn_options how{.name = "held", .region = region_class::large, .on = where};
    for (int i = 0; i < tasks; ++i) {
      auto made = file.empty() ? spawn(how, hold, bytes, this_task::id())
                               : spawn(how, run_until, file, this_task::id());
      all.push_back(made.id());
      new task<bool>(std::move(made)); // joined below, by another task
    }
    for (int i = 0; i < tasks; ++i) ready.receive();
    return all;
  });
}

clearing evict(node& here, node_id which, int tasks, std::size_t bytes, const std::string& file = {}) {
  auto ids = begin(here, which, tasks, bytes, file);
  auto start = bench::clock::now();
  eviction_report how =
      here.evict(which, "the benchmark's key press", std::chrono::seconds(file.empty() ? 60 : 3));
  double whole = bench::nanoseconds(bench::clock::now() - start);
  if (!file.empty()) std::fclose(std::fopen(file.c_str(), "w"));
  bool right = here.run([ids, holds = file.empty()] {
    bool all = true;
    for (task_id each : ids) {
      if (holds) send(each, 1);
      all = task<bool>(each).join() && all;
    }
    return all;
  });
  if (!file.empty()) std::remove(file.c_str());
  if (!right || how.moved != static_cast<std::uint64_t>(tasks)) {
    std::fprintf(stderr, "an evicted task lost its memory or its program, or stayed\n");
    std::exit(1);
  }
  return {whole, static_cast<double>(how.took)};
}

void row(const std::string& what, const std::vector<double>& times, double most) {
  auto seconds = bench::spread_of(times);
  std::string text =
      bench::text("%.3f s (%.3f-%.3f)", seconds.median / 1e9, seconds.least / 1e9, seconds.most / 1e9);
  if (most > 0)
    bench::row(what, text, bench::text("<= %.1f s", most), seconds.median <= most * 1e9);
  else
    bench::shown(what, text);
}

} // namespace

int main(int argc, char** argv) {
  try {
    constexpr unsigned rounds = 5;
    node_options options = node_options::from(argc, argv);
    if (options.join.empty()) options.nodes = 3 + 3 * rounds; // each round's node leaves
    node here(std::move(options));
    if (!here.first()) {
      here.serve();
      return 0;
    }
    const std::string file = here.store_path() + "/go";
    std::vector<double> whole, clear, small, programs;
    std::uint16_t next = 2;
    for (unsigned i = 0; i < rounds; ++i) {
      clearing seen = evict(here, node_id{next++}, 8, 100 * mib);
      whole.push_back(seen.whole);
      clear.push_back(seen.clear);
      small.push_back(evict(here, node_id{next++}, 8, 64 * 1024).whole);
      programs.push_back(evict(here, node_id{next++}, 8, 0, file).whole);
    }
    row("eviction of 8 foreign tasks of 100 MiB each, between nodes of one machine: from the key press until "
        "the host is clear",
        whole, 1);
    row("the same as the evicted node sees it: until its last task has gone", clear, 0);
    row("the same for 8 tasks of 64 KiB", small, 0);
    row("eviction of 8 running programs: they stand still, are given up when the owner stays, and run again "
        "elsewhere",
        programs, 3);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "eviction: %s\n", problem.what());
    return 1;
  }
}
