// What a move is likely to cost, by those that were measured.
#pragma once

#include <algorithm>
#include <cstddef>

namespace migrate::detail {

class move_cost {
public:
  move_cost() noexcept {
    // What the first moves are guessed to take, until there are better measures.
    measured(200e-6, 0);
    measured(2.7e-3, std::size_t{1} << 20);
  }

  void measured(double seconds, std::size_t bytes) noexcept {
    // A line through time and bytes, by least squares; older moves count for less.
    constexpr double kept = 31.0 / 32;
    auto amount = static_cast<double>(bytes);
    count_ = count_ * kept + 1;
    time_ = time_ * kept + seconds;
    bytes_ = bytes_ * kept + amount;
    squares_ = squares_ * kept + amount * amount;
    products_ = products_ * kept + amount * seconds;
  }

  double expected(std::size_t bytes) const noexcept {
    double spread = squares_ - bytes_ * bytes_ / count_;
    double slope = spread > 0 ? std::max(0.0, (products_ - bytes_ * time_ / count_) / spread) : 0;
    double base = (time_ - slope * bytes_) / count_;
    if (base < 0) { // through the origin and the middle of the measures
      slope = time_ / bytes_;
      base = 0;
    }
    return base + slope * static_cast<double>(bytes);
  }
  // Seconds from the freeze until the task runs on the target.

private:
  double count_ = 0, time_ = 0, bytes_ = 0, squares_ = 0, products_ = 0;
};

} // namespace migrate::detail
