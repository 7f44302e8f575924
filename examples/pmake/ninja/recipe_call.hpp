// Commands that are functions of this program (see recipe.hpp): pmake-task NAME ARGUMENT...
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pmake {

inline constexpr const char* recipe_program = "pmake-task";

std::vector<std::string> recipe_words(std::string_view command);
// The name and the arguments. Empty when it is another command, or one that needs a shell.

std::vector<std::string> command_words(const std::string& command);
// What to execute for it on this machine: a shell, or this program again for the sake of one function.

} // namespace pmake
