// Everything.
#pragma once

#include <migrate/group.hpp>
#include <migrate/mailbox.hpp>
#include <migrate/memory.hpp>
#include <migrate/node.hpp>
#include <migrate/process.hpp>
#include <migrate/store.hpp>
#include <migrate/task.hpp>
