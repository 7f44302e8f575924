// Eviction: how long it takes until a machine is its owner's again.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/node.hpp>

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
  for (std::size_t i = 0; i < memory.size(); i += 4096) sum = sum * 31 + static_cast<unsigned char>(memory[i]);
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

struct one_round {
  double whole; // until the evicting program knows that the node is clear
  double clear; // until the last task had gone
};

one_round evict(node& here, node_id which, int tasks, std::size_t bytes) {
  auto ids = here.run([=] {
    std::vector<task_id> all;
    mailbox<int> ready;
    for (int i = 0; i < tasks; ++i) {
      auto made = spawn({.name = "held", .region = region_class::large, .on = which}, hold, bytes, this_task::id());
      all.push_back(made.id());
      new task<bool>(std::move(made)); // joined below, by another task
    }
    for (int i = 0; i < tasks; ++i) ready.receive();
    return all;
  });
  auto start = bench::clock::now();
  eviction_report how = here.evict(which, "the benchmark's key press", std::chrono::seconds(60));
  double whole = bench::nanoseconds(bench::clock::now() - start);
  bool right = here.run([ids] {
    bool all = true;
    for (task_id each : ids) {
      send(each, 1);
      all = task<bool>(each).join() && all;
    }
    return all;
  });
  if (!right || how.moved != static_cast<std::uint64_t>(tasks)) {
    std::fprintf(stderr, "an evicted task lost its memory, or stayed\n");
    std::exit(1);
  }
  return {whole, static_cast<double>(how.took)};
}

void row(const std::string& what, const std::vector<double>& times, double most) {
  auto seconds = bench::spread_of(times);
  std::string text = bench::text("%.3f s (%.3f-%.3f)", seconds.median / 1e9, seconds.least / 1e9, seconds.most / 1e9);
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
    if (options.join.empty()) options.nodes = 3 + 2 * rounds; // each round's node leaves
    node here(std::move(options));
    if (!here.first()) {
      here.serve();
      return 0;
    }
    std::vector<double> whole, clear, small;
    std::uint16_t next = 2;
    for (unsigned i = 0; i < rounds; ++i) {
      one_round seen = evict(here, node_id{next++}, 8, 100 * mib);
      whole.push_back(seen.whole);
      clear.push_back(seen.clear);
      small.push_back(evict(here, node_id{next++}, 8, 64 * 1024).whole);
    }
    row("eviction of 8 foreign tasks of 100 MiB each, between nodes of one machine: from the key press until the host is clear",
        whole, 1);
    row("the same as the evicted node sees it: until its last task has gone", clear, 0);
    row("the same for 8 tasks of 64 KiB", small, 0);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "eviction: %s\n", problem.what());
    return 1;
  }
}
