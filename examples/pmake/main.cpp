// pmake: a parallel make. See ninja/run.hpp for what it is under the name of ninja.
#include <string>
#include <vector>

#include "ninja/local_executor.hpp"
#include "ninja/processors.hpp"
#include "ninja/run.hpp"

int main(int argc, char** argv) {
  std::string program = argc > 0 ? argv[0] : "pmake";
  program.erase(0, program.rfind('/') + 1);
  std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
  auto parsed = pmake::parse_command_line(program, arguments);
  if (!parsed.run) return parsed.status;
  return pmake::run_as_ninja(*parsed.run, [](const pmake::command_line& line, pmake::interruption& signals) {
    unsigned here = pmake::processors();
    unsigned most = line.parallel > 0 ? std::min(line.parallel, here) : here;
    return std::make_unique<pmake::local_executor>(signals, most, line.most_load);
  });
}
