#include "simulation.hpp"

#include <algorithm>
#include <chrono>

namespace pic {

outcome simulate_serially(const parameters& what) {
  charges fixed({0, 0, what.cells, what.cells});
  initial_distribution initial(what);
  std::vector<particle> particles;
  particles.reserve(what.particles);
  for (std::int64_t x = 0; x < what.cells; ++x)
    for (std::int64_t y = 0; y < what.cells; ++y)
      for (std::uint64_t id = initial.before(x, y) + 1, end = initial.before(x, y + 1); id <= end; ++id)
        particles.push_back(particle_at(x, y, id, what));

  auto begun = std::chrono::steady_clock::now();
  auto length = static_cast<double>(what.cells);
  for (std::uint64_t step = 0; step < what.steps; ++step)
    for (particle& p : particles) push(p, fixed, length);
  outcome result;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  result.found = verify(particles, what);
  return result;
}

} // namespace pic
