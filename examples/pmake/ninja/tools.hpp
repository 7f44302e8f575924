// What -t does instead of building.
#pragma once

#include <string>

#include "command_line.hpp"
#include "session.hpp"

namespace pmake {

bool is_tool(const std::string& name);
std::string hint_for_tool(const std::string& name);
// Which one may have been meant.
void print_tools();

enum class tool_needs { nothing, manifest, logs };
tool_needs needs_of(const std::string& tool);
bool writes(const std::string& tool);
// Whether it changes files of the build.

int run_tool_alone(const command_line& line, const speaker& voice);
// One that needs nothing.
int run_tool(session& with);
// Both return the exit status and throw build_error.

} // namespace pmake
