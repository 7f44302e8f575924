// What is printed in the end.
#pragma once

#include <migrate/transfer/statistics.hpp>

#include "options.hpp"
#include "search.hpp"

namespace uts {

void print_tree(const options& how);

void print_table(const options& how, const outcome& result, const migrate::move_statistics& moves, unsigned nodes,
                 unsigned workers);

bool print_verdict(const options& how, const count& found);
// Whether the tree has as many nodes and leaves as published, and is as deep.

} // namespace uts
