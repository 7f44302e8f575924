// The search as a whole.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "searcher.hpp"
#include "tree.hpp"

namespace uts {

struct search_options {
  unsigned searchers = 8;
  unsigned granularity = 1;
  unsigned await_nodes = 1; // begins when there are so many
  bool progress = false;    // on standard error
};

struct outcome {
  double seconds = 0;
  found all; // of the searchers together
  std::vector<std::uint64_t> by_searcher; // nodes

  auto migrate_fields() { return std::tie(seconds, all, by_searcher); }
};

outcome search(const tree& which, const search_options& how);
// The main task's function. The searchers begin on the nodes in turn, except under the automatic policy, which finds a
// place for each itself; under the application's they are spread anew whenever a node comes or goes.
// Throws migrate::error when a searcher is lost.

outcome search_serially(const tree& which, unsigned granularity);
// The same on the calling thread, without tasks.

} // namespace uts
