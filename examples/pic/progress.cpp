#include "progress.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

namespace pic {

void progress::show(std::uint64_t step, std::uint64_t steps, const std::vector<node_share>& shares,
                    std::uint64_t moves) {
  if (style_ == progress_style::none) return;
  auto now = std::chrono::steady_clock::now();
  auto pause = style_ == progress_style::redrawn ? std::chrono::milliseconds(100) : std::chrono::seconds(1);
  bool last = step == steps;
  if (!last && drawn_.time_since_epoch().count() != 0 && now - drawn_ < pause) return;
  drawn_ = now;

  double all = 0;
  for (const node_share& each : shares) all += static_cast<double>(each.particles);
  std::string count = std::to_string(steps);
  char text[80];
  std::snprintf(text, sizeof text, "step %*llu of %s", static_cast<int>(count.size()),
                static_cast<unsigned long long>(step), count.c_str());
  std::string line = text;
  constexpr std::size_t most_shown = 8;
  std::size_t width = shares.size() <= 3 ? 10 : 4;
  for (std::size_t i = 0; i < std::min(shares.size(), most_shown); ++i) {
    double share = all > 0 ? static_cast<double>(shares[i].particles) / all : 0;
    auto filled = static_cast<std::size_t>(std::lround(share * static_cast<double>(width)));
    std::snprintf(text, sizeof text, "  node %u ", unsigned{number(shares[i].node)});
    line += text + std::string(filled, '#') + std::string(width - filled, '.');
    std::snprintf(text, sizeof text, " %2.0f%%", share * 100);
    line += text;
  }
  if (shares.size() > most_shown) line += "  ...";
  std::snprintf(text, sizeof text, "  %llu moves", static_cast<unsigned long long>(moves));
  line += text;
  bool redrawn = style_ == progress_style::redrawn;
  std::fprintf(stderr, "%s%s%s", redrawn ? "\r" : "", line.c_str(),
               redrawn ? (last ? "\x1b[K\n" : "\x1b[K") : "\n");
}

} // namespace pic
