// fork(2).
#pragma once

#include <cerrno>

#include <migrate/fork.hpp>
#include <migrate/posix/types.hpp>

namespace migrate::posix {

inline pid_t fork() noexcept {
  try {
    task_id child = migrate::fork();
    return child ? static_cast<pid_t>(child.bits()) : 0;
  } catch (const std::system_error& refused) {
    errno = refused.code() == errc::not_in_task ? ENOSYS : EAGAIN;
    return -1;
  }
}
// The child's process number, which is its task id; 0 in the child; -1 with EAGAIN when there is no room for a copy or
// the task cannot be copied (migrate::fork says why), ENOSYS on a thread that runs no task.

} // namespace migrate::posix
