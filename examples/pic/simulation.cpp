#include "simulation.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>
#include <migrate/placement.hpp>

#include "balance.hpp"
#include "block.hpp"
#include "messages.hpp"

namespace pic {

namespace {

migrate::region_class region_for(const parameters& what) {
  // With room for all particles in one block, and for the copies that are made of a growing vector and of
  // messages.
  std::uint64_t bytes =
      what.particles * sizeof(particle) * 5 +
      static_cast<std::uint64_t>(what.cells * what.cells) / what.blocks() * sizeof(double) * 2;
  constexpr std::uint64_t mebibyte = std::uint64_t{1} << 20;
  if (bytes < 48 * mebibyte) return migrate::region_class::medium;
  return bytes < 4000 * mebibyte ? migrate::region_class::large : migrate::region_class::huge;
}

class coordinator {
public:
  coordinator(const parameters& what, progress_style style)
      : what_(what), shown_(style), reports_(what.blocks()), reported_(what.blocks()) {}

  outcome run() {
    start_blocks();
    collect_reports(); // of step 0: every block is ready
    auto begun = std::chrono::steady_clock::now();
    unsigned looks = 0;
    outcome result;
    result.placed = placed_;
    while (reported_[0].step < what_.steps) {
      show_progress();
      answer_reports();
      collect_reports();
      result.imbalance += (imbalance() - result.imbalance) / ++looks;
    }
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    show_progress();
    result.found = wait_for_verdict();
    return result;
  }

private:
  void start_blocks() {
    // Neighbouring blocks on the same node, as many on each.
    while (migrate::nodes().size() < what_.await_nodes) migrate::this_task::sleep_for(std::chrono::milliseconds(10));
    std::vector<migrate::node_id> nodes = migrate::nodes();
    balance_ = what_.balance && migrate::placement() == migrate::placement_policy::application;
    start_signal signal;
    for (unsigned index = 0; index < what_.blocks(); ++index) {
      std::string name = "block " + std::to_string(index);
      migrate::node_id node = nodes[index * nodes.size() / what_.blocks()];
      if (node != migrate::this_task::node()) ++placed_;
      blocks_.push_back(migrate::spawn({.name = name, .region = region_for(what_), .on = node}, run_block,
                                       what_, index, migrate::this_task::id()));
      signal.blocks.push_back(blocks_.back().id());
    }
    all_ = signal.blocks;
    for (migrate::task_id block : all_) tell(block, signal);
  }

  template <class T> void tell(migrate::task_id block, const T& what) {
    try {
      migrate::send(block, what);
    } catch (const migrate::error&) {
      throw_if_one_ended();
      throw;
    }
  }

  void collect_reports() {
    // One of each block, all of the same step: no block sends the next before it has the answer.
    for (unsigned missing = what_.blocks(); missing > 0;) {
      if (auto report = reports_.receive_for(std::chrono::milliseconds(250))) {
        reported_[report->block] = *report;
        --missing;
      } else {
        throw_if_one_ended();
      }
    }
  }

  void answer_reports() {
    std::vector<migrate::node_id> nodes = migrate::nodes();
    std::vector<double> work;
    std::vector<std::size_t> place;
    bool known = true;
    for (const load_report& each : reported_) {
      // Before the first step there is nothing to measure.
      work.push_back(static_cast<double>(each.step == 0 ? each.particles : each.work_ns));
      auto found = std::find(nodes.begin(), nodes.end(), each.node);
      known = known && found != nodes.end();
      place.push_back(static_cast<std::size_t>(found - nodes.begin()));
    }
    std::vector<std::size_t> target = balance_ && known ? balanced(work, place, nodes.size()) : place;
    for (std::size_t block = 0; block < all_.size(); ++block)
      migrate::send(all_[block],
                    move_order{target[block] == place[block] ? migrate::no_node : nodes[target[block]]});
  }

  double imbalance() const {
    std::vector<migrate::node_id> nodes = migrate::nodes();
    double most = 0, all = 0;
    for (migrate::node_id node : nodes) {
      double here = 0;
      for (const load_report& each : reported_)
        if (each.node == node) here += static_cast<double>(each.work_ns);
      most = std::max(most, here);
      all += here;
    }
    return all > 0 ? most * static_cast<double>(nodes.size()) / all : 1;
  }

  void show_progress() {
    std::vector<node_share> shares;
    std::uint64_t moves = 0;
    for (migrate::node_id node : migrate::nodes()) {
      shares.push_back({node, 0});
      for (const load_report& each : reported_)
        if (each.node == node) shares.back().particles += each.particles;
    }
    for (const load_report& each : reported_) moves += each.moves;
    shown_.show(reported_[0].step, what_.steps, shares, moves - std::min(moves, placed_));
  }

  verdict wait_for_verdict() {
    for (std::size_t index = 0; index < blocks_.size(); ++index) {
      while (blocks_[index].joinable() && !blocks_[index].wait_for(std::chrono::milliseconds(250))) throw_if_one_ended();
      join(index);
    }
    return verdict_;
  }

  void join(std::size_t index) {
    if (!blocks_[index].joinable()) return;
    try {
      verdict its = blocks_[index].join();
      if (index == 0) verdict_ = std::move(its);
    } catch (const migrate::error& problem) {
      throw migrate::error(problem.code(), "block " + std::to_string(index) +
                                               " of the simulation was lost: " + problem.what());
    }
  }

  void throw_if_one_ended() {
    // A block that died leaves its neighbours waiting, or failing in their turn: the cause is what to tell.
    std::optional<migrate::error> consequence;
    for (std::size_t index = 0; index < blocks_.size(); ++index) {
      if (!blocks_[index].joinable() || !blocks_[index].wait_for(std::chrono::seconds(0))) continue;
      try {
        join(index);
      } catch (const migrate::error& problem) {
        if (problem.code() == migrate::errc::node_lost) throw;
        if (!consequence) consequence = problem;
      }
    }
    if (consequence) throw *consequence;
  }

  parameters what_;
  progress shown_;
  std::vector<migrate::task<verdict>> blocks_;
  std::vector<migrate::task_id> all_;
  verdict verdict_;
  migrate::mailbox<load_report> reports_;
  std::vector<load_report> reported_;
  std::uint64_t placed_ = 0;
  bool balance_ = false;
};

} // namespace

outcome simulate(const parameters& what, progress_style style) { return coordinator(what, style).run(); }

} // namespace pic
