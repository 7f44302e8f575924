// Programs that tasks run: started on another node and waited for, against the same started by the process itself.
#include <migrate/node.hpp>
#include <migrate/program.hpp>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include <spawn.h>
#include <sys/wait.h>

#include "empty_call.hpp"
#include "harness.hpp"

using namespace migrate;
using bench::nanoseconds;

namespace {

double locally() {
  // As a process without tasks does it. Milliseconds.
  auto start = bench::clock::now();
  char name[] = "true";
  char* arguments[] = {name, nullptr};
  pid_t process = -1;
  int status = -1;
  if (::posix_spawnp(&process, name, nullptr, nullptr, arguments, ::environ) != 0 ||
      ::waitpid(process, &status, 0) != process || status != 0)
    std::abort();
  return nanoseconds(bench::clock::now() - start) * 1e-6;
}

double remotely(node_id there) {
  // From home: a task for it on the other node, which ends with the program. Milliseconds.
  auto start = bench::clock::now();
  int status = spawn(spawn_options{.region = region_class::small, .on = there}, [] {
                 return run_program({"true"}).status;
               }).join();
  if (status != 0) std::abort();
  return nanoseconds(bench::clock::now() - start) * 1e-6;
}

double here() {
  auto start = bench::clock::now();
  if (!run_program({"true"}).succeeded()) std::abort();
  return nanoseconds(bench::clock::now() - start) * 1e-6;
}

struct pairs {
  std::vector<double> ours, theirs, more;
  auto migrate_fields() { return std::tie(ours, theirs, more); }
};

template <class Ours> pairs in_turn(int rounds, Ours&& ours) {
  pairs all;
  ours();
  locally();
  for (int i = 0; i < rounds; ++i) {
    all.ours.push_back(ours());
    all.theirs.push_back(locally());
    all.more.push_back(all.ours.back() - all.theirs.back());
  }
  return all;
}

std::string more_text(const pairs& seen) {
  bench::spread more = bench::spread_of(seen.more);
  return bench::text("%.2f ms more (%.2f-%.2f; %.2f against %.2f ms)", more.median, more.least, more.most,
                     bench::median(seen.ours), bench::median(seen.theirs));
}

double started_each_second(int tasks, int each) {
  auto start = bench::clock::now();
  std::vector<task<>> all;
  for (int i = 0; i < tasks; ++i)
    all.push_back(spawn([each] {
      for (int k = 0; k < each; ++k) here();
    }));
  for (task<>& one : all) one.join();
  return tasks * each / (nanoseconds(bench::clock::now() - start) * 1e-9);
}

double posix_spawned_each_second(int programs) {
  auto start = bench::clock::now();
  for (int i = 0; i < programs; ++i) locally();
  return programs / (nanoseconds(bench::clock::now() - start) * 1e-9);
}

} // namespace

int main(int argc, char** argv) {
  node_options options = node_options::from(argc, argv);
  options.nodes = 2;
  node node_here(std::move(options));
  if (!node_here.first()) {
    node_here.serve();
    return 0;
  }
  constexpr int rounds = 201;
  pairs remote = spawn([] {
                   node_id there = bench::other_node();
                   return in_turn(rounds, [there] { return remotely(there); });
                 }).join();
  bool reached = bench::row("run `true` remotely and wait for it, against running it locally", more_text(remote),
                            "<= 2 ms more", bench::median(remote.more) <= 2);

  pairs local = spawn([] { return in_turn(rounds, [] { return here(); }); }).join();
  bench::shown("the same by a task at home", more_text(local));

  // A node of gigabytes: what it has is no concern of its programs.
  constexpr std::size_t much = std::size_t{2} << 30;
  std::unique_ptr<char[]> memory(new char[much]);
  std::memset(memory.get(), 1, much);
  pairs large = spawn([] { return in_turn(rounds, [] { return here(); }); }).join();
  bench::shown("the same by a task of a node with 2 GiB in use", more_text(large));
  memory.reset();

  double rate = spawn([] {
                  started_each_second(8, 10);
                  return started_each_second(8, 100);
                }).join();
  bench::shown("programs started and waited for each second on one node, by 8 tasks",
               bench::text("%.0f (by posix_spawn, one after the other: %.0f)", rate, posix_spawned_each_second(400)));
  return reached ? 0 : 1;
}
