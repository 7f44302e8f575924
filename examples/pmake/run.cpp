// The whole program: as Ninja (ninja/run.hpp) or as the parent of GNU make (make/run_make.hpp), on this machine or as an
// application on idle hosts (hosts/granted_places.hpp).
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#include <migrate/node.hpp>

#include "hosts/granted_places.hpp"
#include "make/run_make.hpp"
#include "ninja/error.hpp"
#include "ninja/local_executor.hpp"
#include "ninja/processors.hpp"
#include "ninja/recipe_call.hpp"
#include "ninja/run.hpp"
#include "ninja/shared_executor.hpp"
#include "own_options.hpp"
#include "recipe.hpp"

namespace pmake {

namespace {

constexpr unsigned many_hosts = 64; // to ask for when nobody says how many

std::string find_shell() {
  // Beside the program in a build, in the library's folder when installed. Its name is that of a shell by which make knows
  // how to treat lines of one script (.ONESHELL).
  namespace fs = std::filesystem;
  fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
  for (const fs::path& each : {here / "pmake-shell" / "sh", here.parent_path() / PMAKE_SHELL_DIR / "sh"})
    if (::access(each.c_str(), X_OK) == 0) return each;
  throw build_error("the shell that belongs to pmake is not where it is installed to");
}

sigset_t ending_signals() {
  sigset_t all;
  ::sigemptyset(&all);
  for (int each : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&all, each);
  return all;
}

class application {
  // This process as the first node of a cluster, when idle hosts are wanted.

public:
  application(migrate::node_options options, std::string program) : program_(std::move(program)) {
    options.arguments.clear();
    options.quiet = true;
    if (auto comma = options.hosts.rfind(','); comma != std::string::npos) {
      wanted_ = static_cast<unsigned>(std::strtoul(options.hosts.c_str() + comma + 1, nullptr, 10));
      options.hosts.resize(comma);
    }
    database_ = options.hosts;
    // Signals are this thread's: none that is started from here on takes them.
    sigset_t ours = ending_signals(), before;
    ::sigprocmask(SIG_BLOCK, &ours, &before);
    try {
      node_.emplace(std::move(options));
    } catch (const std::exception& problem) {
      say("no idle hosts: " + std::string(problem.what()) + "; building on this machine");
    }
    ::sigprocmask(SIG_SETMASK, &before, nullptr);
  }

  std::unique_ptr<granted_places> places(unsigned parallel, host_note note, granted_places::sayer say) const {
    // None when there is nothing to ask, or nothing to ask for.
    unsigned here = processors();
    unsigned wanted = wanted_ > 0       ? wanted_
                      : parallel == 0   ? many_hosts
                      : parallel > here ? parallel - here
                                        : 0;
    if (!node_ || wanted == 0) return nullptr;
    return std::make_unique<granted_places>(wanted, database_, std::move(note), std::move(say));
  }

  void say(const std::string& text) const {
    std::fprintf(stderr, "%s: %s\n", program_.c_str(), text.c_str());
  }

private:
  std::string program_, database_;
  unsigned wanted_ = 0;
  std::optional<migrate::node> node_;
};

int run_recipe_here(std::vector<std::string> words, migrate::node_options options) {
  // As a task of a node of its own: a function may use what tasks may.
  options.hosts.clear();
  options.nodes = 1;
  options.quiet = true;
  options.control = false;
  migrate::node here(std::move(options));
  recipe_call call;
  call.folder = std::filesystem::current_path();
  call.arguments.assign(words.begin() + 1, words.end());
  auto [status, printed] = here.run(
      [](std::string name, recipe_call given) {
        int ended = run_recipe(name, given);
        return std::pair<int, std::string>(ended, given.printed);
      },
      words[0], call);
  std::fputs(printed.c_str(), stdout);
  std::fflush(stdout);
  return status;
}

int run_as_make(const std::vector<std::string>& arguments, const own_options& own, const std::string& program,
                std::optional<application>& hosts) {
  try {
    make_options options;
    options.shell = find_shell();
    options.processors = processors();
    options.rules = own.rules;
    options.trace = own.trace;
    if (hosts) {
      options.say = [&](const std::string& text) { hosts->say(text); };
      options.places = [&](unsigned parallel, host_note note) {
        return hosts->places(parallel, std::move(note), options.say);
      };
    }
    return run_make(arguments, options);
  } catch (const build_error& problem) {
    std::fprintf(stderr, "%s: error: %s\n", program.c_str(), problem.what());
    return 2;
  }
}

void end_by(int signal) {
  // As make did: a shell that waits then knows that its user wants no more of it.
  ::signal(signal, SIG_DFL);
  sigset_t which;
  ::sigemptyset(&which);
  ::sigaddset(&which, signal);
  ::sigprocmask(SIG_UNBLOCK, &which, nullptr);
  ::raise(signal);
}

int run_program_itself(int argc, char** argv, bool& as_make) {
  std::string program = argc > 0 ? argv[0] : "pmake";
  program.erase(0, program.rfind('/') + 1);
  sigset_t ours = ending_signals();
  ::sigprocmask(SIG_UNBLOCK, &ours, nullptr); // a node starts its program once more, with these blocked
  migrate::node_options options = migrate::node_options::from(argc, argv);
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  if (!options.join.empty()) {
    migrate::node here(std::move(options));
    here.serve();
    return 0;
  }
  if (arguments.size() > 1 && arguments[0] == std::string("--") + recipe_program)
    return run_recipe_here({arguments.begin() + 1, arguments.end()}, std::move(options));
  if (arguments.size() == 2 && arguments[0] == "-c") // as a shell (see make/make_server.cpp)
    if (auto words = recipe_words(arguments[1]); !words.empty())
      return run_recipe_here(words, std::move(options));

  own_options own;
  try {
    own = take_own_options(arguments, program == "ninja");
  } catch (const build_error& problem) {
    std::fprintf(stderr, "%s: error: %s\n", program.c_str(), problem.what());
    return own.make ? 2 : 1;
  }
  std::optional<application> hosts;
  as_make = own.make;
  if (own.make) {
    if (!options.hosts.empty()) hosts.emplace(std::move(options), program);
    return run_as_make(arguments, own, program, hosts);
  }
  auto parsed = parse_command_line(program, arguments);
  if (!parsed.run) return parsed.status;
  // A node is made before anything else is done: it starts the program once more.
  if (!options.hosts.empty() && parsed.run->tool.empty() && !parsed.run->build.dry_run)
    hosts.emplace(std::move(options), program);
  return run_as_ninja(*parsed.run, [&](const executor_setting& setting) -> std::unique_ptr<executor> {
    const command_line& line = setting.line;
    unsigned here = processors();
    unsigned most = line.parallel > 0 ? std::min(line.parallel, here) : here;
    auto local = std::make_unique<local_executor>(setting.signals, most, line.most_load);
    std::unique_ptr<granted_places> there;
    if (hosts) there = hosts->places(line.parallel, setting.note, setting.say);
    if (!there) return local;
    return std::make_unique<shared_executor>(std::move(local), std::move(there), own.rules, line.parallel,
                                             setting.note, setting.signals);
  });
}

} // namespace

int run(int argc, char** argv) {
  try {
    bool as_make = false;
    int status = run_program_itself(argc, argv, as_make);
    if (as_make && status > 128) end_by(status - 128);
    return status;
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "pmake: error: %s\n", problem.what());
    return 1;
  }
}

} // namespace pmake
