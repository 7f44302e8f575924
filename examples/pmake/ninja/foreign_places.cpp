#include "foreign_places.hpp"

#include <string_view>

#include <sys/wait.h>

namespace pmake {

bool worth_a_second_run(const foreign_end& failed) {
  static constexpr int not_executable = 126; // by shells' convention, and what is above it too
  if (!WIFEXITED(failed.status) || WEXITSTATUS(failed.status) >= not_executable) return true;
  static constexpr std::string_view signs[] = {"No space left on device",
                                               "Disk quota exceeded",
                                               "Cannot allocate memory",
                                               "out of memory",
                                               "memory exhausted",
                                               "Resource temporarily una",
                                               "Killed",
                                               "terminated program",
                                               "Input/output error",
                                               "I/O error",
                                               "Stale file handle"};
  for (std::string_view sign : signs)
    for (const std::string* text : {&failed.output, &failed.error})
      if (text->find(sign) != text->npos) return true;
  return false;
}

} // namespace pmake
