// Unbalanced tree search by tasks that give each other work, and move from node to node meanwhile.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <system_error>
#include <thread>

#include <migrate/node.hpp>

#include "options.hpp"
#include "report.hpp"
#include "search.hpp"

static int finish(const uts::options& how, const uts::outcome& result) {
  bool good = uts::print_verdict(how, result.all.total);
  return std::fflush(stdout) == 0 && good ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run_serially(const uts::options& how) {
  uts::outcome result = uts::search_serially(how.which, how.granularity);
  uts::print_tree(how);
  if (!how.check) uts::print_table(how, result, {}, 1, 1);
  return finish(how, result);
}

static int run(int argc, char** argv) {
  ::setenv("MIGRATE_NODES", "3", 0);
  migrate::node_options on = migrate::node_options::from(argc, argv);
  uts::parsed wanted = uts::parse_options(argc, argv, migrate::node_options_help);
  if (!wanted.run) return wanted.status;
  uts::options& how = *wanted.run;
  if (how.serial) return run_serially(how);

  if (on.workers == 0) on.workers = std::max(1u, std::thread::hardware_concurrency() / std::max(1u, on.nodes));
  unsigned workers = on.workers;
  if (how.searchers == 0) how.searchers = 8 * workers * std::max(1u, on.nodes);
  migrate::node here(std::move(on));
  if (!here.first()) {
    here.serve();
    return EXIT_SUCCESS;
  }
  uts::outcome result = here.run(
      uts::search, how.which, uts::search_options{how.searchers, how.granularity, how.await_nodes, how.progress});
  auto nodes = static_cast<unsigned>(migrate::nodes().size());
  uts::print_tree(how);
  if (!how.check) uts::print_table(how, result, here.statistics(), nodes, workers);
  return finish(how, result);
}

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const migrate::error& problem) {
    std::fprintf(stderr, "uts: %s\n", problem.what());
    return problem.code() == std::errc::invalid_argument ? 2 : EXIT_FAILURE;
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "uts: %s\n", problem.what());
    return EXIT_FAILURE;
  }
}
