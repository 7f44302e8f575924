// Home's clocks as the running task reads them, at home or away.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <migrate/task/node_clock.hpp>
#include <migrate/task/services.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate::detail {

struct clock_estimate {
  // Where a home's clocks stand against a node's steady clock. All in nanoseconds.
  std::int64_t wall = 0;     // home's wall clock minus this node's steady clock
  std::int64_t steady = 0;   // the same of home's steady clock
  std::int64_t error = 0;    // how far both may be off at `measured`: half the round trip
  std::int64_t measured = 0; // by this node's steady clock

  static constexpr std::int64_t drift = 1000;
  // In 1,000,000: the kernel lets a clock be slewed by up to 500, and there are two clocks.

  std::int64_t bound(std::int64_t now) const noexcept {
    constexpr auto unknown = std::numeric_limits<std::int64_t>::max();
    return error == unknown ? unknown : error + (now - measured) / (1'000'000 / drift);
  }
};
// Measured as by Cristian, "Probabilistic clock synchronization" (1989): home's clocks were read somewhere between the
// asking and the answer.

struct time_state {
  std::uint64_t node = 0; // the incarnation of the node that `home` was copied from; another: it is of no use
  bool at_home = false;
  bool exact = false;
  std::int64_t valid_until = 0; // by that node's steady clock; then the node is to be asked again
  clock_estimate home;
  std::int64_t last_wall = std::numeric_limits<std::int64_t>::min(); // the last that was handed out
  std::int64_t last_steady = std::numeric_limits<std::int64_t>::min();
  std::int64_t last_at = 0; // by the task's own clock, which goes on without home (see task_now)

  static void inherit(control_block& parent, control_block& child) {
    if (parent.process.time != nullptr) child.process.time = new time_state(*parent.process.time);
  }
};

inline constinit std::uint64_t this_node_mark = 0;
// This node's incarnation, or zero.

struct clock_services {
  void (*renew)() noexcept;
  // Brings the running task's time_state up to date for the node it is on then. May wait.
  failure (*ask)(std::int64_t& wall, std::int64_t& steady);
  // Home's clocks, from home.
};
inline constinit const clock_services* the_clocks = nullptr;

[[gnu::noinline]] inline void prepare_clock() noexcept {
  resident& task = *current_task();
  if (task.control->process.time == nullptr) task.control->process.time = new time_state;
  the_clocks->renew();
}

enum class home_clock : std::uint8_t { wall, steady };

std::int64_t read_exactly(home_clock which, failure& failed);

template <home_clock which> [[gnu::always_inline]] inline std::int64_t hand_out(time_state& mine, std::int64_t time) {
  std::int64_t& last = which == home_clock::wall ? mine.last_wall : mine.last_steady;
  if (time > last) last = time;
  return last;
}

template <home_clock which> std::int64_t read_home_clock() noexcept {
  // On a thread that runs no task: the node's.
  safe_point();
  resident* task = current_task();
  if (task == nullptr) return which == home_clock::wall ? node_wall() : node_steady();
  for (;;) {
    time_state* mine = task->control->process.time;
    if (mine != nullptr && mine->exact && !mine->at_home) {
      failure failed;
      std::int64_t time = read_exactly(which, failed);
      if (!failed.code) return time;
    }
    std::int64_t local = node_steady();
    if (mine != nullptr && mine->node == this_node_mark && local < mine->valid_until) [[likely]] {
      mine->last_at = local + task->control->clock_offset;
      if (mine->at_home) return hand_out<which>(*mine, which == home_clock::wall ? node_wall() : local);
      return hand_out<which>(*mine, local + (which == home_clock::wall ? mine->home.wall : mine->home.steady));
    }
    prepare_clock();
    task = current_task();
  }
}

inline std::int64_t read_exactly(home_clock which, failure& failed) {
  // As a task.
  std::int64_t wall = 0;
  std::int64_t steady = 0;
  failed = the_clocks->ask(wall, steady);
  if (failed.code) return 0;
  time_state*& mine = self().control->process.time;
  if (mine == nullptr) mine = new time_state;
  std::int64_t after_wall = hand_out<home_clock::wall>(*mine, wall);
  std::int64_t after_steady = hand_out<home_clock::steady>(*mine, steady);
  mine->last_at = task_now().time_since_epoch().count();
  return which == home_clock::wall ? after_wall : after_steady;
}

inline std::int64_t home_clock_bound() noexcept {
  safe_point();
  resident* task = current_task();
  if (task == nullptr) return 0;
  time_state* known = task->control->process.time;
  if (known == nullptr || known->node != this_node_mark || node_steady() >= known->valid_until) prepare_clock();
  const time_state& mine = *current_task()->control->process.time;
  if (mine.at_home) return 0;
  std::int64_t now = node_steady();
  std::int64_t bound = mine.home.bound(now);
  if (bound == std::numeric_limits<std::int64_t>::max()) return bound;
  return bound + std::max<std::int64_t>(0, mine.last_wall - (now + mine.home.wall));
}

} // namespace migrate::detail
