// What happens in a cluster, as the program and a person hear of it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <migrate/id.hpp>
#include <migrate/task/codec.hpp>

namespace migrate {

struct cluster_event {
  enum class kind : std::uint8_t {
    joined,  // a node has come
    leaving, // it is being evicted from its host, and takes no more tasks
    staying, // it is not any more
    cleared, // its tasks have gone, or those that the reason names could not
    left,    // it is no node of the cluster any more, as it said itself
    lost,    // the same, and it said nothing: its process has died, or cannot be reached
    moved,   // a task runs on node `to` that ran on `node`
    refused, // it does not: the reason says why
    restarted, // it runs on node `to` from its last checkpoint, since `node` has died
  };

  kind what = kind::joined;
  node_id node = no_node;
  node_id to = no_node;
  task_id task;
  std::string name; // the task's
  std::string reason;
  std::int64_t when =
      0; // nanoseconds of the steady clock of the node that noted it; in another node's hands, its age

  bool of_task() const noexcept { return what >= kind::moved; }
  auto migrate_fields() { return std::tie(what, node, to, task, name, reason, when); }
};

inline constexpr std::string_view cluster_event_names[] = {"joined", "leaving", "staying", "cleared",
                                                           "left",   "lost",    "moved",   "refused", "restarted"};

namespace detail {

inline std::string text_of(const cluster_event& event) {
  const std::string node = "node " + to_string(event.node);
  const std::string task =
      "task " + to_string(event.task) + (event.name.empty() ? "" : " (" + event.name + ")");
  switch (event.what) {
  case cluster_event::kind::joined: return node + " joined";
  case cluster_event::kind::leaving: return node + " is leaving its host";
  case cluster_event::kind::staying: return node + " stays";
  case cluster_event::kind::cleared: return node + " was cleared";
  case cluster_event::kind::left: return node + " left";
  case cluster_event::kind::lost: return node + " was lost";
  case cluster_event::kind::moved:
    return task + " moved from node " + to_string(event.node) + " to node " + to_string(event.to);
  case cluster_event::kind::refused: return task + " stayed on node " + to_string(event.node);
  case cluster_event::kind::restarted:
    return task + " was restarted on node " + to_string(event.to) + " from its last checkpoint";
  }
  return {};
}
// Without its reason.

class event_log {
public:
  using listener = std::function<void(const cluster_event&)>;

  void add(cluster_event&& event) {
    if (event.when == 0) event.when = std::chrono::steady_clock::now().time_since_epoch().count();
    listener told;
    {
      std::lock_guard guard(lock_);
      told = listener_;
      auto& last = event.of_task() ? tasks_ : nodes_;
      if (last.size() == kept) last.pop_front();
      last.push_back(event);
    }
    if (told) told(event);
  }
  std::vector<cluster_event> last(std::size_t most) const {
    std::vector<cluster_event> all;
    {
      std::lock_guard guard(lock_);
      all.assign(nodes_.begin(), nodes_.end());
      all.insert(all.end(), tasks_.begin(), tasks_.end());
    }
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.when < b.when; });
    if (all.size() > most) all.erase(all.begin(), all.end() - static_cast<std::ptrdiff_t>(most));
    return all;
  }
  // In the order in which they happened.
  void listen(listener tell) {
    std::lock_guard guard(lock_);
    listener_ = std::move(tell);
  }

  static constexpr std::size_t kept = 128; // of each kind: many moves do not push out what became of nodes

private:
  mutable std::mutex lock_;
  std::deque<cluster_event> nodes_, tasks_;
  listener listener_;
};
// Thread safety: any thread, inside a node_heap_scope where a task runs.

} // namespace detail
} // namespace migrate
