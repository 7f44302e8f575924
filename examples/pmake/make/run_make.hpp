// pmake make ...: an unmodified GNU make whose commands run where pmake says.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../ninja/foreign_places.hpp"
#include "leaves_home.hpp"

namespace pmake {

struct make_options {
  std::string shell;       // pmake's own, that make gets
  unsigned processors = 1; // as many commands at once run here, whatever make asks for
  leaving_rules rules = {};
  std::string trace = {}; // where to write how the build went
  std::function<std::unique_ptr<foreign_places>(unsigned parallel, host_note note)> places = {};
  // Makes those on other machines, for so many commands at once in all (0: any number); none: all run here.
  std::function<void(const std::string& line)> say = {}; // to the user
};

int run_make(const std::vector<std::string>& command, const make_options& options);
// command[0] is the make. Returns its exit status, 128 + N when it was ended by signal N. Throws build_error when it cannot
// be started.

} // namespace pmake
