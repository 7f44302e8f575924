// The tools that print parts of the graph: commands, deps, graph, inputs, query, rules, targets.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <unordered_set>

#include "disk.hpp"
#include "error.hpp"
#include "spelling.hpp"
#include "tool_functions.hpp"

namespace pmake {

namespace {

struct text_of {
  // For printf's %.*s.
  explicit text_of(std::string_view what) : size(static_cast<int>(what.size())), text(what.data()) {}
  int size;
  const char* text;
};

void print(const char* before, std::string_view path, const char* after = "\n") {
  text_of shown(path);
  std::printf("%s%.*s%s", before, shown.size, shown.text, after);
}

template <class F> void for_each_edge_below(const std::vector<node*>& targets, F&& found) {
  // In an order in which they could run.
  std::unordered_set<const edge*> seen;
  struct step {
    edge* at;
    std::uint32_t next;
  };
  std::vector<step> stack;
  for (node* target : targets) {
    if (target->in != nullptr && seen.insert(target->in).second) stack.push_back({target->in, 0});
    while (!stack.empty()) {
      step& top = stack.back();
      if (top.next == top.at->inputs.size()) {
        edge* done = top.at;
        stack.pop_back();
        found(*done);
        continue;
      }
      edge* maker = top.at->inputs[top.next++]->in;
      if (maker != nullptr && seen.insert(maker).second) stack.push_back({maker, 0});
    }
  }
}

bool wants_help(session& with) {
  const auto& given = with.line.tool_arguments;
  return std::any_of(given.begin(), given.end(),
                     [](const std::string& each) { return each.size() > 1 && each[0] == '-'; });
}

} // namespace

int tool_commands(session& with) {
  bool single = false;
  std::vector<std::string> names;
  for (const std::string& each : with.line.tool_arguments) {
    if (each == "-s") {
      single = true;
    } else if (each.size() > 1 && each[0] == '-') {
      std::printf("usage: ninja -t commands [options] [targets]\n\noptions:\n"
                  "  -s     only print the final command to build [target], not the whole chain\n");
      return 1;
    } else {
      names.push_back(each);
    }
  }
  std::vector<node*> targets = targets_named(with, names);
  auto show = [](const edge& what) {
    if (!what.phony()) std::printf("%s\n", value_of(what, symbol::command).c_str());
  };
  if (!single) {
    for_each_edge_below(targets, show);
    return 0;
  }
  std::unordered_set<const edge*> seen;
  for (node* each : targets)
    if (each->in != nullptr && seen.insert(each->in).second) show(*each->in);
  return 0;
}

int tool_inputs(session& with) {
  if (wants_help(with)) {
    std::printf("Usage '-t inputs [options] [targets]\n\n"
                "List all inputs used for a set of targets. Note that this includes\n"
                "explicit, implicit and order-only inputs, but not validation ones.\n\n"
                "Options:\n  -h, --help   Print this message.\n");
    return 1;
  }
  std::set<std::string_view> found;
  for_each_edge_below(targets_named(with, with.line.tool_arguments), [&](const edge& what) {
    if (what.phony()) return;
    for (const node* input : what.inputs) found.insert(input->path());
  });
  for (std::string_view each : found) print("", each);
  return 0;
}

int tool_deps(session& with) {
  std::vector<node*> outputs;
  if (with.line.tool_arguments.empty()) {
    for (node* each : with.deps->files())
      if (deps_log::is_live(*each) && with.deps->find(*each) != nullptr) outputs.push_back(each);
  } else {
    outputs = targets_named(with, with.line.tool_arguments);
  }
  for (node* each : outputs) {
    const deps_log::record_of* logged = with.deps->find(*each);
    if (logged == nullptr) {
      print("", each->path(), ": deps not found\n");
      continue;
    }
    file_time now = time_of(std::string(each->path()));
    print("", each->path(), "");
    std::printf(": #deps %u, deps mtime %lld (%s)\n", logged->count, static_cast<long long>(logged->time),
                now == missing || now > logged->time ? "STALE" : "VALID");
    for (std::uint32_t i = 0; i < logged->count; ++i)
      print("    ", with.deps->file(logged->numbers[i]).path());
    std::printf("\n");
  }
  return 0;
}

int tool_graph(session& with) {
  load_known_dyndeps(with);
  std::printf(
      "digraph ninja {\nrankdir=\"LR\"\nnode [fontsize=10, shape=box, height=0.25]\nedge [fontsize=10]\n");
  std::unordered_set<const node*> files;
  std::unordered_set<const edge*> statements;
  std::vector<node*> next = targets_named(with, with.line.tool_arguments);
  std::reverse(next.begin(), next.end());
  auto id = [](const void* what) { return static_cast<const void*>(what); };
  while (!next.empty()) {
    node& file = *next.back();
    next.pop_back();
    if (!files.insert(&file).second) continue;
    std::printf("\"%p\"", id(&file));
    print(" [label=\"", file.path(), "\"]\n");
    const edge* maker = file.in;
    if (maker == nullptr || !statements.insert(maker).second) continue;
    text_of rule(maker->how->name);
    if (maker->inputs.size() == 1 && maker->outputs.size() == 1) {
      std::printf("\"%p\" -> \"%p\" [label=\" %.*s\"]\n", id(maker->inputs[0]), id(maker->outputs[0]),
                  rule.size, rule.text);
    } else {
      std::printf("\"%p\" [label=\"%.*s\", shape=ellipse]\n", id(maker), rule.size, rule.text);
      for (const node* output : maker->outputs) std::printf("\"%p\" -> \"%p\"\n", id(maker), id(output));
      for (std::uint32_t i = 0; i < maker->inputs.size(); ++i)
        std::printf("\"%p\" -> \"%p\" [arrowhead=none%s]\n", id(maker->inputs[i]), id(maker),
                    maker->is_order_only(i) ? " style=dotted" : "");
    }
    for (std::uint32_t i = maker->inputs.size(); i-- > 0;) next.push_back(maker->inputs[i]);
  }
  std::printf("}\n");
  return 0;
}

int tool_query(session& with) {
  if (with.line.tool_arguments.empty()) throw build_error("expected a target to query");
  std::map<const node*, std::vector<const edge*>> validated;
  for (const edge* each : with.files.edges)
    for (const node* validation : each->validations) validated[validation].push_back(each);
  for (const std::string& name : with.line.tool_arguments) {
    node& file = target_named(with, name);
    print("", file.path(), ":\n");
    if (const edge* maker = file.in; maker != nullptr) {
      if (maker->dyndep != nullptr) load_known_dyndep(with, *maker->dyndep);
      print("  input: ", maker->how->name);
      for (std::uint32_t i = 0; i < maker->inputs.size(); ++i)
        print(maker->is_implicit(i)     ? "    | "
              : maker->is_order_only(i) ? "    || "
                                        : "    ",
              maker->inputs[i]->path());
      if (!maker->validations.empty()) {
        std::printf("  validations:\n");
        for (const node* each : maker->validations) print("    ", each->path());
      }
    }
    std::printf("  outputs:\n");
    for (const edge* each : file.out)
      for (const node* output : each->outputs) print("    ", output->path());
    auto by = validated.find(&file);
    if (by == validated.end()) continue;
    std::printf("  validation for:\n");
    for (const edge* each : by->second)
      for (const node* output : each->outputs) print("    ", output->path());
  }
  return 0;
}

int tool_rules(session& with) {
  bool descriptions = false;
  for (const std::string& each : with.line.tool_arguments) {
    if (each == "-d") {
      descriptions = true;
      continue;
    }
    std::printf("usage: ninja -t rules [options]\n\noptions:\n"
                "  -d     also print the description of the rule\n  -h     print this message\n");
    return 1;
  }
  std::map<std::string_view, const rule*> sorted;
  for (const auto& [name, each] : with.files.scopes.front().rules()) sorted.emplace(name, each);
  for (const auto& [name, each] : sorted) {
    print("", name, "");
    if (const text_template* description = each->find(symbol::description);
        descriptions && description != nullptr) {
      std::printf(": ");
      for (const piece& part : *description) {
        if (!part.text.empty())
          print("", part.text, "");
        else
          print("${", with.files.symbols.name(part.variable), "}");
      }
    }
    std::printf("\n");
  }
  return 0;
}

namespace {

void print_with_rule(const edge& maker, const node& output) {
  print("", output.path(), "");
  print(": ", maker.how->name);
}

void print_to_depth(const std::vector<node*>& files, long depth, int indent) {
  for (const node* each : files) {
    for (int i = 0; i < indent; ++i) std::printf("  ");
    if (each->in == nullptr) {
      print("", each->path());
      continue;
    }
    print_with_rule(*each->in, *each);
    if (depth > 1 || depth <= 0)
      print_to_depth({each->in->inputs.begin(), each->in->inputs.end()}, depth - 1, indent + 1);
  }
}

} // namespace

int tool_targets(session& with) {
  const auto& given = with.line.tool_arguments;
  std::string mode = given.empty() ? "depth" : given[0];
  if (mode == "rule") {
    if (given.size() < 2) {
      for (const edge* each : with.files.edges)
        for (const node* input : each->inputs)
          if (input->in == nullptr) print("", input->path());
      return 0;
    }
    std::set<std::string_view> sorted;
    for (const edge* each : with.files.edges)
      if (each->how->name == given[1])
        for (const node* output : each->outputs) sorted.insert(output->path());
    for (std::string_view each : sorted) print("", each);
    return 0;
  }
  if (mode == "depth") {
    print_to_depth(with.files.roots(), given.size() > 1 ? std::atol(given[1].c_str()) : 1, 0);
    return 0;
  }
  if (mode == "all") {
    for (const edge* each : with.files.edges)
      for (const node* output : each->outputs) print_with_rule(*each, *output);
    return 0;
  }
  throw build_error("unknown target tool mode '" + mode + "'" +
                    nearest_word(mode, {"rule", "depth", "all"}).hint());
}

} // namespace pmake
