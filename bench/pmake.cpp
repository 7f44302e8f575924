// pmake as Ninja against Ninja itself, on this machine: building nothing, memory, and a project of CMake's.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "harness.hpp"

extern char** environ;

namespace fs = std::filesystem;

namespace {

const std::string theirs = "/usr/bin/ninja";
const std::string ours = MIGRATE_PMAKE_AS_NINJA;

struct cost {
  double milliseconds;
  double kibibytes; // resident, at most
};

cost run_command(std::vector<std::string> command) {
  std::vector<char*> argv;
  for (std::string& each : command) argv.push_back(each.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  for (int fd : {1, 2}) ::posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_WRONLY, 0);
  auto begin = bench::clock::now();
  pid_t child = 0;
  int status = 0;
  rusage used = {};
  bool good = ::posix_spawn(&child, argv[0], &actions, nullptr, argv.data(), environ) == 0 &&
              ::wait4(child, &status, 0, &used) == child && status == 0;
  ::posix_spawn_file_actions_destroy(&actions);
  if (!good) {
    for (const std::string& each : command) std::fprintf(stderr, "%s ", each.c_str());
    std::fprintf(stderr, "failed\n");
    std::exit(1);
  }
  return {bench::nanoseconds(bench::clock::now() - begin) / 1e6, static_cast<double>(used.ru_maxrss)};
}

cost run(const std::string& program, const fs::path& where, const std::vector<std::string>& arguments) {
  std::vector<std::string> command{program, "-C", where.string()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run_command(command);
}

class temporary_folder {
public:
  temporary_folder() {
    std::string name = (fs::temp_directory_path() / "pmake-bench-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~temporary_folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  fs::path operator/(const std::string& name) const { return path_ / name; }

private:
  fs::path path_;
};

void write_manifest(const fs::path& folder, int edges, bool with_sources) {
  // Of the size and kind that CMake writes: libraries of 99 objects each.
  static constexpr int objects = 99;
  fs::create_directories(folder / "src");
  std::ofstream out(folder / "build.ninja");
  out << "rule CXX_COMPILER\n  depfile = $DEP_FILE\n  deps = gcc\n"
         "  command = echo '$out: $in src/common.h' > $DEP_FILE && : $DEFINES $INCLUDES $FLAGS > $out\n"
         "  description = Building CXX object $out\n"
         "rule LINKER\n  command = : > $out\n  description = Linking CXX static library $TARGET_FILE\n";
  if (with_sources) std::ofstream(folder / "src/common.h");
  std::string all;
  for (int library = 0; library * (objects + 1) < edges; ++library) {
    std::string name = "CMakeFiles/library" + std::to_string(library) + ".dir", inputs;
    out << "build order_" << library << ": phony || src\n";
    for (int i = 0; i < objects; ++i) {
      std::string source = "src/library" + std::to_string(library) + "_file" + std::to_string(i) + ".cpp";
      std::string object = name + "/" + source + ".o";
      if (with_sources) std::ofstream(folder / source);
      out << "build " << object << ": CXX_COMPILER " << source << " || order_" << library
          << "\n  DEFINES = -DBOOST_CONTEXT_DYN_LINK -DBOOST_CONTEXT_NO_LIB\n  DEP_FILE = " << object
          << ".d\n  FLAGS = -O2 -g -Wall -Wextra -Wpedantic -Wshadow -std=c++20\n"
             "  INCLUDES = -I/home/somebody/project/include -isystem /home/somebody/build/generated\n"
             "  OBJECT_DIR = "
          << name << "\n  OBJECT_FILE_DIR = " << name << "/src\n";
      inputs += " " + object;
    }
    std::string target = "liblibrary" + std::to_string(library) + ".a";
    out << "build " << target << ": LINKER" << inputs << "\n  TARGET_FILE = " << target << "\n";
    all += " " + target;
  }
  out << "build all: phony" << all << "\ndefault all\n";
}

bool nothing_to_do(const temporary_folder& folder, int edges, int rounds) {
  fs::path tree = folder / "nothing";
  write_manifest(tree, edges, true);
  run(theirs, tree, {});
  auto once = [&](const std::string& program) {
    return [&, program] { return run(program, tree, {}).milliseconds; };
  };
  return bench::ratio_row(bench::text("nothing to build in a manifest of %d edges, against ninja", edges),
                          bench::compare(rounds, once(ours), once(theirs)), 1.5, "ms");
}

bool memory(const temporary_folder& folder, int edges) {
  fs::path tree = folder / "memory";
  write_manifest(tree, edges, true);
  // All of it is looked at, and would be built.
  auto once = [&](const std::string& program) {
    return [&, program] { return run(program, tree, {"-n"}).kibibytes; };
  };
  return bench::ratio_row(bench::text("memory for %d edges, against ninja", edges),
                          bench::compare(3, once(ours), once(theirs)), 1.5, "MiB", 1.0 / 1024);
}

void write_project(const fs::path& folder, int files) {
  fs::create_directories(folder / "src");
  std::ofstream list(folder / "CMakeLists.txt");
  list << "cmake_minimum_required(VERSION 3.20)\nproject(generated C)\ninclude_directories(src)\n";
  std::ofstream(folder / "src/common.h") << "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n";
  std::string calls, declarations, libraries;
  for (int i = 0; i < files; ++i) {
    std::string name = "f" + std::to_string(i);
    std::ofstream(folder / ("src/" + name + ".c"))
        << "#include \"common.h\"\nint " << name << "(int x) {\n  char text[64];\n"
        << "  snprintf(text, sizeof text, \"%d\", x * " << i << ");\n  return (int)strlen(text);\n}\n";
    if (i % 30 == 0) {
      libraries += " l" + std::to_string(i / 30);
      list << (i > 0 ? ")\n" : "") << "add_library(l" << i / 30 << " STATIC";
    }
    list << " src/" << name << ".c";
    declarations += "int " + name + "(int);\n";
    calls += "  sum += " + name + "(argc);\n";
  }
  list << ")\nadd_executable(program src/main.c)\ntarget_link_libraries(program" << libraries << ")\n";
  std::ofstream(folder / "src/main.c")
      << declarations << "int main(int argc, char** argv) {\n  int sum = 0;\n"
      << calls << "  return argv[0] == 0 || sum == 0;\n}\n";
}

bool same_files(const fs::path& one, const fs::path& other) {
  auto text_of = [](const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string{std::istreambuf_iterator<char>(file), {}};
  };
  for (const auto& each : fs::recursive_directory_iterator(one)) {
    std::string kind = each.path().extension();
    if (kind != ".o" && kind != ".a" && each.path().filename() != "program") continue;
    if (text_of(each.path()) != text_of(other / fs::relative(each.path(), one))) return false;
  }
  return true;
}

bool cmake_project(const temporary_folder& folder, int files, int rounds) {
  fs::path source = folder / "project";
  write_project(source, files);
  auto configure = [&](const std::string& program, const char* name) {
    fs::path build = folder / name;
    std::string command =
        "cmake -S " + source.string() + " -B " + build.string() +
        " -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS=-ffile-prefix-map=" + build.string() +
        "=. -DCMAKE_MAKE_PROGRAM=" + program + " >/dev/null";
    if (std::system(command.c_str()) != 0) std::exit(1);
    return build;
  };
  fs::path our_build = configure(ours, "ours"), their_build = configure(theirs, "theirs");
  std::vector<std::string> parallel{"-j" + std::to_string(::sysconf(_SC_NPROCESSORS_ONLN))};
  auto once = [&](const std::string& program, const fs::path& build) {
    return [&, program] {
      run(program, build, {"-t", "clean"});
      return run(program, build, parallel).milliseconds / 1000;
    };
  };
  auto result = bench::compare(rounds, once(ours, our_build), once(theirs, their_build));
  bool same = same_files(their_build, our_build);
  if (!same) std::printf("the two builds' files differ\n");
  return bench::row(
      bench::text("a CMake project of %d files built on this machine, against ninja: same files out",
                  files + 1),
      bench::text("%.2f x (%.2f-%.2f; %.3g against %.3g s)%s", result.ratio.median, result.ratio.least,
                  result.ratio.most, result.mine.median, result.theirs.median, same ? "" : ", files differ"),
      "<= 1.05 x", same && result.ratio.median <= 1.05);
}

bool make_project(const temporary_folder& folder, int files, int rounds) {
  // The same sources by a makefile of the kind that automake writes: a command and a rename for each object.
  fs::path tree = folder / "make";
  write_project(tree, files);
  std::ofstream out(tree / "Makefile");
  out << "OBJECTS =";
  for (int i = 0; i < files; ++i) out << " src/f" << i << ".o";
  out << "\nprogram: $(OBJECTS) src/main.o\n\t$(CC) -o $@ $^\n"
         "%.o: %.c\n\t$(CC) -O2 -MD -MF $*.Tpo -c -o $@ $< && mv -f $*.Tpo $*.Po\n"
         "clean:\n\trm -f program src/*.o src/*.Po\n";
  out.close();
  std::string parallel = "-j" + std::to_string(::sysconf(_SC_NPROCESSORS_ONLN));
  auto once = [&](std::vector<std::string> command) {
    return [&, command]() mutable {
      run_command({"/usr/bin/make", "-C", tree.string(), "clean"});
      auto whole = command;
      for (const std::string& each : {std::string("-C"), tree.string(), parallel}) whole.push_back(each);
      return run_command(whole).milliseconds / 1000;
    };
  };
  auto result = bench::compare(rounds, once({MIGRATE_PMAKE, "make"}), once({"/usr/bin/make"}));
  return bench::row(bench::text("%d files built on this machine by pmake make, against make -j", files + 1),
                    bench::text("%.2f x (%.2f-%.2f; %.3g against %.3g s)", result.ratio.median,
                                result.ratio.least, result.ratio.most, result.mine.median,
                                result.theirs.median),
                    "<= 1.05 x", result.ratio.median <= 1.05);
}

} // namespace

int main(int argc, char** argv) {
  CLI::App app("pmake as Ninja against Ninja itself");
  int rounds = 7, edges = 10'000, many = 100'000, files = 300;
  app.add_option("--rounds", rounds, "pairs of runs of each row");
  app.add_option("--edges", edges, "of the manifest with nothing to build");
  app.add_option("--many", many, "edges of the manifest whose memory counts");
  app.add_option("--files", files, "of the CMake project");
  CLI11_PARSE(app, argc, argv);
  temporary_folder folder;
  bool good = nothing_to_do(folder, edges, 2 * rounds + 1);
  good = memory(folder, many) && good;
  good = cmake_project(folder, files, rounds) && good;
  good = make_project(folder, files, rounds) && good;
  return good ? 0 : 1;
}
