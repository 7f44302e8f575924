#include "shared_executor.hpp"

#include <csignal>
#include <filesystem>
#include <utility>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "partial_outputs.hpp"
#include "recipe_call.hpp"

extern char** environ;

namespace pmake {

namespace {

constexpr unsigned most_runs_away = 2; // of one command; the next one is at home

mode_t current_mask() noexcept {
  mode_t mask = ::umask(022);
  ::umask(mask);
  return mask;
}

} // namespace

shared_executor::shared_executor(std::unique_ptr<local_executor> here, std::unique_ptr<foreign_places> there,
                                 leaving_rules rules, unsigned most, host_note note, interruption& signals)
    : here_(std::move(here)), there_(std::move(there)), rules_(std::move(rules)), most_(most),
      note_(std::move(note)), signals_(signals), folder_(std::filesystem::current_path()),
      mask_(current_mask()) {
  for (char** each = environ; *each != nullptr; ++each) environment_.emplace_back(*each);
  here_->watch(there_->descriptor());
}

bool shared_executor::below_limit() const noexcept {
  return most_ == 0 || here_->running() + away_.size() + again_.size() < most_;
}

bool shared_executor::may_leave(const edge& what) {
  if (what.on_console()) return false;
  std::string command = value_of(what, symbol::command);
  return !recipe_words(command).empty() || rules_.may_leave(command);
}

bool shared_executor::can_start(bool may_leave) {
  bool places_here = place_again();
  if (!below_limit()) return false;
  return (may_leave && there_->room()) || (places_here && here_->can_start());
}

void shared_executor::start(job what) {
  if (what.may_leave && there_->room())
    send({std::move(what), 0, {}});
  else
    here_->start(std::move(what));
}

void shared_executor::send(away what) {
  foreign_order order;
  order.words = recipe_words(what.what.command);
  order.function = !order.words.empty();
  if (!order.function) order.words = {"/bin/sh", "-c", what.what.command};
  order.folder = folder_;
  order.environment = environment_;
  order.mask = mask_;
  for (const node* output : what.what.what->outputs) order.outputs.emplace_back(output->path());
  ++what.runs;
  std::uint64_t number = there_->start(std::move(order), what.but_not_on);
  away_.emplace(number, std::move(what));
}

bool shared_executor::place_again() {
  // What has to be run once more goes first. False when some still waits.
  here_->leave_free(there_->at_home());
  while (!again_.empty()) {
    away& next = again_.front();
    if (next.runs < most_runs_away && there_->room(next.but_not_on))
      send(std::move(next));
    else if (here_->can_start())
      here_->start(std::move(next.what));
    else
      return false;
    again_.pop_front();
  }
  return true;
}

bool shared_executor::take(foreign_end&& ended, finished_job& one) {
  // False when it has to be run once more.
  auto found = away_.extract(ended.number);
  if (found.empty()) return false;
  away& what = found.mapped();
  bool at_home = ended.how == foreign_outcome::ended && ended.status != 0 && worth_a_second_run(ended);
  if (ended.how == foreign_outcome::lost || at_home) {
    remove_partial(*what.what.what);
    std::string output(what.what.what->outputs[0]->path());
    note_(ended.host, "runs again: " + output + (at_home ? ": it failed there" : ": " + ended.reason));
    if (at_home) what.runs = most_runs_away;
    what.but_not_on = ended.host;
    again_.push_back(std::move(what));
    return false;
  }
  one = {};
  one.what = what.what.what;
  one.how = ended.how == foreign_outcome::stopped ? outcome::interrupted
            : ended.status == 0                   ? outcome::succeeded
                                                  : outcome::failed;
  one.killed = one.how == outcome::failed && ended_by_signal(ended.status);
  one.output = std::move(ended.output);
  one.host = std::move(ended.host);
  one.slot = ended.slot;
  one.begin = ended.begin;
  one.end = ended.end;
  return true;
}

event shared_executor::wait_any(finished_job& one) {
  auto take_all = [&] {
    while (auto ended = there_->next())
      if (take(std::move(*ended), one)) return true;
    return false;
  };
  if (take_all()) return event::finished;
  place_again();
  event what = here_->wait_any(one);
  if (what == event::room && take_all()) return event::finished;
  return what;
}

std::vector<edge*> shared_executor::stop() {
  std::vector<edge*> stopped;
  for (const auto& [number, each] : away_) stopped.push_back(each.what.what);
  for (const away& each : again_) stopped.push_back(each.what.what);
  again_.clear();
  int number = signals_.signal() != 0 ? signals_.signal() : SIGTERM;
  for (const auto& [which, each] : away_) there_->stop(which, number);
  for (edge* each : here_->stop()) stopped.push_back(each); // which takes as long as that of the others
  there_->stop_all(number);
  away_.clear();
  return stopped;
}

} // namespace pmake
