// What the running task has used of processors and memory, and its priority.
#pragma once

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include <migrate/file/surroundings.hpp>
#include <migrate/task/scheduler.hpp>
#include <migrate/task/this_task.hpp>
#include <migrate/task/usage.hpp>

namespace migrate::this_task {

inline task_usage usage() {
  detail::self();
  detail::safe_point();
  detail::process_block& process = detail::self().control->process;
  process.accounted = true;
  detail::this_scheduler->account_usage(*detail::this_worker());
  return process.used;
}
// Added up over every node that it ran on. Counted from the task's first such call on, and in children started after it
// from their start; from the start in all tasks when the nodes run with --migrate-usage (MIGRATE_USAGE=1). Until
// somebody asks a switch between tasks costs nothing for it, and about half a microsecond from then on.

inline int priority() { return detail::my_surroundings().nice; }

inline int priority(int wanted, std::error_code& code) {
  auto& mine = detail::my_surroundings();
  wanted = std::clamp(wanted, -20, 19);
  bool refused = wanted < mine.nice && mine.identity.effective_user != 0;
  code = {refused ? EACCES : 0, std::generic_category()};
  return refused ? mine.nice : std::exchange(mine.nice, wanted);
}
inline int priority(int wanted) {
  std::error_code code;
  int before = priority(wanted, code);
  if (code) throw std::system_error(code, "priority: only root's tasks may raise it");
  return before;
}
// From -20, the most urgent, to 19. Carried along and inherited as nice(2) has it; the scheduler treats all tasks
// alike. Returns what it was before.

} // namespace migrate::this_task
