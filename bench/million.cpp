// Very many tasks in one node: what an idle one costs, and a million of them parked and woken.
#include <migrate/mailbox.hpp>
#include <migrate/node.hpp>

#include <cstdlib>
#include <cstring>

#include "harness.hpp"

using namespace migrate;

namespace {

struct memory_use {
  double resident = 0;    // bytes
  double page_tables = 0;

  static memory_use now() {
    memory_use use;
    if (std::FILE* file = std::fopen("/proc/self/status", "re")) {
      char line[256];
      long kib = 0;
      while (std::fgets(line, sizeof line, file) != nullptr) {
        if (std::sscanf(line, "VmRSS: %ld", &kib) == 1) use.resident = static_cast<double>(kib) * 1024;
        if (std::sscanf(line, "VmPTE: %ld", &kib) == 1) use.page_tables = static_cast<double>(kib) * 1024;
      }
      std::fclose(file);
    }
    return use;
  }
};

struct result {
  double spawn_seconds, wake_seconds, join_seconds;
  memory_use before, parked;
  long sum;
};

result park_and_wake(int count) {
  result got{};
  got.before = memory_use::now();
  std::vector<task<long>> all;
  all.reserve(static_cast<std::size_t>(count));
  spawn_options small;
  small.region = region_class::small;
  small.stack_bytes = 64 * 1024;
  auto start = bench::clock::now();
  for (int i = 0; i < count; ++i)
    all.push_back(spawn(small, [] {
      mailbox<int> in;
      return static_cast<long>(in.receive());
    }));
  this_task::yield(); // all of them run until they wait
  auto spawned = bench::clock::now();
  got.parked = memory_use::now();
  for (int i = 0; i < count; ++i) send(all[static_cast<std::size_t>(i)].id(), i & 1023);
  this_task::yield();
  auto woken = bench::clock::now();
  for (auto& each : all) got.sum += each.join();
  auto joined = bench::clock::now();
  got.spawn_seconds = bench::nanoseconds(spawned - start) / 1e9;
  got.wake_seconds = bench::nanoseconds(woken - spawned) / 1e9;
  got.join_seconds = bench::nanoseconds(joined - woken) / 1e9;
  return got;
}

} // namespace

int main(int argc, char** argv) {
  node_options options = node_options::from(argc, argv);
  options.workers = 1;
  int count = argc > 1 ? std::atoi(argv[1]) : 1'000'000;
  node here(std::move(options));

  constexpr int idle = 50'000;
  result few = here.run(spawn_options{.region = region_class::large}, park_and_wake, idle);
  double each = (few.parked.resident - few.before.resident) / idle;
  double tables = (few.parked.page_tables - few.before.page_tables) / idle;
  bench::row("resident memory of an idle task", bench::text("%.1f KiB (and %.1f KiB of page tables)", each / 1024, tables / 1024),
             "<= 12 KiB", each <= 12 * 1024);

  result all = here.run(spawn_options{.region = region_class::large}, park_and_wake, count);
  double most = (all.parked.resident + all.parked.page_tables) / (1024.0 * 1024 * 1024);
  long expected = 0;
  for (int i = 0; i < count; ++i) expected += i & 1023;
  bench::row(bench::text("%d tasks parked in one node, each woken once", count),
             bench::text("%.1f GiB; %.0f spawned and %.0f woken each second", most, count / all.spawn_seconds,
                         count / all.wake_seconds),
             "<= 16 GiB, all answer", most <= 16 && all.sum == expected);
}
