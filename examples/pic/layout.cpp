#include "layout.hpp"

#include <algorithm>

namespace pic {

namespace {

struct range {
  std::int64_t first, last; // last is not part of it
};

range part(unsigned index, unsigned parts, std::int64_t cells) {
  return {cells * index / parts, cells * (index + 1) / parts};
}

bool reaches(range from, std::int64_t step, range to, std::int64_t cells) {
  // Whether `from`, shifted by the step in a periodic row of cells, has a cell in common with `to`.
  std::int64_t first = ((from.first + step) % cells + cells) % cells;
  std::int64_t last = first + (from.last - from.first);
  return (first < to.last && to.first < last) || (first < to.last + cells && to.first + cells < last);
}

std::vector<unsigned> reached(unsigned block, std::int64_t dx, std::int64_t dy, const parameters& what) {
  std::vector<unsigned> found;
  for (unsigned other = 0; other < what.blocks(); ++other) {
    auto column = [&](unsigned b) { return part(b / what.blocks_y, what.blocks_x, what.cells); };
    auto row = [&](unsigned b) { return part(b % what.blocks_y, what.blocks_y, what.cells); };
    if (other != block && reaches(column(block), dx, column(other), what.cells) &&
        reaches(row(block), dy, row(other), what.cells))
      found.push_back(other);
  }
  return found;
}

} // namespace

area area_of(unsigned block, const parameters& what) {
  range columns = part(block / what.blocks_y, what.blocks_x, what.cells);
  range rows = part(block % what.blocks_y, what.blocks_y, what.cells);
  return {columns.first, rows.first, columns.last, rows.last};
}

std::vector<unsigned> destinations(unsigned block, const parameters& what) {
  return reached(block, what.shift(), what.m, what);
}

std::vector<unsigned> sources(unsigned block, const parameters& what) {
  return reached(block, -what.shift(), -what.m, what);
}

} // namespace pic
