#include "command_line.hpp"

#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <string_view>

#include <getopt.h>

#include "processors.hpp"
#include "spelling.hpp"
#include "tools.hpp"

namespace pmake {

namespace {

class command_line_parser {
public:
  explicit command_line_parser(const std::string& program) { line_.program = program; }

  parsed_command_line parse(const std::vector<std::string>& arguments) {
    std::vector<std::string> copies{line_.program};
    copies.insert(copies.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    for (std::string& each : copies) pointers.push_back(each.data());
    pointers.push_back(nullptr);
    auto count = static_cast<int>(copies.size());

    enum { version = 256, trace, quiet };
    static const option longer[] = {
        {"help", no_argument, nullptr, 'h'},          {"version", no_argument, nullptr, version},
        {"verbose", no_argument, nullptr, 'v'},       {"quiet", no_argument, nullptr, quiet},
        {"trace", required_argument, nullptr, trace}, {nullptr, 0, nullptr, 0}};
    ::optind = 0; // from the start, whoever has called it before
    for (int one; line_.tool.empty() && (one = ::getopt_long(count, pointers.data(), "d:f:j:k:l:nt:vw:C:h",
                                                             longer, nullptr)) != -1;) {
      std::string value = ::optarg != nullptr ? ::optarg : "";
      bool good = true;
      switch (one) {
      case 'C': line_.folder = value; break;
      case 'f': line_.manifest = value; break;
      case 'j': good = take_parallel(value); break;
      case 'k': good = take_failures(value); break;
      case 'l': good = take_load(value); break;
      case 'n': line_.build.dry_run = true; break;
      case 'v': line_.how = verbosity::verbose; break;
      case quiet: line_.how = verbosity::quiet; break;
      case 'd': good = take_debugging(value); break;
      case 'w': good = take_warning(value); break;
      case 't': good = take_tool(value); break;
      case trace: line_.trace = value; break;
      case version: std::printf("%s\n", ninja_version); return {std::nullopt, 0};
      default: print_usage(); return {std::nullopt, 1};
      }
      if (!good) return {std::nullopt, status_};
    }
    auto& rest = line_.tool.empty() ? line_.targets : line_.tool_arguments;
    for (int i = ::optind; i < count; ++i) rest.emplace_back(pointers[static_cast<std::size_t>(i)]);
    line_.build.parallel = line_.parallel;
    return {std::move(line_), 0};
  }

private:
  bool refuse(const std::string& what) {
    std::fprintf(stderr, "%s: %s\n", line_.program.c_str(), what.c_str());
    status_ = 1;
    return false;
  }

  static bool whole_number(const std::string& text, long& value) {
    char* end = nullptr;
    value = std::strtol(text.c_str(), &end, 10);
    return !text.empty() && *end == '\0';
  }

  bool take_parallel(const std::string& text) {
    long value = 0;
    if (!whole_number(text, value) || value < 0) return refuse("fatal: invalid -j parameter");
    line_.unlimited = value == 0;
    line_.parallel = static_cast<unsigned>(std::min<long>(value, std::numeric_limits<int>::max()));
    return true;
  }
  bool take_failures(const std::string& text) {
    long value = 0;
    if (!whole_number(text, value)) return refuse("fatal: -k parameter not numeric; did you mean -k 0?");
    line_.build.failures_allowed =
        value > 0 ? static_cast<std::size_t>(value) : std::numeric_limits<std::size_t>::max();
    return true;
  }
  bool take_load(const std::string& text) {
    char* end = nullptr;
    line_.most_load = std::strtod(text.c_str(), &end);
    if (end == text.c_str()) return refuse("fatal: -l parameter not numeric: did you mean -l 0.0?");
    return true;
  }

  bool take_debugging(const std::string& mode) {
    if (mode == "list") {
      std::fputs("debugging modes:\n"
                 "  stats        print operation counts/timing info\n"
                 "  explain      explain what caused a command to execute\n"
                 "  keepdepfile  don't delete depfiles after they're read by ninja\n"
                 "  keeprsp      don't delete @response files on success\n"
                 "multiple modes can be enabled via -d FOO -d BAR\n",
                 stdout);
      status_ = 1;
      return false;
    }
    if (mode == "stats") return line_.statistics = true;
    if (mode == "explain") return line_.explain = true;
    if (mode == "keepdepfile") return line_.build.keep_depfiles = true;
    if (mode == "keeprsp") return line_.build.keep_response_files = true;
    if (mode == "nostatcache") return true;
    return unknown("debug setting", mode, {"stats", "explain", "keepdepfile", "keeprsp", "nostatcache"});
  }

  bool take_warning(const std::string& flag) {
    if (flag == "list") {
      std::fputs("warning flags:\n  phonycycle={err,warn}  phony build statement references itself\n",
                 stdout);
      status_ = 1;
      return false;
    }
    bool error = flag.ends_with("=err");
    std::string name = flag.substr(0, flag.find('='));
    if (error || flag.ends_with("=warn")) {
      if (name == "dupbuild") {
        line_.reading.doubled_output_is_error = error;
        return true;
      }
      if (name == "phonycycle") {
        line_.reading.phony_cycle_is_error = error;
        return true;
      }
      if (name == "depfilemulti") {
        std::fprintf(stderr, "%s: warning: deprecated warning 'depfilemulti'\n", line_.program.c_str());
        return true;
      }
    }
    return unknown("warning flag", flag,
                   {"dupbuild=err", "dupbuild=warn", "phonycycle=err", "phonycycle=warn"});
  }

  bool take_tool(const std::string& name) {
    if (name == "list") {
      print_tools();
      status_ = 0;
      return false;
    }
    if (is_tool(name)) {
      line_.tool = name;
      return true;
    }
    return refuse("fatal: unknown tool '" + name + "'" + hint_for_tool(name));
  }

  bool unknown(const char* what, const std::string& word, std::initializer_list<std::string_view> known) {
    return refuse(std::string("error: unknown ") + what + " '" + word + "'" +
                  nearest_word(word, known).hint());
  }

  void print_usage() const {
    std::fprintf(
        stderr,
        "usage: %s [options] [targets...]\n"
        "       pmake [--trace, --leave, --keep, --rules, --migrate-...] make [arguments of make...]\n\n"
        "if targets are unspecified, builds the 'default' target (see manual).\n\n"
        "options:\n"
        "  --version      print ninja version (\"%s\")\n"
        "  -v, --verbose  show all command lines while building\n"
        "  --quiet        don't show progress status, just command output\n"
        "  --trace FILE   write how the build went for chrome://tracing or Perfetto\n"
        "  --migrate-hosts=ADDRESS[,N]  run on idle hosts too, N at most; MIGRATE_HOSTS does the same\n"
        "  --leave PATTERN, --keep PATTERN  programs that may leave this machine, beside compilers, or\n"
        "                 have to stay\n"
        "  --rules FILE   lines 'leave PATTERN' and 'keep PATTERN' [default=$PMAKE_RULES]\n\n"
        "  -C DIR   change to DIR before doing anything else\n"
        "  -f FILE  specify input build file [default=build.ninja]\n\n"
        "  -j N     run N jobs in parallel (0 means infinity) [default=%u on this system];\n"
        "           on this machine never more than it has processors\n"
        "  -k N     keep going until N jobs fail (0 means infinity) [default=1]\n"
        "  -l N     do not start new jobs if the load average is greater than N\n"
        "  -n       dry run (don't run commands but act like they succeeded)\n\n"
        "  -d MODE  enable debugging (use '-d list' to list modes)\n"
        "  -t TOOL  run a subtool (use '-t list' to list subtools)\n"
        "    terminates toplevel options; further flags are passed to the tool\n"
        "  -w FLAG  adjust warnings (use '-w list' to list warnings)\n",
        line_.program.c_str(), ninja_version, processors());
  }

  command_line line_;
  int status_ = 0;
};

} // namespace

parsed_command_line parse_command_line(const std::string& program,
                                       const std::vector<std::string>& arguments) {
  return command_line_parser(program).parse(arguments);
}

} // namespace pmake
