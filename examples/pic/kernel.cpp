#include "kernel.hpp"

namespace pic {

charges::charges(const area& where) : where_(where), height_(where.top - where.bottom + 1) {
  values_.reserve(static_cast<std::size_t>((where.right - where.left + 1) * height_));
  for (std::int64_t x = where.left; x <= where.right; ++x)
    values_.insert(values_.end(), static_cast<std::size_t>(height_), corner_charge(x));
}

particle particle_at(std::int64_t x, std::int64_t y, std::uint64_t id, const parameters& what) {
  double px = static_cast<double>(x) + 0.5;
  double py = static_cast<double>(y) + 0.5;
  double squared = 0.5;                     // of its distance from each corner
  double cosine = 0.5 / std::sqrt(squared); // of the angle to the horizontal
  double unit = 1 / (2 * cosine / squared); // the charge that moves it by one cell in the first step
  double charge = static_cast<double>(what.shift()) * unit * corner_charge(x);
  return {px, py, 0, static_cast<double>(what.m), charge, px, py, id};
}

place place_after(const particle& p, std::uint64_t steps, const parameters& what) {
  // Whole cells, counted as integers: exact after any number of steps.
  auto length = what.cells;
  auto after = static_cast<std::int64_t>(steps % static_cast<std::uint64_t>(length));
  auto x0 = static_cast<std::int64_t>(p.x0);
  auto y0 = static_cast<std::int64_t>(p.y0);
  std::int64_t direction = p.q * corner_charge(x0) > 0 ? 1 : -1;
  auto wrapped = [length](std::int64_t at) { return static_cast<double>((at % length + length) % length); };
  return {wrapped(x0 + direction * after * (what.shift() % length)) + (p.x0 - static_cast<double>(x0)),
          wrapped(y0 + after * (what.m % length)) + (p.y0 - static_cast<double>(y0))};
}

} // namespace pic
