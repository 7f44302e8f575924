// What a command that did not end has left.
#pragma once

#include "graph.hpp"

namespace pmake {

void remove_partial(const edge& of) noexcept;
// Its outputs as far as it has touched them, and its depfile.

} // namespace pmake
