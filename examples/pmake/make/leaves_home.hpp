// Which lines of recipes may run on another machine.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pmake {

class leaving_rules {
public:
  leaving_rules();
  // Compilers that are told to compile only: -c or -S. See the lists in the source file.

  void let_leave(const std::string& pattern) { others_.push_back(pattern); }
  // Programs of that name (as fnmatch(3) has it) may leave whatever their arguments.
  void keep(const std::string& pattern) { kept_.push_back(pattern); }
  // Programs of that name stay, compilers too.

  void read(const std::string& path);
  // Lines `leave PATTERN` and `keep PATTERN`; # begins a comment. Throws build_error with the file's name and line.

  bool may_leave(std::string_view line) const;
  // A line for a shell: each of its commands may leave, and one of them is worth it. What cannot be read for sure stays.

private:
  std::vector<std::string> others_, kept_;
};

std::vector<std::vector<std::string>> simple_commands(std::string_view line, bool& understood);
// The words of each command of a line, without assignments, redirections and a shell's own words; those in $(...) and
// `...` too. `understood` is set to false for a loop or a here-document.

std::vector<std::string> outputs_named(std::string_view line);
// What its commands are told to write to by -o, as far as that can be seen: nothing in a line that changes its folder.

} // namespace pmake
