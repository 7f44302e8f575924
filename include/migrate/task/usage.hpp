// What a task has used of its nodes' processors and memory.
#pragma once

#include <algorithm>
#include <cstdint>

namespace migrate {

struct task_usage {
  std::int64_t user = 0;   // nanoseconds
  std::int64_t system = 0; // nanoseconds
  std::int64_t most_resident = 0; // bytes
  std::int64_t minor_faults = 0;
  std::int64_t major_faults = 0;
  std::int64_t voluntary_switches = 0;
  std::int64_t involuntary_switches = 0;

  task_usage& operator+=(const task_usage& other) noexcept {
    user += other.user;
    system += other.system;
    most_resident = std::max(most_resident, other.most_resident);
    minor_faults += other.minor_faults;
    major_faults += other.major_faults;
    voluntary_switches += other.voluntary_switches;
    involuntary_switches += other.involuntary_switches;
    return *this;
  }
  task_usage& operator-=(const task_usage& earlier) noexcept { // of the same count; what is a maximum stays
    user -= earlier.user;
    system -= earlier.system;
    minor_faults -= earlier.minor_faults;
    major_faults -= earlier.major_faults;
    voluntary_switches -= earlier.voluntary_switches;
    involuntary_switches -= earlier.involuntary_switches;
    return *this;
  }
};

} // namespace migrate
