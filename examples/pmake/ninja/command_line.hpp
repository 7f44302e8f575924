// Ninja's command line.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "builder.hpp"
#include "manifest.hpp"
#include "status.hpp"

namespace pmake {

struct command_line {
  std::string program = "ninja"; // as which it speaks
  std::string manifest = "build.ninja";
  std::string folder; // -C
  std::string tool;
  std::vector<std::string> tool_arguments;
  std::vector<std::string> targets;
  std::string trace; // --trace: where to write how the build went
  build_options build;
  manifest_options reading;
  verbosity how = verbosity::normal;
  unsigned parallel = 0;  // -j; 0: it was not given
  bool unlimited = false; // -j0
  double most_load = 0;   // -l
  bool explain = false, statistics = false;
};

struct parsed_command_line {
  std::optional<command_line> run; // none: it is all said, and the program ends with this status
  int status = 0;
};

parsed_command_line parse_command_line(const std::string& program, const std::vector<std::string>& arguments);
// Prints help, and what is wrong.

} // namespace pmake
