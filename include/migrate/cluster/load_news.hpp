// What a node knows of the others' load: each tells a few random others what it knows itself, with its age.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <optional>
#include <unordered_map>
#include <vector>

#include <migrate/cluster/node_load.hpp>

namespace migrate::detail {

class load_news {
  // No node knows all of it, and none is needed for it. News may be seconds old: whoever acts on it asks the node
  // concerned first. (Barak and Shiloh 1985; MOSIX's probabilistic load exchange.)

public:
  using clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds oldest{5000}; // older news is forgotten
  static constexpr std::size_t most_told = 32;             // loads in one message

  bool hear(const node_load& told, clock::time_point now) {
    // False when what is known already is newer.
    if (told.node == no_node || told.age > oldest || told.age.count() < 0) return false;
    clock::time_point measured = now - told.age;
    auto [found, fresh] = known_.try_emplace(told.node, entry{told, measured});
    if (!fresh && found->second.measured >= measured) return false;
    found->second = {told, measured};
    return true;
  }

  void forget(node_id node) { known_.erase(node); }

  void forget_old(clock::time_point now) {
    std::erase_if(known_, [&](const auto& each) { return now - each.second.measured > oldest; });
  }

  std::vector<node_load> freshest(clock::time_point now, std::size_t most = most_told) const {
    std::vector<node_load> all;
    all.reserve(known_.size());
    for (const auto& [node, each] : known_) {
      all.push_back(each.load);
      all.back().age = std::chrono::duration_cast<std::chrono::milliseconds>(now - each.measured);
    }
    auto by_age = [](const node_load& a, const node_load& b) { return a.age < b.age; };
    if (all.size() > most) {
      std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(most), all.end(), by_age);
      all.resize(most);
    }
    return all;
  }

  void adjust(node_id node, double runnable, double processor_rate) {
    // What this node sends there is not in the news yet.
    auto found = known_.find(node);
    if (found == known_.end()) return;
    node_load& load = found->second.load;
    load.runnable = std::max(0.0, load.runnable + runnable);
    load.busy = std::clamp(load.busy + processor_rate / load.capacity(), 0.0, 1.0);
  }

  std::size_t size() const noexcept { return known_.size(); }

private:
  struct entry {
    node_load load;
    clock::time_point measured;
  };
  std::unordered_map<node_id, entry> known_;
};

} // namespace migrate::detail
