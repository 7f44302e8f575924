// Placement: three test hosts of a fifth of a processor each, under the automatic policy, under none, and as they would
// be at best. Needs root.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../tests/support/folder.hpp"
#include "../tests/support/program.hpp"
#include "../tests/support/test_hosts.hpp"
#include "harness.hpp"

#ifndef MIGRATE_EXAMPLES_DIR
#define MIGRATE_EXAMPLES_DIR "build/examples"
#endif

using namespace migrate_test;
using namespace std::chrono_literals;

namespace {

using words = std::vector<std::string>;

constexpr unsigned hosts_used = 3;
constexpr unsigned hogged = 2; // the host with the load hog
constexpr std::chrono::seconds longest{600};

words operator+(words a, const words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

words on(const test_hosts& hosts, unsigned host, const words& command) {
  // On one of this machine's processors. On several, what a host may use of them in a period goes to whichever asks first, and
  // a load hog there takes all or nothing.
  return hosts.on(host, words{"taskset", "-c", std::to_string(host % std::thread::hardware_concurrency())} + command);
}

double value_of(const std::string& text, const std::string& row) {
  std::size_t at = text.find("\n" + row + " ");
  if (at == std::string::npos) throw std::runtime_error("no row '" + row + "' in:\n" + text);
  return std::strtod(text.c_str() + at + 1 + row.size(), nullptr);
}

std::string ended(program& running) {
  int status = running.wait(longest);
  std::string text = running.rest();
  if (status != 0 || text.find("verified: ") == std::string::npos) // or nothing is published of it
    throw std::runtime_error("status " + std::to_string(status) + ":\n" + text);
  return text;
}

class cluster {
public:
  explicit cluster(const test_hosts& hosts) : hosts_(hosts), credentials_((folder_.path / "keys").string()) {}

  words node(unsigned host, const words& command) const {
    words whole = command + words{"--migrate-workers=1", "--migrate-nodes=1", "--migrate-quiet",
                                  "--migrate-listen=" + address(host),
                                  "--migrate-credentials=" + credentials_.path(),
                                  "--migrate-store=" + (folder_.path / "store").string()};
    if (host != 1) whole.push_back("--migrate-join=" + address(1));
    return on(hosts_, host, whole);
  }

private:
  static std::string address(unsigned host) { return test_hosts::address(host) + ":7000"; }

  folder folder_;
  const test_hosts& hosts_;
  cluster_credentials credentials_;
};

class hog {
public:
  hog(const test_hosts& hosts, unsigned host) : busy_(on(hosts, host, {"/bin/sh", "-c", "while :; do :; done"}), {}) {}

private:
  program busy_;
};

std::vector<double> speeds(const test_hosts& hosts, const words& command, const std::string& row) {
  // Of the hosts, all at once, since they share this machine's memory: each does the same work alone.
  std::vector<std::unique_ptr<program>> alone;
  for (unsigned host = 1; host <= hosts_used; ++host)
    alone.push_back(std::make_unique<program>(on(hosts, host, command), environment{}));
  std::vector<double> all;
  for (auto& each : alone) all.push_back(value_of(ended(*each), row) * 1e6);
  return all;
}

// --- particle-in-cell, with a load hog on one of the hosts ------------------------------------------

// The grid and the distribution of the kernel's authors (Georganas et al., IPDPS 2016), with more particles and fewer steps:
// a step takes much longer than a host waits for its share of a processor, and than its messages do.
constexpr unsigned particles_used = 4'000'000;
const words pic{MIGRATE_EXAMPLES_DIR "/pic", "--no-progress", "-g", "2998", "-n", std::to_string(particles_used),
                "-k", "0", "--rho", "0.999", "-i", "10"};

words pic_work(unsigned steps) { return pic + words{"-s", std::to_string(steps)}; }

double run_pic(const test_hosts& hosts, const char* policy, unsigned steps) {
  // Seconds for each step.
  cluster made(hosts);
  words command = pic_work(steps) + words{"-b", "36", "--await-nodes", "3", std::string("--migrate-policy=") + policy};
  program first(made.node(1, command), {});
  std::this_thread::sleep_for(500ms); // it listens
  program second(made.node(2, command), {}), third(made.node(3, command), {});
  std::string text = ended(first);
  if (std::getenv("MIGRATE_BENCH_VERBOSE") != nullptr) std::printf("%s: %s\n", policy, text.c_str());
  return value_of(text, "seconds") / steps;
}

bool particles(unsigned steps) {
  test_hosts hosts(hosts_used);
  if (!hosts.made()) return true;
  hog busy(hosts, hogged);
  std::vector<double> speed = speeds(hosts, pic_work(8) + words{"--serial"}, "particle pushes/s");
  double all = 0;
  for (double each : speed) all += each;
  double ideal = particles_used / all;
  bench::shown("PIC alone on each host, the second with a load hog",
               bench::text("%.2f, %.2f and %.2f million pushes/s", speed[0] / 1e6, speed[1] / 1e6, speed[2] / 1e6));
  auto show = [&](double step) { return bench::text("%.2f (%.3f s a step, of %.3f s)", ideal / step, ideal, step); };
  // Where nothing moves, or only as its own balance has it, some steps tell as much as many.
  double none = run_pic(hosts, "manual", steps / 4);
  double own = run_pic(hosts, "application", steps / 4);
  double automatic = run_pic(hosts, "automatic", steps);
  bench::shown("PIC with a load hog on one of three test hosts, no policy, against the ideal", show(none));
  bench::shown("the same, its own balance", show(own));
  bench::shown("the same, automatic policy, against no policy", bench::text("%.2f x as fast", none / automatic));
  return bench::row("PIC with a load hog on one of three test hosts, automatic policy, against the ideal",
                    show(automatic), ">= 0.85", ideal / automatic >= 0.85);
}

// --- unbalanced tree search, with nodes that come later ----------------------------------------------

// UTS's own way to coarser work: each tree node is computed so many times.
constexpr const char* uts_granularity = "32";

struct late_run {
  double seconds = 0; // of the search
  double second = 0, third = 0; // after its beginning, when those nodes were started
};

late_run run_uts(const test_hosts& hosts, const char* policy, const std::string& tree, std::chrono::seconds pause) {
  cluster made(hosts);
  words command = words{MIGRATE_EXAMPLES_DIR "/uts", "--tree", tree, "-g", uts_granularity, "-s", "24",
                        std::string("--migrate-policy=") + policy};
  words all = made.node(1, command);
  std::string line = "exec \"$@\" 2>&1"; // its progress says when it begins
  program first(words{"/bin/sh", "-c", line, "sh"} + all, {});
  first.line(30s);
  auto begun = bench::clock::now();
  auto since = [&] { return std::chrono::duration<double>(bench::clock::now() - begun).count(); };
  late_run result;
  std::this_thread::sleep_for(pause);
  result.second = since();
  program second(made.node(2, command + words{"--no-progress"}), {});
  std::this_thread::sleep_for(pause);
  result.third = since();
  program third(made.node(3, command + words{"--no-progress"}), {});
  std::string text = ended(first);
  if (std::getenv("MIGRATE_BENCH_VERBOSE") != nullptr) std::printf("%s: %s\n", policy, text.c_str());
  result.seconds = value_of(text, "seconds");
  return result;
}

bool search(const std::string& tree, double size) {
  test_hosts hosts(hosts_used);
  if (!hosts.made()) return true;
  std::vector<double> speed =
      speeds(hosts, {MIGRATE_EXAMPLES_DIR "/uts", "--serial", "--kind", "geometric", "--shape", "fixed", "-d", "8", "-b", "4",
                     "-r", "19", "-g", uts_granularity},
             "tree nodes/s"); // T1, but for its depth
  bench::shown("UTS alone on each host", bench::text("%.2f, %.2f and %.2f million nodes/s", speed[0] / 1e6,
                                                     speed[1] / 1e6, speed[2] / 1e6));
  // speed[0] t + speed[1] (t - second) + speed[2] (t - third) = size
  auto ideal = [&](const late_run& run) {
    return (size + speed[1] * run.second + speed[2] * run.third) / (speed[0] + speed[1] + speed[2]);
  };
  auto show = [&](const late_run& run) {
    return bench::text("%.2f (%.1f s of %.1f s)", ideal(run) / run.seconds, ideal(run), run.seconds);
  };
  late_run none = run_uts(hosts, "manual", tree, 5s);
  late_run own = run_uts(hosts, "application", tree, 5s);
  late_run automatic = run_uts(hosts, "automatic", tree, 5s);
  bench::shown("UTS with one node started and two joining late, no policy, against the ideal", show(none));
  bench::shown("the same, its own policy", show(own));
  return bench::row("UTS with one node started and two joining late, automatic policy, against the ideal",
                    show(automatic), ">= 0.90", ideal(automatic) / automatic.seconds >= 0.9);
}

} // namespace

int main(int argc, char** argv) {
  try {
    std::string which = argc > 1 ? argv[1] : "";
    bool good = true;
    if (which != "uts") good = particles(argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 240) && good;
    if (which != "pic") good = search("T1", 4'130'071) && good;
    return good ? 0 : 1;
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "balance: %s\n", problem.what());
    return 2;
  }
}
