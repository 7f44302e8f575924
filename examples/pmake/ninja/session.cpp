#include "session.hpp"

#include <cstdio>

#include "disk.hpp"
#include "error.hpp"
#include "path.hpp"
#include "spelling.hpp"

namespace pmake {

void speaker::say(std::FILE* to, const char* kind, const std::string& text) const {
  std::fflush(stdout);
  std::fprintf(to, "%s: %s%s\n", program_.c_str(), kind, text.c_str());
  std::fflush(to);
}

void speaker::info(const std::string& text) const { say(stdout, "", text); }
void speaker::warning(const std::string& text) const { say(stderr, "warning: ", text); }
void speaker::error(const std::string& text) const { say(stderr, "error: ", text); }
void speaker::fatal(const std::string& text) const { say(stderr, "fatal: ", text); }

session::session(const command_line& as, const speaker& with) : line(as), voice(with) {
  read_manifest(files, as.manifest, as.reading, [&](const std::string& text) { voice.warning(text); });
  builddir = files.scopes.front().lookup(symbol::builddir);
  log = std::make_unique<build_log>(files, in_builddir(".ninja_log"));
  deps = std::make_unique<deps_log>(files, in_builddir(".ninja_deps"));
}

std::string session::in_builddir(const char* name) const {
  return builddir.empty() ? std::string(name) : builddir + "/" + name;
}

void session::open_logs() {
  auto warn = [&](const std::string& text) { voice.warning(text); };
  log->load(warn);
  deps->load(warn);
  if (line.build.dry_run) return;
  if (log->bloated()) log->recompact();
  if (deps->bloated()) deps->recompact();
}

node& target_named(session& in, std::string name) {
  canonicalize(name);
  if (name.empty()) throw build_error("empty path");
  bool made_of_it = name.back() == '^';
  if (made_of_it) name.pop_back();
  node* found = in.files.find(name);
  if (found == nullptr) {
    std::string text = "unknown target '" + name + (made_of_it ? "^" : "") + "'";
    if (name == "clean") throw build_error(text + ", did you mean 'ninja -t clean'?");
    if (name == "help") throw build_error(text + ", did you mean 'ninja -h'?");
    nearest_word near(name);
    for (const node* each : in.files.nodes) near.offer(each->path());
    throw build_error(text + near.hint());
  }
  if (!made_of_it) return *found;
  if (!found->out.empty()) return *found->out[0]->outputs[0];
  for (node* output : in.deps->files()) { // a header, of which only a log knows
    const deps_log::record_of* logged = in.deps->find(*output);
    if (logged == nullptr) continue;
    for (std::uint32_t i = 0; i < logged->count; ++i)
      if (&in.deps->file(logged->numbers[i]) == found) return *output;
  }
  throw build_error("'" + name + "' has no out edge");
}

std::vector<node*> targets_named(session& in, const std::vector<std::string>& names) {
  if (names.empty()) return in.files.default_targets();
  std::vector<node*> found;
  for (const std::string& each : names) found.push_back(&target_named(in, each));
  return found;
}

} // namespace pmake
