// How busy the owner's own programs keep a machine.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

namespace migrate::detail {

struct loadavg {
  std::array<double, 3> averages{}; // over 1, 5 and 15 minutes, as the kernel keeps them
  unsigned running = 0;             // threads that run or could, just now
};

inline std::optional<loadavg> read_loadavg(const std::string& proc = "/proc") {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen((proc + "/loadavg").c_str(), "re"),
                                                       &std::fclose);
  loadavg made;
  auto& [one, five, fifteen] = made.averages;
  if (!file || std::fscanf(file.get(), "%lf %lf %lf %u/", &one, &five, &fifteen, &made.running) != 4)
    return {};
  for (double each : made.averages)
    if (!(each >= 0 && each < 1e6)) return {};
  return made;
}
// Follows proc(5), /proc/loadavg. None when it is not there or makes no sense.

struct load_limits {
  std::array<double, 3> accept{0.75, 1.0, 1.5}; // lent from when all averages are below
  std::array<double, 3> stop{2.5, 2.75, 3.0};   // until one is above
};
// For each processor; over 1, 5 and 15 minutes. Sprite's (Douglis and Ousterhout 1991).

class host_load {
  // The run queue without borrowers' threads, averaged as the kernel does. Thread safety: none.

public:
  using time_point = std::chrono::steady_clock::time_point;

  explicit host_load(unsigned processors, const load_limits& limits = {})
      : processors_(std::max(1u, processors)), limits_(limits) {}

  void sample(time_point now, const std::optional<loadavg>& seen, unsigned foreign) {
    // `foreign`: how many of the threads that run are borrowers'. The one that reads is not counted.
    if (!seen) {
      known_ = accepts_ = false;
      return;
    }
    double own = std::max(0.0, static_cast<double>(seen->running) - foreign - 1);
    if (!known_) {
      for (std::size_t i = 0; i < 3; ++i)
        averages_[i] = std::max(0.0, seen->averages[i] - foreign) / processors_;
    } else {
      double passed = std::max(0.0, std::chrono::duration<double>(now - sampled_).count());
      for (std::size_t i = 0; i < 3; ++i) {
        double kept = std::exp(-passed / minutes[i] / 60);
        averages_[i] = averages_[i] * kept + own / processors_ * (1 - kept);
      }
    }
    foreign_ = static_cast<double>(foreign) / processors_;
    known_ = true;
    sampled_ = now;
    bool below = true, above = false;
    for (std::size_t i = 0; i < 3; ++i) {
      below = below && averages_[i] < limits_.accept[i];
      above = above || averages_[i] > limits_.stop[i];
    }
    accepts_ = below || (accepts_ && !above);
    if (averages_[0] <= high)
      busy_since_.reset();
    else if (!busy_since_)
      busy_since_ = now;
  }

  bool accepts() const { return accepts_; }
  // Whether the load lets the machine be lent. Not when it is unknown.

  const std::array<double, 3>& averages() const { return averages_; }
  double foreign() const { return foreign_; }
  // For each processor.

  std::chrono::duration<double> busy_for(time_point now) const {
    return busy_since_ ? std::chrono::duration<double>(now - *busy_since_) : std::chrono::duration<double>(0);
  }
  // How long the one-minute average has been above 0.5, HTCondor's HighLoad.

private:
  static constexpr std::array<double, 3> minutes{1, 5, 15};
  static constexpr double high = 0.5;

  double processors_;
  load_limits limits_;
  bool known_ = false, accepts_ = false;
  time_point sampled_{};
  std::array<double, 3> averages_{};
  double foreign_ = 0;
  std::optional<time_point> busy_since_;
};

struct pressure {
  double some = 0; // percent of the last ten seconds in which something waited
  double full = 0; // in which everything did
};

inline std::optional<pressure> read_pressure(const char* resource, const std::string& proc = "/proc") {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
      std::fopen((proc + "/pressure/" + resource).c_str(), "re"), &std::fclose);
  if (!file) return {};
  pressure made;
  char line[256], kind[8];
  bool any = false;
  while (std::fgets(line, sizeof line, file.get()) != nullptr) {
    double percent = 0;
    if (std::sscanf(line, "%7s avg10=%lf", kind, &percent) != 2 || !(percent >= 0 && percent <= 100))
      continue;
    (std::string(kind) == "full" ? made.full : made.some) = percent;
    any = true;
  }
  return any ? std::optional(made) : std::nullopt;
}
// Of "cpu", "memory" or "io"; follows linux/Documentation/accounting/psi.rst. None where the kernel does not measure it.

} // namespace migrate::detail
