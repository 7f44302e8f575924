#include "report.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>

namespace pic {

void print_parameters(const parameters& what) {
  std::printf("grid                %" PRId64 " x %" PRId64 " cells, periodic\n", what.cells, what.cells);
  std::printf("particles           %" PRIu64 ", %s", what.particles, name_of(what.initial));
  switch (what.initial) {
  case distribution::geometric: std::printf(", rho %g\n", what.rho); break;
  case distribution::sinusoidal: std::printf("\n"); break;
  case distribution::linear: std::printf(", alpha %g, beta %g\n", what.alpha, what.beta); break;
  case distribution::patch:
    std::printf(", columns %" PRId64 " to %" PRId64 ", rows %" PRId64 " to %" PRId64 "\n", what.left,
                what.right, what.bottom, what.top);
    break;
  }
  std::printf("steps               %" PRIu64 ", each %" PRId64 " cells right and %" PRId64 " up\n",
              what.steps, what.shift(), what.m);
}

void print_table(const options& how, const outcome& result, const migrate::move_statistics& moves,
                 unsigned nodes, unsigned workers) {
  const parameters& what = how.what;
  if (!how.serial) {
    std::printf("blocks              %u (%u x %u), load looked at every %u steps\n", what.blocks(),
                what.blocks_x, what.blocks_y, what.interval);
    std::printf("nodes               %u, workers on each %u\n", nodes, workers);
  }
  double pushes = static_cast<double>(what.particles) * static_cast<double>(what.steps);
  std::printf("seconds             %.2f\n", result.seconds);
  std::printf("particle pushes/s   %.2f million\n", pushes / result.seconds / 1e6);
  if (!how.serial) {
    std::printf("load, most/mean     %.2f\n", result.imbalance);
    std::printf("moves               %" PRIu64 ", and %" PRIu64 " to where the blocks began; %" PRIu64
                " undone\n",
                moves.moves - std::min(moves.moves, result.placed), result.placed, moves.failures);
    std::printf("freeze, median      %.3f ms\n", static_cast<double>(moves.freeze_percentile(50)) / 1e6);
    std::printf("freeze, 99 %%        %.3f ms\n", static_cast<double>(moves.freeze_percentile(99)) / 1e6);
    std::printf("flushed             %.2f MB\n", static_cast<double>(moves.bytes_flushed) / 1e6);
  }
}

bool print_verdict(const options& how, const outcome& result) {
  const verdict& found = result.found;
  bool good = found.good(how.what);
  if (!good)
    for (const std::string& line : explain(found, how.what))
      std::fprintf(stderr, "pic: WRONG: %s\n", line.c_str());
  std::printf("checksum            %016" PRIx64 "\n", found.checksum);
  if (good)
    std::printf("verified: %" PRIu64 " of %" PRIu64 " particles at their exact places\n", found.right,
                how.what.particles);
  else
    std::printf("VERIFICATION FAILED: of %" PRIu64 " particles %" PRIu64 " were found, %" PRIu64
                " of them at their exact places\n",
                how.what.particles, found.found, found.right);
  return good;
}

} // namespace pic
