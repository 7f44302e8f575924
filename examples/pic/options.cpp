#include "options.hpp"

#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <unistd.h>

#include <CLI/CLI.hpp>

namespace pic {

static const std::map<std::string, distribution> distributions{{"geometric", distribution::geometric},
                                                               {"sinusoidal", distribution::sinusoidal},
                                                               {"linear", distribution::linear},
                                                               {"patch", distribution::patch}};

const char* name_of(distribution initial) noexcept {
  for (const auto& [name, value] : distributions)
    if (value == initial) return name.c_str();
  return "unknown";
}

bool cut_into_blocks(parameters& what, unsigned blocks) {
  auto rows = static_cast<unsigned>(std::sqrt(static_cast<double>(blocks)));
  while (rows > 1 && blocks % rows != 0) --rows;
  what.blocks_y = rows;
  what.blocks_x = blocks / rows;
  return what.blocks_x <= what.cells;
}

static std::string problem_with(const parameters& what, const std::vector<std::int64_t>& patch) {
  auto text = [](auto value) { return std::to_string(value); };
  if (what.cells % 2 != 0)
    return "--grid " + text(what.cells) + ": the charges alternate from column to column, so it must be even";
  if (what.k >= what.cells / 2)
    return "-k " + text(what.k) + ": a step of " + text(what.shift()) +
           " cells must be shorter than the grid's " + text(what.cells);
  if (what.m <= -what.cells || what.m >= what.cells)
    return "-m " + text(what.m) + ": a step must be shorter than the grid's " + text(what.cells) + " cells";
  if (what.initial == distribution::linear && (what.beta <= 0 || what.beta < what.alpha))
    return "--alpha and --beta: the weight beta - alpha x / cells must be positive in each column";
  if (!patch.empty() && what.initial != distribution::patch)
    return "--patch goes with --distribution=patch only";
  if (what.left > what.right || what.bottom > what.top || what.left < 0 || what.bottom < 0 ||
      what.right >= what.cells || what.top >= what.cells)
    return "--patch: wants LEFT <= RIGHT and BOTTOM <= TOP, all from 0 to " + text(what.cells - 1);
  if (what.sabotage != sabotage_kind::none && what.victim > what.particles)
    return "--sabotage: there is no particle " + text(what.victim);
  return {};
}

static bool parse_sabotage(const std::string& text, parameters& into) {
  static const std::map<std::string, sabotage_kind> kinds{{"", sabotage_kind::shift},
                                                          {":shift", sabotage_kind::shift},
                                                          {":drop", sabotage_kind::drop},
                                                          {":repeat", sabotage_kind::repeat}};
  std::size_t digits = text.find_first_not_of("0123456789");
  if (digits == 0 || text.size() > 25 || text.empty()) return false;
  auto kind = kinds.find(digits == std::string::npos ? "" : text.substr(digits));
  if (kind == kinds.end()) return false;
  into.sabotage = kind->second;
  return CLI::detail::lexical_cast(text.substr(0, digits), into.victim) && into.victim > 0;
}

parsed parse_options(int argc, char** argv, const char* node_options_help) {
  options made;
  parameters& what = made.what;
  std::vector<std::int64_t> patch;
  bool balance = true, progress = true;

  CLI::App app(
      "Moves charged particles through a grid of fixed charges, on several nodes, and checks the place of\n"
      "each at the end. The blocks that the grid is cut into are tasks, and move to even out the load.\n"
      "Exit status: 0 all particles are at their places, 1 they are not or the run failed, 2 wrong usage.",
      "pic");
  app.get_formatter()->column_width(34);
  app.footer(
      std::string(
          "pic runs on three nodes of this machine if nothing is said; they share its processors. Its own balance is\n"
          "the application's placement policy, which is the default here; under the automatic one the nodes decide, and\n"
          "under the manual one blocks stay where they began.\n\n") +
      node_options_help);
  using CLI::Range;
  app.add_option("-g,--grid", what.cells, "columns and rows of cells; even")
      ->check(Range(std::int64_t{2}, std::int64_t{1'000'000}))
      ->capture_default_str();
  app.add_option("-n,--particles", what.particles, "particles")
      ->check(Range(std::uint64_t{1}, std::uint64_t{1'000'000'000'000}))
      ->capture_default_str();
  app.add_option("-s,--steps", what.steps, "time steps")
      ->check(Range(std::uint64_t{1}, std::uint64_t{1'000'000'000'000}))
      ->capture_default_str();
  app.add_option("-k", what.k, "particles go 2k+1 cells to the right in each step")
      ->check(Range(std::int64_t{0}, std::int64_t{1'000'000}))
      ->capture_default_str();
  app.add_option("-m", what.m, "and m cells up")
      ->check(Range(std::int64_t{-1'000'000}, std::int64_t{1'000'000}))
      ->capture_default_str();
  std::string distribution_name = "geometric";
  app.add_option("-d,--distribution", distribution_name,
                 "where particles are at first: geometric, sinusoidal, linear or patch")
      ->check(CLI::IsMember({"geometric", "sinusoidal", "linear", "patch"}))
      ->capture_default_str();
  app.add_option("--rho", what.rho, "geometric: ratio of one column to that on its left")
      ->check(CLI::Range(1e-3, 1.0))
      ->capture_default_str();
  app.add_option("--alpha", what.alpha, "linear: the weight of column x is beta - alpha x / cells")
      ->capture_default_str();
  app.add_option("--beta", what.beta, "linear: see --alpha")->capture_default_str();
  app.add_option(
         "--patch", patch,
         "patch: LEFT RIGHT BOTTOM TOP, first and last column and row\n(default: the lower left sixteenth)")
      ->expected(4)
      ->delimiter(',');
  app.add_option("-b,--blocks", made.blocks, "tasks that the grid is cut into (default: 12 for each worker)")
      ->check(Range(1u, 100'000u));
  app.add_flag("--balance,!--no-balance", balance,
               "whether pic moves blocks to even out the load, which is its\nplacement policy (see --migrate-policy)");
  app.add_option("-i,--interval", what.interval, "steps between two looks at the load")
      ->check(Range(1u, 1'000'000'000u))
      ->capture_default_str();
  app.add_option("--await-nodes", what.await_nodes, "begin when so many nodes are there")->check(Range(1u, 1000u));
  app.add_flag("--progress,!--no-progress", progress, "whether to show on standard error how it goes");
  app.add_flag("--serial", made.serial, "compute on one thread, without tasks, for comparison");
  app.add_flag("--check", made.check, "print only what is the same in every run");
  std::string sabotage;
  app.add_option("--sabotage", sabotage)->group(""); // PARTICLE[:shift|drop|repeat], to see the check fail

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    return {std::nullopt, app.exit(problem) == 0 ? 0 : 2};
  }

  what.initial = distributions.at(distribution_name);
  what.balance = balance;
  std::int64_t quarter = what.cells / 4;
  if (patch.size() == 4) {
    what.left = patch[0], what.right = patch[1], what.bottom = patch[2], what.top = patch[3];
  } else if (what.initial == distribution::patch && quarter > 0) {
    what.right = what.top = quarter - 1;
  }
  std::string problem;
  if (!sabotage.empty() && !parse_sabotage(sabotage, what))
    problem = "--sabotage: wants PARTICLE or PARTICLE:shift, :drop or :repeat";
  if (problem.empty()) problem = problem_with(what, patch);
  if (problem.empty() && made.blocks > 0 && !cut_into_blocks(what, made.blocks))
    problem = "--blocks " + std::to_string(made.blocks) + ": that is " + std::to_string(what.blocks_x) +
              " x " + std::to_string(what.blocks_y) + " blocks, which do not fit into " +
              std::to_string(what.cells) + " columns";
  if (!problem.empty()) {
    std::fprintf(stderr, "pic: %s\n", problem.c_str());
    return {std::nullopt, 2};
  }
  made.style = !progress                      ? progress_style::none
               : ::isatty(STDERR_FILENO) != 0 ? progress_style::redrawn
                                              : progress_style::lines;
  return {made, 0};
}

} // namespace pic
