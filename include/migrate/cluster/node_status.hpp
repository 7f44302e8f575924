// What a node tells of itself and its tasks to those who ask for a cluster's status.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include <migrate/cluster/cluster_event.hpp>
#include <migrate/id.hpp>

namespace migrate {

struct task_status {
  task_id task;
  std::string name;
  node_id place = no_node;
  std::string state; // in words
  std::uint64_t moves = 0;
  std::uint64_t bytes = 0; // of memory in use: heap and stack
  bool arriving = false;   // the node that it comes from counts it, too

  auto migrate_fields() { return std::tie(task, name, place, state, moves, bytes, arriving); }
};

struct node_status {
  node_id node = no_node;
  std::string host;
  std::uint32_t process = 0;
  std::string address;
  std::uint32_t workers = 0;
  std::string state; // empty: it answers and takes tasks
  std::uint64_t tasks_here = 0;
  std::vector<task_status> tasks;    // at most as many as were asked for, the largest first
  std::vector<cluster_event> events; // the last ones; `when` is their age in nanoseconds

  auto migrate_fields() {
    return std::tie(node, host, process, address, workers, state, tasks_here, tasks, events);
  }
};

} // namespace migrate
