// The graph of a manifest: files, build statements, rules and pools.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "arena.hpp"
#include "scope.hpp"
#include "symbols.hpp"

namespace pmake {

using file_time = std::int64_t;
// Nanoseconds since 1970.
inline constexpr file_time not_looked_at = -1;
inline constexpr file_time missing = 0;

struct edge;
struct log_entry;

struct node {
  // A file, or the name that a phony statement gives to others.
  const char* text = nullptr;
  std::uint32_t size = 0;
  std::int32_t deps_id = -1; // its number in the log of deps
  file_time time = not_looked_at;
  edge* in = nullptr; // the statement that makes it
  arena_list<edge*> out;
  log_entry* logged = nullptr;
  std::uint32_t id = 0; // in the order in which they were first named
  bool exists = false;
  bool dirty = false;
  bool dyndep_pending = false; // it is to be read as a dyndep file
  bool from_deps = false;      // only a depfile or the log of deps named it: it may be missing
  std::uint8_t target_visit = 0;

  std::string_view path() const noexcept { return {text, size}; }
};

struct rule {
  std::string_view name;
  text_template bindings[rule_symbols];
  std::uint16_t bound = 0; // a bit for each
  bool phony = false;

  const text_template* find(symbol which) const noexcept {
    if (!of_a_rule(which)) return nullptr;
    auto index = static_cast<std::size_t>(which);
    return (bound >> index & 1) != 0 ? &bindings[index] : nullptr;
  }
};

struct pool {
  std::string_view name;
  int depth = 0; // 0: as many as there are
  int in_use = 0;
  std::vector<edge*> delayed;
};

enum class visit : std::uint8_t { none, on_stack, done };
enum class want : std::uint8_t {
  not_in_plan,
  nothing,   // it is up to date, but what it waits for is not
  to_pass,   // the same, and nothing is left to wait for
  to_start,  // it will run
  to_finish, // it may run or does
};

struct edge {
  // A build statement.
  const rule* how = nullptr;
  const file_scope* file = nullptr;
  const binding* bindings = nullptr; // its block
  pool* in_pool = nullptr;
  node* dyndep = nullptr;
  arena_list<node*> outputs; // explicit, implicit
  arena_list<node*> inputs;  // explicit, implicit, order-only
  arena_list<node*> validations;
  std::uint32_t binding_count = 0;
  std::uint32_t implicit_outputs = 0;
  std::uint32_t implicit_inputs = 0, order_only = 0;
  std::uint32_t id = 0;
  visit mark = visit::none;
  want wanted = want::not_in_plan;
  bool outputs_ready = false;
  bool deps_loaded = false;
  bool deps_missing = false;
  file_time start_time = 0;  // by the clock of the file system
  std::int64_t priority = 0; // milliseconds until the end of the build at best

  bool phony() const noexcept { return how->phony; }
  std::uint32_t explicit_inputs() const noexcept { return inputs.size() - implicit_inputs - order_only; }
  std::uint32_t real_inputs() const noexcept { return inputs.size() - order_only; }
  bool is_implicit(std::uint32_t index) const noexcept {
    return index >= explicit_inputs() && index < real_inputs();
  }
  bool is_order_only(std::uint32_t index) const noexcept { return index >= real_inputs(); }
  bool on_console() const noexcept;

  const std::string_view* own(symbol name) const noexcept {
    for (std::uint32_t i = binding_count; i-- > 0;)
      if (bindings[i].name == name) return &bindings[i].value;
    return nullptr;
  }
};

class graph {
public:
  graph();
  graph(const graph&) = delete;
  graph& operator=(const graph&) = delete;

  node& file(std::string_view path);
  // Of that name, which is canonical: known or new.
  node& file_kept(std::string_view path);
  // The same for text that lives as long as the graph.
  node* find(std::string_view path) const noexcept;

  edge& add(const rule& how, const file_scope& where);
  void drop_last() noexcept;
  // The statement added last, which nothing points to.

  bool add_output(edge& to, node& what);
  // False when another statement makes it.
  void add_input(edge& to, node& what);
  void add_discovered(edge& to, const std::vector<node*>& implicit);
  // Inputs that a depfile, the log of deps or a dyndep file names.

  pool* find_pool(std::string_view name) noexcept;
  pool& add_pool(std::string_view name, int depth);

  std::vector<node*> roots() const;
  // Outputs that are no inputs.
  std::vector<node*> default_targets() const;
  // Those of the manifest's `default` statements, or else the roots; throws build_error when all are on cycles.

  void forget_state() noexcept;
  // As if no file had been looked at.

  arena memory;
  symbol_table symbols;
  std::vector<node*> nodes;
  std::vector<edge*> edges;
  std::deque<file_scope> scopes; // the first is the manifest's
  std::deque<rule> rules;
  std::map<std::string_view, pool> pools;
  std::vector<node*> defaults;

private:
  struct slot {
    std::uint32_t hash = 0;
    std::uint32_t number = 0; // of the node, from 1
  };
  node& intern(std::string_view path, bool kept);
  void grow();

  std::vector<slot> slots_;
};

enum class quoting { shell, none };

std::string value_of(const edge& of, symbol name, quoting files = quoting::shell);
void append_value(std::string& to, const edge& of, symbol name, quoting files = quoting::shell);
// With everything expanded; files in $in and $out are quoted as told. Throws fatal_error when a rule's variables
// refer to each other in a circle.
bool is_set(const edge& of, symbol name);
// Bound to more than nothing.

void append_hashed_command(std::string& to, const edge& of);
// The command, and with it what stands in its response file: what a log of builds remembers.

} // namespace pmake
