// exec: the task becomes a program.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <migrate/program/running.hpp>
#include <migrate/task/ending.hpp>

namespace migrate::detail::running {

class held_program {
  // In the task's list, and killed with this object if it still runs.

public:
  explicit held_program(running_program& it) : it_(it) { enter(it_); }
  ~held_program() {
    end(it_);
    leave(it_);
  }
  held_program(const held_program&) = delete;
  held_program& operator=(const held_program&) = delete;

private:
  running_program& it_;
};

inline void keep_what_it_needs(const running_program& it) {
  // What the program has is its own now, so that others see its end when the program closes it.
  auto needed = [&](int fd) {
    return std::any_of(it.pipes.begin(), it.pipes.end(),
                       [&](const program_pipe& each) {
                         return each.number == fd && (each.where == program_pipe::way::to_descriptor ||
                                                      each.where == program_pipe::way::from_descriptor);
                       }) ||
           std::any_of(it.offsets.begin(), it.offsets.end(), [&](const lent_offset& each) { return each.number == fd; });
  };
  for (std::size_t fd = 0; fd < descriptors::table().slots.size(); ++fd) {
    open_file* file = descriptors::find(static_cast<int>(fd));
    if (file == nullptr || needed(static_cast<int>(fd))) continue;
    if (file->kernel >= 0 && (file->flags & O_NONBLOCK) == 0) ::fcntl(file->kernel, F_SETFL, file->flags & O_APPEND);
    descriptors::close(static_cast<int>(fd));
  }
}

inline failure become(std::string path, std::vector<std::string> arguments,
                      std::optional<std::vector<std::string>> environment) {
  // Returns when the program cannot be started; then nothing has changed. From its start on all signals but SIGKILL and
  // those that stop the task are the program's, and with its end the task ends as it did.
  program_options how;
  how.environment = std::move(environment);
  running_program it(std::move(arguments), std::move(how));
  it.path = std::move(path);
  it.whole_table = true;
  held_program held(it);
  failure failed = start_here(it);
  // What comes while nobody knows whether it has begun is for whoever the task is afterwards.
  if (!failed.code) failed = wait_for_start(it, false);
  if (failed.code) return failed;
  it.absorbs = ~never_blocked;
  it.is_task = true;
  control_block& control = *self().control;
  control.process.at_exit = nullptr;
  signal_state& state = own_signals();
  for (signal_action& each : state.actions) each = {};
  state.mask = 0;
  keep_what_it_needs(it);
  bool over = false;
  wait(it, nullptr, over); // it is not restartable, so nothing can fail any more
  leave(it);
  end_task(it.result.status, exit_handlers::skip);
}

inline int run_shell(const std::string& command) {
  // system(3): what it returns.
  running_program it({"sh", "-c", command}, {});
  it.path = "/bin/sh";
  it.whole_table = true;
  it.absorbs = signal_bit(SIGINT) | signal_bit(SIGQUIT);
  held_program held(it);
  failure failed = start_here(it);
  bool over = false;
  if (!failed.code) failed = wait(it, nullptr, over);
  return failed.code ? exited_with(127) : it.result.status;
}

} // namespace migrate::detail::running
