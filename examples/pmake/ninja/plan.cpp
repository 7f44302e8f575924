#include "plan.hpp"

#include <algorithm>
#include <string>

#include "error.hpp"

namespace pmake {

namespace {

bool has_its_inputs(const edge& what) noexcept {
  return std::all_of(what.inputs.begin(), what.inputs.end(),
                     [](const node* input) { return input->in == nullptr || input->in->outputs_ready; });
}

bool in_plan(const edge& what) noexcept { return what.wanted != want::not_in_plan; }

std::int64_t last_duration(const edge& of) noexcept {
  // In milliseconds; a second for one that has never run.
  if (of.phony()) return 0;
  const log_entry* logged = of.outputs[0]->logged;
  return logged == nullptr ? 1000 : std::max<std::int64_t>(1, logged->end - logged->start);
}

} // namespace

plan::plan(graph& of, scan& with) : graph_(of), scan_(with) {
  for (edge* each : of.edges) each->wanted = want::not_in_plan;
  for (auto& [name, each] : of.pools) {
    each.in_use = 0;
    each.delayed.clear();
  }
}

void plan::add(node& target) {
  struct step {
    node* file;
    node* needed_by;
  };
  std::vector<step> steps{{&target, nullptr}};
  while (!steps.empty()) {
    auto [file, needed_by] = steps.back();
    steps.pop_back();
    edge* maker = file->in;
    if (maker == nullptr) {
      if (!file->dirty || file->from_deps) continue;
      std::string by = needed_by != nullptr ? ", needed by '" + std::string(needed_by->path()) + "'," : "";
      throw build_error("'" + std::string(file->path()) + "'" + by + " missing and no known rule to make it");
    }
    if (maker->outputs_ready) continue;
    bool fresh = !in_plan(*maker);
    if (fresh) maker->wanted = want::nothing;
    if (file->dirty && maker->wanted == want::nothing) want_to_run(*maker);
    if (walk_ != nullptr) walk_->push_back(maker);
    if (!fresh) continue;
    for (std::uint32_t i = maker->inputs.size(); i-- > 0;) steps.push_back({maker->inputs[i], file});
  }
}

void plan::want_to_run(edge& what) {
  what.wanted = want::to_start;
  ++wanted_;
  if (!what.phony()) ++commands_;
}

void plan::set_priorities() {
  // Backwards, a statement comes before those that make its inputs.
  for (std::size_t i = prioritized_; i < scan_.order.size(); ++i)
    if (in_plan(*scan_.order[i])) scan_.order[i]->priority = last_duration(*scan_.order[i]);
  for (std::size_t i = scan_.order.size(); i-- > prioritized_;) {
    edge& each = *scan_.order[i];
    if (!in_plan(each)) continue;
    for (node* input : each.inputs)
      if (edge* maker = input->in; maker != nullptr && in_plan(*maker))
        maker->priority = std::max(maker->priority, each.priority + last_duration(*maker));
  }
  prioritized_ = scan_.order.size();
  std::make_heap(ready_.begin(), ready_.end(), ready_order{});
  for (auto& [name, each] : graph_.pools)
    std::make_heap(each.delayed.begin(), each.delayed.end(), ready_order{});
}

void plan::begin() {
  set_priorities();
  for (edge* each : scan_.order)
    if (each->wanted == want::to_start && has_its_inputs(*each)) schedule(*each);
}

edge* plan::next() {
  if (ready_.empty()) return nullptr;
  std::pop_heap(ready_.begin(), ready_.end(), ready_order{});
  edge* first = ready_.back();
  ready_.pop_back();
  return first;
}

void plan::schedule(edge& what) {
  what.wanted = want::to_finish;
  if (what.in_pool->depth == 0) {
    ready_.push_back(&what);
    std::push_heap(ready_.begin(), ready_.end(), ready_order{});
    return;
  }
  auto& delayed = what.in_pool->delayed;
  delayed.push_back(&what);
  std::push_heap(delayed.begin(), delayed.end(), ready_order{});
  release(*what.in_pool);
}

void plan::release(pool& from) {
  while (!from.delayed.empty() && from.in_use < from.depth) {
    std::pop_heap(from.delayed.begin(), from.delayed.end(), ready_order{});
    ready_.push_back(from.delayed.back());
    from.delayed.pop_back();
    std::push_heap(ready_.begin(), ready_.end(), ready_order{});
    ++from.in_use;
  }
}

void plan::leave_pool(edge& what) {
  if (what.wanted != want::to_finish || what.in_pool->depth == 0) return;
  --what.in_pool->in_use;
  release(*what.in_pool);
}

void plan::failed(edge& what) { leave_pool(what); }

void plan::succeeded(edge& what) {
  // A list instead of recursion: a chain of statements that need not run may be as long as the graph.
  finishing_.assign(1, &what);
  while (!finishing_.empty()) {
    edge& each = *finishing_.back();
    finishing_.pop_back();
    leave_pool(each);
    if (each.wanted == want::to_start || each.wanted == want::to_finish) --wanted_;
    each.wanted = want::not_in_plan;
    each.outputs_ready = true;
    for (node* output : each.outputs) finished(*output);
  }
}

void plan::finished(node& output) {
  if (output.dyndep_pending) {
    dyndep_loaded(output);
    return;
  }
  for (edge* each : output.out) look(*each);
}

void plan::look(edge& what) {
  if (!in_plan(what) || !has_its_inputs(what)) return;
  if (what.wanted == want::to_start) {
    schedule(what);
  } else if (what.wanted == want::nothing) { // it need not run, but others wait for it
    what.wanted = want::to_pass;
    finishing_.push_back(&what);
  }
}

void plan::clean(node& output) {
  std::vector<node*> cleaned{&output};
  while (!cleaned.empty()) {
    node& file = *cleaned.back();
    cleaned.pop_back();
    file.dirty = false;
    for (edge* each : file.out) {
      if (!in_plan(*each) || each->wanted == want::nothing || each->deps_missing) continue;
      node* newest = nullptr;
      bool dirty = false;
      for (std::uint32_t i = 0; i < each->real_inputs() && !dirty; ++i) {
        node* input = each->inputs[i];
        dirty = input->dirty;
        if (newest == nullptr || input->time > newest->time) newest = input;
      }
      if (dirty || scan_.out_of_date(*each, newest)) continue;
      for (node* made : each->outputs) cleaned.push_back(made);
      each->wanted = want::nothing;
      --wanted_;
      if (!each->phony()) --commands_;
    }
  }
}

// ---- dyndep

void plan::dyndep_loaded(node& file) {
  dyndep_entries entries = scan_.load_dyndep(file);
  look_again_at_dependents(file);

  // What the file has added belongs to the plan when the statement does.
  std::vector<edge*> met;
  walk_ = &met;
  for (const auto& [statement, entry] : entries) {
    if (statement->outputs_ready || !in_plan(*statement)) continue;
    for (node* input : entry.inputs) add(*input);
  }
  walk_ = nullptr;
  for (edge* each : file.out)
    if (in_plan(*each)) met.push_back(each);
  set_priorities();
  std::sort(met.begin(), met.end(), [](edge* one, edge* other) { return one->id < other->id; });
  met.erase(std::unique(met.begin(), met.end()), met.end());
  for (edge* each : met) look(*each);
}

void plan::look_again_at_dependents(node& of) {
  std::vector<node*> dependents, next{&of};
  while (!next.empty()) {
    node& file = *next.back();
    next.pop_back();
    for (edge* each : file.out) {
      if (!in_plan(*each) || each->mark == visit::none) continue;
      each->mark = visit::none;
      for (node* output : each->outputs) {
        dependents.push_back(output);
        next.push_back(output);
      }
    }
  }
  std::vector<node*> validations;
  for (node* each : dependents) scan_.look_at(*each, validations);
  for (std::size_t i = 0; i < validations.size(); ++i) {
    node& each = *validations[i];
    if (each.in == nullptr || each.in->mark == visit::none) scan_.look_at(each, validations);
    if (each.in != nullptr && !each.in->outputs_ready) add(each);
  }
  for (node* each : dependents)
    if (each->dirty && each->in->wanted == want::nothing) want_to_run(*each->in);
}

} // namespace pmake
