#include "report.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <string>

namespace uts {

void print_tree(const options& how) {
  const tree& which = how.which;
  static constexpr const char* shapes[] = {"linear", "exponential", "cyclic", "fixed"};
  std::string name(which.name.empty() ? "of your own" : which.name);
  std::printf("tree                %s: ", name.c_str());
  switch (which.kind) {
  case tree_kind::binomial:
    std::printf("binomial, root %g, q %g, m %d", which.branches, which.probability, which.children);
    break;
  case tree_kind::geometric:
    std::printf("geometric, %s, depth %d, b %g", shapes[static_cast<int>(which.shape)], which.depth, which.branches);
    break;
  case tree_kind::hybrid:
    std::printf("hybrid, %s, depth %d, b %g, q %g, m %d", shapes[static_cast<int>(which.shape)], which.depth,
                which.branches, which.probability, which.children);
    break;
  }
  std::printf(", seed %d\n", which.seed);
  if (how.granularity > 1) std::printf("granularity         %u\n", how.granularity);
}

void print_table(const options& how, const outcome& result, const migrate::move_statistics& moves, unsigned nodes,
                 unsigned workers) {
  if (!how.serial) {
    std::printf("searchers           %u\n", how.searchers);
    std::printf("nodes               %u at the end, workers on each %u\n", nodes, workers);
  }
  auto all = static_cast<double>(result.all.total.nodes);
  std::printf("seconds             %.2f\n", result.seconds);
  std::printf("tree nodes/s        %.3f million\n", all / result.seconds / 1e6);
  if (how.serial) return;
  for (const auto& [node, searched] : result.all.by_node)
    std::printf("searched on node %-2u %.1f %%\n", unsigned{node}, 100 * static_cast<double>(searched) / all);
  std::uint64_t most = *std::max_element(result.by_searcher.begin(), result.by_searcher.end());
  std::printf("searcher, most/mean %.2f\n", static_cast<double>(most) * how.searchers / all);
  std::printf("work given          %" PRIu64 " times, asked for %" PRIu64 " times\n", result.all.given, result.all.asked);
  std::printf("moves               %" PRIu64 " of searchers; %" PRIu64 " in all, %" PRIu64 " undone\n",
              result.all.moves, moves.moves, moves.failures);
  std::printf("freeze, median      %.3f ms\n", static_cast<double>(moves.freeze_percentile(50)) / 1e6);
}

bool print_verdict(const options& how, const count& found) {
  std::printf("tree size           %" PRIu64 " nodes, depth %d, %" PRIu64 " leaves\n", found.nodes, found.deepest,
              found.leaves);
  const tree& which = how.which;
  if (which.nodes == 0) {
    std::printf("not verified: nothing is published of this tree\n");
    return true;
  }
  if (found == count{which.nodes, which.leaves, which.deepest}) {
    std::printf("verified: these are the published numbers\n");
    return true;
  }
  std::printf("VERIFICATION FAILED: published are %" PRIu64 " nodes, depth %d, %" PRIu64 " leaves\n", which.nodes,
              which.deepest, which.leaves);
  return false;
}

} // namespace uts
