#include "distribution.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace pic {

static double column_weight(const parameters& what, std::int64_t x) {
  auto length = static_cast<double>(what.cells);
  auto column = static_cast<double>(x);
  switch (what.initial) {
  case distribution::geometric: return std::pow(what.rho, column);
  case distribution::sinusoidal: {
    double cosine = std::cos(column * std::numbers::pi / (length - 1));
    return cosine * cosine;
  }
  case distribution::linear: return what.beta - what.alpha * column / length;
  case distribution::patch: return x >= what.left && x <= what.right ? 1 : 0;
  }
  return 0;
}

initial_distribution::initial_distribution(const parameters& what) : what_(what) {
  columns_.push_back(0);
  for (std::int64_t x = 0; x < what.cells; ++x) {
    weight_.push_back(column_weight(what, x));
    columns_.push_back(columns_.back() + weight_.back());
  }
}

double initial_distribution::share_of_rows_below(std::int64_t y) const {
  bool patch = what_.initial == distribution::patch;
  std::int64_t first = patch ? what_.bottom : 0;
  std::int64_t rows = patch ? what_.top - what_.bottom + 1 : what_.cells;
  return static_cast<double>(std::clamp<std::int64_t>(y - first, 0, rows)) / static_cast<double>(rows);
}

std::uint64_t initial_distribution::before(std::int64_t x, std::int64_t y) const {
  if (x >= what_.cells) return what_.particles;
  auto column = static_cast<std::size_t>(x);
  double weight = columns_[column] + weight_[column] * share_of_rows_below(y);
  return static_cast<std::uint64_t>(static_cast<double>(what_.particles) * (weight / columns_.back()));
}

initial_distribution::cell initial_distribution::cell_of(std::uint64_t id) const {
  auto last_with = [&](auto count_before) {
    std::int64_t low = 0, high = what_.cells; // count_before(low) < id <= count_before(high)
    while (high - low > 1) {
      std::int64_t middle = low + (high - low) / 2;
      (count_before(middle) < id ? low : high) = middle;
    }
    return low;
  };
  std::int64_t x = last_with([&](std::int64_t at) { return before(at, 0); });
  return {x, last_with([&](std::int64_t at) { return before(x, at); })};
}

} // namespace pic
