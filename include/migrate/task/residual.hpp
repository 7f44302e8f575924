// What a task still needs of a node that it has left.
#pragma once

#include <cstdint>
#include <tuple>

#include <migrate/id.hpp>

namespace migrate {

struct residual_dependency {
  task_id task;
  node_id on = no_node;    // the task ends when that node dies
  std::uint64_t bytes = 0; // of its memory are there; at most so many while that node has not counted them

  auto migrate_fields() { return std::tie(task, on, bytes); }
};
// Of a task that was moved by transfer::on_reference: see this_task::residual() and move_statistics::residual.

} // namespace migrate
