// Names of variables as numbers.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>

namespace pmake {

enum class symbol : std::uint32_t {
  // What a rule may bind, in an order that rule::bindings relies on.
  command,
  depfile,
  deps,
  description,
  dyndep,
  generator,
  msvc_deps_prefix,
  pool,
  restat,
  rspfile,
  rspfile_content,
  // Others that mean something to the engine.
  in,
  in_newline,
  out,
  builddir,
  depth,
  ninja_required_version,
  ninja_dyndep_version,
  first_free
};

inline constexpr std::size_t rule_symbols = static_cast<std::size_t>(symbol::rspfile_content) + 1;

constexpr bool of_a_rule(symbol name) noexcept { return static_cast<std::size_t>(name) < rule_symbols; }

class symbol_table {
public:
  symbol_table() {
    for (std::string_view name :
         {"command", "depfile", "deps", "description", "dyndep", "generator", "msvc_deps_prefix", "pool",
          "restat", "rspfile", "rspfile_content", "in", "in_newline", "out", "builddir", "depth",
          "ninja_required_version", "ninja_dyndep_version"})
      number(name);
  }
  symbol_table(const symbol_table&) = delete;
  symbol_table& operator=(const symbol_table&) = delete;

  symbol number(std::string_view name) {
    if (auto known = numbers_.find(name); known != numbers_.end()) return known->second;
    auto next = static_cast<symbol>(names_.size());
    names_.emplace_back(name);
    numbers_.emplace(names_.back(), next);
    return next;
  }
  std::string_view name(symbol which) const { return names_[static_cast<std::size_t>(which)]; }

private:
  std::deque<std::string> names_; // which keep their places
  std::unordered_map<std::string_view, symbol> numbers_;
};

} // namespace pmake
