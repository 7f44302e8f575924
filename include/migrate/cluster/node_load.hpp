// How loaded a node is: what it measures of itself, and what the others know of it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>

#include <migrate/id.hpp>

namespace migrate {

struct node_load {
  node_id node = no_node;
  std::uint32_t workers = 1;
  double speed = 1;    // processor seconds that a worker with something to run gets in a second
  double busy = 0;     // how much of its workers' time has something to run: 0 to 1
  double runnable = 0; // tasks that run or could run, on average of the last second
  bool accepts = true; // tasks that a policy moves
  std::chrono::milliseconds age{0}; // since the node measured it

  double capacity() const noexcept { return workers * speed; } // processor seconds in a second
  double stretch(double more = 0) const noexcept {
    return std::max(1.0, (runnable + more) / workers) / speed;
  }
  // How many seconds a second of processor time takes a task there, with so many more that can run.
};
// A host that is slow, that others use too, or that has a part of a processor only, has a low speed: it is measured.

namespace detail {

class load_meter {
public:
  static constexpr double memory = 1.0;      // seconds over which the averages are taken
  static constexpr double busy_memory = 2.0; // the same, of how busy it is

  explicit load_meter(std::uint32_t workers, double speed = 1) noexcept : workers_(workers), speed_(speed) {}

  void sample(double seconds, double runnable) noexcept { runnable_ += (runnable - runnable_) * weight(seconds); }
  // So many tasks could run for the last so many seconds.

  void measure(double seconds, double busy_seconds, double processor_seconds, double coming = 0) noexcept {
    // Of all workers together, since the last measure. `coming`: processor seconds in each second that those will use
    // which are on their way here.
    if (seconds <= 0) return;
    double all = seconds * workers_;
    busy_ += (std::clamp(busy_seconds / all + coming / (workers_ * speed_), 0.0, 1.0) - busy_) *
             (1 - std::exp(-seconds / busy_memory));
    if (busy_seconds < least_busy) return; // too little to say how fast it went
    double speed = std::clamp(processor_seconds / busy_seconds, 0.01, 1.0);
    speed_ += (speed - speed_) * weight(busy_seconds / workers_);
  }

  void set_speed(double speed) noexcept { speed_ = std::clamp(speed, 0.01, 1.0); }

  void expect(double runnable, double processor_rate) noexcept {
    // A task comes, or goes: at once, and the measures decide later.
    runnable_ = std::max(0.0, runnable_ + runnable);
    busy_ = std::clamp(busy_ + processor_rate / (workers_ * speed_), 0.0, 1.0);
  }

  node_load read() const noexcept {
    node_load now;
    now.workers = workers_;
    now.speed = speed_;
    now.busy = busy_;
    now.runnable = runnable_;
    return now;
  }

private:
  static constexpr double least_busy = 1e-3;
  static double weight(double seconds) noexcept { return 1 - std::exp(-seconds / memory); }

  std::uint32_t workers_;
  double speed_;
  double busy_ = 0;
  double runnable_ = 0;
};
// A node's own averages, fed by whoever looks at its workers.

} // namespace detail
} // namespace migrate
