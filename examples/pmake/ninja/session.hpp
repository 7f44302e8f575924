// A manifest that has been read, with its logs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "build_log.hpp"
#include "command_line.hpp"
#include "deps_log.hpp"
#include "graph.hpp"

namespace pmake {

class speaker {
public:
  explicit speaker(std::string program) : program_(std::move(program)) {}

  void info(const std::string& text) const;    // on standard output
  void warning(const std::string& text) const; // these two on standard error
  void error(const std::string& text) const;
  void fatal(const std::string& text) const;

private:
  void say(std::FILE* to, const char* kind, const std::string& text) const;

  std::string program_;
};

struct session {
  session(const command_line& as, const speaker& voice);
  // Reads the manifest.

  std::string in_builddir(const char* name) const;
  void open_logs();
  // Reads them, and writes those anew that have grown far beyond what they say.

  const command_line& line;
  const speaker& voice;
  graph files;
  std::string builddir;
  std::unique_ptr<build_log> log;
  std::unique_ptr<deps_log> deps;
};

node& target_named(session& in, std::string name);
// "NAME^" is what is made of NAME. Throws build_error for one that is not in the manifest.
std::vector<node*> targets_named(session& in, const std::vector<std::string>& names);
// The default ones when there are no names.

} // namespace pmake
