#include "manifest.hpp"

#include <cstdlib>
#include <utility>
#include <vector>

#include "disk.hpp"
#include "error.hpp"
#include "lexer.hpp"
#include "path.hpp"

namespace pmake {

namespace {

std::pair<int, int> version_numbers(std::string_view text) {
  std::string copy(text);
  std::size_t dot = copy.find('.');
  return {std::atoi(copy.c_str()), dot == copy.npos ? 0 : std::atoi(copy.c_str() + dot + 1)};
}

class manifest_reader {
public:
  manifest_reader(graph& into, const manifest_options& options,
                  const std::function<void(const std::string&)>& warn)
      : graph_(into), options_(options), warn_(warn) {}

  void read(const std::string& path, file_scope& scope, const lexer* includer) {
    if (depth_ > most_depth)
      throw includer->problem("'" + path + "' includes itself, or files are nested too deeply");
    ++depth_;
    file_text text = read_file(path);
    if (text.reason != 0) {
      std::string what = "loading '" + path + "': " + reason_text(text.reason);
      throw includer != nullptr ? includer->problem(what) : build_error(what);
    }
    std::size_t size = text.size;
    lexer words(graph_.memory.copy(path), graph_.memory.keep(std::move(text.bytes), size));
    for (;;) {
      token first = words.next();
      switch (first) {
      case token::pool: read_pool(words, scope); break;
      case token::build: read_statement(words, scope); break;
      case token::rule: read_rule(words, scope); break;
      case token::default_targets: read_default(words, scope); break;
      case token::identifier: {
        words.put_back();
        auto [name, raw] = read_let(words);
        std::string_view value = expanded(raw, scope);
        if (name == symbol::ninja_required_version) check_required_version(value, warn_);
        scope.bind(name, value);
        break;
      }
      case token::include: read_other(words, scope, scope); break;
      case token::subninja:
        read_other(words, scope, graph_.scopes.emplace_back(graph_.symbols, &scope));
        break;
      case token::error: throw words.word_problem();
      case token::end: --depth_; return;
      case token::newline: break;
      default: throw words.problem(std::string("unexpected ") + name_of(first));
      }
    }
  }

private:
  std::pair<symbol, raw_text> read_let(lexer& words) {
    std::string_view name;
    if (!words.identifier(name)) throw words.problem("expected variable name");
    words.expect(token::equals);
    return {graph_.symbols.number(name), words.value()};
  }

  std::string_view expanded(const raw_text& raw, const file_scope& scope, const edge* statement = nullptr) {
    // In a statement's paths its block comes first.
    if (raw.plain) return raw.text;
    scratch_.clear();
    for_each_piece(
        raw.text, [&](std::string_view text) { scratch_.append(text); },
        [&](std::string_view name) {
          symbol variable = graph_.symbols.number(name);
          const std::string_view* own = statement != nullptr ? statement->own(variable) : nullptr;
          scratch_.append(own != nullptr ? *own : scope.lookup(variable));
        });
    return graph_.memory.copy(scratch_);
  }

  std::string_view canonical(std::string_view path, const lexer& words) {
    if (path.empty()) throw words.problem("empty path");
    if (is_canonical(path)) return path;
    scratch_ = path;
    canonicalize(scratch_);
    return graph_.memory.copy(scratch_);
  }

  void read_pool(lexer& words, file_scope& scope) {
    std::string_view name;
    if (!words.identifier(name)) throw words.problem("expected pool name");
    words.expect(token::newline);
    if (graph_.find_pool(name) != nullptr) throw words.problem("duplicate pool '" + std::string(name) + "'");
    int depth = -1;
    while (words.peek(token::indent)) {
      auto [variable, raw] = read_let(words);
      if (variable != symbol::depth) throw unexpected(words, variable);
      depth = std::atoi(std::string(expanded(raw, scope)).c_str());
      if (depth < 0) throw words.problem("invalid pool depth");
    }
    if (depth < 0) throw words.problem("expected 'depth =' line");
    graph_.add_pool(name, depth);
  }

  build_error unexpected(const lexer& words, symbol variable) const {
    return words.problem("unexpected variable '" + std::string(graph_.symbols.name(variable)) + "'");
  }

  void read_rule(lexer& words, file_scope& scope) {
    std::string_view name;
    if (!words.identifier(name)) throw words.problem("expected rule name");
    words.expect(token::newline);
    if (scope.own_rule(name) != nullptr) throw words.problem("duplicate rule '" + std::string(name) + "'");
    rule& made = graph_.rules.emplace_back();
    made.name = name;
    while (words.peek(token::indent)) {
      auto [variable, raw] = read_let(words);
      if (!of_a_rule(variable)) throw unexpected(words, variable);
      text_template& pieces = made.bindings[static_cast<std::size_t>(variable)];
      pieces = {};
      for_each_piece(
          raw.text, [&](std::string_view text) { pieces.push_back(graph_.memory, {text}); },
          [&](std::string_view used) {
            pieces.push_back(graph_.memory, {{}, graph_.symbols.number(used)});
          });
      made.bound = static_cast<std::uint16_t>(made.bound | 1u << static_cast<unsigned>(variable));
    }
    auto has = [&](symbol variable) {
      const text_template* value = made.find(variable);
      return value != nullptr && !value->empty();
    };
    if (has(symbol::rspfile) != has(symbol::rspfile_content))
      throw words.problem("rspfile and rspfile_content need to be both specified");
    if (!has(symbol::command)) throw words.problem("expected 'command =' line");
    scope.add_rule(name, made);
  }

  void read_default(lexer& words, const file_scope& scope) {
    raw_text raw = words.path();
    if (raw.empty()) throw words.problem("expected target name");
    for (; !raw.empty(); raw = words.path()) {
      std::string_view path = canonical(expanded(raw, scope), words);
      node* target = graph_.find(path);
      if (target == nullptr) throw words.problem("unknown target '" + std::string(path) + "'");
      graph_.defaults.push_back(target);
    }
    words.expect(token::newline);
  }

  void read_other(lexer& words, const file_scope& here, file_scope& there) {
    raw_text raw = words.path();
    read(std::string(expanded(raw, here)), there, &words);
    words.expect(token::newline);
  }

  std::uint32_t read_paths(lexer& words) {
    std::uint32_t count = 0;
    for (raw_text raw = words.path(); !raw.empty(); raw = words.path(), ++count) paths_.push_back(raw);
    return count;
  }

  void read_statement(lexer& words, const file_scope& scope) {
    paths_.clear();
    std::uint32_t outputs = read_paths(words), implicit_outputs = 0;
    if (words.peek(token::bar)) implicit_outputs = read_paths(words);
    if (outputs + implicit_outputs == 0) throw words.problem("expected path");
    words.expect(token::colon);

    std::string_view rule_name;
    if (!words.identifier(rule_name)) throw words.problem("expected build command name");
    const rule* how = scope.find_rule(rule_name);
    if (how == nullptr) throw words.problem("unknown build rule '" + std::string(rule_name) + "'");

    std::uint32_t inputs = read_paths(words), implicit = 0, order_only = 0, validations = 0;
    if (words.peek(token::bar)) implicit = read_paths(words);
    if (words.peek(token::double_bar)) order_only = read_paths(words);
    if (words.peek(token::bar_at)) validations = read_paths(words);
    words.expect(token::newline);

    bindings_.clear();
    while (words.peek(token::indent)) {
      auto [name, raw] = read_let(words);
      bindings_.push_back({name, expanded(raw, scope)});
    }

    edge& made = graph_.add(*how, scope);
    if (!bindings_.empty()) {
      auto* block = graph_.memory.array<binding>(bindings_.size());
      std::copy(bindings_.begin(), bindings_.end(), block);
      made.bindings = block;
      made.binding_count = static_cast<std::uint32_t>(bindings_.size());
    }
    if (is_set(made, symbol::pool)) {
      std::string name = value_of(made, symbol::pool);
      made.in_pool = graph_.find_pool(name);
      if (made.in_pool == nullptr) throw words.problem("unknown pool name '" + name + "'");
    }

    const raw_text* path = paths_.data();
    auto next = [&]() -> node& {
      return graph_.file_kept(canonical(expanded(*path++, scope, &made), words));
    };
    made.implicit_outputs = implicit_outputs;
    for (std::uint32_t i = 0; i < outputs + implicit_outputs; ++i) {
      node& output = next();
      if (graph_.add_output(made, output)) continue;
      std::string name(output.path());
      if (options_.doubled_output_is_error) throw words.problem("multiple rules generate " + name);
      warn_("multiple rules generate " + name +
            ". builds involving this target will not be correct; continuing anyway");
      if (i >= outputs) --made.implicit_outputs;
    }
    if (made.outputs.empty()) { // others make all of them
      graph_.drop_last();
      return;
    }

    made.implicit_inputs = implicit;
    made.order_only = order_only;
    for (std::uint32_t i = 0; i < inputs + implicit + order_only; ++i) graph_.add_input(made, next());
    for (std::uint32_t i = 0; i < validations; ++i) made.validations.push_back(graph_.memory, &next());
    if (!options_.phony_cycle_is_error) drop_own_name(made);
    if (is_set(made, symbol::dyndep)) find_dyndep(made, words);
  }

  void drop_own_name(edge& made) {
    // CMake 2.8.12 and 3.0 wrote phony statements that name themselves.
    if (!made.phony() || made.outputs.size() != 1 || made.implicit_outputs != 0 || made.implicit_inputs != 0)
      return;
    node* output = made.outputs[0];
    bool found = false;
    for (std::uint32_t i = made.inputs.size(); i-- > 0;) {
      if (made.inputs[i] != output) continue;
      if (made.is_order_only(i)) --made.order_only;
      made.inputs.erase(i);
      found = true;
    }
    if (!found) return;
    for (std::uint32_t i = output->out.size(); i-- > 0;)
      if (output->out[i] == &made) output->out.erase(i);
    warn_("phony target '" + std::string(output->path()) +
          "' names itself as an input; ignoring [-w phonycycle=warn]");
  }

  void find_dyndep(edge& made, const lexer& words) {
    std::string path = value_of(made, symbol::dyndep, quoting::none);
    std::string named = path;
    canonicalize(path);
    made.dyndep = &graph_.file(path);
    made.dyndep->dyndep_pending = true;
    for (node* each : made.inputs)
      if (each == made.dyndep) return;
    throw words.problem("dyndep '" + named + "' is not an input");
  }

  static constexpr int most_depth = 1000;

  graph& graph_;
  const manifest_options& options_;
  const std::function<void(const std::string&)>& warn_;
  int depth_ = 0;
  std::string scratch_;
  std::vector<raw_text> paths_;
  std::vector<binding> bindings_;
};

} // namespace

void read_manifest(graph& into, const std::string& path, const manifest_options& options,
                   const std::function<void(const std::string&)>& warn) {
  manifest_reader(into, options, warn).read(path, into.scopes.front(), nullptr);
}

void check_required_version(std::string_view wanted, const std::function<void(const std::string&)>& warn) {
  auto have = version_numbers(ninja_version), want = version_numbers(wanted);
  std::string text(wanted);
  if (have.first > want.first)
    warn("ninja executable version (" + std::string(ninja_version) +
         ") greater than build file ninja_required_version (" + text + "); versions may be incompatible.");
  else if (have < want)
    throw fatal_error("ninja version (" + std::string(ninja_version) +
                      ") incompatible with build file ninja_required_version version (" + text + ").");
}

} // namespace pmake
