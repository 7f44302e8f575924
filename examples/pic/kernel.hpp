// The physics: particles in the field of fixed charges, and where they must be in the end.
//
// E. Georganas, R. Van der Wijngaart, T. Mattson: Design and implementation of a parallel research kernel for
// assessing dynamic load-balancing capabilities, IPDPS 2016. The charges at the corners of the cells alternate
// from column to column. A particle in the middle of a cell has the charge that moves it by a whole odd number
// of columns in the first step; it comes to rest at the end of the second; and so on. So its place after any
// number of steps is known, though every step computes the forces of four charges on it.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "parameters.hpp"

namespace pic {

struct particle {
  double x, y;   // in cells
  double vx, vy; // in cells a step
  double q;
  double x0, y0; // where it began
  std::uint64_t id;
};

struct area {
  std::int64_t left = 0, bottom = 0, right = 0, top = 0; // cells; right and top are not part of it

  bool contains(double x, double y) const noexcept {
    return x >= static_cast<double>(left) && x < static_cast<double>(right) &&
           y >= static_cast<double>(bottom) && y < static_cast<double>(top);
  }
};

inline double corner_charge(std::int64_t x) noexcept { return x % 2 == 0 ? 1 : -1; }

class charges {
public:
  explicit charges(const area& where);

  const double* corner(std::int64_t x, std::int64_t y) const noexcept {
    return &values_[static_cast<std::size_t>((x - where_.left) * height_ + (y - where_.bottom))];
  }
  std::int64_t height() const noexcept { return height_; }

private:
  area where_;
  std::int64_t height_;
  std::vector<double> values_;
};
// The fixed charges at all corners of an area's cells, column by column.

inline double into_grid(double at, double length) noexcept {
  if (at >= 0 && at < length) [[likely]]
    return at;
  at = std::fmod(at, length);
  if (at < 0) at += length;
  return at < length ? at : 0;
}

inline void push(particle& p, const charges& fixed, double length) noexcept {
  auto column = static_cast<std::int64_t>(p.x);
  auto row = static_cast<std::int64_t>(p.y);
  double left = p.x - static_cast<double>(column);
  double below = p.y - static_cast<double>(row);
  double fx = 0, fy = 0;
  auto coulomb = [&](double dx, double dy, double charge) {
    double squared = dx * dx + dy * dy;
    double distance = std::sqrt(squared);
    double force = p.q * charge / squared;
    fx += force * dx / distance;
    fy += force * dy / distance;
  };
  const double* near = fixed.corner(column, row);
  const double* far = near + fixed.height();
  coulomb(left, below, near[0]);
  coulomb(left, below - 1, near[1]);
  coulomb(left - 1, below, far[0]);
  coulomb(left - 1, below - 1, far[1]);
  // Mass and time step are 1.
  p.x = into_grid(p.x + p.vx + 0.5 * fx, length);
  p.y = into_grid(p.y + p.vy + 0.5 * fy, length);
  p.vx += fx;
  p.vy += fy;
}
// One step of a particle that lies in the area of these charges.

particle particle_at(std::int64_t x, std::int64_t y, std::uint64_t id, const parameters& what);
// In the middle of the cell, at rest to the side, moving up by m, charged so that it goes to the right.

struct place {
  double x, y;
};
place place_after(const particle& p, std::uint64_t steps, const parameters& what);
// By arithmetic alone, from where it began and the sign of its charge.

inline constexpr double tolerance = 1e-6; // cells

} // namespace pic
