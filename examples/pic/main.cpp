// A particle-in-cell simulation whose parts are tasks that move from node to node while it runs.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <system_error>
#include <thread>

#include <migrate/node.hpp>

#include "options.hpp"
#include "report.hpp"
#include "simulation.hpp"

static int finish(const pic::options& how, const pic::outcome& result) {
  bool good = pic::print_verdict(how, result);
  return std::fflush(stdout) == 0 && good ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run_serially(const pic::options& how) {
  pic::outcome result = pic::simulate_serially(how.what);
  pic::print_parameters(how.what);
  if (!how.check) pic::print_table(how, result, {}, 1, 1);
  return finish(how, result);
}

static int run(int argc, char** argv) {
  ::setenv("MIGRATE_NODES", "3", 0);
  ::setenv("MIGRATE_POLICY", "application", 0);
  migrate::node_options on = migrate::node_options::from(argc, argv);
  pic::parsed wanted = pic::parse_options(argc, argv, migrate::node_options_help);
  if (!wanted.run) return wanted.status;
  pic::options& how = *wanted.run;
  if (how.serial) return run_serially(how);

  if (on.workers == 0)
    on.workers = std::max(1u, std::thread::hardware_concurrency() / std::max(1u, on.nodes));
  if (how.blocks == 0 && !pic::cut_into_blocks(how.what, 12 * on.workers * std::max(1u, on.nodes)))
    pic::cut_into_blocks(how.what, 1);
  unsigned workers = on.workers;
  migrate::node here(std::move(on));
  if (!here.first()) {
    here.serve();
    return EXIT_SUCCESS;
  }
  auto nodes = static_cast<unsigned>(migrate::nodes().size());
  pic::outcome result = here.run(pic::simulate, how.what, how.style);
  pic::print_parameters(how.what);
  if (!how.check) pic::print_table(how, result, here.statistics(), nodes, workers);
  return finish(how, result);
}

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const migrate::error& problem) {
    std::fprintf(stderr, "pic: %s\n", problem.what());
    return problem.code() == std::errc::invalid_argument ? 2 : EXIT_FAILURE;
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "pic: %s\n", problem.what());
    return EXIT_FAILURE;
  }
}
