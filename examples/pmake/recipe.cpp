#include "recipe.hpp"

#include <exception>

namespace pmake {

int run_recipe(const std::string& name, recipe_call& call) {
  auto found = recipe::all().find(name);
  if (found == recipe::all().end()) {
    call.print("pmake-task: there is no function '" + name + "'\n");
    return 127;
  }
  try {
    return found->second(call);
  } catch (const std::exception& problem) {
    call.print(name + ": " + problem.what() + "\n");
    return 1;
  }
}

} // namespace pmake
