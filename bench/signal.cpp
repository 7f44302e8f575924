// Signals between tasks: what kill() costs a task that is away from home, when the one it is for is elsewhere again.
#include <migrate/mailbox.hpp>
#include <migrate/node.hpp>
#include <migrate/posix/signal.hpp>
#include <migrate/signal.hpp>

#include <utility>
#include <vector>

#include "empty_call.hpp"
#include "harness.hpp"

using namespace migrate;
using bench::nanoseconds;

namespace {

double kill_calls(posix::pid_t to, int calls) {
  std::vector<double> times;
  for (int i = 0; i < calls; ++i) {
    auto start = bench::clock::now();
    posix::kill(to, SIGURG); // ignored where it is delivered
    times.push_back(nanoseconds(bench::clock::now() - start));
  }
  return bench::median(times);
}

} // namespace

int main(int argc, char** argv) {
  node_options options = node_options::from(argc, argv);
  options.nodes = 3;
  node here(std::move(options));
  if (!here.first()) {
    here.serve();
    return 0;
  }
  constexpr int rounds = 21, calls = 300;
  bench::empty_call_server server;
  auto [ours, theirs] = spawn([port = server.port()] {
                          auto target = spawn([] {
                            this_task::migrate_to(nodes().back());
                            mailbox<int>().receive();
                          });
                          this_task::migrate_to(bench::other_node());
                          auto to = static_cast<posix::pid_t>(target.id().bits());
                          std::vector<double> kills, empty;
                          {
                            pin_scope stays;
                            kill_calls(to, calls);
                            for (int i = 0; i < rounds; ++i) { // in turn
                              kills.push_back(kill_calls(to, calls));
                              empty.push_back(bench::empty_calls(port, 1, calls).front());
                            }
                          }
                          send(target.id(), 1);
                          target.join();
                          return std::pair(kills, empty);
                        }).join();
  bench::comparison kill{bench::spread_of(ours), bench::spread_of(theirs), {}};
  std::vector<double> ratios;
  for (std::size_t i = 0; i < ours.size(); ++i) ratios.push_back(ours[i] / theirs[i]);
  kill.ratio = bench::spread_of(ratios);
  bool reached =
      bench::ratio_row("kill to a task with a cached place, against one empty Cap'n Proto call", kill, 1.5, "us", 1e-3);

  double there_and_back = spawn([] {
                            auto target = spawn([](task_id from) {
                              this_task::migrate_to(nodes().back());
                              on_signal(SIGUSR1, [=](const signal_info&) { send_signal(from, SIGUSR1); });
                              mailbox<int>().receive();
                            }, this_task::id());
                            this_task::migrate_to(bench::other_node());
                            bool answered = false;
                            on_signal(SIGUSR1, [&](const signal_info&) { answered = true; });
                            signal_block hold({SIGUSR1});
                            std::vector<double> times;
                            for (int i = 0; i < calls; ++i) {
                              auto start = bench::clock::now();
                              answered = false;
                              send_signal(target.id(), SIGUSR1);
                              while (!answered) wait_for_handler({});
                              times.push_back(nanoseconds(bench::clock::now() - start));
                            }
                            send(target.id(), 1);
                            target.join();
                            return bench::median(times);
                          }).join();
  bench::shown("a signal whose handler sends one back, both tasks away, on two nodes",
               bench::text("%.1f us", there_and_back * 1e-3));
  return reached ? 0 : 1;
}
