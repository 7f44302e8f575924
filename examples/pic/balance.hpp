// Which blocks to move so that the nodes have the same work.
#pragma once

#include <cstddef>
#include <vector>

namespace pic {

std::vector<std::size_t> balanced(const std::vector<double>& work, const std::vector<std::size_t>& place,
                                  std::size_t nodes, double tolerance = 1.05);
// Given each block's work and the node it is on, returns where each is to be. The node with the most gives to
// the one with the least the block that helps most, until none has more than `tolerance` times the mean or
// no block helps enough to be worth its move: so few blocks move, and the others stay where they are. (As the
// refining balancer of Charm++.) Nodes count as equally fast.

} // namespace pic
