// -t clean and -t cleandead.
#include <cstdio>
#include <string>
#include <unordered_set>

#include "disk.hpp"
#include "error.hpp"
#include "tool_functions.hpp"

namespace pmake {

namespace {

class cleaner {
public:
  explicit cleaner(session& with) : with_(with) {
    const command_line& line = with.line;
    verbose_ = line.how == verbosity::verbose || line.build.dry_run;
    if (line.how == verbosity::quiet) return;
    std::printf("Cleaning...%s", verbose_ ? "\n" : " ");
    std::fflush(stdout);
  }
  ~cleaner() {
    if (with_.line.how != verbosity::quiet) std::printf("%zu files.\n", count_);
  }
  cleaner(const cleaner&) = delete;
  cleaner& operator=(const cleaner&) = delete;

  void remove(const std::string& path) {
    if (path.empty() || !seen_.insert(path).second) return;
    try {
      bool there = with_.line.build.dry_run ? time_of(path) != missing : remove_file(path);
      if (!there) return;
      ++count_;
      if (verbose_) std::printf("Remove %s\n", path.c_str());
    } catch (const build_error& problem) {
      with_.voice.error(problem.what());
      status_ = 1;
    }
  }

  void remove_made_by(const edge& what) {
    for (const node* output : what.outputs) remove(std::string(output->path()));
    remove_beside(what);
  }

  void remove_beside(const edge& what) {
    remove(value_of(what, symbol::depfile, quoting::none));
    remove(value_of(what, symbol::rspfile, quoting::none));
  }

  void all(bool generated_too) {
    for (const edge* each : with_.files.edges)
      if (!each->phony() && (generated_too || !is_set(*each, symbol::generator))) remove_made_by(*each);
  }

  void target(const std::string& name) {
    node* first;
    try {
      first = &target_named(with_, name);
    } catch (const build_error&) {
      with_.voice.error("unknown target '" + name + "'");
      status_ = 1;
      return;
    }
    if (verbose_) std::printf("Target %s\n", name.c_str());
    std::vector<node*> next{first};
    while (!next.empty()) {
      node& file = *next.back();
      next.pop_back();
      if (!visited_.insert(&file).second || file.in == nullptr) continue;
      if (!file.in->phony()) {
        remove(std::string(file.path()));
        remove_beside(*file.in);
      }
      for (node* input : file.in->inputs) next.push_back(input);
    }
  }

  void rule(const std::string& name) {
    bool known = false;
    for (const auto& scope : with_.files.scopes) known = known || scope.own_rule(name) != nullptr;
    if (!known) {
      with_.voice.error("unknown rule '" + name + "'");
      status_ = 1;
      return;
    }
    if (verbose_) std::printf("Rule %s\n", name.c_str());
    for (const edge* each : with_.files.edges)
      if (each->how->name == name) remove_made_by(*each);
  }

  int status() const noexcept { return status_; }

private:
  session& with_;
  bool verbose_ = false;
  int status_ = 0;
  std::size_t count_ = 0;
  std::unordered_set<std::string> seen_;
  std::unordered_set<node*> visited_;
};

} // namespace

int tool_clean(session& with) {
  bool generated_too = false, rules = false;
  std::vector<std::string> names;
  for (const std::string& each : with.line.tool_arguments) {
    if (each == "-g") {
      generated_too = true;
    } else if (each == "-r") {
      rules = true;
    } else if (each.size() > 1 && each[0] == '-') {
      std::printf("usage: ninja -t clean [options] [targets]\n\noptions:\n"
                  "  -g     also clean files marked as ninja generator output\n"
                  "  -r     interpret targets as a list of rules to clean instead\n");
      return 1;
    } else {
      names.push_back(each);
    }
  }
  if (rules && names.empty()) throw build_error("expected a rule to clean");
  load_known_dyndeps(with);
  cleaner clean(with);
  for (const std::string& each : names) rules ? clean.rule(each) : clean.target(each);
  if (names.empty()) clean.all(generated_too);
  return clean.status();
}

int tool_cleandead(session& with) {
  cleaner clean(with);
  for (const log_entry* each : with.log->entries()) {
    node* known = with.files.find(each->output);
    if (known == nullptr || (known->in == nullptr && known->out.empty()))
      clean.remove(std::string(each->output));
  }
  return clean.status();
}

} // namespace pmake
