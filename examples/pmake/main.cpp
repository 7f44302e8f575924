// pmake: a parallel make. As Ninja: ninja/run.hpp; as the parent of GNU make: make/run_make.hpp.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <unistd.h>

#include "make/run_make.hpp"
#include "ninja/error.hpp"
#include "ninja/local_executor.hpp"
#include "ninja/processors.hpp"
#include "ninja/run.hpp"

namespace {

std::string find_shell() {
  // Beside the program in a build, in the library's folder when installed. Its name is that of a shell by which make knows
  // how to treat lines of one script (.ONESHELL).
  namespace fs = std::filesystem;
  fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
  for (const fs::path& each : {here / "pmake-shell" / "sh", here.parent_path() / PMAKE_SHELL_DIR / "sh"})
    if (::access(each.c_str(), X_OK) == 0) return each;
  throw pmake::build_error("the shell that belongs to pmake is not where it is installed to");
}

} // namespace

int main(int argc, char** argv) {
  std::string program = argc > 0 ? argv[0] : "pmake";
  program.erase(0, program.rfind('/') + 1);
  std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
  if (program != "ninja" && !arguments.empty()) {
    std::string first = arguments[0].substr(arguments[0].rfind('/') + 1);
    if (first == "make" || first == "gmake") {
      try {
        return pmake::run_make(arguments, {find_shell(), pmake::processors()});
      } catch (const pmake::build_error& problem) {
        std::fprintf(stderr, "%s: error: %s\n", program.c_str(), problem.what());
        return 2;
      }
    }
  }
  auto parsed = pmake::parse_command_line(program, arguments);
  if (!parsed.run) return parsed.status;
  return pmake::run_as_ninja(*parsed.run, [](const pmake::command_line& line, pmake::interruption& signals) {
    unsigned here = pmake::processors();
    unsigned most = line.parallel > 0 ? std::min(line.parallel, here) : here;
    return std::make_unique<pmake::local_executor>(signals, most, line.most_load);
  });
}
