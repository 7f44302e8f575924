// A task on this node, as it looks from outside.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <migrate/home/signal_state.hpp>
#include <migrate/id.hpp>
#include <migrate/task/control_block.hpp>
#include <migrate/task/resident.hpp>
#include <migrate/task/spin_lock.hpp>
#include <migrate/transfer/move_order.hpp>

namespace migrate::detail {

struct task_view {
  task_id id;
  std::string name;
  run_state state = run_state::none;
  bool pinned = false;
  bool stopped = false;            // by a signal
  std::optional<move_phase> phase; // of the move that is asked of it or under way
  node_id target = no_node;        // of that move
  std::uint64_t moves = 0;
  std::size_t bytes = 0; // that its heap and its stack take up
};

inline std::optional<task_view> look_at(resident& task) {
  // None when the record holds no task any more. The task may run meanwhile: the figures are those of some moment.
  held guard(task.lock);
  if (!task.id) return std::nullopt;
  task_view seen;
  seen.id = task.id;
  seen.state = task.state.load();
  seen.pinned = task.pins.load(std::memory_order_relaxed) != 0;
  if (task.move != nullptr) {
    seen.phase = task.move->phase;
    seen.target = task.move->target;
  }
  // Its memory is not all there while it comes or goes.
  bool laid_out = seen.state != run_state::none &&
                  (!seen.phase || *seen.phase == move_phase::asked || *seen.phase == move_phase::ahead ||
                   *seen.phase == move_phase::offered || *seen.phase == move_phase::failed);
  if (laid_out && task.control != nullptr) {
    const control_block& control = *task.control;
    seen.name = control.name;
    seen.stopped = control.process.signals != nullptr && control.process.signals->stopped_by != 0;
    seen.moves = control.moves;
    seen.bytes = control.heap.reserved_bytes() +
                 static_cast<std::size_t>(control.stack_top() - control.suspended.stack_pointer);
  }
  return seen;
}

template <class Residents> std::vector<task_view> look_at_all(Residents& residents) {
  std::vector<resident*> here;
  residents.for_each([&](resident& each) { here.push_back(&each); }); // records are recycled and never freed
  std::vector<task_view> seen;
  for (resident* each : here)
    if (auto one = look_at(*each)) seen.push_back(std::move(*one));
  return seen;
}

} // namespace migrate::detail
