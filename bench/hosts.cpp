// The host database: what a decision costs as hosts and applications grow, and how many grants it makes.
#include <migrate/cluster/grant_ledger.hpp>

#include <CLI/CLI.hpp>

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <time.h>

#include "harness.hpp"

namespace {

using namespace migrate::detail;

class simulated_cluster {
  // Hosts of one slot whose owners come and go, and applications that want a little more than there is and hold each grant
  // for a while. Time is simulated, so that stale hosts and fair share play their part.

public:
  simulated_cluster(unsigned hosts, unsigned applications) : applications_(applications) {
    for (unsigned i = 0; i < hosts; ++i) {
      addresses_.push_back("10." + std::to_string(i >> 16) + "." + std::to_string(i >> 8 & 255) + "." +
                           std::to_string(i & 255) + ":7000");
      ledger_.host_came({addresses_.back(), "host" + std::to_string(i), 1, {}}, now_);
      tell(i);
    }
    for (unsigned i = 0; i < applications; ++i) {
      application_ask ask;
      ask.application = i + 1;
      ask.name = "application" + std::to_string(i + 1);
      ask.host = "host" + std::to_string(random(hosts));
      ask.wanted = hosts / applications + 2;
      ledger_.asked(ask, now_);
    }
    obey();
    for (unsigned i = 0; i < 2 * hosts; ++i) turn_over();
  }

  void turn_over() {
    // An application gives back a host, and its agent ends the grant: which makes a decision, as there is always one that waits.
    now_ += std::chrono::microseconds(500);
    if (++steps_ % 4 == 0) tell(random(static_cast<unsigned>(addresses_.size())));
    if (auto due = ledger_.next_due(); due && *due <= now_) ledger_.advance(now_);
    const auto* who = ledger_.application(1 + random(applications_));
    if (who->oldest == nullptr) return;
    ledger_.gave_back(who->id, who->oldest->id, now_);
    obey();
  }

  std::uint64_t granted() const { return granted_; }

private:
  void obey() {
    for (;;) {
      auto orders = ledger_.take_orders();
      if (orders.empty()) return;
      for (const ledger_order& each : orders) {
        if (each.what == ledger_order::kind::granted) ++granted_;
        if (each.what == ledger_order::kind::ended) ledger_.grant_ended(each.address, each.grant, now_);
      }
    }
  }
  void tell(unsigned host) {
    host_condition said;
    said.lendable = true;
    said.idle = std::chrono::seconds(random(100'000));
    ledger_.host_told(addresses_[host], said, now_);
  }
  unsigned random(unsigned below) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<unsigned>((state_ >> 33) % below);
  }

  grant_ledger ledger_;
  ledger_time now_{std::chrono::hours(1000)};
  unsigned applications_;
  std::vector<std::string> addresses_;
  std::uint64_t state_ = 1, steps_ = 0, granted_ = 0;
};

double processor_time() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}
// Of this thread in nanoseconds: nothing here waits for anybody.

void decisions(int rounds, unsigned each) {
  constexpr unsigned many_hosts = 10'000, many_applications = 1'000, few_hosts = 100, few_applications = 10;
  simulated_cluster many(many_hosts, many_applications), few(few_hosts, few_applications);
  auto cost = [&](simulated_cluster& of) {
    auto before = of.granted();
    double start = processor_time();
    for (unsigned i = 0; i < each; ++i) of.turn_over();
    return (processor_time() - start) / static_cast<double>(of.granted() - before);
  };
  auto result = bench::compare(
      rounds, [&] { return cost(many); }, [&] { return cost(few); });
  // A decision looks for one among the hosts and one among the applications.
  const double growth = (std::log(double{many_hosts}) + std::log(double{many_applications})) /
                        (std::log(double{few_hosts}) + std::log(double{few_applications}));
  bench::ratio_row(
      "host database, 10,000 simulated hosts, 1,000 applications: a decision, against its own at 100 and 10",
      result, growth, "ns");
  double each_second = 1e9 / result.mine.median;
  bench::row("the same: grants each second", bench::text("%.0f", each_second), ">= 50000",
             each_second >= 50'000);
}

} // namespace

int main(int argc, char** argv) {
  CLI::App options("What the host database costs");
  int rounds = 15;
  unsigned each = 20'000;
  options.add_option("--rounds", rounds, "How often each is measured");
  options.add_option("--decisions", each, "In each round");
  CLI11_PARSE(options, argc, argv);
  decisions(rounds, each);
}
