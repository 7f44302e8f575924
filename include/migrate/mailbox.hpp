// Messages between tasks.
#pragma once

#include <migrate/file/mailbox.hpp>
#include <migrate/task.hpp>
