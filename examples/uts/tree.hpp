// The trees of the Unbalanced Tree Search benchmark (Olivier, Huan, Liu, Prins, Dinan, Sadayappan and Tseng, LCPC 2006).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace uts {

enum class tree_kind : std::uint8_t { binomial, geometric, hybrid };
enum class tree_shape : std::uint8_t { linear, exponential, cyclic, fixed }; // how a geometric tree narrows with depth

struct tree {
  std::string_view name;
  tree_kind kind = tree_kind::geometric;
  tree_shape shape = tree_shape::fixed;
  int depth = 10;      // geometric: where it ends, or the scale of its shape
  double branches = 4; // of the root, and geometric: of each node on average
  int seed = 19;
  double probability = 0; // binomial: that a node has children
  int children = 0;       // and how many it has then
  double shift = 0.5;     // hybrid: geometric up to this part of the depth, binomial below

  // As published, for the check; 0: not known.
  std::uint64_t nodes = 0;
  std::uint64_t leaves = 0;
  int deepest = 0;
};

std::span<const tree> published_trees() noexcept;
const tree* find_tree(std::string_view name) noexcept;

struct tree_node {
  std::array<std::uint8_t, 20> state; // a SHA-1 sum: what is below follows from it
  std::int32_t height;
};

tree_node root_of(const tree& which);
int children_of(const tree& which, const tree_node& node);
tree_node child_of(const tree_node& node, int index);

struct count {
  std::uint64_t nodes = 0;
  std::uint64_t leaves = 0;
  int deepest = 0;

  void add(const count& other) noexcept;
  friend bool operator==(const count&, const count&) = default;
};

void expand(const tree& which, unsigned granularity, std::vector<tree_node>& open, count& so_far);
// Takes the last of the open nodes, counts it and opens its children. Each child's state is computed `granularity`
// times: the benchmark's way to make its work coarser.

} // namespace uts
