#include "search.hpp"

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <map>
#include <string>
#include <utility>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>
#include <migrate/placement.hpp>
#include <migrate/task.hpp>

#include "messages.hpp"

namespace uts {

namespace {

class coordinator {
public:
  coordinator(const tree& which, const search_options& how)
      : tree_(which), how_(how), reports_(16 * how.searchers), last_(how.searchers) {}

  outcome run() {
    start_searchers();
    auto begun = std::chrono::steady_clock::now();
    while (outstanding_ > 0) {
      if (auto came = reports_.receive_for(std::chrono::milliseconds(250)))
        take(*came);
      else
        throw_if_one_ended();
      if (migrate::placement() == migrate::placement_policy::application) spread();
      if (how_.progress) show_progress();
    }
    for (migrate::task_id each : all_) migrate::send(each, note{note_kind::stop, {}, migrate::no_node, 0, {}});
    outcome result;
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    for (auto& each : searchers_) add(result, each.join());
    return result;
  }

private:
  void start_searchers() {
    while (migrate::nodes().size() < how_.await_nodes) migrate::this_task::sleep_for(std::chrono::milliseconds(10));
    nodes_ = migrate::nodes();
    bool in_turn = migrate::placement() != migrate::placement_policy::automatic;
    for (unsigned index = 0; index < how_.searchers; ++index) {
      std::string name = "searcher " + std::to_string(index);
      migrate::node_id node = in_turn ? nodes_[index % nodes_.size()] : migrate::this_task::node();
      searchers_.push_back(migrate::spawn({.name = name, .on = node}, run_searcher, tree_, how_.granularity, index,
                                          migrate::this_task::id()));
      all_.push_back(searchers_.back().id());
      last_[index].node = node;
    }
    for (migrate::task_id each : all_) migrate::send(each, start_signal{all_});
  }

  void take(const report& came) {
    last_[came.searcher] = came;
    switch (came.kind) {
    case report_kind::done: outstanding_ -= came.credit; return;
    case report_kind::poor: {
      // It holds some yet, so this is not too late.
      outstanding_ += first_credit / 2;
      migrate::send(all_[came.searcher], note{note_kind::more, {}, migrate::no_node, first_credit / 2, {}});
      return;
    }
    case report_kind::state: return;
    }
  }

  void spread() {
    std::vector<migrate::node_id> now = migrate::nodes();
    if (now == nodes_) return;
    nodes_ = now;
    // As many on each; those stay that can.
    std::size_t most = (all_.size() + nodes_.size() - 1) / nodes_.size();
    std::map<migrate::node_id, std::size_t> on;
    std::vector<std::size_t> leaving;
    for (std::size_t i = 0; i < last_.size(); ++i) {
      bool there = std::find(nodes_.begin(), nodes_.end(), last_[i].node) != nodes_.end();
      if (!there || ++on[last_[i].node] > most) leaving.push_back(i);
    }
    for (std::size_t i : leaving)
      for (migrate::node_id node : nodes_)
        if (on[node] < most) {
          ++on[node];
          last_[i].node = node;
          migrate::send(all_[i], note{note_kind::go, {}, node, 0, {}});
          break;
        }
  }

  void show_progress() {
    auto now = std::chrono::steady_clock::now();
    if (now - shown_ < std::chrono::seconds(1)) return;
    shown_ = now;
    std::uint64_t all = 0;
    std::map<migrate::node_id, unsigned> on;
    for (const report& each : last_) {
      all += each.nodes;
      ++on[each.node];
    }
    std::string places;
    for (const auto& [node, searchers] : on)
      places.append(" ").append(to_string(node)).append(": ").append(std::to_string(searchers));
    std::fprintf(stderr, "%" PRIu64 " thousand nodes searched; searchers on node%s\n", all / 1000, places.c_str());
  }

  void throw_if_one_ended() {
    for (std::size_t i = 0; i < searchers_.size(); ++i) {
      if (!searchers_[i].wait_for(std::chrono::seconds(0))) continue;
      try {
        searchers_[i].join();
      } catch (const migrate::error& problem) {
        throw migrate::error(problem.code(), "searcher " + std::to_string(i) + " was lost: " + problem.what());
      }
    }
  }

  static void add(outcome& to, const found& from) {
    to.by_searcher.push_back(from.total.nodes);
    to.all.total.add(from.total);
    to.all.given += from.given;
    to.all.asked += from.asked;
    to.all.moves += from.moves;
    for (const auto& place : from.by_node) {
      auto same = std::find_if(to.all.by_node.begin(), to.all.by_node.end(),
                               [&](const auto& each) { return each.first == place.first; });
      if (same != to.all.by_node.end())
        same->second += place.second;
      else
        to.all.by_node.push_back(place);
    }
    std::sort(to.all.by_node.begin(), to.all.by_node.end());
  }

  tree tree_;
  search_options how_;
  migrate::mailbox<report> reports_;
  std::vector<report> last_;
  std::vector<migrate::node_id> nodes_;
  std::vector<migrate::task<found>> searchers_;
  std::vector<migrate::task_id> all_;
  std::uint64_t outstanding_ = first_credit;
  std::chrono::steady_clock::time_point shown_{};
};

} // namespace

outcome search(const tree& which, const search_options& how) { return coordinator(which, how).run(); }

outcome search_serially(const tree& which, unsigned granularity) {
  auto begun = std::chrono::steady_clock::now();
  outcome result;
  std::vector<tree_node> open{root_of(which)};
  while (!open.empty()) expand(which, granularity, open, result.all.total);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  result.by_searcher = {result.all.total.nodes};
  return result;
}

} // namespace uts
