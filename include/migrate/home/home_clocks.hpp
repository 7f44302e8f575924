// What a node knows of the clocks of the homes that its tasks come from, and its own as home.
#pragma once

#include <cstdint>
#include <limits>
#include <unordered_map>
#include <utility>

#include <migrate/home/home_clock.hpp>
#include <migrate/home/office.hpp>
#include <migrate/home/request.hpp>
#include <migrate/rpc/send.hpp>

namespace migrate::detail {

class home_clocks {
public:
  static constexpr std::int64_t refresh = 1'000'000'000; // older estimates are measured anew behind the reader's back
  static constexpr std::int64_t worst = 10'000'000;      // with a bound above it the reader waits for a measurement
  static constexpr std::int64_t pause = 100'000'000;     // between questions that bring no better answer
  static constexpr std::uint64_t answer_mark = (std::uint64_t{1} << 62) + 1;
  // The call number of questions that no task waits for.

  enum class found { good, old, none };

  found find(node_id home, std::int64_t now, clock_estimate& into, std::int64_t& valid_until);
  // `old`: there is one, with a bound above `worst`. A measurement in the background is begun when it is time.

  void measured(node_id home, std::int64_t asked_at, std::int64_t wall, std::int64_t steady);
  void on_answer(node_id home, const answer& got);

  static void renew() noexcept;
  static failure ask(std::int64_t& wall, std::int64_t& steady);
  static void on_request(const request& asked, byte_reader& in);

private:
  struct entry {
    clock_estimate best;
    std::int64_t asked_at = std::numeric_limits<std::int64_t>::min() / 2;
  };

  spin_lock lock_;
  std::unordered_map<node_id, entry> homes_;
};
// Thread safety: any thread, inside a node_heap_scope where a task runs.

inline constinit home_clocks* this_clocks = nullptr;

inline home_clocks::found home_clocks::find(node_id home, std::int64_t now, clock_estimate& into,
                                            std::int64_t& valid_until) {
  bool send = false;
  found result = found::good;
  {
    held guard(lock_);
    auto at = homes_.find(home);
    if (at == homes_.end()) return found::none;
    entry& known = at->second;
    into = known.best;
    valid_until = known.best.measured + refresh;
    if (now >= valid_until) {
      valid_until = now + pause;
      send = now - known.asked_at > pause;
      if (send) known.asked_at = now;
    }
    if (known.best.bound(now) > worst) result = found::old;
  }
  if (send && result == found::good)
    request_home(home, service::time, answer_mark, [&](byte_writer& out) { out.put(now); });
  return result;
}

inline void home_clocks::measured(node_id home, std::int64_t asked_at, std::int64_t wall, std::int64_t steady) {
  std::int64_t now = node_steady();
  std::int64_t middle = asked_at + (now - asked_at) / 2;
  clock_estimate fresh{wall - middle, steady - middle, (now - asked_at) / 2 + 1, now};
  held guard(lock_);
  auto [at, is_new] = homes_.try_emplace(home);
  clock_estimate& best = at->second.best;
  // What contradicts the old one is right: home's wall clock was set.
  std::int64_t difference = fresh.wall > best.wall ? fresh.wall - best.wall : best.wall - fresh.wall;
  if (is_new || fresh.error <= best.bound(now) || difference > fresh.error + best.bound(now)) best = fresh;
}

inline void home_clocks::on_answer(node_id home, const answer& got) {
  if (got.code != errc::ok) return;
  byte_reader in(got.bytes.data(), got.bytes.size());
  measured(home, in.get<std::int64_t>(), static_cast<std::int64_t>(got.first), static_cast<std::int64_t>(got.second));
}

inline void home_clocks::on_request(const request& asked, byte_reader& in) {
  auto asked_at = in.get<std::int64_t>(); // by the asker's clock: it comes back
  answer result;
  result.bytes = {&asked_at, sizeof asked_at};
  result.first = static_cast<std::uint64_t>(node_wall());
  result.second = static_cast<std::uint64_t>(node_steady());
  reply(asked, std::move(result));
}

inline failure home_clocks::ask(std::int64_t& wall, std::int64_t& steady) {
  // As the running task.
  for (;;) {
    node_id home = self().id.home();
    if (home == this_home->here()) {
      wall = node_wall();
      steady = node_steady();
      return {};
    }
    called made = ask_home(home, service::time, [](byte_writer& out) { out.put(node_steady()); });
    if (made.how == waited::moved) continue;
    if (made.got.code != errc::ok) return {make_error_code(made.got.code), std::string(made.got.what.c_str())};
    wall = static_cast<std::int64_t>(made.got.first);
    steady = static_cast<std::int64_t>(made.got.second);
    node_heap_scope scope;
    this_clocks->on_answer(home, made.got);
    return {};
  }
}

inline void home_clocks::renew() noexcept {
  bool asked = false;
  for (;;) {
    resident& task = *current_task();
    time_state& mine = *task.control->process.time;
    node_id home = task.id.home();
    std::int64_t now = node_steady();
    mine.node = this_node_mark;
    mine.at_home = home == this_home->here();
    if (mine.at_home) {
      mine.valid_until = std::numeric_limits<std::int64_t>::max();
      return;
    }
    found known;
    {
      node_heap_scope scope;
      known = this_clocks->find(home, now, mine.home, mine.valid_until);
    }
    if (known == found::good) return;
    if (asked) {
      if (known == found::none) { // home does not answer: its clocks go on from the last that was seen of them
        std::int64_t passed = now + task.control->clock_offset - mine.last_at;
        bool first = mine.last_at == 0;
        mine.home.wall = (first ? node_wall() : mine.last_wall + passed) - now;
        mine.home.steady = (first ? now : mine.last_steady + passed) - now;
        mine.home.error = std::numeric_limits<std::int64_t>::max();
      }
      mine.valid_until = now + pause;
      return;
    }
    std::int64_t wall = 0;
    std::int64_t steady = 0;
    static_cast<void>(ask(wall, steady));
    asked = true;
  }
}

inline constexpr clock_services clock_calls{home_clocks::renew, home_clocks::ask};

} // namespace migrate::detail
