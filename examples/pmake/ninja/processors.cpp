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

} // namespace

unsigned processors() {
  cpu_set_t allowed;
  long count = ::sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed)
                                                                     : ::sysconf(_SC_NPROCESSORS_ONLN);
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.rfind("0::", 0) != 0) continue;
    for (std::string folder = line.substr(3); folder.size() > 1; folder.resize(folder.rfind('/')))
      if (double quota = quota_of(folder); quota > 0)
        count = std::min(count, static_cast<long>(std::ceil(quota)));
  }
  return static_cast<unsigned>(std::max(1L, count));
}

} // namespace pmake
