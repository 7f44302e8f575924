// What is printed in the end.
#pragma once

#include <migrate/transfer/statistics.hpp>

#include "options.hpp"
#include "simulation.hpp"

namespace pic {

void print_parameters(const parameters& what);

void print_table(const options& how, const outcome& result, const migrate::move_statistics& moves,
                 unsigned nodes, unsigned workers);

bool print_verdict(const options& how, const outcome& result);
// Whether every particle is at its place; if not, which are not also goes to standard error.

} // namespace pic
