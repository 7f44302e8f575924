#include "make_server.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../ninja/disk.hpp"
#include "../ninja/error.hpp"
#include "../ninja/recipe_call.hpp"
#include "process_view.hpp"
#include "shell_of_makefile.hpp"
#include "wire.hpp"

namespace pmake {

namespace {

constexpr unsigned most_runs_away = 2; // of one line; the next one is at home

volatile std::sig_atomic_t signal_came = 0, signal_from_terminal = 0;

void on_signal(int which, siginfo_t* how, void*) {
  signal_came = which;
  signal_from_terminal = how->si_code == SI_KERNEL;
}

} // namespace

private_folder::private_folder() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  bool usable = runtime != nullptr && ::access(runtime, W_OK | X_OK) == 0;
  std::string name = std::string(usable ? runtime : "/tmp") + "/pmake-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) throw build_error("mkdtemp(" + name + "): " + reason_text(errno));
  path_ = name;
}

private_folder::~private_folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

signals_for_make::signals_for_make() {
  sigset_t ours;
  ::sigemptyset(&ours);
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO;
  for (int each : {SIGINT, SIGTERM, SIGHUP}) {
    ::sigaddset(&ours, each);
    struct sigaction before;
    ::sigaction(each, nullptr, &before);
    if (before.sa_handler != SIG_IGN) ::sigaction(each, &action, nullptr);
  }
  ::sigprocmask(SIG_BLOCK, &ours, &outer_);
  for (int each : {SIGINT, SIGTERM, SIGHUP}) ::sigdelset(&outer_, each);
}

make_server::make_server(std::size_t places, unsigned most, jobserver::kind kind, leaving_rules rules,
                         trace* record)
    : places_(places), most_(most), tokens_(kind, folder_.path(), static_cast<unsigned>(places)),
      rules_(std::move(rules)), trace_(record) {
  path_ = folder_.path() + "/socket";
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof address.sun_path) throw build_error(path_ + " is too long a name for a socket");
  std::strcpy(address.sun_path, path_.c_str());
  listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener_ < 0 || ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_, 128) != 0)
    throw build_error("listening at " + path_ + ": " + reason_text(errno));
}

make_server::~make_server() {
  there_.reset();
  ::close(listener_);
  for (const auto& each : clients_) ::close(each->fd);
  for (const auto& [process, each] : running_) ::close(each.fd);
}

void make_server::serve(pid_t make, const sigset_t& mask) {
  int ended = open_pidfd(make);
  std::vector<pollfd> what;
  for (;;) {
    what.assign(
        {{ended, POLLIN, 0}, {listener_, POLLIN, 0}, {there_ ? there_->descriptor() : -1, POLLIN, 0}});
    for (const auto& each : clients_)
      what.push_back({each->fd, static_cast<short>(each->answer.empty() ? POLLIN : POLLOUT), 0});
    for (const auto& [process, each] : running_) what.push_back({each.fd, POLLIN, 0});
    int ready = ::ppoll(what.data(), what.size(), nullptr, &mask);
    if (int which = std::exchange(signal_came, 0); which != 0) pass_on(which, make);
    if (ready <= 0) continue;
    if (what[0].revents != 0) break;
    if (what[1].revents != 0) accept_all();
    if (what[2].revents != 0) take_ends();
    // What came after `what` was made is looked at the next time.
    std::map<int, short> came;
    for (std::size_t i = 3; i < what.size(); ++i)
      if (what[i].revents != 0) came[what[i].fd] = what[i].revents;
    for (auto each = clients_.begin(); each != clients_.end();) {
      bool there =
          came.count((*each)->fd) == 0 || ((*each)->answer.empty() ? hear(**each) : send_answer(**each));
      each = there ? std::next(each) : forget(each);
    }
    for (auto each = running_.begin(); each != running_.end();) {
      if (came.count(each->second.fd) == 0) {
        ++each;
        continue;
      }
      ended_here(each->second);
      each = running_.erase(each);
    }
    give_places();
  }
  ::close(ended);
  for (auto each = running_.begin(); each != running_.end();) { // the ends that came with make's
    pollfd end{each->second.fd, POLLIN, 0};
    if (::poll(&end, 1, 0) <= 0) {
      ++each;
      continue;
    }
    ended_here(each->second);
    each = running_.erase(each);
  }
}

std::string make_server::summary() const {
  std::size_t away = 0;
  std::string hosts;
  for (const auto& [host, lines] : ran_away_) {
    away += lines;
    hosts += (hosts.empty() ? "" : ", ") + host + " " + std::to_string(lines);
  }
  if (away == 0) return {};
  return std::to_string(away) + " of " + std::to_string(away + ran_here_) + " commands ran on idle hosts (" +
         hosts + ")";
}

void make_server::accept_all() {
  for (;;) {
    int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    ucred who = {};
    socklen_t size = sizeof who;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0 || who.uid != ::getuid()) {
      ::close(fd);
      continue;
    }
    auto& made = clients_.emplace_back(std::make_unique<client>());
    made->fd = fd;
    made->process = who.pid;
  }
}

bool make_server::hear(client& from) {
  // False when it is gone, or has to go.
  char bytes[16384];
  for (;;) {
    auto got = ::read(from.fd, bytes, sizeof bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) break;
    if (got <= 0) return false;
    from.bytes.append(bytes, static_cast<std::size_t>(got));
  }
  wire::request asked;
  if (from.bytes.size() < sizeof asked) return true;
  std::memcpy(&asked, from.bytes.data(), sizeof asked);
  std::size_t whole = sizeof asked + asked.bytes;
  if (from.bytes.size() > whole) { // it got a signal
    if (from.number == 0) return false;
    there_->stop(from.number, from.bytes.back());
    return true;
  }
  if (from.asked || from.bytes.size() < whole) return true;
  from.asked = true;
  from.recursive = asked.recursive != 0;
  from.shell = shell_of(from.process);
  take_request(from);
  return true;
}

void make_server::take_request(client& from) {
  const char* words = from.bytes.data() + sizeof(wire::request);
  const char* end = from.bytes.data() + from.bytes.size();
  for (const char* word = words; word < end; word += std::strlen(word) + 1) from.line = word;
  from.leaves =
      there_ && !from.recursive && (!recipe_words(from.line).empty() || rules_.may_leave(from.line));
}

const std::string& make_server::shell_of(pid_t shell) {
  // By the make that has started it, which reads the same makefiles as long as it runs.
  pid_t make = parent_of(shell);
  auto [found, fresh] = shells_.try_emplace(make);
  if (fresh) found->second = shell_for_make(make);
  return found->second;
}

make_server::client_list::iterator make_server::forget(client_list::iterator which) {
  client& gone = **which;
  if (gone.number != 0) there_->stop(gone.number, SIGKILL);
  ::close(gone.fd);
  return clients_.erase(which);
}

unsigned make_server::free_slot() const {
  unsigned slot = 0;
  while (std::any_of(running_.begin(), running_.end(),
                     [&](const auto& each) { return each.second.slot == slot; }))
    ++slot;
  return slot;
}

bool make_server::give_place(client& to) {
  // False when it has to wait, or waits for its answer.
  if (!to.asked || to.number != 0 || !to.answer.empty()) return false;
  if (to.leaves && to.runs < most_runs_away && there_->room(to.but_not_on)) {
    send_away(to);
    return false;
  }
  // A line that starts another make takes no place: those that it starts do, and it would wait for them.
  std::size_t guests = there_ ? there_->at_home() : 0;
  if (!to.recursive && running_.size() + guests >= places_) return false;
  if (!to.recursive) {
    ++ran_here_;
    int fd = open_pidfd(to.process);
    if (fd >= 0)
      running_.emplace(to.process, local_run{fd, free_slot(), to.line, std::chrono::steady_clock::now()});
  }
  std::string answer(1, to.recursive ? wire::run_freely : wire::run_in_place);
  // A function is called by this program, as its own shell.
  answer += recipe_words(to.line).empty() ? to.shell : "/proc/" + std::to_string(::getpid()) + "/exe";
  answer.push_back('\0');
  if (::send(to.fd, answer.data(), answer.size(), MSG_NOSIGNAL) < 0) {
  } // then it is gone, and so is its process
  return true;
}

void make_server::give_places() {
  for (auto each = clients_.begin(); each != clients_.end();)
    each = give_place(**each) ? forget(each) : std::next(each);
}

void make_server::send_away(client& what) {
  process_view seen = view_of(what.process);
  foreign_order order;
  order.words = recipe_words(what.line);
  order.function = !order.words.empty();
  if (!order.function) {
    std::istringstream shell(what.shell);
    for (std::string word; shell >> word;) order.words.push_back(word);
    const char* begin = what.bytes.data() + sizeof(wire::request);
    const char* end = what.bytes.data() + what.bytes.size();
    for (const char* word = begin; word < end; word += std::strlen(word) + 1) order.words.emplace_back(word);
  }
  order.folder = seen.folder;
  order.environment = std::move(seen.environment);
  std::string level = "1";
  for (const std::string& each : order.environment)
    if (each.rfind("MAKELEVEL=", 0) == 0) level = each.substr(each.find('=') + 1);
  order.environment.push_back(std::string(wire::place_variable) + "=" + level);
  order.environment.push_back(std::string(wire::shell_variable) + "=" + what.shell);
  order.mask = seen.mask;
  order.outputs = outputs_named(what.line);
  order.apart = true;
  ++what.runs;
  what.number = there_->start(std::move(order), what.but_not_on);
}

void make_server::take_ends() {
  while (auto ended = there_->next()) take(std::move(*ended));
  follow_places();
}

void make_server::follow_places() {
  std::size_t now = there_->places();
  if (now == places_there_) return;
  places_there_ = now;
  auto all = static_cast<unsigned>(places_ + now);
  tokens_.set(most_ > 0 ? std::min(most_, all) : all);
}

void make_server::take(foreign_end&& ended) {
  auto found = std::find_if(clients_.begin(), clients_.end(),
                            [&](const auto& each) { return each->number == ended.number; });
  if (found == clients_.end()) return;
  client& of = **found;
  of.number = 0;
  if (trace_ != nullptr)
    trace_->add(trace::run{of.line, "line", of.line, ended.how == foreign_outcome::ended && ended.status == 0,
                           ended.host, ended.slot, ended.begin, ended.end});
  if (ended.how == foreign_outcome::stopped) {
    forget(found);
    return;
  }
  bool at_home = ended.how == foreign_outcome::ended && ended.status != 0 && worth_a_second_run(ended);
  if (ended.how == foreign_outcome::lost || at_home) {
    std::string folder = view_of(of.process).folder;
    for (const std::string& each : outputs_named(of.line))
      ::unlink((each[0] == '/' ? each : folder + "/" + each).c_str());
    if (trace_ != nullptr)
      trace_->note(ended.host,
                   "runs again: " + of.line + (at_home ? ": it failed there" : ": " + ended.reason));
    if (at_home) of.runs = most_runs_away;
    of.but_not_on = ended.host;
    return;
  }
  ++ran_away_[ended.host];
  wire::ended how{ended.status, static_cast<std::uint32_t>(ended.output.size()),
                  static_cast<std::uint32_t>(ended.error.size())};
  of.answer.assign(1, wire::run_elsewhere);
  of.answer.append(reinterpret_cast<const char*>(&how), sizeof how);
  of.answer += ended.output;
  of.answer += ended.error;
  if (!send_answer(of)) forget(found);
}

bool make_server::send_answer(client& to) {
  // False when it has all, or is gone.
  while (to.sent < to.answer.size()) {
    auto put = ::send(to.fd, to.answer.data() + to.sent, to.answer.size() - to.sent, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno == EAGAIN;
    to.sent += static_cast<std::size_t>(put);
  }
  return false;
}

void make_server::ended_here(const local_run& run) {
  ::close(run.fd);
  if (trace_ != nullptr) // make has its status
    trace_->add(trace::run{run.line, "line", run.line, true, "", run.slot, run.begin,
                           std::chrono::steady_clock::now()});
}

void make_server::pass_on(int which, pid_t make) {
  // The terminal's Ctrl-C has reached all of them.
  if (which == SIGINT && signal_from_terminal != 0) return;
  ::kill(make, which);
  for (const auto& [process, each] : running_) ::kill(process, which);
}

} // namespace pmake
