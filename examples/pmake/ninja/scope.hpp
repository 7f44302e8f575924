// What a name stands for at a place in a manifest.
#pragma once

#include <string_view>
#include <unordered_map>

#include "arena.hpp"
#include "symbols.hpp"

namespace pmake {

struct rule;

struct piece {
  std::string_view text; // verbatim, when it is not empty
  symbol variable = {};  // else the value of this
};

using text_template = arena_list<piece>;
// The right side of a rule's binding: expanded anew for each build statement that uses the rule.

struct binding {
  symbol name;
  std::string_view value;
};

class file_scope {
  // The variables and rules of a file: the manifest, or a subninja, which sees those of the file that includes it.
public:
  file_scope(const symbol_table& names, const file_scope* parent) noexcept : names_(names), parent_(parent) {}
  file_scope(const file_scope&) = delete;
  file_scope& operator=(const file_scope&) = delete;

  const symbol_table& names() const noexcept { return names_; }
  const file_scope* parent() const noexcept { return parent_; }

  void bind(symbol name, std::string_view value) { variables_[name] = value; }
  const std::string_view* own(symbol name) const noexcept {
    auto found = variables_.find(name);
    return found == variables_.end() ? nullptr : &found->second;
  }
  std::string_view lookup(symbol name) const noexcept {
    for (const file_scope* each = this; each != nullptr; each = each->parent_)
      if (const std::string_view* value = each->own(name)) return *value;
    return {};
  }

  void add_rule(std::string_view name, const rule& what) { rules_.emplace(name, &what); }
  const rule* own_rule(std::string_view name) const noexcept {
    auto found = rules_.find(name);
    return found == rules_.end() ? nullptr : found->second;
  }
  const rule* find_rule(std::string_view name) const noexcept {
    for (const file_scope* each = this; each != nullptr; each = each->parent_)
      if (const rule* found = each->own_rule(name)) return found;
    return nullptr;
  }
  const std::unordered_map<std::string_view, const rule*>& rules() const noexcept { return rules_; }

private:
  const symbol_table& names_;
  const file_scope* parent_;
  std::unordered_map<symbol, std::string_view> variables_;
  std::unordered_map<std::string_view, const rule*> rules_;
};

} // namespace pmake
