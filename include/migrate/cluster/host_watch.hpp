// A machine as its agent sees it: whether its owner is there, what it does for him and for others, and what follows.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/types.h>

#include <migrate/cluster/host_load.hpp>
#include <migrate/cluster/idleness.hpp>
#include <migrate/cluster/input_idle.hpp>
#include <migrate/cluster/owner_policy.hpp>
#include <migrate/cluster/process_tree.hpp>
#include <migrate/cluster/terminal_idle.hpp>

namespace migrate::detail {

struct host_watch_options {
  std::string proc = "/proc", dev = "/dev";
  unsigned processors = 0; // that the load is shared by; 0: of this machine
  owner_policy policy = owner_policy::desktop();
  load_limits load;
  bool lend_unwatched_seat = false; // although nothing sees whether somebody sits there
};

class host_watch {
  // Thread safety: none.

public:
  host_watch(host_watch_options options, std::function<std::vector<pid_t>()> foreign_roots)
      : options_(std::move(options)), foreign_roots_(std::move(foreign_roots)), idle_(options_.proc),
        load_(options_.processors != 0 ? options_.processors : std::thread::hardware_concurrency(),
              options_.load),
        decisions_(options_.policy) {
    auto foreign_terminals = [this] {
      return use_of(process_tree(options_.proc), foreign_roots_()).terminals;
    };
    idle_.add(std::make_shared<terminal_idle>(options_.dev, foreign_terminals));
    idle_.add(std::make_shared<input_idle>(options_.dev));
  }
  // All descendants of the foreign roots are borrowers' programs.

  host_watch(const host_watch&) = delete;
  host_watch& operator=(const host_watch&) = delete;

  idle_watch& sources() { return idle_; }

  void look(const moment& now, bool lent) {
    seen_ = idle_.look(now);
    if (!load_looked_ || now.steady - *load_looked_ >= load_period) {
      load_looked_ = now.steady;
      unsigned foreign = lent ? use_of(process_tree(options_.proc), foreign_roots_()).running : 0;
      load_.sample(now.steady, read_loadavg(options_.proc), foreign);
    }
    memory_ = read_pressure("memory", options_.proc).value_or(pressure{});
    auto io = read_pressure("io", options_.proc).value_or(pressure{});

    owner_decisions::circumstances here;
    auto seconds = [](auto time) { return std::chrono::duration<double>(time).count(); };
    here.figures = {.idle = seconds(seen_.idle),
                    .load1 = load_.averages()[0],
                    .load5 = load_.averages()[1],
                    .load15 = load_.averages()[2],
                    .busy = seconds(load_.busy_for(now.steady)),
                    .memory = memory_.some,
                    .io = io.some,
                    .suspended = 0};
    here.load_accepts = load_.accepts();
    here.seat_unwatched = seen_.seat_unwatched && !options_.lend_unwatched_seat;
    here.lent = lent;
    decisions_.look(now.steady, here);
  }

  const idleness& idle() const { return seen_; }
  const host_load& load() const { return load_; }
  const pressure& memory() const { return memory_; }
  const owner_decisions& decisions() const { return decisions_; }
  // As of the last look.

private:
  static constexpr std::chrono::seconds load_period{5}; // as the kernel averages

  host_watch_options options_;
  std::function<std::vector<pid_t>()> foreign_roots_;
  idle_watch idle_;
  host_load load_;
  owner_decisions decisions_;
  idleness seen_;
  pressure memory_;
  std::optional<std::chrono::steady_clock::time_point> load_looked_;
};

} // namespace migrate::detail
