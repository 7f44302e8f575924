// Home's time away from home, against the machine's clock and against an empty Cap'n Proto call.
#include <migrate/clock.hpp>
#include <migrate/node.hpp>

#include <tuple>
#include <vector>

#include <time.h>

#include "empty_call.hpp"
#include "harness.hpp"

using bench::nanoseconds;
namespace this_task = migrate::this_task;

namespace {

double readings(int many) {
  std::int64_t sum = 0;
  auto start = bench::clock::now();
  for (int i = 0; i < many; ++i) sum += migrate::clock::now().time_since_epoch().count();
  double each = nanoseconds(bench::clock::now() - start) / many;
  asm volatile("" : : "r"(sum));
  return each;
}

double machine_readings(int many) {
  std::int64_t sum = 0;
  auto start = bench::clock::now();
  for (int i = 0; i < many; ++i) {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    sum += now.tv_nsec;
  }
  double each = nanoseconds(bench::clock::now() - start) / many;
  asm volatile("" : : "r"(sum));
  return each;
}

double exact_readings(int many) {
  std::vector<double> times;
  for (int i = 0; i < many; ++i) {
    auto start = bench::clock::now();
    migrate::clock::now_exactly();
    times.push_back(nanoseconds(bench::clock::now() - start));
  }
  return bench::median(times);
}

} // namespace

int main(int argc, char** argv) {
  migrate::node_options options = migrate::node_options::from(argc, argv);
  options.nodes = 2;
  migrate::node here(std::move(options));
  if (!here.first()) {
    here.serve();
    return 0;
  }
  constexpr int rounds = 21, many = 20'000, calls = 300;
  bench::empty_call_server server;
  auto [reckoned, exact, bound] = migrate::spawn([port = server.port()] {
                                    this_task::migrate_to(bench::other_node());
                                    migrate::pin_scope stays;
                                    auto local = bench::compare(
                                        rounds, [] { return readings(many); }, [] { return machine_readings(many); });
                                    auto asked = bench::compare(
                                        rounds, [] { return exact_readings(calls); },
                                        [&] { return bench::empty_calls(port, 1, calls).front(); });
                                    static_cast<void>(migrate::clock::now());
                                    return std::tuple(local, asked, nanoseconds(migrate::clock::error_bound()));
                                  }).join();
  bool reached = bench::ratio_row("migrate::clock::now() by default, away from home, against clock_gettime", reckoned, 2,
                                  "ns");
  reached &=
      bench::ratio_row("exact time away from home, against one empty Cap'n Proto call", exact, 1.3, "us", 1e-3);
  bench::shown("the error bound of the default", bench::text("%.1f us", bound * 1e-3));
  return reached ? 0 : 1;
}
