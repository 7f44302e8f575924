// Allocating in a task's region.
#pragma once

#include <migrate/memory/current_heap.hpp>
#include <migrate/memory/operators.hpp>
#include <migrate/memory/resource.hpp>
