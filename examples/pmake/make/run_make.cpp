#include "run_make.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <utility>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../ninja/disk.hpp"
#include "../ninja/error.hpp"
#include "../ninja/trace.hpp"
#include "make_arguments.hpp"
#include "make_server.hpp"
#include "wire.hpp"

extern char** environ;

namespace pmake {

namespace {

bool has_fifo(const std::string& make) {
  // From 4.4 on the jobserver may be a named pipe, which every process of the build can open.
  std::FILE* said = ::popen(("'" + make + "' --version 2>/dev/null").c_str(), "r");
  int major = 0, minor = 0;
  if (said == nullptr) return false;
  int read = std::fscanf(said, "GNU Make %d.%d", &major, &minor);
  ::pclose(said);
  return read == 2 && (major > 4 || (major == 4 && minor >= 4));
}

} // namespace

int run_make(const std::vector<std::string>& command, const make_options& options) {
  make_arguments given = split_make_arguments({command.begin() + 1, command.end()});
  unsigned most = given.jobs.value_or(0);
  unsigned here = most > 0 ? std::min(options.processors, most) : options.processors;
  std::optional<trace> record;
  if (!options.trace.empty()) record.emplace(options.trace);
  make_server server(here, most, has_fifo(command[0]) ? jobserver::kind::fifo : jobserver::kind::pipe,
                     options.rules, record ? &*record : nullptr);

  const char* outer = std::getenv("MAKEFLAGS");
  ::setenv(
      "MAKEFLAGS",
      make_flags(outer != nullptr ? outer : "", "-j" + std::to_string(here) + " " + server.flag()).c_str(),
      1);
  ::setenv(wire::socket_variable, server.path().c_str(), 1);
  ::unsetenv(wire::place_variable);
  // A variable of every target hides the makefile's own SHELL from recipes, and only from them.
  std::vector<std::string> words{command[0], "--eval=%:SHELL=" + options.shell};
  words.insert(words.end(), given.rest.begin(), given.rest.end());
  std::vector<char*> pointers;
  for (std::string& each : words) pointers.push_back(each.data());
  pointers.push_back(nullptr);

  signals_for_make signals;
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setsigmask(&attributes, &signals.outer_mask());
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t make = 0;
  int reason = ::posix_spawnp(&make, pointers[0], nullptr, &attributes, pointers.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  if (reason != 0) throw build_error(command[0] + ": " + reason_text(reason));
  if (options.places)
    server.use(options.places(most, [&](const std::string& host, const std::string& what) {
      if (record) record->note(host, what);
    }));
  server.serve(make, signals.outer_mask());
  if (std::string where = server.summary(); options.say && !where.empty()) options.say(where);
  int status = 0;
  while (::waitpid(make, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

} // namespace pmake
