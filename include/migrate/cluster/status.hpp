// How a node's status is gathered, and how those of several are made one.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <unistd.h>

#include <migrate/cluster/cluster_event.hpp>
#include <migrate/cluster/node_status.hpp>
#include <migrate/cluster/task_view.hpp>
#include <migrate/home/residents.hpp>
#include <migrate/id.hpp>
#include <migrate/task/codec.hpp>

namespace migrate {

namespace detail {

inline std::string state_in_words(const task_view& task) {
  std::string target = to_string(task.target);
  if (task.phase) {
    switch (*task.phase) {
    case move_phase::asked: return (task.pinned ? "pinned, is to go to " : "is to go to ") + target;
    case move_phase::ahead:
    case move_phase::offered:
    case move_phase::vacating: return "moves to " + target;
    case move_phase::arriving:
    case move_phase::claiming: return "arrives";
    case move_phase::failed: break;
    }
  }
  if (task.stopped) return "stopped";
  std::string pinned = task.pinned ? ", pinned" : "";
  switch (task.state) {
  case run_state::running:
  case run_state::woken: return "runs" + pinned;
  case run_state::ready: return "ready" + pinned;
  case run_state::parked: return "waits" + pinned;
  case run_state::frozen: return "frozen";
  case run_state::none: break;
  }
  return "ends";
}

inline std::vector<task_status> tasks_of(residents& all, node_id here, std::size_t most) {
  std::vector<task_status> found;
  for (const task_view& each : look_at_all(all)) {
    bool arriving = each.phase == move_phase::arriving || each.phase == move_phase::claiming;
    found.push_back({each.id, each.name, here, state_in_words(each), each.moves, each.bytes, arriving});
  }
  if (found.size() > most) {
    auto end = found.begin() + static_cast<std::ptrdiff_t>(most);
    std::nth_element(found.begin(), end, found.end(),
                     [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
    found.erase(end, found.end());
  }
  std::sort(found.begin(), found.end(),
            [](const task_status& a, const task_status& b) { return a.task < b.task; });
  return found;
}

inline std::vector<cluster_event> aged(std::vector<cluster_event> events) {
  std::int64_t now = std::chrono::steady_clock::now().time_since_epoch().count();
  for (cluster_event& each : events) each.when = now - each.when;
  return events;
}

inline std::string this_host() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return name;
}

inline void make_one(std::vector<node_status>& all, node_id answering) {
  // A task on its way is both where it comes from and where it goes to, or was found once more where it had gone meanwhile:
  // what counts is where it has moved most often. And every node is told what becomes of nodes.
  std::unordered_map<task_id, const task_status*> newest;
  auto rank = [](const task_status& each) { return std::pair(!each.arriving, each.moves); };
  for (const node_status& node : all)
    for (const task_status& task : node.tasks)
      if (auto [found, fresh] = newest.try_emplace(task.task, &task);
          !fresh && rank(*found->second) < rank(task))
        found->second = &task;
  std::vector<std::vector<task_status>> kept(all.size());
  for (std::size_t i = 0; i < all.size(); ++i)
    for (const task_status& task : all[i].tasks)
      if (newest[task.task] == &task) kept[i].push_back(task);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].tasks = std::move(kept[i]);
  for (node_status& node : all)
    if (node.node != answering)
      std::erase_if(node.events, [](const cluster_event& each) { return !each.of_task(); });
}

} // namespace detail
} // namespace migrate
