#include <migrate/posix/time.hpp>

#include "../support/cluster.hpp"
#include "../support/random.hpp"

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <vector>

#include <time.h>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

namespace posix = migrate::posix;
using migrate::node_id;
using migrate_test::run;
using namespace std::chrono_literals;

namespace {

// Node 1 has the machine's clocks; those of 2 are an hour ahead of them, of 3 two hours behind.
const int skewed = ::setenv("MIGRATE_CLOCK_SKEW", "3600000000000:2,-7200000000000:3", 1);

std::int64_t machine(clockid_t which) {
  timespec now{};
  ::clock_gettime(which, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}
// What the home of the test's tasks would say.

struct reading {
  std::int64_t before, told, after; // nanoseconds
  std::int64_t bound;
  bool holds() const { return told >= before - bound && told <= after + bound; }
};

template <class F> reading read_between(clockid_t which, F tell) {
  std::optional<migrate::pin_scope> here; // the bound is asked where the clock was read
  if (migrate::detail::current_task() != nullptr) here.emplace();
  std::int64_t before = machine(which);
  std::int64_t told = tell();
  std::int64_t after = machine(which);
  return {before, told, after, migrate::clock::error_bound().count()};
}

template <class F> auto on_every_node(F look) {
  std::vector<decltype(look())> seen{look()};
  for (node_id node : migrate::nodes()) {
    migrate::this_task::migrate_to(node);
    seen.push_back(look());
    seen.push_back(look());
  }
  return seen;
}

std::int64_t now() { return migrate::clock::now().time_since_epoch().count(); }
std::int64_t steady_now() { return migrate::steady_clock::now().time_since_epoch().count(); }

} // namespace

TEST_CASE("the clocks of this test's nodes differ") {
  REQUIRE(skewed == 0);
  std::vector<std::int64_t> seen;
  for (std::uint16_t node : std::initializer_list<std::uint16_t>{1, 2, 3})
    seen.push_back(migrate::detail::skew_from_environment(node_id(node)));
  CHECK(seen == std::vector<std::int64_t>{0, 3600'000'000'000, -7200'000'000'000});
  CHECK(run([] {
          migrate::pin_scope here;
          return migrate::detail::node_wall() - machine(CLOCK_REALTIME) < 1'000'000'000;
        }));
}

TEST_CASE("a task sees its home's time everywhere, within the bound that it is told") {
  for (const reading& each : run([] { return on_every_node([] { return read_between(CLOCK_REALTIME, now); }); })) {
    CAPTURE(each.before, each.told, each.after, each.bound);
    CHECK(each.holds());
    CHECK(each.bound < 10'000'000'000);
  }
  for (const reading& each :
       run([] { return on_every_node([] { return read_between(CLOCK_MONOTONIC, steady_now); }); })) {
    CAPTURE(each.before, each.told, each.after, each.bound);
    CHECK(each.holds());
  }
}

TEST_CASE("a child has its parent's home's time where it begins") {
  CHECK(run([] {
          return migrate::spawn({.on = node_id(2)}, [] { return read_between(CLOCK_REALTIME, now); }).join();
        }).holds());
}

TEST_CASE("the calls of POSIX give home's time everywhere") {
  auto seen = run([] {
    return on_every_node([] {
      auto wall = read_between(CLOCK_REALTIME, [] {
        timespec time{};
        posix::clock_gettime(CLOCK_REALTIME, &time);
        return posix::detail::to_nanoseconds(time);
      });
      auto monotonic = read_between(CLOCK_MONOTONIC, [] {
        timespec time{};
        posix::clock_gettime(CLOCK_MONOTONIC, &time);
        return posix::detail::to_nanoseconds(time);
      });
      auto day = read_between(CLOCK_REALTIME, [] {
        timeval time{};
        posix::gettimeofday(&time);
        return time.tv_sec * std::int64_t{1'000'000'000} + time.tv_usec * std::int64_t{1000};
      });
      day.before -= 1000;
      auto seconds = read_between(CLOCK_REALTIME, [] { return posix::time() * std::int64_t{1'000'000'000}; });
      seconds.before -= 1'000'000'000;
      return std::vector<int>{wall.holds(), monotonic.holds(), day.holds(), seconds.holds()};
    });
  });
  for (const auto& each : seen) CHECK(each == std::vector<int>{1, 1, 1, 1});
}

TEST_CASE("time never runs backwards, however often a task moves") {
  auto seed = migrate_test::new_seed("time");
  CHECK(run([seed] {
          migrate_test::random_choices random(seed);
          int backwards = 0;
          auto wall = migrate::clock::now();
          auto steady = migrate::steady_clock::now();
          for (int i = 0; i < 500; ++i) {
            migrate::this_task::migrate_to(random.node());
            if (random.one_in(20)) migrate::clock::exact(random.one_in(2));
            for (int k = 0; k < 3; ++k) {
              auto next = migrate::clock::now();
              auto next_steady = migrate::steady_clock::now();
              if (next < wall || next_steady < steady) ++backwards;
              wall = next;
              steady = next_steady;
            }
          }
          // A child begins no earlier than its parent was.
          if (migrate::spawn({.on = node_id(2)}, [] { return migrate::clock::now(); }).join() < wall) ++backwards;
          return backwards;
        }) == 0);
}

TEST_CASE("in exact mode the answer is what home's clock said between the question and the answer") {
  CHECK(run([] {
          int wrong = 0;
          auto look = [&](auto&& tell) {
            auto told = read_between(CLOCK_REALTIME, tell);
            told.bound = 0;
            if (!told.holds()) ++wrong;
          };
          migrate::clock::exact(true);
          for (node_id node : migrate::nodes()) {
            migrate::this_task::migrate_to(node);
            for (int i = 0; i < 20; ++i) look(now);
          }
          if (!migrate::clock::exact(false)) ++wrong;
          look([] { return migrate::clock::now_exactly().time_since_epoch().count(); });
          return wrong;
        }) == 0);
}

TEST_CASE("a sleep begun on one node ends on time on another") {
  using sleep = void (*)();
  static constexpr sleep ways[] = {
      [] { migrate::this_task::sleep_for(300ms); },
      [] {
        timespec wanted{0, 300'000'000};
        posix::nanosleep(&wanted, nullptr);
      },
      [] { migrate::this_task::sleep_until(migrate::clock::now() + 300ms); },
      [] {
        timespec when{};
        posix::clock_gettime(CLOCK_REALTIME, &when);
        when = posix::detail::to_timespec(posix::detail::to_nanoseconds(when) + 300'000'000);
        posix::clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &when, nullptr);
      },
      [] { static_cast<void>(migrate::mailbox<int>().receive_for(300ms)); }};
  for (std::size_t way = 0; way < std::size(ways); ++way) {
    auto lasted = run([way] {
      auto sleeper = migrate::spawn({.on = node_id(2)}, [way] {
        std::int64_t began = machine(CLOCK_MONOTONIC);
        ways[way]();
        return machine(CLOCK_MONOTONIC) - began;
      });
      for (int node : {3, 1, 2, 3}) {
        migrate::this_task::sleep_for(40ms);
        migrate_test::move_there(sleeper, node_id(static_cast<std::uint16_t>(node)));
      }
      return sleeper.join();
    });
    CAPTURE(way);
    CHECK(lasted >= 295'000'000);
    CHECK(lasted < 2'000'000'000);
  }
}

TEST_CASE("a sleep for nothing, and one that makes no sense") {
  auto seen = run([] {
    std::vector<int> found;
    timespec nothing{};
    found.push_back(posix::nanosleep(&nothing, nullptr));
    timespec wrong{0, 1'000'000'000};
    found.push_back(posix::nanosleep(&wrong, nullptr) == -1 ? EINVAL : 0);
    found.push_back(posix::clock_nanosleep(12345, 0, &nothing, nullptr));
    timespec past{1, 0};
    found.push_back(posix::clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &past, nullptr));
    found.push_back(posix::usleep(1));
    found.push_back(static_cast<int>(posix::sleep(0)));
    return found;
  });
  CHECK(seen == std::vector<int>{0, EINVAL, EINVAL, 0, 0, 0});
}

TEST_CASE("a thread that runs no task has its node's time") {
  auto told = read_between(CLOCK_REALTIME, now);
  CHECK(told.bound == 0);
  CHECK(told.holds());
  CHECK_THROWS_AS(migrate::clock::exact(true), migrate::error);
}
