#include "options.hpp"

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

namespace uts {

static const std::map<std::string, tree_kind> kinds{{"binomial", tree_kind::binomial},
                                                    {"geometric", tree_kind::geometric},
                                                    {"hybrid", tree_kind::hybrid}};
static const std::map<std::string, tree_shape> shapes{{"linear", tree_shape::linear},
                                                      {"exponential", tree_shape::exponential},
                                                      {"cyclic", tree_shape::cyclic},
                                                      {"fixed", tree_shape::fixed}};

template <class T> static std::vector<std::string> names_of(const std::map<std::string, T>& all) {
  std::vector<std::string> names;
  for (const auto& [name, value] : all) names.push_back(name);
  return names;
}

static std::string problem_with(const tree& which) {
  if (which.kind != tree_kind::geometric && which.probability * which.children >= 1)
    return "-q and -m: a binomial tree with " + std::to_string(which.probability * which.children) +
           " children for each node on average may have no end; it wants less than 1";
  return {};
}

parsed parse_options(int argc, char** argv, const char* node_options_help) {
  options made;
  std::string name = "T1", kind, shape;
  std::vector<std::string> names;
  for (const tree& each : published_trees()) names.emplace_back(each.name);

  CLI::App app("Searches an unbalanced tree, whose shape shows only as it is searched, on several nodes, and checks its\n"
               "size. The searchers are tasks; those that have nothing left ask others for a part of theirs.\n"
               "Exit status: 0 the tree is as published, 1 it is not or the run failed, 2 wrong usage.",
               "uts");
  app.get_formatter()->column_width(34);
  app.footer(std::string("uts runs on three nodes of this machine if nothing is said; they share its processors.\n\n") +
             node_options_help);
  using CLI::Range;
  app.add_option("-T,--tree", name, "one that is published")->check(CLI::IsMember(names))->capture_default_str();
  auto* own_kind = app.add_option("-t,--kind", kind, "a tree of your own: binomial, geometric or hybrid");
  own_kind->check(CLI::IsMember(names_of(kinds)));
  tree own;
  std::vector<CLI::Option*> of_own{
      app.add_option("-a,--shape", shape, "geometric: linear, exponential, cyclic or fixed")
          ->check(CLI::IsMember(names_of(shapes))),
      app.add_option("-d,--depth", own.depth, "geometric: its depth")->check(Range(1, 1'000'000)),
      app.add_option("-b,--branches", own.branches, "the root's children, and geometric: of each on average")
          ->check(Range(0.0, 1e6)),
      app.add_option("-r,--seed", own.seed, "what the tree is made of")->check(Range(0, 2'147'483'647)),
      app.add_option("-q,--probability", own.probability, "binomial: that a node has children")->check(Range(0.0, 1.0)),
      app.add_option("-m,--children", own.children, "binomial: how many it has then")->check(Range(0, 100)),
  };
  for (CLI::Option* each : of_own) each->needs(own_kind);
  app.add_option("-s,--searchers", made.searchers, "tasks that search (default: 8 for each worker)")
      ->check(Range(1u, 1000u));
  app.add_option("-g,--granularity", made.granularity, "how often each node is computed, for coarser work")
      ->check(Range(1u, 1'000'000u))
      ->capture_default_str();
  app.add_option("--await-nodes", made.await_nodes, "begin when so many nodes are there")->check(Range(1u, 1000u));
  app.add_flag("--progress,!--no-progress", made.progress, "whether to show on standard error how it goes");
  app.add_flag("--serial", made.serial, "search on one thread, without tasks, for comparison");
  app.add_flag("--check", made.check, "print only what is the same in every run");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    return {std::nullopt, app.exit(problem) == 0 ? 0 : 2};
  }
  if (kind.empty()) {
    made.which = *find_tree(name);
  } else {
    made.which = own;
    made.which.kind = kinds.at(kind);
    if (!shape.empty()) made.which.shape = shapes.at(shape);
  }
  if (std::string problem = problem_with(made.which); !problem.empty()) {
    std::fprintf(stderr, "uts: %s\n", problem.c_str());
    return {std::nullopt, 2};
  }
  return {made, 0};
}

} // namespace uts
