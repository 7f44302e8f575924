// Images of tasks in a directory that the nodes share; for programs that look into a store.
#pragma once

#include <migrate/store/image.hpp>
#include <migrate/store/store.hpp>
