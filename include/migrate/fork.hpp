// fork(): the running task goes on twice.
#pragma once

#include <migrate/error.hpp>
#include <migrate/id.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate {

inline task_id fork() {
  detail::self();
  detail::safe_point();
  detail::forked made = detail::node_services().fork_me();
  if (made.why.code) throw error(made.why.code, made.why.what);
  return made.copy;
}
inline task_id fork(std::error_code& code) {
  detail::self();
  detail::safe_point();
  detail::forked made = detail::node_services().fork_me();
  code = made.why.code; // in the copy's own memory as well
  return made.copy;
}
// Returns the child's id in the caller, and an invalid id (false in a condition) in the child: a copy of the caller's
// memory at the same addresses, which from here on changes on its own. Since two tasks cannot lie at the same addresses
// in one process, the child begins on another node, one that has no task of the family there; when all have, the node
// starts another one on its host. For the same reason a task cannot move to a node where its parent, or a copy of it,
// is: errc::region_occupied.
//
// The child has the caller's home, and its end is collected by a wait (process.hpp). It does not inherit mail, nor the caller's children: handles of tasks that it finds
// in its memory hold nothing. In the image store the two share every page that neither of them has changed.
//
// Throws migrate::error: not_in_task; not_movable, as a move would; region_exhausted; no_such_node when no node has the
// addresses free and another one did not start within 30 s; node_lost when node after node died while it took the copy;
// and the store's errors. Nothing has happened then.

} // namespace migrate
