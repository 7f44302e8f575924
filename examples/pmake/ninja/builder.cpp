#include "builder.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "depfile.hpp"
#include "disk.hpp"
#include "error.hpp"
#include "murmur.hpp"
#include "partial_outputs.hpp"
#include "show_includes.hpp"

namespace pmake {

builder::builder(graph& of, build_log& log, deps_log& deps, const build_options& options, explanation explain)
    : graph_(of), log_(log), deps_(deps), options_(options), scan_(of, log, deps, std::move(explain)),
      plan_(of, scan_) {}

builder::clock_file::~clock_file() {
  if (fd >= 0) ::close(fd);
}

void builder::add(node& target) {
  std::vector<node*> validations;
  scan_.look_at(target, validations);
  if (target.in == nullptr || !target.in->outputs_ready) plan_.add(target);
  for (std::size_t i = 0; i < validations.size(); ++i) { // which may have their own
    node& each = *validations[i];
    scan_.look_at(each, validations);
    if (each.in != nullptr && !each.in->outputs_ready) plan_.add(each);
  }
}

build_result builder::run(executor& on, status& shown) {
  std::size_t failures_left = options_.failures_allowed;
  std::size_t running = 0;
  begin_ = std::chrono::steady_clock::now();
  shown.total(plan_.commands());
  shown.begin(options_.parallel);
  try {
    plan_.begin();
    held_.clear();
    while (plan_.more_to_do()) {
      if (failures_left > 0) {
        if (start_one(on, shown)) {
          ++running;
          continue;
        }
        if (take_next(on)) continue;
      }
      if (running == 0) break;
      finished_job done;
      event what = on.wait_any(done);
      if (what == event::room) continue;
      if (what == event::interrupted || done.how == outcome::interrupted) {
        if (what == event::finished) remove_partial(*done.what);
        stop(on);
        shown.end();
        return {false, true, "interrupted by user"};
      }
      --running;
      finish(done, on, shown);
      if (done.how != outcome::succeeded && failures_left > 0) --failures_left;
    }
  } catch (...) {
    stop(on);
    shown.end();
    throw;
  }
  shown.end();
  if (!plan_.more_to_do()) return {};
  if (failures_left == 0)
    return {false, false, options_.failures_allowed > 1 ? "subcommands failed" : "subcommand failed"};
  if (failures_left < options_.failures_allowed)
    return {false, false, "cannot make progress due to previous errors"};
  return {false, false, "stuck [this is a bug]"};
}

bool builder::start_one(executor& on, status& shown) {
  // The first of those held back for which there is room.
  bool room_here = true, room_there = true;
  for (std::size_t i = 0; i < held_.size(); ++i) {
    bool& room = held_[i].may_leave ? room_there : room_here;
    room = room && on.can_start(held_[i].may_leave);
    if (!room) continue;
    next_edge next = held_[i];
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(i));
    start(next, on, shown);
    return true;
  }
  return false;
}

bool builder::take_next(executor& on) {
  // One that stays here shall not keep back those behind it that could leave.
  static constexpr std::size_t most_held = 64;
  if (!held_.empty() && (held_.size() >= most_held || !on.can_start(true))) return false;
  edge* next = plan_.next();
  if (next == nullptr) return false;
  if (next->phony())
    plan_.succeeded(*next);
  else
    held_.push_back({next, on.may_leave(*next)});
  return true;
}

file_time builder::clock_of_disk() {
  // What time a file would get that is written now. A network file system has a clock of its own.
  if (clock_.fd < 0) {
    std::string folder(graph_.scopes.front().lookup(symbol::builddir));
    std::string path = folder.empty() ? ".pmake_clock" : folder + "/.pmake_clock";
    make_folders_of(path);
    clock_.fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    ::unlink(path.c_str());
  }
  struct stat now;
  if (clock_.fd < 0 || ::futimens(clock_.fd, nullptr) != 0 || ::fstat(clock_.fd, &now) != 0) return missing;
  return file_time{now.st_mtim.tv_sec} * 1'000'000'000 + now.st_mtim.tv_nsec;
}

void builder::start(const next_edge& next, executor& on, status& shown) {
  edge& what = *next.what;
  // The command may use the log itself: CMake's does, to bring it up to date.
  if (is_set(what, symbol::generator)) log_.close();
  shown.started(what);
  if (!options_.dry_run) {
    for (node* output : what.outputs) make_folders_of(output->path());
    what.start_time = clock_of_disk();
    std::string response = value_of(what, symbol::rspfile, quoting::none);
    if (!response.empty()) write_file(response, value_of(what, symbol::rspfile_content));
  }
  on.start({&what, value_of(what, symbol::command), what.on_console(), next.may_leave});
}

bool builder::take_deps(edge& of, finished_job& done, std::vector<node*>& inputs) {
  // False when there are none to be kept. Throws build_error when they make no sense.
  std::string kind = value_of(of, symbol::deps);
  if (kind.empty()) return false;
  if (kind == "msvc") {
    shown_includes shown = filter_includes(done.output, value_of(of, symbol::msvc_deps_prefix));
    done.output = std::move(shown.rest);
    depfile read;
    read.inputs = std::move(shown.files);
    inputs = discovered(graph_, read);
    return true;
  }
  if (kind != "gcc") throw fatal_error("unknown deps type '" + kind + "'");
  std::string path = value_of(of, symbol::depfile, quoting::none);
  if (path.empty()) throw build_error("edge with deps=gcc but no depfile makes no sense");
  file_text text = read_file(path);
  if (text.reason != 0 && text.reason != ENOENT) throw build_error(reason_text(text.reason));
  if (text.size == 0) return true;
  depfile read = parse_depfile(text.view());
  inputs = discovered(graph_, read);
  if (!options_.keep_depfiles) remove_file(path);
  return true;
}

void builder::finish(finished_job& done, executor& on, status& shown) {
  edge& what = *done.what;
  std::vector<node*> inputs;
  bool has_deps = false;
  try {
    has_deps = !options_.dry_run && take_deps(what, done, inputs);
  } catch (const build_error& problem) {
    if (done.how == outcome::succeeded) {
      if (!done.output.empty()) done.output += "\n";
      done.output += problem.what();
      done.how = outcome::failed;
    }
  }
  bool full = done.how != outcome::succeeded && disk_is_full(what);
  if ((full || done.killed) && remove_partial(what)) {
    if (!done.output.empty() && done.output.back() != '\n') done.output += "\n";
    done.output += full ? "removed what it had written: the disk is full\n"
                        : "removed what it had written: it was killed\n";
  }
  shown.finished(done, on.now());
  if (options_.on_finished) options_.on_finished(done);
  if (done.how != outcome::succeeded) {
    plan_.failed(what);
    return;
  }
  succeed(what, done);
  if (has_deps)
    for (node* output : what.outputs) deps_.record(*output, time_of(std::string(output->path())), inputs);
  shown.total(plan_.commands());
}

void builder::succeed(edge& what, const finished_job& done) {
  file_time recorded = what.start_time;
  if (!options_.dry_run) {
    bool restat = is_set(what, symbol::restat), generator = is_set(what, symbol::generator);
    bool cleaned = false;
    if (recorded == missing || restat || generator) {
      for (node* output : what.outputs) {
        file_time now = time_of(std::string(output->path()));
        recorded = std::max(recorded, now);
        if (!restat || output->time != now) continue;
        plan_.clean(*output);
        cleaned = true;
      }
    }
    if (cleaned) recorded = what.start_time;
  }
  plan_.succeeded(what);
  if (options_.dry_run) return;
  std::string response = value_of(what, symbol::rspfile, quoting::none);
  if (!response.empty() && !options_.keep_response_files) remove_file(response);
  std::string command;
  append_hashed_command(command, what);
  auto since = [&](std::chrono::steady_clock::time_point when) {
    return static_cast<std::int32_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(when - begin_).count());
  };
  log_.record(what, command_hash(command), since(done.begin), since(done.end), recorded);
}

void builder::stop(executor& on) noexcept {
  for (edge* each : on.stop()) remove_partial(*each);
}

} // namespace pmake
