// A node's placement at work: measures, tells and hears loads, asks other nodes for room, and orders moves.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include <time.h>

#include <migrate/cluster/balancer.hpp>
#include <migrate/cluster/members.hpp>
#include <migrate/cluster/placement_services.hpp>
#include <migrate/cluster/task_watch.hpp>
#include <migrate/file/post_office.hpp>
#include <migrate/home/office.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/rpc/send.hpp>
#include <migrate/task/node_clock.hpp>
#include <migrate/task/scheduler.hpp>
#include <migrate/transfer/carrier.hpp>
#include <migrate/transfer/engine.hpp>

namespace migrate::detail {

class placement_office {
  // Nothing runs under the manual policy. Under the others the node wakes ten times a second, and fifty times while it
  // has something to run and the policy is automatic, to see what its workers do; and it tells its load to two others,
  // drawn at random, twice a second.

public:
  struct parts {
    event_loop& loop;
    home_office& home;
    peers& network;
    members& others;
    transfer_engine& engine;
    scheduler& workers;
  };

  placement_office(parts with, placement_policy which, node_chooser chooser)
      : with_(with), which_(which), balancer_(with.home.here(), static_cast<std::uint32_t>(with.workers.worker_count()),
                                              make_placement(which, chooser)),
        random_(std::random_device{}()) {}
  placement_office(const placement_office&) = delete;
  placement_office& operator=(const placement_office&) = delete;
  ~placement_office() { stop(); }

  void start();
  void stop();
  // After the event loop has stopped.

  placement_policy policy() const noexcept { return which_; }
  bool measures() const noexcept { return which_ != placement_policy::manual; }
  bool moves() const noexcept { return which_ == placement_policy::automatic; }

  void accept(bool yes);
  // Whether this node takes tasks that others' policies move, as it does unless its host is wanted back. The others
  // hear of it at once. On the I/O thread.

  // On the I/O thread:
  void on_loads(node_id from, protocol::LoadNews::Reader message);
  void on_room_asked(node_id from, protocol::RoomRequest::Reader message);
  void on_room(node_id from, protocol::Room::Reader message);
  void on_node_lost(node_id node);
  void on_node_came();

  // Any thread, inside a node_heap_scope where a task runs:
  std::vector<node_load> loads();
  node_id at_spawn();
  node_id choose(task_id task);
  std::size_t decisions(placement_decision* into, std::size_t most);
  placement_statistics statistics();

  task_watch& watch() noexcept { return watch_; }
  void arrived(resident& task, double used);

  static double seconds() noexcept { return static_cast<double>(machine_steady()) * 1e-9; }

private:
  using clock = balancer::clock;
  static constexpr std::chrono::milliseconds idle_tick{100}, busy_tick{20}, look_every{100}, tell_every{500};
  static constexpr std::chrono::seconds longest_wait{2}; // for an answer
  static constexpr std::chrono::milliseconds probe_time{20};
  static constexpr std::chrono::seconds probe_every{10};
  static constexpr std::size_t told_at_once = 2;
  static constexpr std::size_t most_decisions = 256;
  static constexpr double sampled_messages = 16; // of so many between tasks of this node one is looked at

  struct asked {
    proposed_move move;
    clock::time_point until;
    bool ordered = false; // the target has admitted it
  };

  void tick();
  void look(clock::time_point now, double seconds);
  void tell(node_id to);
  void tell_some();
  void ask(proposed_move&& move, clock::time_point now);
  void order(std::uint64_t number, const proposed_move& move);
  static void order_ended(std::uint64_t number, const failure& how) noexcept;
  void ended(std::uint64_t number, const failure& how);
  void probe();
  void note(const proposed_move& move, placement_outcome how, const std::string& why = {});
  void note(placement_decision&& made);
  static void on_message(task_id from, task_id to, node_id other) noexcept;
  static void put(protocol::Load::Builder into, const node_load& load);
  static node_load to_load(protocol::Load::Reader from);

  parts with_;
  placement_policy which_;
  task_watch watch_;

  spin_lock lock_; // guards what follows, up to the blank line
  balancer balancer_;
  std::deque<placement_decision> decisions_;
  placement_statistics counts_;
  std::unordered_map<std::uint64_t, asked> asked_;
  std::uint64_t last_asked_ = 0;

  // On the I/O thread:
  event_loop::timer timer_;
  bool stopped_ = false;
  std::minstd_rand random_;
  clock::time_point sampled_at_{}, looked_at_{}, told_at_{}, probed_at_{};
  scheduler::times measured_;
  bool busy_ = false;
  std::size_t leaving_ = 0; // of the tasks that can run, as of the last look: see task_watch
  std::thread probe_;
  std::atomic<bool> probing_{false};
};

inline constinit placement_office* this_placement = nullptr;

inline constexpr carrier placement_carrier{
    "placement", 1,
    [](resident&) { return failure{}; },
    [](resident& task, byte_writer& out) {
      bool watched = this_placement != nullptr && this_placement->moves();
      out.put(watched ? this_placement->watch().used(task.id) : 0.0);
    },
    [](resident& task, byte_reader& in) {
      auto used = in.get<double>();
      if (this_placement != nullptr) this_placement->arrived(task, used);
    },
    [](resident&, bool) noexcept {}};
// What it has used of processors so far, as its nodes saw it.

// ---------------------------------------------------------------------------------------------------

inline void placement_office::start() {
  if (!measures()) return;
  if (moves()) note_message.store(on_message, std::memory_order_relaxed);
  with_.loop.post([this] {
    sampled_at_ = looked_at_ = clock::now();
    measured_ = with_.workers.measure();
    probe();
    tick();
  });
}

inline void placement_office::stop() {
  note_message.store(nullptr, std::memory_order_relaxed);
  if (probe_.joinable()) probe_.join();
}

inline void placement_office::accept(bool yes) {
  {
    held guard(lock_);
    if (balancer_.accepts() == yes) return;
    balancer_.accept(yes);
  }
  if (measures())
    for (node_id other : with_.others.all())
      if (other != with_.home.here()) tell(other);
}

inline void placement_office::tick() {
  clock::time_point now = clock::now();
  std::size_t runnable = with_.workers.runnable();
  double passed = std::chrono::duration<double>(now - sampled_at_).count();
  sampled_at_ = now;
  {
    held guard(lock_);
    balancer_.sample(passed, runnable - std::min(runnable, leaving_), now);
  }
  if (runnable > 0) busy_ = true;
  if (moves() && busy_) watch_.sample(passed, with_.workers.running());
  if (now - looked_at_ >= look_every) {
    look(now, std::chrono::duration<double>(now - looked_at_).count());
    looked_at_ = now;
  }
  if (now - told_at_ >= tell_every) {
    told_at_ = now;
    tell_some();
  }
  timer_ = with_.loop.after(moves() && busy_ ? busy_tick : idle_tick, [this] { tick(); });
}

inline void placement_office::look(clock::time_point now, double seconds) {
  scheduler::times measured = with_.workers.measure();
  double idle = static_cast<double>(measured.idle - measured_.idle) * 1e-9;
  double processor = static_cast<double>(measured.processor - measured_.processor) * 1e-9;
  measured_ = measured;
  double busy = std::max(0.0, seconds * static_cast<double>(with_.workers.worker_count()) - idle);
  bool was_busy = std::exchange(busy_, false) || busy > 0.1 * seconds;
  if (moves() && was_busy) {
    watch_.search(with_.home.residents(), placement_office::seconds());
    watch_.charge(seconds, processor);
  }
  std::vector<task_load> tasks;
  if (moves() && was_busy) tasks = watch_.candidates(placement_office::seconds());
  leaving_ = moves() && was_busy ? watch_.leaving() : 0;
  std::vector<proposed_move> proposed;
  std::vector<node_load> known;
  {
    held guard(lock_);
    balancer_.measure(seconds, busy, processor);
    for (auto at = asked_.begin(); at != asked_.end();) {
      if (at->second.ordered || now < at->second.until) {
        ++at;
        continue;
      }
      balancer_.unanswered(at->second.move);
      at = asked_.erase(at);
    }
    if (!tasks.empty()) proposed = balancer_.look(tasks, with_.engine.recorder().cost(), now);
    if (!was_busy) known = balancer_.known(now);
  }
  for (proposed_move& move : proposed) ask(std::move(move), now);
  // While it is idle nothing says how fast it would be, and others may have much to give.
  if (now - probed_at_ > probe_every &&
      std::any_of(known.begin(), known.end(), [](const node_load& each) { return each.runnable > each.workers; }))
    probe();
}

inline void placement_office::probe() {
  // How much of a processor a thread gets that wants all of one.
  if (!moves() || probing_.load()) return;
  if (probe_.joinable()) probe_.join();
  probed_at_ = clock::now();
  probing_.store(true);
  probe_ = std::thread([this] {
    auto processor = [] {
      timespec used{};
      ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
      return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
    };
    double used = processor();
    auto begun = clock::now();
    auto now = begun;
    while (now - begun < probe_time) now = clock::now();
    double speed = (processor() - used) / std::chrono::duration<double>(now - begun).count();
    {
      held guard(lock_);
      if (balancer_.own().busy < 0.1) balancer_.meter().set_speed(speed);
    }
    probing_.store(false);
  });
}

// --- news --------------------------------------------------------------------------------------------

inline void placement_office::put(protocol::Load::Builder into, const node_load& load) {
  into.setNode(number(load.node));
  into.setWorkers(load.workers);
  into.setSpeed(static_cast<float>(load.speed));
  into.setBusy(static_cast<float>(load.busy));
  into.setRunnable(static_cast<float>(load.runnable));
  into.setAccepts(load.accepts);
  into.setAge(static_cast<std::uint32_t>(load.age.count()));
}

inline node_load placement_office::to_load(protocol::Load::Reader from) {
  // Whatever was sent, it must be something to compute with.
  auto within = [](float value, double least, double most) {
    return std::isfinite(value) ? std::clamp(static_cast<double>(value), least, most) : least;
  };
  node_load load;
  load.node = node_id(from.getNode());
  load.workers = std::clamp<std::uint32_t>(from.getWorkers(), 1, 65536);
  load.speed = within(from.getSpeed(), 0.01, 1);
  load.busy = within(from.getBusy(), 0, 1);
  load.runnable = within(from.getRunnable(), 0, 1e9);
  load.accepts = from.getAccepts();
  load.age = std::chrono::milliseconds(from.getAge());
  return load;
}

inline void placement_office::tell(node_id to) {
  std::vector<node_load> all;
  {
    held guard(lock_);
    all = balancer_.tell(clock::now());
    ++counts_.news_told;
  }
  send_message(with_.network, to, [&](protocol::Message::Builder message) {
    auto list = message.initLoads().initLoads(static_cast<unsigned>(all.size()));
    for (unsigned i = 0; i < list.size(); ++i) put(list[i], all[i]);
  });
}

inline void placement_office::tell_some() {
  std::vector<node_id> others = with_.others.all();
  std::erase(others, with_.home.here());
  for (std::size_t i = 0; i < told_at_once && !others.empty(); ++i) {
    std::size_t drawn = random_() % others.size();
    tell(others[drawn]);
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(drawn));
  }
}

inline void placement_office::on_loads(node_id from, protocol::LoadNews::Reader message) {
  if (!measures()) return;
  std::vector<node_load> told;
  for (auto each : message.getLoads()) told.push_back(to_load(each));
  bool answers = false;
  {
    held guard(lock_);
    balancer_.hear(told, clock::now());
    ++counts_.news_heard;
    // Whoever has too much is told at once where there is room.
    node_load own = balancer_.own();
    answers = own.accepts && own.busy < 0.5 && !told.empty() && told[0].node == from &&
              told[0].runnable > told[0].workers;
  }
  if (answers) tell(from);
}

inline void placement_office::on_node_came() {
  if (measures()) with_.loop.post([this] { tell_some(); });
}

inline void placement_office::on_node_lost(node_id node) {
  held guard(lock_);
  balancer_.forget(node);
  for (auto at = asked_.begin(); at != asked_.end();) {
    if (at->second.ordered || at->second.move.target != node) {
      ++at;
      continue;
    }
    balancer_.unanswered(at->second.move);
    at = asked_.erase(at);
  }
}

// --- room --------------------------------------------------------------------------------------------

inline void placement_office::ask(proposed_move&& move, clock::time_point now) {
  std::uint64_t number = 0;
  node_id target = move.target;
  task_load what = move.what;
  node_load from = move.from;
  double cost = move.prospect.cost;
  {
    held guard(lock_);
    number = ++last_asked_;
    asked_.emplace(number, asked{std::move(move), now + longest_wait});
  }
  send_message(with_.network, target, [&](protocol::Message::Builder message) {
    auto request = message.initRoomAsked();
    request.setNumber(number);
    request.setTask(what.task.bits());
    put(request.initFrom(), from);
    request.setUsed(what.used);
    request.setRate(what.rate);
    request.setRunnable(what.runnable);
    request.setBytes(what.bytes);
    request.setMessagesHere(what.traffic_with(from.node));
    request.setMessagesThere(what.traffic_with(target));
    request.setCost(cost);
  });
}

inline void placement_office::on_room_asked(node_id from, protocol::RoomRequest::Reader message) {
  task_load task;
  task.task = task_id(message.getTask());
  auto within = [](double value, double most) { return std::isfinite(value) ? std::clamp(value, 0.0, most) : 0.0; };
  task.used = within(message.getUsed(), 1e9);
  task.rate = within(message.getRate(), 1);
  task.runnable = within(message.getRunnable(), 1);
  task.bytes = message.getBytes();
  task.traffic = {{from, within(message.getMessagesHere(), 1e9)},
                  {with_.home.here(), within(message.getMessagesThere(), 1e9)}};
  node_load theirs = to_load(message.getFrom());
  theirs.node = from;
  bool granted = false;
  node_load own;
  {
    held guard(lock_);
    granted = balancer_.admit(task, theirs, within(message.getCost(), 1e9), clock::now());
    own = balancer_.own();
    ++(granted ? counts_.admitted : counts_.declined);
  }
  send_message(with_.network, from, [&](protocol::Message::Builder reply) {
    auto room = reply.initRoom();
    room.setNumber(message.getNumber());
    room.setGranted(granted);
    put(room.initLoad(), own);
  });
}

inline void placement_office::on_room(node_id from, protocol::Room::Reader message) {
  std::uint64_t number = message.getNumber();
  proposed_move move;
  {
    held guard(lock_);
    auto found = asked_.find(number);
    if (found == asked_.end() || found->second.move.target != from || found->second.ordered) return;
    move = found->second.move;
    balancer_.answered(move, message.getGranted(), to_load(message.getLoad()), clock::now());
    if (message.getGranted())
      found->second.ordered = true;
    else
      asked_.erase(found);
  }
  if (message.getGranted())
    order(number, move);
  else
    note(move, placement_outcome::refused);
}

inline void placement_office::order(std::uint64_t number, const proposed_move& move) {
  task_id id = move.what.task;
  resident* task = with_.home.find_here(id);
  failure refused;
  if (task == nullptr ||
      !with_.engine.order(*task, id, move.target, {with_.home.here(), number, {}, move_reason::balanced, order_ended}, refused))
    refused = {make_error_code(errc::no_such_task), "it has ended or left"};
  if (refused.code) ended(number, refused);
}

inline void placement_office::order_ended(std::uint64_t number, const failure& how) noexcept {
  node_heap_scope scope;
  if (this_placement != nullptr) this_placement->ended(number, how);
}

inline void placement_office::ended(std::uint64_t number, const failure& how) {
  proposed_move move;
  {
    held guard(lock_);
    auto found = asked_.find(number);
    if (found == asked_.end()) return;
    move = std::move(found->second.move);
    asked_.erase(found);
    if (how.code)
      balancer_.unanswered(move);
    else
      balancer_.moved(clock::now());
  }
  if (how.code) watch_.failed(move.what.task, seconds());
  note(move, how.code ? placement_outcome::failed : placement_outcome::moved, how.what);
}

inline void placement_office::arrived(resident& task, double used) {
  if (!moves()) return;
  watch_.arrived(task.id, task, used, seconds());
  held guard(lock_);
  balancer_.arrived(task.id, clock::now());
}

// --- what others ask ---------------------------------------------------------------------------------

inline std::vector<node_load> placement_office::loads() {
  held guard(lock_);
  return balancer_.known(clock::now());
}

inline node_id placement_office::at_spawn() {
  node_id here = with_.home.here();
  if (!measures()) return here;
  placement_decision made;
  {
    held guard(lock_);
    made.to = balancer_.spawn_place(clock::now());
  }
  if (made.to == here) return here;
  made.from = here;
  made.outcome = placement_outcome::chosen;
  std::snprintf(made.reason, sizeof made.reason, "for a task that was born");
  note(std::move(made));
  return made.to;
}

inline node_id placement_office::choose(task_id task) {
  node_id here = with_.home.here();
  if (which_ != placement_policy::application) return here;
  placement_decision made;
  {
    held guard(lock_);
    made.to = balancer_.spawn_place(clock::now());
  }
  if (made.to == here) return here;
  made.task = task;
  made.from = here;
  made.outcome = placement_outcome::chosen;
  std::snprintf(made.reason, sizeof made.reason, "for a task that asked");
  note(std::move(made));
  return made.to;
}

inline void placement_office::note(const proposed_move& move, placement_outcome how, const std::string& why) {
  placement_decision made;
  made.task = move.what.task;
  made.from = with_.home.here();
  made.to = move.target;
  made.outcome = how;
  made.gain = move.prospect.gain;
  made.cost = move.prospect.cost;
  if (how == placement_outcome::failed)
    std::snprintf(made.reason, sizeof made.reason, "%s", why.c_str());
  else
    std::snprintf(made.reason, sizeof made.reason,
                  "%s there; here %.1f can run on %u x %.2f processors, busy %.0f %%; it has used %.2f s",
                  move.prospect.share ? "a larger share" : "idle time", move.from.runnable, move.from.workers,
                  move.from.speed, move.from.busy * 100, move.what.used);
  note(std::move(made));
}

inline void placement_office::note(placement_decision&& made) {
  made.when = node_wall();
  held guard(lock_);
  switch (made.outcome) {
  case placement_outcome::moved: ++counts_.moved; break;
  case placement_outcome::refused: ++counts_.refused; break;
  case placement_outcome::failed: ++counts_.failed; break;
  case placement_outcome::chosen: ++counts_.chosen; break;
  }
  if (decisions_.size() == most_decisions) decisions_.pop_front();
  decisions_.push_back(made);
}

inline std::size_t placement_office::decisions(placement_decision* into, std::size_t most) {
  held guard(lock_);
  std::copy_n(decisions_.begin(), std::min(most, decisions_.size()), into);
  return decisions_.size();
}

inline placement_statistics placement_office::statistics() {
  held guard(lock_);
  return counts_;
}

inline void placement_office::on_message(task_id from, task_id to, node_id other) noexcept {
  // From a task here to one on node `other`, or the other way round; `other` is this node when both are here.
  placement_office* office = this_placement;
  if (office == nullptr) return;
  node_id here = office->with_.home.here();
  if (other == here) {
    static constinit std::atomic<std::uint32_t> count{0};
    std::uint32_t now = count.load(std::memory_order_relaxed); // what is lost of it does no harm
    count.store(now + 1, std::memory_order_relaxed);
    if (now % static_cast<std::uint32_t>(sampled_messages) != 0) return;
    node_heap_scope scope;
    office->watch_.message(from, here, sampled_messages);
    office->watch_.message(to, here, sampled_messages);
  } else {
    node_heap_scope scope;
    office->watch_.message(from, other, 1);
    office->watch_.message(to, other, 1);
  }
}

namespace placing {

inline placement_policy policy() noexcept { return this_placement->policy(); }
inline std::size_t loads(node_load* into, std::size_t most) {
  node_heap_scope scope;
  std::vector<node_load> all = this_placement->loads();
  std::copy_n(all.begin(), std::min(most, all.size()), into);
  return all.size();
}
inline node_id choose(task_id task) {
  node_heap_scope scope;
  return this_placement->choose(task);
}
inline std::size_t decisions(placement_decision* into, std::size_t most) {
  return this_placement->decisions(into, most);
}
inline placement_statistics statistics() { return this_placement->statistics(); }

inline constexpr placement_services services{policy, loads, choose, decisions, statistics};

} // namespace placing
} // namespace migrate::detail
