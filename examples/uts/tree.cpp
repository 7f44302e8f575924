#include "tree.hpp"

#include <algorithm>
#include <cmath>

// The sums of single blocks with memory of the caller's: the newer interface looks its method up and allocates each time.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

namespace uts {

namespace {

constexpr tree published[] = {
    {"T1", tree_kind::geometric, tree_shape::fixed, 10, 4, 19, 0, 0, 0.5, 4'130'071, 3'305'118, 10},
    {"T2", tree_kind::geometric, tree_shape::cyclic, 16, 6, 502, 0, 0, 0.5, 4'117'769, 2'342'762, 81},
    {"T3", tree_kind::binomial, tree_shape::linear, 0, 2000, 42, 0.124875, 8, 0.5, 4'112'897, 3'599'034, 1572},
    {"T4", tree_kind::hybrid, tree_shape::linear, 16, 6, 1, 0.234375, 4, 0.5, 4'132'453, 3'108'986, 134},
    {"T5", tree_kind::geometric, tree_shape::linear, 20, 4, 34, 0, 0, 0.5, 4'147'582, 2'181'318, 20},
    {"T1L", tree_kind::geometric, tree_shape::fixed, 13, 4, 29, 0, 0, 0.5, 102'181'082, 81'746'377, 13},
    {"T2L", tree_kind::geometric, tree_shape::cyclic, 23, 7, 220, 0, 0, 0.5, 96'793'510, 53'791'152, 67},
    {"T3L", tree_kind::binomial, tree_shape::linear, 0, 2000, 7, 0.200014, 5, 0.5, 111'345'631, 89'076'904, 17844},
};

constexpr int most_children = 100; // of any node but a binomial tree's root

double random_of(const tree_node& node) {
  // The state's last 31 bits, as a number from 0 to below 1.
  std::uint32_t bits = 0;
  for (int i = 16; i < 20; ++i) bits = bits << 8 | node.state[static_cast<std::size_t>(i)];
  return (bits & 0x7fff'ffff) / 2147483648.0;
}

void put_number(std::uint8_t* into, std::uint32_t number) {
  for (int i = 3; i >= 0; --i, number >>= 8) into[i] = static_cast<std::uint8_t>(number);
}

void sum(const std::uint8_t* bytes, std::size_t size, std::uint8_t* into) {
  SHA_CTX work;
  SHA1_Init(&work);
  SHA1_Update(&work, bytes, size);
  SHA1_Final(into, &work);
}

double mean_branches(const tree& which, int height) {
  if (height == 0) return which.branches;
  double depth = which.depth;
  switch (which.shape) {
  case tree_shape::linear: return which.branches * (1 - height / depth);
  case tree_shape::exponential: return which.branches * std::pow(height, -std::log(which.branches) / std::log(depth));
  case tree_shape::cyclic:
    if (height > 5 * which.depth) return 0;
    return std::pow(which.branches, std::sin(2.0 * 3.141592653589793 * height / depth));
  case tree_shape::fixed: return height < which.depth ? which.branches : 0;
  }
  return 0;
}

int geometric_children(const tree& which, const tree_node& node) {
  // The inverse of the geometric distribution with that mean.
  double end = 1 / (1 + mean_branches(which, node.height));
  return static_cast<int>(std::floor(std::log(1 - random_of(node)) / std::log(1 - end)));
}

int binomial_children(const tree& which, const tree_node& node) {
  return random_of(node) < which.probability ? which.children : 0;
}

} // namespace

std::span<const tree> published_trees() noexcept { return published; }

const tree* find_tree(std::string_view name) noexcept {
  auto found = std::find_if(std::begin(published), std::end(published), [&](const tree& each) { return each.name == name; });
  return found == std::end(published) ? nullptr : found;
}

tree_node root_of(const tree& which) {
  tree_node root{};
  std::uint8_t bytes[20] = {};
  put_number(bytes + 16, static_cast<std::uint32_t>(which.seed));
  sum(bytes, sizeof bytes, root.state.data());
  return root;
}

tree_node child_of(const tree_node& node, int index) {
  tree_node child;
  std::uint8_t bytes[24];
  std::copy(node.state.begin(), node.state.end(), bytes);
  put_number(bytes + 20, static_cast<std::uint32_t>(index));
  sum(bytes, sizeof bytes, child.state.data());
  child.height = node.height + 1;
  return child;
}

int children_of(const tree& which, const tree_node& node) {
  bool geometric = which.kind == tree_kind::geometric ||
                   (which.kind == tree_kind::hybrid && node.height < which.shift * which.depth);
  if (!geometric && node.height == 0) return static_cast<int>(which.branches);
  int children = geometric ? geometric_children(which, node) : binomial_children(which, node);
  return std::min(children, most_children);
}

void count::add(const count& other) noexcept {
  nodes += other.nodes;
  leaves += other.leaves;
  deepest = std::max(deepest, other.deepest);
}

void expand(const tree& which, unsigned granularity, std::vector<tree_node>& open, count& so_far) {
  tree_node node = open.back();
  open.pop_back();
  int children = children_of(which, node);
  ++so_far.nodes;
  so_far.leaves += children == 0 ? 1 : 0;
  so_far.deepest = std::max(so_far.deepest, int{node.height});
  for (int i = 0; i < children; ++i) {
    open.push_back(child_of(node, i));
    for (unsigned again = 1; again < granularity; ++again) open.back() = child_of(node, i);
  }
}

} // namespace uts
