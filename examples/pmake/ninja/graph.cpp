#include "graph.hpp"

#include <algorithm>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "error.hpp"
#include "path.hpp"

namespace pmake {

namespace {

std::uint32_t hash_of(std::string_view path) noexcept {
  return static_cast<std::uint32_t>(XXH3_64bits(path.data(), path.size()));
}

class expansion {
  // The values of variables in the scope of a statement.
public:
  expansion(const edge& of, quoting files) noexcept : edge_(of), files_(files) {}

  void append(std::string& to, symbol name) {
    switch (name) {
    case symbol::in: return append_files(to, edge_.inputs.begin(), edge_.explicit_inputs(), ' ');
    case symbol::in_newline: return append_files(to, edge_.inputs.begin(), edge_.explicit_inputs(), '\n');
    case symbol::out:
      return append_files(to, edge_.outputs.begin(), edge_.outputs.size() - edge_.implicit_outputs, ' ');
    default: break;
    }
    if (const std::string_view* value = before_the_rule(edge_, name))
      to.append(*value);
    else if (const text_template* late = edge_.how->find(name))
      append_late(to, name, *late);
    else
      to.append(edge_.file->lookup(name));
  }

  static const std::string_view* before_the_rule(const edge& of, symbol name) noexcept {
    if (const std::string_view* value = of.own(name)) return value;
    // As in Ninja, the file's own variables hide the rule's when the statement has no block.
    return of.binding_count == 0 ? of.file->own(name) : nullptr;
  }

private:
  void append_files(std::string& to, node* const* files, std::uint32_t count, char between) const {
    for (std::uint32_t i = 0; i < count; ++i) {
      if (i > 0) to.push_back(between);
      if (files_ == quoting::shell)
        append_shell_quoted(to, files[i]->path());
      else
        to.append(files[i]->path());
    }
  }

  void append_late(std::string& to, symbol name, const text_template& late) {
    for (const open* each = innermost_; each != nullptr; each = each->outer)
      if (each->name == name) throw fatal_error("cycle in rule variables: " + circle(name));
    open inner{name, innermost_};
    innermost_ = &inner;
    for (const piece& each : late) {
      if (!each.text.empty())
        to.append(each.text);
      else
        append(to, each.variable);
    }
    innermost_ = inner.outer;
  }

  std::string circle(symbol again) const {
    const symbol_table& names = edge_.file->names();
    std::string text(names.name(again));
    for (const open* each = innermost_;; each = each->outer) {
      text.insert(0, std::string(names.name(each->name)) + " -> ");
      if (each->name == again) return text;
    }
  }

  struct open {
    symbol name;
    const open* outer;
  };

  const edge& edge_;
  quoting files_;
  const open* innermost_ = nullptr;
};

} // namespace

void append_value(std::string& to, const edge& of, symbol name, quoting files) {
  expansion(of, files).append(to, name);
}

std::string value_of(const edge& of, symbol name, quoting files) {
  std::string value;
  append_value(value, of, name, files);
  return value;
}

bool is_set(const edge& of, symbol name) {
  if (const std::string_view* value = expansion::before_the_rule(of, name)) return !value->empty();
  if (of.how->find(name) == nullptr) return !of.file->lookup(name).empty();
  return !value_of(of, name).empty();
}

void append_hashed_command(std::string& to, const edge& of) {
  append_value(to, of, symbol::command);
  if (!is_set(of, symbol::rspfile_content)) return;
  to.append(";rspfile=");
  append_value(to, of, symbol::rspfile_content);
}

bool edge::on_console() const noexcept { return in_pool != nullptr && in_pool->name == "console"; }

graph::graph() {
  slots_.resize(1024);
  scopes.emplace_back(symbols, nullptr);
  rule& phony = rules.emplace_back();
  phony.name = "phony";
  phony.phony = true;
  scopes.front().add_rule(phony.name, phony);
  add_pool("", 0);
  add_pool("console", 1);
}

// ---- files

node& graph::file(std::string_view path) { return intern(path, false); }
node& graph::file_kept(std::string_view path) { return intern(path, true); }

node* graph::find(std::string_view path) const noexcept {
  std::uint32_t hash = hash_of(path);
  for (std::size_t at = hash & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
    const slot& here = slots_[at];
    if (here.number == 0) return nullptr;
    if (here.hash == hash && nodes[here.number - 1]->path() == path) return nodes[here.number - 1];
  }
}

node& graph::intern(std::string_view path, bool kept) {
  std::uint32_t hash = hash_of(path);
  std::size_t at = hash & (slots_.size() - 1);
  for (; slots_[at].number != 0; at = (at + 1) & (slots_.size() - 1))
    if (slots_[at].hash == hash && nodes[slots_[at].number - 1]->path() == path)
      return *nodes[slots_[at].number - 1];
  node* made = memory.make<node>();
  std::string_view text = kept ? path : memory.copy(path);
  made->text = text.data();
  made->size = static_cast<std::uint32_t>(text.size());
  made->id = static_cast<std::uint32_t>(nodes.size());
  nodes.push_back(made);
  slots_[at] = {hash, static_cast<std::uint32_t>(nodes.size())};
  if (nodes.size() * 2 > slots_.size()) grow();
  return *made;
}

void graph::grow() {
  std::vector<slot> old(slots_.size() * 2);
  old.swap(slots_);
  for (const slot& each : old) {
    if (each.number == 0) continue;
    std::size_t at = each.hash & (slots_.size() - 1);
    while (slots_[at].number != 0) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = each;
  }
}

// ---- statements

edge& graph::add(const rule& how, const file_scope& where) {
  edge* made = memory.make<edge>();
  made->how = &how;
  made->file = &where;
  made->in_pool = &pools.at("");
  made->id = static_cast<std::uint32_t>(edges.size());
  edges.push_back(made);
  return *made;
}

void graph::drop_last() noexcept { edges.pop_back(); }

bool graph::add_output(edge& to, node& what) {
  if (what.in != nullptr) return false;
  what.in = &to;
  to.outputs.push_back(memory, &what);
  return true;
}

void graph::add_input(edge& to, node& what) {
  to.inputs.push_back(memory, &what);
  what.out.push_back(memory, &to);
}

void graph::add_discovered(edge& to, const std::vector<node*>& implicit) {
  auto count = static_cast<std::uint32_t>(implicit.size());
  to.inputs.insert(memory, to.real_inputs(), implicit.data(), count);
  to.implicit_inputs += count;
  for (node* each : implicit) each->out.push_back(memory, &to);
}

// ---- pools

pool* graph::find_pool(std::string_view name) noexcept {
  auto found = pools.find(name);
  return found == pools.end() ? nullptr : &found->second;
}

pool& graph::add_pool(std::string_view name, int depth) {
  pool& made = pools[name];
  made.name = name;
  made.depth = depth;
  return made;
}

// ---- targets

std::vector<node*> graph::roots() const {
  std::vector<node*> found;
  for (const edge* each : edges)
    for (node* output : each->outputs)
      if (output->out.empty()) found.push_back(output);
  if (found.empty() && !edges.empty()) throw build_error("could not determine root nodes of build graph");
  return found;
}

std::vector<node*> graph::default_targets() const { return defaults.empty() ? roots() : defaults; }

void graph::forget_state() noexcept {
  for (node* each : nodes) {
    each->time = not_looked_at;
    each->exists = each->dirty = false;
  }
  for (edge* each : edges) {
    each->outputs_ready = each->deps_loaded = each->deps_missing = false;
    each->mark = visit::none;
    each->wanted = want::not_in_plan;
  }
  for (auto& [name, each] : pools) {
    each.in_use = 0;
    each.delayed.clear();
  }
}

} // namespace pmake
