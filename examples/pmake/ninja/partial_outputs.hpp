// What a command that did not end has left.
#pragma once

#include "graph.hpp"

namespace pmake {

bool remove_partial(const edge& of) noexcept;
// Its outputs as far as it has touched them, and its depfile. False: there was nothing of them.

bool disk_is_full(const edge& of) noexcept;
// Where one of its outputs is: what stands there may be half written.

} // namespace pmake
