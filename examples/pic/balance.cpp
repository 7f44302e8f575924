#include "balance.hpp"

#include <algorithm>
#include <numeric>

namespace pic {

std::vector<std::size_t> balanced(const std::vector<double>& work, const std::vector<std::size_t>& place,
                                  std::size_t nodes, double tolerance) {
  std::vector<std::size_t> target = place;
  std::vector<double> load(nodes, 0);
  for (std::size_t block = 0; block < work.size(); ++block) load[place[block]] += work[block];
  double mean = std::accumulate(load.begin(), load.end(), 0.0) / static_cast<double>(nodes);

  // Each turn lowers the load of the fullest node by more than nothing, so there is an end.
  double least_gain = (tolerance - 1) / 2 * mean;
  for (;;) {
    auto full = static_cast<std::size_t>(std::max_element(load.begin(), load.end()) - load.begin());
    auto spare = static_cast<std::size_t>(std::min_element(load.begin(), load.end()) - load.begin());
    if (load[full] <= tolerance * mean) return target;
    std::size_t best = work.size();
    double best_gain = least_gain;
    for (std::size_t block = 0; block < work.size(); ++block) {
      if (target[block] != full) continue;
      double gain = load[full] - std::max(load[full] - work[block], load[spare] + work[block]);
      if (gain <= best_gain) continue;
      best = block;
      best_gain = gain;
    }
    if (best == work.size()) return target;
    load[full] -= work[best];
    load[spare] += work[best];
    target[best] = spare;
  }
}

} // namespace pic
