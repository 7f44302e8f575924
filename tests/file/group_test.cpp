#include <migrate/group.hpp>

#include "../support/cluster.hpp"

#include <chrono>
#include <string>
#include <tuple>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using migrate::group;
using migrate::task_id;
using migrate_test::run;

namespace {

struct start {
  std::vector<task_id> members;
  auto migrate_fields() { return std::tie(members); }
};

class jumper {
  // Draws where a task goes next.
public:
  explicit jumper(std::uint64_t seed) : state_(seed) {}
  std::uint64_t draw(std::uint64_t below) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (state_ >> 33) % below;
  }
  void jump() {
    auto there = migrate::nodes();
    migrate::this_task::migrate_to(there[static_cast<std::size_t>(draw(there.size()))]);
  }

private:
  std::uint64_t state_;
};

template <class F> auto run_members(std::size_t count, F body) {
  // In a task: runs body(members) in `count` tasks spread over the nodes, and returns what they return.
  using result = std::invoke_result_t<F, const std::vector<task_id>&>;
  auto there = migrate::nodes();
  std::vector<migrate::task<result>> tasks;
  start all;
  for (std::size_t i = 0; i < count; ++i) {
    tasks.push_back(migrate::spawn({.name = "member", .on = there[i % there.size()]},
                                   [body] { return body(migrate::mailbox<start>().receive().members); }));
    all.members.push_back(tasks.back().id());
  }
  for (task_id member : all.members) migrate::send(member, all);
  std::vector<result> results;
  for (auto& each : tasks) results.push_back(each.join());
  return results;
}

std::int64_t now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

} // namespace

TEST_CASE("every member gets what all members put in") {
  for (std::size_t count : {1u, 2u, 3u, 5u, 8u, 13u}) {
    CAPTURE(count);
    auto results = run([count] {
      return run_members(count, [](const std::vector<task_id>& members) {
        group all(members);
        auto rank = static_cast<std::int64_t>(all.rank());
        std::vector<std::int64_t> found;
        found.push_back(all.sum(rank * rank));
        found.push_back(all.min(10 - rank));
        found.push_back(all.max(10 - rank));
        found.push_back(static_cast<std::int64_t>(all.gather(rank).size()));
        for (auto each : all.gather_all(rank * 3)) found.push_back(each);
        for (std::size_t root = 0; root < all.size(); ++root)
          found.push_back(all.broadcast(rank + 100, root));
        return found;
      });
    });
    auto n = static_cast<std::int64_t>(count);
    REQUIRE(results.size() == count);
    for (std::size_t rank = 0; rank < count; ++rank) {
      std::vector<std::int64_t> expected{(n - 1) * n * (2 * n - 1) / 6, 10 - (n - 1), 10, rank == 0 ? n : 0};
      for (std::int64_t i = 0; i < n; ++i) expected.push_back(i * 3);
      for (std::int64_t i = 0; i < n; ++i) expected.push_back(i + 100);
      CHECK(results[rank] == expected);
    }
  }
}

TEST_CASE("values are combined in the order of ranks") {
  auto results = run([] {
    return run_members(11, [](const std::vector<task_id>& members) {
      group all(members);
      return all.sum(std::string(1, static_cast<char>('a' + all.rank())));
    });
  });
  for (const std::string& each : results) CHECK(each == "abcdefghijk");
}

TEST_CASE("a sum of floating point is the same whatever the timing") {
  auto results = run([] {
    return run_members(7, [](const std::vector<task_id>& members) {
      group all(members);
      jumper moves(members[all.rank()].bits());
      double mine = all.rank() % 2 == 0 ? 1e16 / static_cast<double>(all.rank() + 1) : 0.7;
      std::vector<double> sums;
      for (int i = 0; i < 40; ++i) {
        if (moves.draw(3) == 0) moves.jump();
        sums.push_back(all.sum(mine));
      }
      return sums;
    });
  });
  for (const auto& sums : results)
    for (double each : sums) CHECK(each == results[0][0]);
}

TEST_CASE("a group works while its members move") {
  struct seen {
    std::uint64_t moves;
    std::int64_t wrong;
  };
  auto results = run([] {
    return run_members(9, [](const std::vector<task_id>& members) {
      group all(members);
      jumper moves(members[all.rank()].bits() + 1);
      seen mine{};
      for (std::int64_t round = 0; round < 60; ++round) {
        if (moves.draw(2) == 0) moves.jump();
        auto n = static_cast<std::int64_t>(all.size());
        auto rank = static_cast<std::int64_t>(all.rank());
        if (all.sum(round + rank) != n * round + n * (n - 1) / 2) ++mine.wrong;
        if (all.broadcast(rank * 1000 + round, static_cast<std::size_t>(round % n)) !=
            round % n * 1000 + round)
          ++mine.wrong;
        auto values = all.gather(rank + round);
        for (std::size_t i = 0; i < values.size(); ++i)
          if (values[i] != static_cast<std::int64_t>(i) + round) ++mine.wrong;
      }
      mine.moves = migrate::this_task::moves();
      return mine;
    });
  });
  std::uint64_t moves = 0;
  for (const seen& each : results) {
    CHECK(each.wrong == 0);
    moves += each.moves;
  }
  CHECK(moves > 100);
}

TEST_CASE("nobody leaves a barrier before everybody has come") {
  constexpr int rounds = 12;
  auto results = run([] {
    return run_members(6, [](const std::vector<task_id>& members) {
      group all(members);
      std::vector<std::int64_t> times;
      for (int round = 0; round < rounds; ++round) {
        if (static_cast<std::size_t>(round) % all.size() == all.rank())
          for (int i = 0; i < 2000; ++i) migrate::this_task::yield();
        times.push_back(now());
        all.barrier();
        times.push_back(now());
      }
      return times;
    });
  });
  for (std::size_t round = 0; round < rounds; ++round) {
    std::int64_t last_in = results[0][2 * round];
    std::int64_t first_out = results[0][2 * round + 1];
    for (const auto& times : results) {
      last_in = std::max(last_in, times[2 * round]);
      first_out = std::min(first_out, times[2 * round + 1]);
    }
    CHECK(last_in <= first_out);
  }
}

TEST_CASE("groups with members in common do not mix") {
  // Rank 0 asks for the groups' values in another order than the others give them.
  auto results = run([] {
    return run_members(6, [](const std::vector<task_id>& members) {
      group first(members, 1);
      group second(members, 2);
      std::vector<task_id> even;
      for (std::size_t i = 0; i < members.size(); i += 2) even.push_back(members[i]);
      auto rank = static_cast<int>(first.rank());
      std::vector<int> from_first, from_second, from_even;
      if (rank == 0) {
        group evens(even);
        from_even = evens.gather(rank + 300);
        from_second = second.gather(rank + 200);
        from_first = first.gather(rank + 100);
      } else {
        from_first = first.gather(rank + 100);
        from_second = second.gather(rank + 200);
        if (rank % 2 == 0) from_even = group(even).gather(rank + 300);
      }
      return std::tuple(from_first, from_second, from_even);
    });
  });
  CHECK(std::get<0>(results[0]) == std::vector<int>{100, 101, 102, 103, 104, 105});
  CHECK(std::get<1>(results[0]) == std::vector<int>{200, 201, 202, 203, 204, 205});
  CHECK(std::get<2>(results[0]) == std::vector<int>{300, 302, 304});
}

TEST_CASE("a group can be made again of the same members") {
  auto results = run([] {
    return run_members(5, [](const std::vector<task_id>& members) {
      std::vector<int> found;
      for (int i = 0; i < 20; ++i) found.push_back(group(members).sum(i));
      return found;
    });
  });
  for (const auto& found : results)
    for (int i = 0; i < 20; ++i) CHECK(found[static_cast<std::size_t>(i)] == 5 * i);
}

TEST_CASE("members that call different functions are told so") {
  auto results = run([] {
    return run_members(2, [](const std::vector<task_id>& members) {
      group both(members);
      try {
        if (both.rank() == 0)
          both.barrier();
        else
          static_cast<void>(both.gather(1));
      } catch (const migrate::error& problem) {
        return std::string(problem.code() == migrate::errc::protocol ? problem.what() : "another error");
      }
      return std::string();
    });
  });
  CHECK_THAT(results[0],
             Catch::Contains("is in gather as call 1") && Catch::Contains("in barrier as call 1"));
  CHECK(results[1].empty());
}

TEST_CASE("a list that does not have the task in it once is refused") {
  auto refusals = run([] {
    task_id me = migrate::this_task::id();
    auto refusal = [](std::vector<task_id> members) {
      try {
        group made(members);
      } catch (const migrate::error& problem) {
        return std::string(problem.code() == std::errc::invalid_argument ? problem.what() : "another error");
      }
      return std::string("none");
    };
    return std::vector<std::string>{refusal({}), refusal({task_id(migrate::node_id(1), 77, 3)}),
                                    refusal({me, me}), refusal({me})};
  });
  CHECK_THAT(refusals[0], Catch::Contains("not in it"));
  CHECK_THAT(refusals[1], Catch::Contains("group of 1 tasks") && Catch::Contains("not in it"));
  CHECK_THAT(refusals[2], Catch::Contains("is in it twice"));
  CHECK(refusals[3] == "none");
}
