// The decisions of the automatic policy, and a cluster of them, simulated: no node, no thread, no clock.
#include <migrate/cluster/balancer.hpp>

#include "../support/random.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <vector>

using namespace migrate;
using namespace migrate::detail;
using namespace std::chrono_literals;

namespace {

std::uint64_t seed() {
  static const std::uint64_t chosen = migrate_test::new_seed("placement");
  return chosen;
}

node_load load_of(unsigned node, double runnable, double speed = 1, double busy = 1) {
  node_load made;
  made.node = node_id(static_cast<std::uint16_t>(node));
  made.speed = speed;
  made.busy = busy;
  made.runnable = runnable;
  return made;
}

task_load task_of(unsigned slot, double used, double rate, double runnable = 1) {
  task_load made;
  made.task = task_id(node_id(1), slot, 0);
  made.used = used;
  made.rate = rate;
  made.runnable = runnable;
  made.here = 1000;
  return made;
}

double worth(const move_prospect& found) { return found.worth_it() ? found.gain - found.cost : 0; }

} // namespace

TEST_CASE("a task moves where it gets a larger share, if it has run for long enough to be worth the move") {
  node_load crowded = load_of(1, 4), empty = load_of(2, 0, 1, 0);
  CHECK(automatic_placement::weigh(task_of(1, 10, 0.25), crowded, empty, 0.1).gain == Approx(30));
  CHECK(worth(automatic_placement::weigh(task_of(1, 10, 0.25), crowded, empty, 0.1)) == Approx(29.9));
  CHECK(worth(automatic_placement::weigh(task_of(1, 0.05, 0.25), crowded, empty, 0.1)) == 0);
  CHECK(worth(automatic_placement::weigh(task_of(1, 10, 0.25), crowded, load_of(2, 3), 0.1)) == 0);
  CHECK(worth(automatic_placement::weigh(task_of(1, 10, 0.25), crowded, load_of(2, 2), 0.1)) > 0);
  CHECK(worth(automatic_placement::weigh(task_of(1, 10, 1), load_of(1, 1), empty, 0.1)) == 0); // it is alone
}

TEST_CASE("a slow node is a loaded one") {
  // One task alone, on a node whose processor a load hog takes most of.
  node_load slow = load_of(1, 1.01, 0.2), fast = load_of(2, 0, 1, 0);
  CHECK(worth(automatic_placement::weigh(task_of(1, 10, 0.2), slow, fast, 0.1)) > 0);
  CHECK(worth(automatic_placement::weigh(task_of(1, 10, 1), load_of(1, 2), load_of(2, 0, 0.2, 0), 0.1)) == 0);
}

TEST_CASE("a node that is waited for gives to one that waits") {
  // Of tasks that wait for each other none has much in a queue; what counts is how busy the busiest node is.
  node_load late = load_of(1, 0.99, 0.1, 1), early = load_of(2, 0.5, 0.2, 0.5);
  task_load block = task_of(1, 1, 0.1 / 12, 0.1);
  move_prospect found = automatic_placement::weigh(block, late, early, 0.01);
  CHECK(found.worth_it());
  CHECK_FALSE(found.share);
  // 1/12 of what it takes itself goes, and half of that comes there.
  CHECK(found.gain == Approx(1 / (0.1 / 12) * (1.0 / 12)));
  early.busy = 0.95;
  CHECK(worth(automatic_placement::weigh(block, late, early, 0.01)) == 0);
  // Where messages are waited for as well, no node is busy all the time, and a block takes as much along.
  late.busy = 0.5, early.busy = 0.1;
  CHECK(automatic_placement::weigh(block, late, early, 0.01).gain == Approx(found.gain));
  early.busy = 0.35;
  CHECK(worth(automatic_placement::weigh(block, late, early, 0.01)) == 0);
  late.busy = 0.2, early.busy = 0; // nobody waits for a node that is idle most of the time
  CHECK(worth(automatic_placement::weigh(block, late, early, 0.01)) == 0);
}

TEST_CASE("messages hold a task where those are that it talks with, and draw it there") {
  node_load crowded = load_of(1, 2), empty = load_of(2, 0, 1, 0);
  task_load talker = task_of(1, 10, 0.5);
  CHECK(worth(automatic_placement::weigh(talker, crowded, empty, 0.01)) > 0);
  talker.traffic = {{node_id(1), 20'000}};
  CHECK(worth(automatic_placement::weigh(talker, crowded, empty, 0.01)) == 0);
  talker.traffic = {{node_id(2), 20'000}};
  CHECK(automatic_placement::weigh(talker, crowded, empty, 0.01).gain >
        automatic_placement::weigh(task_of(1, 10, 0.5), crowded, empty, 0.01).gain);
}

TEST_CASE("a move that is worth it is never worth undoing") {
  std::mt19937_64 random(seed());
  auto uniform = [&](double from, double to) { return std::uniform_real_distribution(from, to)(random); };
  int moves = 0;
  for (int round = 0; round < 200'000; ++round) {
    node_load a = load_of(1, uniform(0, 12), uniform(0.05, 1), uniform(0, 1));
    node_load b = load_of(2, uniform(0, 12), uniform(0.05, 1), uniform(0, 1));
    task_load task = task_of(1, uniform(0, 100), 0, uniform(0, 1));
    task.rate = uniform(0, std::min(1.0, task.runnable) * a.speed);
    a.runnable = std::max(a.runnable, task.runnable);
    a.busy = std::max(a.busy, task.rate / a.capacity());
    move_prospect there = automatic_placement::weigh(task, a, b, 0.001);
    if (!there.worth_it()) continue;
    ++moves;
    node_load a_after = a, b_after = b;
    a_after.runnable -= task.runnable;
    b_after.runnable += task.runnable;
    a_after.busy = std::max(0.0, a.busy - task.rate / a.capacity());
    b_after.busy = std::min(1.0, b.busy + task.rate / b.capacity());
    move_prospect back = automatic_placement::weigh(task, b_after, a_after, 0.001);
    if (back.worth_it() && back.share == there.share) {
      CAPTURE(a.runnable, a.speed, a.busy, b.runnable, b.speed, b.busy, task.runnable, task.rate);
      FAIL("it would come back");
    }
  }
  CHECK(moves > 1000);
}

TEST_CASE("what a move costs is learned from those that were made") {
  move_cost cost;
  CHECK(cost.expected(0) < 1e-3);
  CHECK(cost.expected(100 << 20) > cost.expected(1 << 20));
  for (int i = 0; i < 200; ++i) {
    cost.measured(0.020, 64 << 10);
    cost.measured(0.220, 100 << 20);
  }
  CHECK(cost.expected(64 << 10) == Approx(0.020).epsilon(0.1));
  CHECK(cost.expected(50 << 20) == Approx(0.120).epsilon(0.1));
}

TEST_CASE("the three policies answer the same questions") {
  std::vector<node_load> loads{load_of(3, 4), load_of(7, 1), load_of(8, 0)};
  loads[2].accepts = false;
  std::vector<task_load> tasks{task_of(1, 100, 0.25)};
  move_cost cost;
  auto ask = [&](placement_policy which, node_chooser choose = nullptr) {
    auto policy = make_placement(which, choose);
    CHECK(policy->which() == which);
    auto move = policy->next_move(loads[0], std::span(loads).subspan(1), tasks, cost);
    return std::pair(policy->at_spawn(loads), move ? move->target : no_node);
  };
  CHECK(ask(placement_policy::manual) == std::pair(node_id(3), no_node));
  CHECK(ask(placement_policy::application) == std::pair(node_id(7), no_node));
  CHECK(ask(placement_policy::application, [](std::span<const node_load> all) { return all.back().node; }) ==
        std::pair(node_id(8), no_node));
  CHECK(ask(placement_policy::automatic) == std::pair(node_id(7), node_id(7)));
}

TEST_CASE("news get about, the newest win, and old ones are forgotten") {
  std::mt19937_64 random(seed());
  constexpr unsigned nodes = 100;
  std::vector<std::unique_ptr<balancer>> all;
  auto now = load_news::clock::time_point(1000s);
  for (unsigned i = 1; i <= nodes; ++i)
    all.push_back(std::make_unique<balancer>(node_id(static_cast<std::uint16_t>(i)), 1,
                                             make_placement(placement_policy::automatic, nullptr)));
  auto round = [&] {
    // Each tells two random others.
    for (auto& each : all)
      for (int i = 0; i < 2; ++i) {
        auto told = each->tell(now);
        CHECK(told.size() <= load_news::most_told);
        all[random() % nodes]->hear(told, now);
      }
    now += 500ms;
  };
  for (int i = 0; i < 8; ++i) round();
  CHECK(std::count_if(all.begin(), all.end(), [&](auto& each) { return each->known(now).size() > nodes / 2; }) >
        nodes * 9 / 10);

  // One becomes busy: within a few rounds nearly everybody knows.
  all[41]->meter().expect(50, 0);
  auto who_knows = [&] {
    return std::count_if(all.begin(), all.end(), [&](auto& each) {
      auto loads = each->known(now);
      return std::any_of(loads.begin(), loads.end(), [](const node_load& one) { return one.runnable > 40; });
    });
  };
  CHECK(who_knows() == 1);
  for (int i = 0; i < 6; ++i) round();
  CHECK(who_knows() > nodes * 3 / 4);

  // It says no more: it is forgotten, as no news of it is passed on for ever.
  all[41] = std::make_unique<balancer>(no_node, 1, make_placement(placement_policy::manual, nullptr));
  for (int i = 0; i < 12; ++i) round();
  CHECK(who_knows() == 0);
}

namespace {

struct simulated_task {
  task_id id;
  double used = 0;
  double came = 0;
  unsigned moves = 0;
};

class simulation {
  // Nodes with tasks that compute all the time and share the processors of theirs, with messages and moves that take
  // time. Measures are wrong by up to a tenth.
public:
  struct node {
    std::unique_ptr<balancer> part;
    double speed = 1; // what a worker really gets
    std::vector<simulated_task> tasks;
    double busy = 0; // since the last measure
  };

  simulation(unsigned count, std::uint64_t seed) : random_(seed) {
    for (unsigned i = 1; i <= count; ++i) {
      nodes.emplace_back();
      nodes.back().part = std::make_unique<balancer>(node_id(static_cast<std::uint16_t>(i)), 1,
                                                     make_placement(placement_policy::automatic, nullptr));
      phase_.push_back(static_cast<unsigned>(random_() % 25));
    }
  }

  void spawn(unsigned at, unsigned count) {
    for (unsigned i = 0; i < count; ++i)
      nodes[at].tasks.push_back({task_id(node_id(static_cast<std::uint16_t>(at + 1)), ++last_, 0), 0, time_, 0});
  }

  void run(double seconds) {
    for (double end = time_ + seconds; time_ < end;) step();
  }

  double time() const { return time_; }
  unsigned moves() const { return moves_; }
  unsigned most_moves() const {
    unsigned most = 0;
    for (const node& each : nodes)
      for (const simulated_task& task : each.tasks) most = std::max(most, task.moves);
    return most;
  }
  std::pair<double, double> stretches() const {
    // The least and the most time that a second of processor time takes any task.
    double least = 1e9, most = 0;
    for (const node& each : nodes) {
      if (each.tasks.empty()) continue;
      double stretch = static_cast<double>(each.tasks.size()) / each.speed;
      least = std::min(least, stretch);
      most = std::max(most, stretch);
    }
    return {least, most};
  }

  std::vector<node> nodes;

private:
  static constexpr double tick = 0.02;

  void later(double seconds, std::function<void()> what) { events_.emplace_back(time_ + seconds, std::move(what)); }
  load_news::clock::time_point now() const {
    return load_news::clock::time_point(std::chrono::duration_cast<load_news::clock::duration>(
        std::chrono::duration<double>(1000 + time_)));
  }
  double noise() { return std::uniform_real_distribution(0.9, 1.1)(random_); }

  void step() {
    time_ += tick;
    ++ticks_;
    for (std::size_t i = 0; i < events_.size(); ++i)
      if (events_[i].first <= time_) {
        auto due = std::move(events_[i].second);
        events_.erase(events_.begin() + static_cast<std::ptrdiff_t>(i--));
        due();
      }
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      node& each = nodes[i];
      auto count = static_cast<double>(each.tasks.size());
      for (simulated_task& task : each.tasks) task.used += tick * each.speed * std::min(1.0, 1 / count);
      if (count > 0) each.busy += tick;
      each.part->sample(tick, each.tasks.size(), now());
      if ((ticks_ + phase_[i]) % 5 == 0) look(i);
      if ((ticks_ + phase_[i]) % 25 == 0) tell(i);
    }
  }

  void tell(std::size_t from) {
    for (int i = 0; i < 2; ++i) {
      std::size_t to = random_() % nodes.size();
      auto told = nodes[from].part->tell(now());
      later(0.005, [this, told, to] { nodes[to].part->hear(told, now()); });
    }
  }

  void look(std::size_t from) {
    node& here = nodes[from];
    here.part->measure(5 * tick, here.busy, here.busy * here.speed * noise());
    here.busy = 0;
    std::vector<task_load> tasks;
    for (const simulated_task& task : here.tasks) {
      task_load made;
      made.task = task.id;
      made.used = task.used * noise();
      made.rate = here.speed / static_cast<double>(here.tasks.size()) * noise();
      made.runnable = std::min(1.0, noise());
      made.here = time_ - task.came;
      made.bytes = 64 << 10;
      tasks.push_back(made);
    }
    for (const proposed_move& move : here.part->look(tasks, move_cost(), now()))
      later(0.02, [this, from, move] { ask(from, move); });
  }

  void ask(std::size_t from, const proposed_move& move) {
    balancer& target = *nodes[number(move.target) - 1u].part;
    bool granted = target.admit(move.what, move.from, move.prospect.cost, now());
    node_load told = target.own();
    later(0.02, [this, from, move, granted, told] {
      nodes[from].part->answered(move, granted, told, now());
      if (!granted) return;
      std::size_t to = number(move.target) - 1u;
      auto& tasks = nodes[from].tasks;
      auto found = std::find_if(tasks.begin(), tasks.end(), [&](auto& each) { return each.id == move.what.task; });
      REQUIRE(found != tasks.end());
      simulated_task moving = *found;
      tasks.erase(found);
      ++moves_;
      later(0.05, [this, from, to, moving]() mutable {
        ++moving.moves;
        moving.came = time_;
        nodes[to].tasks.push_back(moving);
        nodes[to].part->arrived(moving.id, now());
        nodes[from].part->moved(now());
      });
    });
  }

  std::mt19937_64 random_;
  std::vector<unsigned> phase_;
  std::vector<std::pair<double, std::function<void()>>> events_;
  double time_ = 0;
  unsigned ticks_ = 0;
  std::uint32_t last_ = 0;
  unsigned moves_ = 0;
};

} // namespace

TEST_CASE("a hundred nodes even out what begins on three of them, and then leave it alone") {
  simulation all(100, seed());
  for (unsigned i = 0; i < 3; ++i) all.spawn(i * 30, 200);
  all.run(30);
  auto [least, most] = all.stretches();
  CHECK(least >= 4);
  CHECK(most <= 9); // 6 would be the same for all
  unsigned before = all.moves();
  CHECK(before < 600 * 3);
  CHECK(all.most_moves() <= 8);
  all.run(30);
  CHECK(all.moves() - before <= 6);
}

TEST_CASE("one idle node among many that are loaded is not flooded") {
  simulation all(100, seed() + 1);
  for (unsigned i = 1; i < 100; ++i) all.spawn(i, 4);
  std::size_t most = 0;
  for (int i = 0; i < 300; ++i) {
    all.run(0.1);
    most = std::max(most, all.nodes[0].tasks.size());
  }
  CHECK(all.nodes[0].tasks.size() >= 3);
  CHECK(most <= 8); // of 99 that would give it some
}

TEST_CASE("nodes of different speed get as much as they can do, and a load hog drives tasks away") {
  simulation all(20, seed() + 2);
  for (unsigned i = 0; i < 20; ++i) all.nodes[i].speed = i % 2 == 0 ? 1.0 : 0.25;
  for (unsigned i = 0; i < 20; ++i) all.spawn(i, 8);
  all.run(40);
  auto [least, most] = all.stretches(); // 12.8 would be the same for all
  CHECK(least >= 9);
  CHECK(most <= 18);
  unsigned before = all.moves();
  std::size_t tasks_before = all.nodes[0].tasks.size();
  all.nodes[0].speed = 0.25; // the hog
  all.run(40);
  CHECK(all.nodes[0].tasks.size() < tasks_before * 2 / 3);
  CHECK(all.stretches().second < 24);
  unsigned after = all.moves();
  CHECK(after > before);
  all.run(40);
  CHECK(all.moves() - after <= 6);
}

namespace {

struct rounds_result {
  double time = 0; // of a step, on average
  unsigned moves = 0;
  unsigned late_moves = 0;
  std::vector<std::size_t> placed;
};

rounds_result run_in_rounds(std::vector<double> speeds, unsigned blocks, double seconds, std::uint64_t seed) {
  // Blocks that all wait for each other after each short step: the node that takes longest decides.
  std::mt19937_64 random(seed);
  auto noise = [&] { return std::uniform_real_distribution(0.95, 1.05)(random); };
  std::vector<std::unique_ptr<balancer>> nodes;
  std::vector<std::size_t> place;
  for (std::size_t i = 0; i < speeds.size(); ++i)
    nodes.push_back(std::make_unique<balancer>(node_id(static_cast<std::uint16_t>(i + 1)), 1,
                                               make_placement(placement_policy::automatic, nullptr)));
  for (unsigned i = 0; i < blocks; ++i) place.push_back(i * speeds.size() / blocks);
  std::vector<double> used(blocks), came(blocks);
  rounds_result result;
  auto now = load_news::clock::time_point(1000s);
  constexpr double look = 0.1;
  double work_done = 0;
  for (double time = 0; time < seconds; time += look, now += 100ms) {
    std::vector<double> work(speeds.size());
    for (std::size_t at : place) work[at] += 1;
    double longest = 0;
    for (std::size_t i = 0; i < speeds.size(); ++i) longest = std::max(longest, work[i] / speeds[i]);
    work_done += look / longest;
    for (std::size_t i = 0; i < speeds.size(); ++i) {
      double busy = work[i] / speeds[i] / longest;
      nodes[i]->meter().sample(look, (work[i] + 1) / 2 * busy * noise());
      nodes[i]->measure(look, look * std::min(1.0, busy * noise()), look * busy * speeds[i]);
      for (unsigned b = 0; b < blocks; ++b)
        if (place[b] == i) used[b] += look / longest;
    }
    for (auto& each : nodes)
      for (auto& other : nodes) each->hear(other->tell(now), now);
    for (std::size_t i = 0; i < speeds.size(); ++i) {
      std::vector<task_load> tasks;
      for (unsigned b = 0; b < blocks; ++b)
        if (place[b] == i) {
          task_load made = task_of(b, used[b], 1 / longest * noise(), 0.5 * work[i] / speeds[i] / longest);
          made.here = time - came[b];
          tasks.push_back(made);
        }
      for (const proposed_move& move : nodes[i]->look(tasks, move_cost(), now)) {
        std::size_t to = number(move.target) - 1u;
        bool granted = nodes[to]->admit(move.what, move.from, move.prospect.cost, now);
        nodes[to]->arrived(move.what.task, now);
        nodes[i]->answered(move, granted, nodes[to]->own(), now);
        if (!granted) continue;
        nodes[i]->moved(now);
        place[move.what.task.slot()] = to;
        came[move.what.task.slot()] = time;
        ++result.moves;
        if (time > seconds / 2) ++result.late_moves;
      }
    }
  }
  result.time = seconds / work_done;
  result.placed.resize(speeds.size());
  for (std::size_t at : place) ++result.placed[at];
  return result;
}

} // namespace

TEST_CASE("parts that wait for each other leave the slow node until it is no longer waited for") {
  // Three nodes, and on one of them a load hog that takes half of it.
  rounds_result found = run_in_rounds({0.1, 0.2, 0.2}, 36, 60, seed() + 3);
  CAPTURE(found.placed, found.moves, found.late_moves);
  CHECK(found.placed[0] >= 6);
  CHECK(found.placed[0] <= 8); // 7.2 would be the same time for all
  CHECK(found.placed[1] >= 12);
  CHECK(found.placed[2] >= 12);
  CHECK(found.time < 1.15 * 36 / 0.5);
  CHECK(found.late_moves <= 6);
}

TEST_CASE("what is measured of nodes that wait for each other wavers, and tasks do not go to and fro for that") {
  // Two nodes that are equally loaded: now one seems to wait for the other, and now the other for the one.
  balancer a(node_id(1), 1, make_placement(placement_policy::automatic, nullptr));
  balancer b(node_id(2), 1, make_placement(placement_policy::automatic, nullptr));
  auto now = load_news::clock::time_point(1000s);
  const auto begun = now;
  std::vector<std::pair<task_load, balancer*>> tasks;
  for (unsigned i = 0; i < 12; ++i) tasks.emplace_back(task_of(i, 5, 0.07, 0.5), i % 2 == 0 ? &a : &b);
  unsigned early = 0, late = 0;
  auto round = [&](balancer& from, balancer& to) {
    std::vector<task_load> here;
    for (auto& [task, where] : tasks)
      if (where == &from) here.push_back(task);
    for (const proposed_move& move : from.look(here, move_cost(), now)) {
      bool granted = to.admit(move.what, move.from, move.prospect.cost, now);
      from.answered(move, granted, to.own(), now);
      if (!granted) continue;
      to.arrived(move.what.task, now);
      from.moved(now);
      for (auto& [task, where] : tasks)
        if (task.task == move.what.task) where = &to, task.here = 0;
      ++(now - begun < 60s ? early : late);
    }
  };
  for (int step = 0; step < 6000; ++step, now += 100ms) {
    for (auto& each : tasks) each.first.here += 0.1, each.first.used += 0.007;
    bool a_leads = step / 70 % 2 == 0;
    a.measure(0.1, a_leads ? 0.1 : 0.065, 0.1);
    b.measure(0.1, a_leads ? 0.065 : 0.1, 0.1);
    a.hear(b.tell(now), now);
    b.hear(a.tell(now), now);
    round(a, b);
    round(b, a);
  }
  CAPTURE(early, late);
  CHECK(early > 0); // it might have been true
  CHECK(late <= 16);

  // A third node that has nothing to do is not kept waiting.
  balancer c(node_id(3), 1, make_placement(placement_policy::automatic, nullptr));
  unsigned there = 0;
  for (int step = 0; step < 60; ++step, now += 100ms) {
    for (auto& each : tasks) each.first.here += 0.1;
    a.measure(0.1, 0.095, 0.1);
    a.hear(c.tell(now), now);
    std::vector<task_load> here;
    for (auto& [task, where] : tasks)
      if (where == &a) here.push_back(task);
    for (const proposed_move& move : a.look(here, move_cost(), now)) there += move.target == node_id(3);
  }
  CHECK(there > 0);
}
