#include "dyndep.hpp"

#include <cstdlib>
#include <string_view>

#include "disk.hpp"
#include "error.hpp"
#include "lexer.hpp"
#include "path.hpp"

namespace pmake {

namespace {

class dyndep_reader {
public:
  dyndep_reader(graph& into, const std::string& path, std::string_view text)
      : graph_(into), scope_(into.symbols, nullptr), words_(path, text) {}

  dyndep_entries read() {
    bool versioned = false;
    for (;;) {
      token first = words_.next();
      switch (first) {
      case token::build:
        if (!versioned) throw no_version();
        read_statement();
        break;
      case token::identifier:
        words_.put_back();
        if (versioned) throw words_.problem(std::string("unexpected ") + name_of(first));
        read_version();
        versioned = true;
        break;
      case token::error: throw words_.word_problem();
      case token::end:
        if (!versioned) throw no_version();
        return std::move(entries_);
      case token::newline: break;
      default: throw words_.problem(std::string("unexpected ") + name_of(first));
      }
    }
  }

private:
  build_error no_version() const { return words_.problem("expected 'ninja_dyndep_version = ...'"); }

  std::pair<symbol, std::string> read_let() {
    std::string_view name;
    if (!words_.identifier(name)) throw words_.problem("expected variable name");
    words_.expect(token::equals);
    symbol number = graph_.symbols.number(name);
    return {number, expanded(words_.value())};
  }

  std::string expanded(const raw_text& raw) {
    std::string text;
    for_each_piece(
        raw.text, [&](std::string_view part) { text.append(part); },
        [&](std::string_view name) { text.append(scope_.lookup(graph_.symbols.number(name))); });
    return text;
  }

  void read_version() {
    auto [name, value] = read_let();
    if (name != symbol::ninja_dyndep_version) throw no_version();
    std::size_t dot = value.find('.');
    int major = std::atoi(value.c_str()), minor = dot == value.npos ? 0 : std::atoi(value.c_str() + dot + 1);
    if (major != 1 || minor != 0) throw words_.problem("unsupported 'ninja_dyndep_version = " + value + "'");
  }

  std::string path_of(const raw_text& raw) {
    std::string path = expanded(raw);
    if (path.empty()) throw words_.problem("empty path");
    canonicalize(path);
    return path;
  }

  std::vector<raw_text> read_paths() {
    std::vector<raw_text> found;
    for (raw_text raw = words_.path(); !raw.empty(); raw = words_.path()) found.push_back(raw);
    return found;
  }

  void read_statement() {
    raw_text raw = words_.path();
    if (raw.empty()) throw words_.problem("expected path");
    std::string path = path_of(raw);
    node* output = graph_.find(path);
    if (output == nullptr || output->in == nullptr)
      throw words_.problem("no build statement exists for '" + path + "'");
    auto [at, fresh] = entries_.try_emplace(output->in);
    if (!fresh) throw words_.problem("multiple statements for '" + path + "'");
    if (!words_.path().empty()) throw words_.problem("explicit outputs not supported");
    std::vector<raw_text> outputs, inputs;
    if (words_.peek(token::bar)) outputs = read_paths();
    words_.expect(token::colon);
    std::string_view rule_name;
    if (!words_.identifier(rule_name) || rule_name != "dyndep")
      throw words_.problem("expected build command name 'dyndep'");
    if (!words_.path().empty()) throw words_.problem("explicit inputs not supported");
    if (words_.peek(token::bar)) inputs = read_paths();
    if (words_.peek(token::double_bar)) throw words_.problem("order-only inputs not supported");
    words_.expect(token::newline);
    if (words_.peek(token::indent)) {
      auto [name, value] = read_let();
      if (name != symbol::restat) throw words_.problem("binding is not 'restat'");
      at->second.restat = !value.empty();
    }
    for (const raw_text& each : outputs) at->second.outputs.push_back(&graph_.file(path_of(each)));
    for (const raw_text& each : inputs) at->second.inputs.push_back(&graph_.file(path_of(each)));
  }

  graph& graph_;
  file_scope scope_;
  lexer words_;
  dyndep_entries entries_;
};

void add(graph& into, edge& to, const dyndep_entry& found) {
  if (found.restat) {
    auto* block = into.memory.array<binding>(to.binding_count + 1);
    std::copy(to.bindings, to.bindings + to.binding_count, block);
    block[to.binding_count++] = {symbol::restat, "1"};
    to.bindings = block;
  }
  for (node* output : found.outputs) {
    if (!into.add_output(to, *output))
      throw build_error("multiple rules generate " + std::string(output->path()));
    ++to.implicit_outputs;
  }
  into.add_discovered(to, found.inputs);
}

} // namespace

dyndep_entries load_dyndep(graph& into, node& file) {
  file.dyndep_pending = false;
  std::string path(file.path());
  file_text text = read_file(path);
  if (text.reason != 0) throw build_error("loading '" + path + "': " + reason_text(text.reason));
  dyndep_entries entries = dyndep_reader(into, path, text.view()).read();
  for (edge* each : file.out) {
    if (each->dyndep != &file) continue;
    auto found = entries.find(each);
    if (found == entries.end())
      throw build_error("'" + std::string(each->outputs[0]->path()) + "' not mentioned in its dyndep file '" +
                        path + "'");
  }
  for (const auto& [statement, entry] : entries)
    if (statement->dyndep != &file)
      throw build_error("dyndep file '" + path + "' mentions output '" +
                        std::string(statement->outputs[0]->path()) +
                        "' whose build statement does not have a dyndep binding for the file");
  for (const auto& [statement, entry] : entries) add(into, *statement, entry);
  return entries;
}

} // namespace pmake
