// The types of the POSIX calls whose layout here is not the operating system's.
#pragma once

#include <cstdint>

#include <migrate/posix/errno.hpp>

namespace migrate::posix {

using pid_t = std::int64_t;
// A task's id (task_id::bits()), or a process group's or session's, which is that of the task that began it.

} // namespace migrate::posix
