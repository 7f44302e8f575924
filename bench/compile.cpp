// How long a user's source file takes to compile.
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <string>

#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.hpp"

#ifndef MIGRATE_BENCH_COMPILER
#define MIGRATE_BENCH_COMPILER "c++"
#endif

namespace {

double compile(const std::string& folder, const char* source) {
  // Seconds of processor time, which a busy machine disturbs least.
  std::string file = folder + "/user.cpp";
  std::ofstream(file) << source;
  std::string include = "-I" MIGRATE_INCLUDE_DIR;
  std::string object = folder + "/user.o";
  const char* arguments[] = {MIGRATE_BENCH_COMPILER, "-std=c++20", "-O2", include.c_str(), "-c", file.c_str(), "-o",
                             object.c_str(), nullptr};
  pid_t child = 0;
  if (::posix_spawn(&child, MIGRATE_BENCH_COMPILER, nullptr, nullptr, const_cast<char**>(arguments), environ) != 0)
    std::exit(1);
  int status = 0;
  struct rusage use {};
  if (::wait4(child, &status, 0, &use) != child || status != 0) std::exit(1);
  auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

constexpr const char* task_user = R"(
#include <migrate/task.hpp>
int twice(int x) {
  return migrate::spawn([](int y) { return 2 * y; }, x).join();
}
)";

constexpr const char* standard_user = R"(
#include <functional>
#include <future>
#include <string>
#include <vector>
int twice(int x) {
  return std::async([](int y) { return 2 * y; }, x).get();
}
)";

} // namespace

int main() {
  char folder[] = "/tmp/migrate-compile-XXXXXX";
  if (::mkdtemp(folder) == nullptr) return 1;
  std::string where = folder;
  bench::ratio_row("compile a file that includes migrate/task.hpp and spawns, against <future>, <functional>, <vector>, <string>",
                   bench::compare(5, [&] { return compile(where, task_user); }, [&] { return compile(where, standard_user); }), 2,
                   "s");
  ::unlink((where + "/user.cpp").c_str());
  ::unlink((where + "/user.o").c_str());
  ::rmdir(folder);
}
