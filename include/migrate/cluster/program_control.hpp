// What eviction wants of the programs that tasks of this node run, as functions that whoever runs them fills in.
#pragma once

namespace migrate::detail {

struct program_control {
  void (*stop)() noexcept;
  // All of them stand still at once, and none is started any more. A task whose program runs refuses to be moved.
  void (*go_on)() noexcept;
  // The owner has left again.
  void (*let_go)() noexcept;
  // He stays: those that can be run again elsewhere are killed, so that their tasks can be moved.
};
// From any thread that runs no task.

inline constinit const program_control* the_programs = nullptr;

} // namespace migrate::detail
