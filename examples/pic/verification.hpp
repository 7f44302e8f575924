// The kernel's own check: each particle exactly once, and each at its place.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "distribution.hpp"
#include "kernel.hpp"
#include "parameters.hpp"

namespace pic {

struct misplaced {
  std::uint64_t id;
  place expected, found;
};

struct verdict {
  std::uint64_t found = 0;             // particles
  std::uint64_t right = 0;             // of these, at their places
  std::uint64_t id_sum = 0;            // modulo 2^64, as the next
  std::uint64_t checksum = 0;          // of ids, places and velocities, to the last bit
  std::vector<misplaced> wrong;        // the first few by id
  std::vector<std::uint64_t> missing;  // the first few ids that nobody has
  std::vector<std::uint64_t> repeated; // the first few ids that are there twice

  auto migrate_fields() { return std::tie(found, right, id_sum, checksum, wrong, missing, repeated); }

  bool complete(const parameters& what) const;
  // As many as there were, and the sum of ids is theirs.
  bool good(const parameters& what) const;
};

verdict verify(const std::vector<particle>& particles, const parameters& what);
verdict together(verdict a, const verdict& b);

class census {
public:
  census(std::uint64_t first_id, std::size_t ids) : first_(first_id), seen_(ids, 0) {}
  census() = default;

  auto migrate_fields() { return std::tie(first_, seen_); }

  void count(const std::vector<particle>& particles);
  void add(const census& other);
  void tell(verdict& into) const;

private:
  std::uint64_t first_ = 1;
  std::vector<std::uint8_t> seen_; // how often, for each id from first_ on; 2 for more than once
};
// Finds out who is missing or doubled when the sums do not hold.

inline constexpr std::size_t census_range = std::size_t{4} << 20;
// Ids counted at a time, which bounds the memory that it takes and the messages that it travels in.

std::vector<std::string> explain(const verdict& found, const parameters& what);
// What is wrong, particle by particle; empty when the verdict is good.

} // namespace pic
