#include "scan.hpp"

#include <algorithm>
#include <cerrno>

#include "depfile.hpp"
#include "disk.hpp"
#include "error.hpp"
#include "murmur.hpp"
#include "path.hpp"

namespace pmake {

namespace {

std::string name_of(const node& what) { return std::string(what.path()); }

std::string times(file_time one, file_time other) {
  return " (" + std::to_string(one) + " vs " + std::to_string(other) + ")";
}

} // namespace

scan::scan(graph& of, build_log& log, deps_log& deps, explanation explain)
    : graph_(of), log_(log), deps_(deps), explain_(std::move(explain)) {}

void scan::look_at(node& target, std::vector<node*>& validations) {
  validations_ = &validations;
  stack_.clear();
  enter(target);
  while (!stack_.empty()) advance();
}

bool scan::enter(node& what) {
  // True when there is something to be done before its state is known; the rest of the stack waits for that.
  if (what.in == nullptr) {
    look_at_leaf(what);
    return false;
  }
  if (what.in->mark == visit::done) return false;
  if (what.in->mark == visit::on_stack) report_cycle(what);
  what.in->mark = visit::on_stack;
  what.in->outputs_ready = true;
  what.in->deps_missing = false;
  stack_.push_back({what.in, &what});
  return true;
}

void scan::look_at_leaf(node& what) {
  if (what.time != not_looked_at) return;
  pmake::look_at(what);
  what.dirty = !what.exists;
  if (!what.exists)
    explain_([&] {
      return what.from_deps ? "output " + name_of(what) + " of phony edge with no inputs doesn't exist"
                            : name_of(what) + " has no in-edge and is missing";
    });
}

void scan::report_cycle(node& again) const {
  auto first =
      std::find_if(stack_.begin(), stack_.end(), [&](const frame& each) { return each.at == again.in; });
  std::string text = "dependency cycle: " + name_of(again);
  for (auto each = first + 1; each != stack_.end(); ++each) text += " -> " + name_of(*each->by);
  text += " -> " + name_of(again);
  const edge& on = *again.in;
  if (first + 1 == stack_.end() && on.phony() && on.outputs.size() == 1 && on.implicit_outputs == 0 &&
      on.implicit_inputs == 0)
    text += " [-w phonycycle=err]";
  throw build_error(text);
}

void scan::advance() {
  frame& top = stack_.back();
  edge& at = *top.at;
  if (top.stage == 0) {
    ++top.stage;
    // A dyndep file that an earlier build left, and that is up to date, says what the statement is.
    if (!at.deps_loaded && at.dyndep != nullptr && at.dyndep->dyndep_pending && enter(*at.dyndep)) return;
  }
  if (top.stage == 1) {
    ++top.stage;
    if (!at.deps_loaded && at.dyndep != nullptr && at.dyndep->dyndep_pending &&
        (at.dyndep->in == nullptr || at.dyndep->in->outputs_ready))
      load_dyndep(*at.dyndep);
    for (node* output : at.outputs) pmake::look_at(*output);
    if (!at.deps_loaded) {
      at.deps_loaded = true;
      if (!load_deps(at)) top.dirty = at.deps_missing = true;
    }
    validations_->insert(validations_->end(), at.validations.begin(), at.validations.end());
  }
  if (take_inputs(top)) leave(top);
}

bool scan::take_inputs(frame& top) {
  edge& at = *top.at;
  for (; top.next < at.inputs.size(); ++top.next) {
    node& input = *at.inputs[top.next];
    if (enter(input)) return false; // comes back to the same input; `top` may have moved
    if (input.in != nullptr && !input.in->outputs_ready) at.outputs_ready = false;
    if (at.is_order_only(top.next)) continue;
    if (input.dirty) {
      explain_([&] { return name_of(input) + " is dirty"; });
      top.dirty = true;
    } else if (top.newest == nullptr || input.time > top.newest->time) {
      top.newest = &input;
    }
  }
  return true;
}

void scan::leave(frame& top) {
  edge& at = *top.at;
  bool dirty = top.dirty || out_of_date(at, top.newest);
  if (dirty)
    for (node* output : at.outputs) output->dirty = true;
  // A phony statement without inputs has nothing to run, whatever it is named after.
  if (dirty && !(at.phony() && at.inputs.empty())) at.outputs_ready = false;
  at.mark = visit::done;
  order.push_back(&at);
  stack_.pop_back();
}

bool scan::out_of_date(const edge& of, const node* newest_input) {
  hashed_ = false;
  for (node* output : of.outputs)
    if (output_out_of_date(of, *output, newest_input)) return true;
  return false;
}

bool scan::output_out_of_date(const edge& of, node& output, const node* newest_input) {
  if (of.phony()) {
    if (of.inputs.empty() && !output.exists) {
      explain_([&] { return "output " + name_of(output) + " of phony edge with no inputs doesn't exist"; });
      return true;
    }
    // Whoever has it as an input is as old as what it stands for.
    if (newest_input != nullptr && !output.exists) output.time = std::max(output.time, newest_input->time);
    return false;
  }
  if (!output.exists) {
    explain_([&] { return "output " + name_of(output) + " doesn't exist"; });
    return true;
  }
  const log_entry* logged = log_.find(output);
  if (newest_input != nullptr && output.time < newest_input->time) {
    // With restat, a command that left the output alone has been run for inputs up to the time that the log has.
    bool restat = logged != nullptr && is_set(of, symbol::restat);
    file_time time = restat ? logged->time : output.time;
    if (time < newest_input->time) {
      explain_([&] {
        return (restat ? "restat of output " : "output ") + name_of(output) +
               " older than most recent input " + name_of(*newest_input) + times(time, newest_input->time);
      });
      return true;
    }
  }
  bool generator = is_set(of, symbol::generator);
  if (logged == nullptr) {
    if (generator) return false;
    explain_([&] { return "command line not found in log for " + name_of(output); });
    return true;
  }
  if (!generator) {
    if (!hashed_) {
      command_.clear();
      append_hashed_command(command_, of);
      command_hash_ = command_hash(command_);
      hashed_ = true;
    }
    if (command_hash_ != logged->command) {
      explain_([&] { return "command line changed for " + name_of(output); });
      return true;
    }
  }
  // The output may be newer when the build was interrupted, or failed, after the command had written it.
  if (newest_input != nullptr && logged->time < newest_input->time) {
    explain_([&] {
      return "recorded mtime of " + name_of(output) + " older than most recent input " +
             name_of(*newest_input) + times(logged->time, newest_input->time);
    });
    return true;
  }
  return false;
}

// ---- inputs that only the last run of a command told

bool scan::load_deps(edge& of) {
  if (of.phony()) return true;
  if (is_set(of, symbol::deps)) return load_logged_deps(of);
  std::string path = value_of(of, symbol::depfile, quoting::none);
  return path.empty() || load_depfile(of, path);
}

bool scan::load_logged_deps(edge& of) {
  node& output = *of.outputs[0];
  const deps_log::record_of* logged = deps_.find(output);
  if (logged == nullptr) {
    explain_([&] { return "deps for '" + name_of(output) + "' are missing"; });
    return false;
  }
  if (output.time > logged->time) { // somebody else has made it
    explain_([&] {
      return "stored deps info out of date for '" + name_of(output) + "'" + times(logged->time, output.time);
    });
    return false;
  }
  add_discovered(of, deps_.inputs_of(*logged));
  return true;
}

void scan::add_discovered(edge& of, const std::vector<node*>& inputs) {
  for (node* each : inputs)
    if (each->in == nullptr) each->from_deps = true;
  graph_.add_discovered(of, inputs);
}

bool scan::load_depfile(edge& of, const std::string& path) {
  file_text text = read_file(path);
  if (text.reason != 0 && text.reason != ENOENT)
    throw build_error("loading '" + path + "': " + reason_text(text.reason));
  if (text.size == 0) {
    explain_([&] { return "depfile '" + path + "' is missing"; });
    return false;
  }
  depfile read;
  try {
    read = parse_depfile(text.view());
  } catch (const build_error& problem) {
    throw build_error(path + ": " + problem.what());
  }
  if (read.outputs.empty()) throw build_error(path + ": no outputs declared");
  for (std::string& each : read.outputs) canonicalize(each);
  if (read.outputs[0] != of.outputs[0]->path()) {
    explain_([&] {
      return "expected depfile '" + path + "' to mention '" + name_of(*of.outputs[0]) + "', got '" +
             read.outputs[0] + "'";
    });
    return false;
  }
  for (const std::string& each : read.outputs)
    if (std::none_of(of.outputs.begin(), of.outputs.end(),
                     [&](node* output) { return output->path() == each; }))
      throw build_error(path + ": depfile mentions '" + each +
                        "' as an output, but no such output was declared");
  add_discovered(of, discovered(graph_, read));
  return true;
}

dyndep_entries scan::load_dyndep(node& file) {
  explain_([&] { return "loading dyndep file '" + name_of(file) + "'"; });
  return pmake::load_dyndep(graph_, file);
}

} // namespace pmake
