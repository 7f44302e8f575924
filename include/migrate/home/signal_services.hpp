// What signals need of the node, as tasks see it: the heavier headers fill in the table.
#pragma once

#include <cstdint>

#include <migrate/home/signal_state.hpp>
#include <migrate/task/services.hpp>

namespace migrate::detail {

enum class signal_change : std::uint8_t { stopped, continued };

struct signal_services {
  int (*send)(std::int64_t to, const signal_info& what);
  // As kill(2): to a task's id, zero for the caller's group, minus a group's id, or -1 for all; `number` 0 only looks.
  // Returns an errno, zero when it is done. From a task or a thread; a task may have moved.
  bool (*tell_change)(signal_change what, int number);
  // To the running task's home. False: it must not stop, since nobody of its session could continue it.
  int (*foreground_group)(task_id& group);
  int (*set_foreground_group)(task_id group);
  // Of the running task's home: which of its groups gets what signals come from outside. Each returns an errno.
  void (*wake_at)(resident& task, steady_point when);
  void (*forget_wake)(resident& task) noexcept;
  // Has the task look for signals then. One point in time for each task.
  bool (*pass_on)(const signal_info& got);
  void (*pass_stop_on)(int number);
  // To the programs that the running task runs. True: it was theirs alone. May wait.
};
inline constinit const signal_services* the_signals = nullptr;

} // namespace migrate::detail
