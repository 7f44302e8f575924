// Everything.
#pragma once

#include <migrate/clock.hpp>
#include <migrate/directory.hpp>
#include <migrate/environment.hpp>
#include <migrate/group.hpp>
#include <migrate/identity.hpp>
#include <migrate/mailbox.hpp>
#include <migrate/memory.hpp>
#include <migrate/node.hpp>
#include <migrate/process.hpp>
#include <migrate/signal.hpp>
#include <migrate/store.hpp>
#include <migrate/streams.hpp>
#include <migrate/task.hpp>
#include <migrate/usage.hpp>
