// A searcher: the task that searches a part of the tree, and others' when it has none left.
#pragma once

#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include <migrate/id.hpp>

#include "tree.hpp"

namespace uts {

struct found {
  count total;
  std::uint64_t given = 0;  // times that it gave nodes away
  std::uint64_t asked = 0;  // times that it asked for some
  std::uint64_t moves = 0;  // of the task
  std::vector<std::pair<std::uint16_t, std::uint64_t>> by_node; // cluster nodes, and the tree's nodes searched there

  auto migrate_fields() { return std::tie(total, given, asked, moves, by_node); }
};

found run_searcher(const tree& which, unsigned granularity, unsigned index, migrate::task_id coordinator);
// A task's function. Waits for the start_signal and searches until it is told to stop.

} // namespace uts
