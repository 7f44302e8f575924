#include "processors.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>

#include <sched.h>
#include <unistd.h>

namespace pmake {

namespace {

double quota_of(const std::string& folder) {
  // In processors; 0 when there is none.
  std::ifstream file("/sys/fs/cgroup" + folder + "/cpu.max");
  double share = 0, period = 0;
  return file >> share >> period && period > 0 ? share / period : 0;
}

double quota_in_hierarchy(const std::string& folder) {
  // The same for control groups of version 1.
  std::ifstream quota("/sys/fs/cgroup/cpu" + folder + "/cpu.cfs_quota_us"),
      per("/sys/fs/cgroup/cpu" + folder + "/cpu.cfs_period_us");
  double share = 0, period = 0;
  return quota >> share && per >> period && share > 0 && period > 0 ? share / period : 0;
}

bool has_word(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

} // namespace

unsigned processors() {
  cpu_set_t allowed;
  long count = ::sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed)
                                                                     : ::sysconf(_SC_NPROCESSORS_ONLN);
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    // NUMBER:CONTROLLERS:FOLDER
    std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && !has_word(controllers, "cpu")) continue;
    for (std::string folder = line.substr(second + 1); folder.size() > 1; folder.resize(folder.rfind('/')))
      if (double quota = controllers.empty() ? quota_of(folder) : quota_in_hierarchy(folder); quota > 0)
        count = std::min(count, static_cast<long>(std::ceil(quota)));
  }
  return static_cast<unsigned>(std::max(1L, count));
}

} // namespace pmake
