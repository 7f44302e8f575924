#include "granted_places.hpp"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <tuple>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <migrate/memory.hpp>
#include <migrate/program.hpp>
#include <migrate/signal.hpp>
#include <migrate/task.hpp>

#include "../recipe.hpp"

namespace pmake {

namespace {

using clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr std::size_t most_output = std::size_t{1} << 30; // bytes of one command that are kept

constexpr auto look_again = 50ms; // where a function is

constexpr std::size_t most_in_message = std::size_t{256} << 10; // bytes of output

granted_places* the_places = nullptr; // of this process

struct errand {
  foreign_order what;
  migrate::node_id where;
};

struct errand_report {
  bool ran = false;   // else it has to be run again
  bool unfit = false; // the host is to blame, and would be for any other command
  int status = 0;
  std::string output, error, reason;

  auto migrate_fields() { return std::tie(ran, unfit, status, output, error, reason); }
};

void run_program_for(const foreign_order& what, errand_report& report) {
  migrate::program_options how;
  how.environment = what.environment;
  // Temporary files belong to the grant.
  if (const char* folder = ::getenv("TMPDIR")) how.variables.emplace_back("TMPDIR", folder);
  how.directory = what.folder;
  how.mask = what.mask;
  how.output = migrate::redirection::capture(most_output);
  how.error = what.apart ? migrate::redirection::capture(most_output) : migrate::redirection::with_output();
  for (const std::string& each : what.outputs) how.outputs.emplace_back(each);
  std::error_code code;
  migrate::program_result ended = migrate::run_program(what.words, how, code);
  if (code) {
    report.unfit = true;
    report.reason = what.words[0] + " in " + what.folder + ": " + code.message();
    return;
  }
  report.ran = true;
  report.status = ended.status;
  report.output = std::move(ended.output);
  report.error = std::move(ended.error);
}

void run_function_for(const foreign_order& what, errand_report& report) {
  recipe_call call;
  call.arguments.assign(what.words.begin() + 1, what.words.end());
  call.folder = what.folder;
  int status = run_recipe(what.words[0], call);
  report.ran = true;
  report.status = (status & 0xff) << 8;
  report.output = std::move(call.printed);
}

errand_report run_errand(const errand& given) {
  errand_report report;
  std::error_code code;
  migrate::this_task::migrate_to(given.where, code);
  if (code) {
    report.reason = "moving there: " + code.message();
    return report;
  }
  if (given.what.function) {
    run_function_for(given.what, report);
    return report;
  }
  // While it runs its task stays; one that has to leave before that is ended by the news of it, wherever it is.
  if (migrate::this_task::node() != given.where)
    report.reason = "it was taken back";
  else
    run_program_for(given.what, report);
  // Much output goes home as the task's memory does, by the store.
  if (report.output.size() + report.error.size() > most_in_message)
    migrate::this_task::migrate_to(migrate::this_task::home(), code);
  return report;
}

template <class Task> void follow(std::uint64_t number, Task& runner, migrate::node_id where) {
  // Until it ends. A function goes elsewhere by itself when its host is taken back.
  while (!runner.wait_for(look_again)) {
    migrate::node_id now = runner.where();
    if (now == where || now == migrate::no_node) continue;
    where = now;
    migrate::node_heap_scope scope;
    the_places->tell(granted_places::news_of_place{number, now, now == migrate::this_task::node()});
  }
}

void mind(std::uint64_t number, const errand& given) {
  // At home. What is told to the other threads lies in the node's own memory.
  migrate::pin_scope stay;
  errand_report report;
  try {
    migrate::spawn_options how;
    how.name = "recipe";
    how.region = migrate::region_class::large;
    how.by_policy = false;
    auto runner = migrate::spawn(how, run_errand, given);
    {
      migrate::node_heap_scope scope;
      the_places->tell(granted_places::news_of_task{number, runner.id()});
    }
    if (given.what.function) follow(number, runner, given.where);
    report = runner.join();
  } catch (const std::exception& problem) {
    report = {};
    report.reason = problem.what();
  }
  migrate::node_heap_scope scope;
  granted_places::news_of_end ended;
  ended.what.number = number;
  ended.what.how = report.ran ? foreign_outcome::ended : foreign_outcome::lost;
  ended.what.status = report.status;
  ended.what.output = std::string(report.output);
  ended.what.error = std::string(report.error);
  ended.what.reason = std::string(report.reason);
  ended.unfit = report.unfit;
  the_places->tell(std::move(ended));
}

} // namespace

granted_places::granted_places(unsigned wanted, std::string database, host_note note, sayer say)
    : database_(std::move(database)), note_(std::move(note)), say_(std::move(say)),
      pool_(migrate::host_request{.wanted = wanted, .name = "pmake"}), any_(::epoll_create1(EPOLL_CLOEXEC)),
      changed_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      patience_(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {
  static constexpr itimerspec a_while{{0, 0}, {3, 0}};
  the_places = this;
  ::timerfd_settime(patience_, 0, &a_while, nullptr);
  for (int each : {changed_, patience_, pool_.event_descriptor()}) {
    epoll_event what = {};
    what.events = EPOLLIN;
    ::epoll_ctl(any_, EPOLL_CTL_ADD, each, &what);
  }
}

granted_places::~granted_places() {
  stop_all(SIGTERM);
  say_nobody_came();
  the_places = nullptr;
  for (int each : {any_, changed_, patience_}) ::close(each);
}

void granted_places::tell(news what) {
  {
    std::lock_guard lock(mutex_);
    news_.push_back(std::move(what));
  }
  std::uint64_t one = 1;
  if (::write(changed_, &one, sizeof one) < 0) return; // it can be read already
}

void granted_places::say_nobody_came() {
  if (std::exchange(came_, true)) return;
  say_("no idle host has been granted so far" + unusable_ +
       ": building on this machine ('migrate status --database " + database_ + "' says why)");
}

std::size_t granted_places::hosts() const {
  std::vector<std::string> names;
  for (const auto& [grant, each] : hosts_) names.push_back(each.what.host);
  std::sort(names.begin(), names.end());
  return static_cast<std::size_t>(std::unique(names.begin(), names.end()) - names.begin());
}

std::size_t granted_places::places() const {
  std::size_t all = 0;
  for (const auto& [grant, each] : hosts_) all += each.busy.size();
  return all;
}

std::optional<granted_places::place> granted_places::free_place(const std::string& but_not_on) const {
  // On the host with the most of them, so that one does not do all the work.
  std::optional<place> best;
  std::size_t most = 0;
  for (const auto& [grant, each] : hosts_) {
    auto free = static_cast<std::size_t>(std::count(each.busy.begin(), each.busy.end(), false));
    std::size_t guests = guests_on(each);
    if (free <= most + guests || each.what.host == but_not_on) continue;
    most = free - guests;
    auto slot = std::find(each.busy.begin(), each.busy.end(), false) - each.busy.begin();
    best = place{grant, static_cast<unsigned>(slot)};
  }
  return best;
}

std::size_t granted_places::guests_on(const lent& host) const {
  // Functions that have come there from other hosts take no place of it, but its processors.
  return static_cast<std::size_t>(std::count_if(running_.begin(), running_.end(), [&](const auto& each) {
    return each.second.function && each.second.now == host.what.node && each.second.grant != host.what.grant;
  }));
}

std::size_t granted_places::at_home() const {
  return static_cast<std::size_t>(
      std::count_if(running_.begin(), running_.end(), [&](const auto& each) { return each.second.here; }));
}

bool granted_places::room(const std::string& but_not_on) const { return free_place(but_not_on).has_value(); }

std::uint64_t granted_places::start(foreign_order what, const std::string& but_not_on) {
  place at = *free_place(but_not_on);
  lent& host = hosts_.at(at.grant);
  host.busy[at.slot] = true;
  std::uint64_t number = ++last_number_;
  command& made = running_[number];
  made.grant = at.grant;
  made.host = host.what.host;
  made.slot = at.slot;
  made.first_slot = host.first_slot;
  made.begin = clock::now();
  made.function = what.function;
  made.now = host.what.node;
  migrate::spawn_options how;
  how.name = "minder";
  how.region = migrate::region_class::large; // for the output
  how.by_policy = false;
  migrate::spawn(how, mind, number, errand{std::move(what), host.what.node}).detach();
  return number;
}

void granted_places::send(command& to, int signal) {
  to.signal = signal;
  if (!to.runner) return;
  std::error_code code;
  migrate::send_signal(to.runner, signal, code); // it may have ended
}

void granted_places::take(const migrate::host_event& event) {
  using kind = migrate::host_event::kind;
  const migrate::granted_host& host = event.host;
  if (event.what == kind::came) {
    came_ = true;
    unsigned first = 0;
    for (const auto& [grant, each] : hosts_) // by number; a gap is filled
      if (each.what.host == host.host && each.first_slot == first)
        first += static_cast<unsigned>(each.busy.size());
    hosts_[host.grant] = {host, first, std::vector<bool>(std::max(1u, host.processors))};
    note_(host.host, "granted");
    return;
  }
  if (hosts_.erase(host.grant) > 0)
    note_(host.host, (event.what == kind::leaving ? "taken back: " : "gone: ") + event.reason);
  else if (!came_)
    unusable_ = " (" + host.host + ": " + event.reason + ")";
  // A program cannot move. A function does so by itself.
  for (auto& [number, each] : running_)
    if (each.grant == host.grant && !each.function) send(each, SIGKILL);
}

void granted_places::take(const news_of_task& begun) {
  auto found = running_.find(begun.number);
  if (found == running_.end()) return;
  found->second.runner = begun.runner;
  if (found->second.signal != 0) send(found->second, found->second.signal);
}

void granted_places::take(const news_of_place& moved) {
  auto found = running_.find(moved.number);
  if (found == running_.end()) return;
  if (moved.here) note_("", "a function came home from " + found->second.host);
  found->second.now = moved.now;
  found->second.here = moved.here;
}

std::optional<foreign_end> granted_places::take(news_of_end&& ended) {
  auto found = running_.extract(ended.what.number);
  if (found.empty()) return std::nullopt;
  const command& of = found.mapped();
  auto host = hosts_.find(of.grant);
  if (host != hosts_.end()) host->second.busy[of.slot] = false;
  if (of.stopped) ended.what.how = foreign_outcome::stopped;
  if (ended.unfit && host != hosts_.end()) {
    note_(of.host, "cannot run commands: " + ended.what.reason);
    hosts_.erase(host);
    pool_.give_back(of.grant);
  }
  ended.what.host = of.host;
  ended.what.slot = of.first_slot + of.slot;
  ended.what.begin = of.begin;
  ended.what.end = clock::now();
  return std::move(ended.what);
}

void granted_places::take_host_events() {
  while (auto event = pool_.next_event(0s)) take(*event);
  std::uint64_t times = 0;
  if (::read(patience_, &times, sizeof times) > 0) say_nobody_came();
}

std::optional<granted_places::news> granted_places::next_news() {
  std::lock_guard lock(mutex_);
  if (news_.empty()) {
    std::uint64_t count = 0;
    while (::read(changed_, &count, sizeof count) > 0) {
    }
    return std::nullopt;
  }
  std::optional<news> one = std::move(news_.front());
  news_.pop_front();
  return one;
}

std::optional<foreign_end> granted_places::next() {
  take_host_events();
  while (auto one = next_news()) {
    if (auto* begun = std::get_if<news_of_task>(&*one))
      take(*begun);
    else if (auto* moved = std::get_if<news_of_place>(&*one))
      take(*moved);
    else if (auto ended = take(std::move(std::get<news_of_end>(*one))))
      return ended;
  }
  return std::nullopt;
}

void granted_places::stop(std::uint64_t number, int signal) {
  auto found = running_.find(number);
  if (found == running_.end()) return;
  found->second.stopped = true;
  send(found->second, signal);
}

void granted_places::stop_all(int signal) {
  // The signal gives a program program_options::grace, after which it is killed with all that stems from it.
  static constexpr auto patience = 4s, most = 20s;
  auto begin = clock::now();
  bool killed = false;
  for (auto& [number, each] : running_)
    if (!std::exchange(each.stopped, true)) send(each, signal);
  while (!running_.empty() && clock::now() - begin < most) {
    if (!killed && clock::now() - begin > patience) {
      killed = true;
      for (auto& [number, each] : running_) send(each, SIGKILL);
    }
    pollfd what{any_, POLLIN, 0};
    ::poll(&what, 1, 100);
    while (next()) {
    }
  }
}

} // namespace pmake
