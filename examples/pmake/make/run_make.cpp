#include "run_make.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../ninja/disk.hpp"
#include "../ninja/error.hpp"
#include "jobserver.hpp"
#include "make_arguments.hpp"
#include "shell_of_makefile.hpp"
#include "wire.hpp"

extern char** environ;

namespace pmake {

namespace {

int open_pidfd(pid_t of) noexcept { return static_cast<int>(::syscall(SYS_pidfd_open, of, 0)); }

volatile std::sig_atomic_t signal_came = 0, signal_from_terminal = 0;

void on_signal(int which, siginfo_t* how, void*) {
  signal_came = which;
  signal_from_terminal = how->si_code == SI_KERNEL;
}

bool has_fifo(const std::string& make) {
  // From 4.4 on the jobserver may be a named pipe, which every process of the build can open.
  std::FILE* said = ::popen(("'" + make + "' --version 2>/dev/null").c_str(), "r");
  int major = 0, minor = 0;
  if (said == nullptr) return false;
  int read = std::fscanf(said, "GNU Make %d.%d", &major, &minor);
  ::pclose(said);
  return read == 2 && (major > 4 || (major == 4 && minor >= 4));
}

class private_folder {
public:
  private_folder() {
    const char* runtime = std::getenv("XDG_RUNTIME_DIR");
    bool usable = runtime != nullptr && ::access(runtime, W_OK | X_OK) == 0;
    std::string name = std::string(usable ? runtime : "/tmp") + "/pmake-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw build_error("mkdtemp(" + name + "): " + reason_text(errno));
    path_ = name;
  }
  ~private_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  private_folder(const private_folder&) = delete;
  private_folder& operator=(const private_folder&) = delete;
  const std::string& path() const noexcept { return path_; }

private:
  std::string path_;
};

class signals_for_make {
  // SIGINT, SIGTERM and SIGHUP, which come only while the server waits.
public:
  signals_for_make() {
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
  }
  const sigset_t& outer_mask() const noexcept { return outer_; }

private:
  sigset_t outer_;
};

class make_server {
public:
  make_server(const make_options& options, unsigned at_once, jobserver::kind kind)
      : places_(std::min(at_once, options.processors)), tokens_(kind, folder_.path(), at_once) {
    path_ = folder_.path() + "/socket";
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    if (path_.size() >= sizeof address.sun_path)
      throw build_error(path_ + " is too long a name for a socket");
    std::strcpy(address.sun_path, path_.c_str());
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener_ < 0 || ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener_, 128) != 0)
      throw build_error("listening at " + path_ + ": " + reason_text(errno));
  }
  ~make_server() {
    ::close(listener_);
    for (const auto& each : clients_) ::close(each->fd);
    for (const auto& [process, fd] : running_) ::close(fd);
  }
  make_server(const make_server&) = delete;
  make_server& operator=(const make_server&) = delete;

  const std::string& path() const noexcept { return path_; }
  std::string flag() const { return tokens_.flag(); }

  void serve(pid_t make, const sigset_t& mask) {
    // Until make has ended.
    int ended = open_pidfd(make);
    std::vector<pollfd> what;
    for (;;) {
      what.assign({{ended, POLLIN, 0}, {listener_, POLLIN, 0}, {tokens_.wanted(), POLLIN, 0}});
      for (const auto& each : clients_) what.push_back({each->fd, POLLIN, 0});
      for (const auto& [process, fd] : running_) what.push_back({fd, POLLIN, 0});
      int ready = ::ppoll(what.data(), what.size(), nullptr, &mask);
      if (int which = std::exchange(signal_came, 0); which != 0) pass_on(which, make);
      if (ready <= 0) continue;
      if (what[0].revents != 0) break;
      if (what[1].revents != 0) accept_all();
      if (what[2].revents != 0) tokens_.take_back();
      // What came after `what` was made is looked at the next time.
      std::map<int, short> came;
      for (std::size_t i = 3; i < what.size(); ++i)
        if (what[i].revents != 0) came[what[i].fd] = what[i].revents;
      for (auto each = clients_.begin(); each != clients_.end();)
        each = came.count((*each)->fd) != 0 && !hear(**each) ? forget(each) : std::next(each);
      for (auto each = running_.begin(); each != running_.end();) {
        if (came.count(each->second) == 0) {
          ++each;
          continue;
        }
        ::close(each->second);
        each = running_.erase(each);
      }
      give_places();
    }
    ::close(ended);
  }

private:
  struct client {
    int fd = -1;
    pid_t process = 0;
    std::string bytes; // of its request
    bool asked = false;
    bool recursive = false;
    std::string shell;
  };
  using client_list = std::deque<std::unique_ptr<client>>;

  void accept_all() {
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

  bool hear(client& from) {
    // False when it is gone.
    char bytes[16384];
    for (;;) {
      auto got = ::read(from.fd, bytes, sizeof bytes);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) break;
      if (got <= 0) return false;
      from.bytes.append(bytes, static_cast<std::size_t>(got));
    }
    wire::request asked;
    if (from.asked || from.bytes.size() < sizeof asked) return true;
    std::memcpy(&asked, from.bytes.data(), sizeof asked);
    if (from.bytes.size() < sizeof asked + asked.bytes) return true;
    from.asked = true;
    from.recursive = asked.recursive != 0;
    from.shell = shell_of(from.process);
    return true;
  }

  const std::string& shell_of(pid_t shell) {
    // By the make that has started it, which reads the same makefiles as long as it runs.
    pid_t make = 0;
    if (std::FILE* stat = std::fopen(("/proc/" + std::to_string(shell) + "/stat").c_str(), "re")) {
      if (std::fscanf(stat, "%*d (%*[^)]) %*c %d", &make) != 1) make = 0;
      std::fclose(stat);
    }
    auto [found, fresh] = shells_.try_emplace(make);
    if (fresh) found->second = shell_for_make(make);
    return found->second;
  }

  client_list::iterator forget(client_list::iterator which) {
    ::close((*which)->fd);
    return clients_.erase(which);
  }

  void give_places() {
    for (auto each = clients_.begin(); each != clients_.end();) {
      client& one = **each;
      // A line that starts another make takes no place: those that it starts do, and it would wait for them.
      bool may = one.asked && (one.recursive || running_.size() < places_);
      if (!may) {
        ++each;
        continue;
      }
      if (!one.recursive) {
        int fd = open_pidfd(one.process);
        if (fd >= 0) running_.emplace(one.process, fd);
      }
      std::string answer(1, one.recursive ? wire::run_freely : wire::run_in_place);
      answer += one.shell;
      answer.push_back('\0');
      if (::send(one.fd, answer.data(), answer.size(), MSG_NOSIGNAL) < 0) {
      } // then it is gone, and so is its process
      each = forget(each);
    }
  }

  void pass_on(int which, pid_t make) {
    // The terminal's Ctrl-C has reached all of them.
    if (which == SIGINT && signal_from_terminal != 0) return;
    ::kill(make, which);
    for (const auto& [process, fd] : running_) ::kill(process, which);
  }

  private_folder folder_;
  std::string path_;
  std::size_t places_;
  jobserver tokens_;
  int listener_ = -1;
  client_list clients_;
  std::map<pid_t, int> running_; // processes in a place, and their pidfds
  std::map<pid_t, std::string> shells_;
};

} // namespace

int run_make(const std::vector<std::string>& command, const make_options& options) {
  make_arguments given = split_make_arguments({command.begin() + 1, command.end()});
  unsigned at_once = options.processors;
  if (given.jobs && *given.jobs > 0) at_once = std::min(at_once, *given.jobs);
  make_server server(options, at_once, has_fifo(command[0]) ? jobserver::kind::fifo : jobserver::kind::pipe);

  const char* outer = std::getenv("MAKEFLAGS");
  ::setenv(
      "MAKEFLAGS",
      make_flags(outer != nullptr ? outer : "", "-j" + std::to_string(at_once) + " " + server.flag()).c_str(),
      1);
  ::setenv(wire::socket_variable, server.path().c_str(), 1);
  ::unsetenv(wire::place_variable);
  // A variable of every target hides the makefile's own SHELL from recipes, and only from them.
  std::vector<std::string> words{command[0], "--eval=%:SHELL=" + options.shell};
  words.insert(words.end(), given.rest.begin(), given.rest.end());
  std::vector<char*> pointers;
  for (std::string& each : words) pointers.push_back(each.data());
  pointers.push_back(nullptr);

  signals_for_make signals;
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setsigmask(&attributes, &signals.outer_mask());
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t make = 0;
  int reason = ::posix_spawnp(&make, pointers[0], nullptr, &attributes, pointers.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  if (reason != 0) throw build_error(command[0] + ": " + reason_text(reason));
  server.serve(make, signals.outer_mask());
  int status = 0;
  while (::waitpid(make, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

} // namespace pmake
