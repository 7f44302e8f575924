// Families of tasks away from home: a forwarded call, and children that are started, end and are waited for.
#include <migrate/node.hpp>
#include <migrate/posix/wait.hpp>
#include <migrate/rpc/send.hpp>

#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "empty_call.hpp"
#include "harness.hpp"

using namespace migrate;
using bench::nanoseconds;

namespace {

double forwarded_call(int calls) {
  std::vector<double> times;
  for (int i = 0; i < calls; ++i) {
    auto start = bench::clock::now();
    posix::getpgrp();
    times.push_back(nanoseconds(bench::clock::now() - start));
  }
  return bench::median(times);
}

double families(int children) {
  auto start = bench::clock::now();
  for (int i = 0; i < children; ++i) {
    start_child([] { return 0; });
    posix::wait(nullptr);
  }
  return nanoseconds(bench::clock::now() - start) / children;
}

std::uint64_t calls_so_far() {
  // On this node: their numbers count up.
  node_heap_scope scope;
  std::uint64_t number = detail::this_calling.calls->open(no_node, nullptr, nullptr);
  detail::this_calling.calls->close(number);
  return number;
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
  constexpr int rounds = 21, calls = 300, children = 300;
  bench::empty_call_server server;
  auto [ours, theirs] = spawn([port = server.port()] {
                          this_task::migrate_to(bench::other_node());
                          pin_scope stays;
                          std::vector<double> forwarded, empty;
                          forwarded_call(calls);
                          for (int i = 0; i < rounds; ++i) { // in turn
                            forwarded.push_back(forwarded_call(calls));
                            empty.push_back(bench::empty_calls(port, 1, calls).front());
                          }
                          return std::pair(forwarded, empty);
                        }).join();
  bench::comparison forwarded{bench::spread_of(ours), bench::spread_of(theirs), {}};
  std::vector<double> ratios;
  for (std::size_t i = 0; i < ours.size(); ++i) ratios.push_back(ours[i] / theirs[i]);
  forwarded.ratio = bench::spread_of(ratios);
  bool reached = bench::ratio_row("a forwarded call (getpgrp away from home), against one empty Cap'n Proto call", forwarded,
                                  1.3, "us", 1e-3);

  auto [away, home, asked] = spawn([] {
                               families(children);
                               std::vector<double> at_home, elsewhere;
                               double most = 0;
                               for (int i = 0; i < 7; ++i) {
                                 this_task::migrate_to(this_task::home());
                                 at_home.push_back(families(children));
                                 this_task::migrate_to(bench::other_node());
                                 std::uint64_t before = calls_so_far();
                                 elsewhere.push_back(families(children));
                                 double each = static_cast<double>(calls_so_far() - before - 1) / children;
                                 most = std::max(most, each);
                               }
                               return std::tuple(bench::median(elsewhere), bench::median(at_home), most);
                             }).join();
  reached &= bench::row("spawn, exit and wait, all away from home, against the same at home",
                        bench::text("%.1f us against %.1f us; %.2f calls to home for each child", away * 1e-3,
                                    home * 1e-3, asked),
                        "<= 2 calls", asked <= 2);
  return reached ? 0 : 1;
}
