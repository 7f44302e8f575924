// Tasks: spawn them, join them, move them. What an ordinary source file includes.
#pragma once

#include <migrate/error.hpp>
#include <migrate/id.hpp>
#include <migrate/task/spawn.hpp>
#include <migrate/task/this_task.hpp>
