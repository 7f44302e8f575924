// Eviction as the application has it: where its tasks go, and what became of them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include <migrate/id.hpp>
#include <migrate/task/codec.hpp>

namespace migrate {

using eviction_target = std::function<node_id(task_id task, std::span<const node_id> candidates)>;
// Chooses where an evicted task goes, among at least one node. Any thread; it must not wait.

struct remaining_task {
  task_id task;
  std::string name;
  std::string why;

  auto migrate_fields() { return std::tie(task, name, why); }
};

struct eviction_report {
  std::string reason;
  std::uint64_t moved = 0;               // tasks that run elsewhere now
  std::vector<remaining_task> remaining; // tasks that are here still, each with what keeps it
  std::vector<remaining_task>
      homed; // tasks elsewhere whose home is this node: without it they can move and spawn no more
  std::int64_t took = 0; // nanoseconds until the last task had gone, or the deadline

  auto migrate_fields() { return std::tie(reason, moved, remaining, homed, took); }
};

} // namespace migrate
