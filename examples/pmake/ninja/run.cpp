#include "run.hpp"

#include <chrono>
#include <cstdio>
#include <optional>
#include <string>

#include <unistd.h>

#include "disk.hpp"
#include "error.hpp"
#include "path.hpp"
#include "processors.hpp"
#include "session.hpp"
#include "tools.hpp"
#include "trace.hpp"
#include "tree_lock.hpp"

namespace pmake {

namespace {

class ninja_run {
public:
  ninja_run(const command_line& line, const executor_factory& make_executor)
      : line_(line), voice_(line.program), make_executor_(make_executor), shown_(terminal_, line.how) {
    if (!line.trace.empty()) trace_.emplace(line.trace);
  }

  int run() {
    if (!line_.folder.empty()) {
      // In the form that editors look for. A tool's output may be read by a program.
      if (line_.tool.empty() && line_.how != verbosity::quiet)
        voice_.info("Entering directory `" + line_.folder + "'");
      if (::chdir(line_.folder.c_str()) != 0)
        throw fatal_error("chdir to '" + line_.folder + "' - " + reason_text(errno));
    }
    if (!line_.tool.empty() && needs_of(line_.tool) == tool_needs::nothing)
      return run_tool_alone(line_, voice_);
    static constexpr int most_tries = 100;
    for (int tries = 0; tries < most_tries; ++tries)
      if (std::optional<int> status = with_manifest()) return *status;
    throw build_error("manifest '" + line_.manifest + "' still dirty after " + std::to_string(most_tries) +
                      " tries, perhaps system time is not set");
  }

private:
  template <class F> auto timed(const char* what, F&& action) {
    struct stopwatch {
      const char* name;
      bool wanted;
      std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
      ~stopwatch() {
        if (!wanted) return;
        std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
        std::printf("%-16s%8.1f ms\n", name, took.count());
      }
    } watch{what, line_.statistics};
    return action();
  }

  std::optional<int> with_manifest() {
    // None when the manifest has been made anew and has to be read again.
    session in = timed(".ninja parse", [&] { return session(line_, voice_); });
    bool writing = !line_.build.dry_run && (line_.tool.empty() || writes(line_.tool));
    std::optional<tree_lock> lock;
    if (!in.builddir.empty() && !line_.build.dry_run) make_builddir(in);
    if (writing)
      lock.emplace(in.builddir, [&] { voice_.info("waiting for another build in this directory"); });
    if (!line_.tool.empty() && needs_of(line_.tool) == tool_needs::manifest) return run_tool(in);
    timed("logs load", [&] { in.open_logs(); });
    if (!line_.tool.empty()) return run_tool(in);
    if (make_manifest(in)) {
      if (line_.build.dry_run) return 0; // it would go on for ever
      return std::nullopt;
    }
    return build(in);
  }

  void make_builddir(const session& in) {
    try {
      make_folders_of(in.builddir + "/.");
    } catch (const build_error& problem) {
      throw build_error("creating build directory " + in.builddir + ": " + problem.what());
    }
  }

  bool make_manifest(session& in) {
    std::string path = line_.manifest;
    canonicalize(path);
    node* manifest = in.files.find(path);
    if (manifest == nullptr) return false;
    try {
      build_options options = with_trace();
      builder maker(in.files, *in.log, *in.deps, options, explaining());
      maker.add(*manifest);
      if (maker.up_to_date()) return false;
      build_result made = run(maker);
      if (!made.complete) throw build_error(made.reason);
    } catch (const build_error& problem) {
      throw build_error("rebuilding '" + line_.manifest + "': " + problem.what());
    }
    if (manifest->dirty) return true;
    in.files.forget_state(); // with restat it may have been left as it was
    return false;
  }

  int build(session& in) {
    std::vector<node*> targets = targets_named(in, line_.targets);
    build_options options = with_trace();
    builder maker(in.files, *in.log, *in.deps, options, explaining());
    timed("look at files", [&] {
      for (node* each : targets) maker.add(*each);
    });
    if (maker.up_to_date()) {
      if (line_.how != verbosity::quiet) voice_.info("no work to do.");
      return 0;
    }
    build_result made = timed("build", [&] { return run(maker); });
    if (made.complete) return 0;
    voice_.info("build stopped: " + made.reason + ".");
    return made.interrupted ? 2 : 1;
  }

  build_result run(builder& maker) {
    if (line_.build.dry_run) {
      dry_executor none;
      return maker.run(none, shown_);
    }
    if (!signals_) signals_.emplace();
    if (!executor_)
      executor_ = make_executor_(
          {line_, *signals_,
           [this](const std::string& host, const std::string& what) {
             if (trace_) trace_->note(host, what);
           },
           [this](const std::string& text) { terminal_.lines(line_.program + ": " + text + "\n"); }});
    return maker.run(*executor_, shown_);
  }

  build_options with_trace() {
    build_options options = line_.build;
    if (options.parallel == 0) options.parallel = processors();
    if (trace_) options.on_finished = [this](const finished_job& done) { trace_->add(done); };
    return options;
  }

  explanation explaining() {
    if (!line_.explain) return {};
    return explanation(
        [](const std::string& text) { std::fprintf(stderr, "ninja explain: %s\n", text.c_str()); });
  }

  const command_line& line_;
  speaker voice_;
  const executor_factory& make_executor_;
  terminal terminal_;
  status shown_;
  std::optional<trace> trace_;
  std::optional<interruption> signals_;
  std::unique_ptr<executor> executor_;
};

} // namespace

int run_as_ninja(const command_line& line, const executor_factory& make_executor) {
  speaker voice(line.program);
  try {
    return ninja_run(line, make_executor).run();
  } catch (const fatal_error& problem) {
    voice.fatal(problem.what());
  } catch (const build_error& problem) {
    voice.error(problem.what());
  }
  return 1;
}

} // namespace pmake
