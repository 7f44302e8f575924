// fork() of a task, against the operating system's of a process with the same memory.
#include <migrate/fork.hpp>
#include <migrate/node.hpp>
#include <migrate/process.hpp>

#include <cstdlib>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "harness.hpp"

using namespace migrate;

namespace {

constexpr std::size_t whole = 100 << 20, written = 1 << 20;

struct timing {
  double returns, ends; // nanoseconds until the caller goes on, and until the child has written and is waited for
};

void change(std::vector<char>& memory) {
  for (std::size_t i = 0; i < written; i += 4096) memory[i] = static_cast<char>(memory[i] + 1);
}

timing of_task(std::vector<char>& memory) {
  auto begun = bench::clock::now();
  task_id child = migrate::fork();
  if (!child) {
    change(memory);
    this_task::quick_exit(0);
  }
  auto returned = bench::clock::now();
  if (!wait_child(child).exited()) std::abort();
  return {bench::nanoseconds(returned - begun), bench::nanoseconds(bench::clock::now() - begun)};
}

timing of_process(std::vector<char>& memory) {
  auto begun = bench::clock::now();
  pid_t child = ::fork();
  if (child == 0) {
    change(memory);
    ::_exit(0);
  }
  auto returned = bench::clock::now();
  int status = 0;
  if (::waitpid(child, &status, 0) != child || status != 0) std::abort();
  return {bench::nanoseconds(returned - begun), bench::nanoseconds(bench::clock::now() - begun)};
}

void show(const char* what, const std::vector<timing>& tasks, const std::vector<timing>& processes) {
  auto medians = [](const std::vector<timing>& all) {
    std::vector<double> returns, ends;
    for (const timing& each : all) {
      returns.push_back(each.returns);
      ends.push_back(each.ends);
    }
    return std::pair(bench::median(returns) * 1e-6, bench::median(ends) * 1e-6);
  };
  auto [task_returns, task_ends] = medians(tasks);
  auto [process_returns, process_ends] = medians(processes);
  bench::shown(bench::text("fork() of a task with 100 MiB%s, 1 MiB written afterwards, against the operating system's", what),
               bench::text("returns after %.2f ms, child waited for after %.2f ms; %.2f and %.2f ms", task_returns,
                           task_ends, process_returns, process_ends));
}

} // namespace

int main(int argc, char** argv) {
  node_options options = node_options::from(argc, argv);
  options.nodes = 2;
  node here(std::move(options));
  if (!here.first()) {
    here.serve();
    return 0;
  }
  constexpr int rounds = 7;
  std::vector<char> own(whole, 'x');
  std::vector<timing> processes;
  for (int i = 0; i < rounds; ++i) processes.push_back(of_process(own));
  for (bool has_image : {false, true}) {
    std::vector<timing> tasks;
    for (int i = 0; i < rounds; ++i)
      tasks.push_back(spawn({.region = region_class::large}, [has_image] {
                        std::vector<char> memory(whole, 'x');
                        if (has_image) { // of a move there and back
                          this_task::migrate_to(node_id{2});
                          this_task::migrate_to(node_id{1});
                        }
                        return of_task(memory);
                      }).join());
    show(has_image ? " and an image of it" : "", tasks, processes);
  }
  return 0;
}
