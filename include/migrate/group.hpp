// Groups of tasks: barriers, reductions, broadcasts.
#pragma once

#include <migrate/file/group.hpp>
#include <migrate/task.hpp>
