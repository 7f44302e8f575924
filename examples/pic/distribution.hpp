// Where the particles are at the beginning.
#pragma once

#include <cstdint>
#include <vector>

#include "parameters.hpp"

namespace pic {

class initial_distribution {
public:
  explicit initial_distribution(const parameters& what);

  std::uint64_t before(std::int64_t x, std::int64_t y) const;
  // How many particles are in the columns left of x and, in column x, below row y. Their ids are 1 to
  // that number: particle i + 1 follows particle i in the order of columns, and in a column of rows.

  struct cell {
    std::int64_t x, y;
  };
  cell cell_of(std::uint64_t id) const;
  // Where a particle begins.

private:
  double share_of_rows_below(std::int64_t y) const;

  parameters what_;
  std::vector<double> weight_;  // of each column
  std::vector<double> columns_; // weight of all columns left of each
};
// The kernel's four distributions of n particles over L columns. It rounds the number in each cell at
// random; here the fraction is carried to the next cell, so that there are exactly n, and every block can
// tell its own particles and their ids without asking the others.

} // namespace pic
