// What a task's functions need of its home for families, groups and sessions: the node fills in the table.
#pragma once

#include <cerrno>
#include <string>

#include <migrate/home/process_record.hpp>
#include <migrate/task/services.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate::detail {

struct process_services {
  int (*where_is)(task_id task, task_id& group, task_id& session, task_id& parent);
  int (*set_group)(task_id task, task_id group);
  int (*set_session)();
  int (*wait)(const wait_selection& selection, int options, wait_report& got); // options of waitid(2)
  int (*children_usage)(task_usage& used);
  int (*set_child_policy)(bool reaps_itself, bool no_stop_news);
};
// As the running task, which may be on another node when they return. Each returns an errno: of its manual page, or
// EHOSTUNREACH when the home cannot be reached.

inline constinit const process_services* the_processes = nullptr;

inline std::uint64_t next_request() { return ++self().control->process.requests; }

} // namespace migrate::detail
