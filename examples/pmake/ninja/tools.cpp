#include "tools.hpp"

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "disk.hpp"
#include "dyndep.hpp"
#include "error.hpp"
#include "spelling.hpp"
#include "tool_functions.hpp"

namespace pmake {

namespace {

struct tool {
  const char* name;
  const char* what;
  tool_needs needs;
  bool writes;
  int (*run)(session&);
};

constexpr tool tools[] = {
    {"clean", "clean built files", tool_needs::manifest, true, tool_clean},
    {"commands", "list all commands required to rebuild given targets", tool_needs::manifest, false,
     tool_commands},
    {"inputs", "list all inputs required to rebuild given targets", tool_needs::manifest, false, tool_inputs},
    {"deps", "show dependencies stored in the deps log", tool_needs::logs, false, tool_deps},
    {"graph", "output graphviz dot file for targets", tool_needs::manifest, false, tool_graph},
    {"query", "show inputs/outputs for a path", tool_needs::logs, false, tool_query},
    {"targets", "list targets by their rule or depth in the DAG", tool_needs::manifest, false, tool_targets},
    {"compdb", "dump JSON compilation database to stdout", tool_needs::manifest, false, tool_compdb},
    {"recompact", "recompacts ninja-internal data structures", tool_needs::manifest, true, tool_recompact},
    {"restat", "restats all outputs in the build log", tool_needs::nothing, true, nullptr},
    {"rules", "list all rules", tool_needs::manifest, false, tool_rules},
    {"cleandead", "clean built files that are no longer produced by the manifest", tool_needs::logs, true,
     tool_cleandead},
};

const tool* find(const std::string& name) {
  auto found =
      std::find_if(std::begin(tools), std::end(tools), [&](const tool& each) { return each.name == name; });
  return found == std::end(tools) ? nullptr : found;
}

} // namespace

bool is_tool(const std::string& name) { return find(name) != nullptr; }
tool_needs needs_of(const std::string& name) { return find(name)->needs; }
bool writes(const std::string& name) { return find(name)->writes; }

std::string hint_for_tool(const std::string& name) {
  nearest_word near(name);
  for (const tool& each : tools) near.offer(each.name);
  return near.hint();
}

void print_tools() {
  std::printf("ninja subtools:\n");
  for (const tool& each : tools) std::printf("%11s  %s\n", each.name, each.what);
}

int run_tool_alone(const command_line& line, const speaker& voice) {
  // restat is called by a generator that has just written the manifest: it reads the log only.
  for (const std::string& each : line.tool_arguments)
    if (each == "-h" || each == "--help") {
      std::printf("usage: ninja -t restat [outputs]\n");
      return 1;
    }
  graph none;
  build_log log(none, ".ninja_log");
  if (!log.load([&](const std::string& text) { voice.warning(text); })) return 0;
  if (!line.build.dry_run) log.restat(line.tool_arguments);
  return 0;
}

int run_tool(session& with) { return find(with.line.tool)->run(with); }

int tool_recompact(session& with) {
  auto warn = [&](const std::string& text) { with.voice.warning(text); };
  if (with.log->load(warn)) with.log->recompact();
  if (with.deps->load(warn)) with.deps->recompact();
  return 0;
}

void load_known_dyndep(session& with, node& file) {
  if (!file.dyndep_pending) return;
  try {
    if (time_of(std::string(file.path())) != missing) load_dyndep(with.files, file);
  } catch (const build_error&) {
    file.dyndep_pending = false;
  }
}

void load_known_dyndeps(session& with) {
  for (std::size_t i = 0; i < with.files.edges.size(); ++i)
    if (node* file = with.files.edges[i]->dyndep; file != nullptr) load_known_dyndep(with, *file);
}

} // namespace pmake
