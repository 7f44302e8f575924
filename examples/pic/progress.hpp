// What the user sees while the simulation runs.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include <migrate/id.hpp>

namespace pic {

enum class progress_style : std::uint8_t { none, lines, redrawn };

struct node_share {
  migrate::node_id node;
  std::uint64_t particles;
};

class progress {
public:
  explicit progress(progress_style style) : style_(style) {}

  void show(std::uint64_t step, std::uint64_t steps, const std::vector<node_share>& shares,
            std::uint64_t moves);
  // Draws a line on standard error, unless it drew one a moment ago. The last step is always drawn.

private:
  progress_style style_;
  std::chrono::steady_clock::time_point drawn_{};
};

} // namespace pic
