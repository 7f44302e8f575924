// Recipes that are functions of a program of its own: such a program is a pmake, with functions that its manifests and
// makefiles may call.
//
//   #include <recipe.hpp>
//   const pmake::recipe squeeze("squeeze", [](pmake::recipe_call& call) { ...; return 0; });
//   int main(int argc, char** argv) { return pmake::run(argc, argv); }
//
// A command `pmake-task squeeze ARGUMENT...` then calls the function, as a task of the library: away from home when there
// is a host for it. It moves on by itself when its host is taken back, like any task.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace pmake {

struct recipe_call {
  std::vector<std::string> arguments;
  std::string folder;  // in which the build runs; a node has another one
  std::string printed; // shown when the function has ended

  std::string path(const std::string& name) const {
    return name.empty() || name[0] == '/' ? name : folder + "/" + name;
  }
  void print(const std::string& text) { printed += text; }
};

using recipe_function = int (*)(recipe_call&);
// Returns the exit status. An exception is status 1, and its message is shown. It must leave nothing half-written: it may
// be run a second time, from its beginning, when its host has died.

class recipe {
public:
  recipe(const char* name, recipe_function function) { all()[name] = function; }

  static std::map<std::string, recipe_function>& all() {
    static std::map<std::string, recipe_function> recipes;
    return recipes;
  }
};
// At namespace scope, so that all nodes have it.

int run_recipe(const std::string& name, recipe_call& call);
// 127 when there is none of that name.

int run(int argc, char** argv);
// What main returns: pmake's whole program.

} // namespace pmake
