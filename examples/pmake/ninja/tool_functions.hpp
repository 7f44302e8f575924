// The tools one by one; see tools.hpp.
#pragma once

#include "session.hpp"

namespace pmake {

int tool_clean(session& with);
int tool_cleandead(session& with);
int tool_commands(session& with);
int tool_compdb(session& with);
int tool_deps(session& with);
int tool_graph(session& with);
int tool_inputs(session& with);
int tool_query(session& with);
int tool_recompact(session& with);
int tool_rules(session& with);
int tool_targets(session& with);

void load_known_dyndep(session& with, node& file);
void load_known_dyndeps(session& with);
// Takes in a dyndep file that is there, or all of them; what is wrong with them a build will say.

} // namespace pmake
