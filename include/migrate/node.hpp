// A node: one operating-system process that hosts tasks.
//
// All of it is compiled where this file is included, which takes a compiler a while. A program of several files, or
// one that is compiled often, can have that done once instead: with the CMake target migrate::node beside
// migrate::migrate, or by MIGRATE_COMPILED_NODE defined in every file and MIGRATE_NODE_SOURCE in one, of which
// `#include <migrate/node.hpp>` is all. This header reaches none of Cap'n Proto, kj and libuv then.
#pragma once

#include <cstdio>
#include <exception>
#include <type_traits>
#include <utility>

#include <migrate/node/interface.hpp>
#include <migrate/nodes.hpp>
#include <migrate/task.hpp>

namespace migrate {

template <class F> int run(int argc, char** argv, F&& main_task) {
  // What main calls when the program is nothing but tasks.
  try {
    node here(node_options::from(argc, argv));
    if (!here.first()) {
      here.serve();
      return 0;
    }
    if constexpr (std::is_void_v<std::invoke_result_t<std::decay_t<F>>>) {
      here.run(std::forward<F>(main_task));
      return 0;
    } else {
      return here.run(std::forward<F>(main_task));
    }
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "migrate: %s\n", problem.what());
    return 1;
  }
}
// Runs main_task() as a task on the cluster's first node, with the other nodes that --migrate-nodes asks
// for, and returns what it returns (0 for void), or 1 after an exception, whose message goes to standard
// error. On the other nodes it serves until the first one ends. The process's exit status.

} // namespace migrate

#if !defined MIGRATE_COMPILED_NODE || defined MIGRATE_NODE_SOURCE
#include <migrate/node/functions.hpp>
#endif
