// The keeper: a small process of each node that starts its programs, and that sees to it that none outlives its time.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <migrate/program/descendants.hpp>
#include <migrate/program/protocol.hpp>
#include <migrate/store/descriptor.hpp>

namespace migrate::detail::keeping {

class keeper {
  // A process of its own, since it has to outlive a node that is killed; the node's executable, since programs use
  // nothing else that is sure to be on the machine. It is small, so that a program starts as fast from a node of
  // gigabytes as from an empty one, and a program gets nothing of the node but what is sent along: no descriptors, no
  // signal mask, no fixed addresses. What its programs leave behind becomes its child (PR_SET_CHILD_SUBREAPER), and
  // what it is the child of which program by its tag.
  //
  // Two threads: one serves the node and collects children; the other starts programs, one after the other, since
  // vfork(2) holds up whoever calls it until the program is read, and a file system may take its time.

public:
  keeper(int node, std::uint32_t id) : node_(node), id_(id) {}
  [[noreturn]] void run();

private:
  struct program {
    program_start how;
    std::vector<descriptor> given;
    std::vector<char*> arguments, environment, for_shell; // made before vfork, after which nothing may be allocated
    std::vector<int> sources;
    std::atomic<pid_t> process{0}; // set by itself, so that it is known before it can end
    std::atomic<int> error{0};     // of what kept it from being executed
    std::atomic<stage> where{stage::process};
    bool begun = false;    // the starter is done with it
    bool ending = false;   // it is to be killed
    bool ended = false;    // and has been collected
    int status = 0;
    ::rusage used{};
    std::vector<int> early; // signals that came before it
    std::chrono::steady_clock::time_point clear_by{};
  };
  using shared = std::shared_ptr<program>;

  void serve();
  void take(const request& asked, const std::byte* body, std::size_t bytes, std::vector<descriptor> given);
  void begin(const request& asked, const std::byte* body, std::size_t bytes, std::vector<descriptor> given);
  void start_programs();
  void start(program& fresh);
  static void prepare(program& fresh);
  static pid_t fork(program& fresh, pid_t keeper, std::uint32_t id);
  [[noreturn]] static void become(program& fresh, pid_t keeper, std::uint32_t id) noexcept;
  [[noreturn]] static void execute(program& fresh) noexcept;
  static bool place_descriptors(program& fresh) noexcept;
  static bool set_limits(program& fresh, std::uint32_t id) noexcept;

  void reap();
  void settle(program& which);
  void kill_all(program& which);
  unsigned signal_all(program& which, int signal);
  std::vector<pid_t> descendants(const program& which);
  std::vector<pid_t> orphans() const;
  void stop();
  void say(news what, const program& which, int status, unsigned left = 0);
  static void remove_outputs(const program& which);
  void refuse(std::uint64_t serial, stage where, int error);

  static constexpr std::chrono::seconds patience{5}; // with what does not die

  int node_;
  std::uint32_t id_;
  pid_t self_ = ::getpid();
  int children_ = -1; // signalfd
  std::mutex lock_;
  std::condition_variable changed_;
  std::map<std::uint64_t, shared> programs_;
  std::deque<shared> to_start_;
  bool stopping_ = false;
};

inline void keeper::run() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
  // By the system call: posix_spawn(3) leaves two ignored that are its library's own, and signal(3) does not touch them.
  constexpr unsigned long standard_action[4] = {};
  for (int signal = 1; signal < NSIG; ++signal)
    ::syscall(SYS_rt_sigaction, signal, &standard_action, nullptr, sizeof(std::uint64_t));
  ::close_range(static_cast<unsigned>(node_) + 1, ~0u, 0);
  ::fcntl(node_, F_SETFD, FD_CLOEXEC);
  sigset_t child;
  ::sigemptyset(&child);
  ::sigaddset(&child, SIGCHLD);
  children_ = ::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  ::prctl(PR_SET_NAME, "migrate-keeper");
  if (int persona = ::personality(0xffffffff); persona != -1)
    ::personality(static_cast<unsigned long>(persona) & ~static_cast<unsigned long>(ADDR_NO_RANDOMIZE));
  std::thread([this] { start_programs(); }).detach();
  serve();
  stop();
  ::_exit(0);
}

// --- what the node wants -----------------------------------------------------------------------------

inline void keeper::serve() {
  std::vector<std::byte> bytes(sizeof(request) + most_inline);
  alignas(cmsghdr) std::byte beside[CMSG_SPACE(most_descriptors * sizeof(int))];
  for (;;) {
    bool clearing = false;
    {
      std::lock_guard guard(lock_);
      for (auto& [serial, each] : programs_) clearing |= each->ended;
    }
    pollfd ready[] = {{node_, POLLIN, 0}, {children_, POLLIN, 0}};
    ::poll(ready, 2, clearing ? 20 : -1);
    signalfd_siginfo news;
    while (::read(children_, &news, sizeof news) > 0) {
    }
    for (;;) {
      iovec into{bytes.data(), bytes.size()};
      msghdr message{};
      message.msg_iov = &into;
      message.msg_iovlen = 1;
      message.msg_control = beside;
      message.msg_controllen = sizeof beside;
      ssize_t got = ::recvmsg(node_, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) break;
      if (got <= 0) return; // the node has gone
      std::vector<descriptor> given;
      for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
          int fd = -1;
          std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
          given.emplace_back(fd);
        }
      }
      request asked;
      if (static_cast<std::size_t>(got) < sizeof asked) continue;
      std::memcpy(&asked, bytes.data(), sizeof asked);
      if ((message.msg_flags & MSG_CTRUNC) != 0)
        refuse(asked.serial, stage::descriptors, EMFILE);
      else
        take(asked, bytes.data() + sizeof asked, static_cast<std::size_t>(got) - sizeof asked, std::move(given));
    }
    reap();
  }
}

inline void keeper::take(const request& asked, const std::byte* body, std::size_t bytes, std::vector<descriptor> given) {
  if (asked.what == order::start || asked.what == order::start_apart) {
    try {
      begin(asked, body, bytes, std::move(given));
    } catch (const std::exception&) {
      refuse(asked.serial, stage::process, ENOMEM);
    }
    return;
  }
  std::lock_guard guard(lock_);
  auto found = programs_.find(asked.serial);
  if (found == programs_.end()) return; // its end is on the way to the node
  program& which = *found->second;
  pid_t process = which.process.load();
  switch (asked.what) {
  case order::signal:
    if (process == 0)
      which.early.push_back(asked.signal);
    else if (!which.ended)
      ::kill(-process, asked.signal);
    return;
  case order::signal_all:
    if (process == 0)
      which.early.push_back(asked.signal);
    else
      signal_all(which, asked.signal);
    return;
  case order::end:
    which.ending = true;
    if (process != 0) kill_all(which);
    return;
  default: return;
  }
}

inline void keeper::begin(const request& asked, const std::byte* body, std::size_t bytes, std::vector<descriptor> given) {
  std::vector<std::byte> apart;
  if (asked.what == order::start_apart && !given.empty()) {
    struct stat status {};
    ::fstat(given.front().get(), &status);
    apart.resize(static_cast<std::size_t>(status.st_size));
    ssize_t got = ::pread(given.front().get(), apart.data(), apart.size(), 0);
    apart.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    given.erase(given.begin());
    body = apart.data();
    bytes = apart.size();
  }
  byte_reader in(body, bytes);
  auto fresh = std::make_shared<program>();
  fresh->how = in.get<program_start>();
  fresh->how.serial = asked.serial;
  fresh->given = std::move(given);
  if (fresh->given.size() != fresh->how.targets.size()) return refuse(asked.serial, stage::descriptors, EBADF);
  {
    std::lock_guard guard(lock_);
    programs_.emplace(asked.serial, fresh);
    to_start_.push_back(std::move(fresh));
  }
  changed_.notify_one();
}

inline void keeper::refuse(std::uint64_t serial, stage where, int error) {
  report what{news::failed, where, serial, 0, error, 0, 0, {}};
  ::send(node_, &what, sizeof what, MSG_NOSIGNAL);
}

inline void keeper::say(news what, const program& which, int status, unsigned left) {
  report made{what, which.where.load(), which.how.serial, which.process.load(), status, left, 0, which.used};
  ::send(node_, &made, sizeof made, MSG_NOSIGNAL);
}

// --- starting ----------------------------------------------------------------------------------------

inline void keeper::start_programs() {
  std::unique_lock guard(lock_);
  for (;;) {
    changed_.wait(guard, [&] { return stopping_ || !to_start_.empty(); });
    if (stopping_) return;
    shared next = std::move(to_start_.front());
    to_start_.pop_front();
    if (next->ending) { // before it began
      next->status = SIGKILL;
      say(news::ended, *next, next->status);
      programs_.erase(next->how.serial);
      continue;
    }
    guard.unlock();
    start(*next);
    guard.lock();
  }
}

inline void keeper::start(program& fresh) {
  prepare(fresh);
  pid_t made = fork(fresh, self_, id_);
  if (made < 0) fresh.error = errno;
  fresh.given.clear();
  std::lock_guard guard(lock_);
  fresh.begun = true;
  if (made > 0 && fresh.process.load() == 0) fresh.error = EAGAIN; // killed before its first instruction
  if (fresh.error.load() != 0) {
    say(news::failed, fresh, fresh.error.load());
    if (made < 0 || fresh.ended || fresh.process.load() == 0) programs_.erase(fresh.how.serial);
    return;
  }
  say(news::started, fresh, 0);
  if (fresh.ended) {
    settle(fresh);
    return;
  }
  for (int each : fresh.early) ::kill(-fresh.process.load(), each);
  if (fresh.ending) kill_all(fresh);
}

inline void keeper::prepare(program& fresh) {
  auto pointers = [](std::vector<std::string>& words) {
    std::vector<char*> all;
    for (std::string& each : words) all.push_back(each.data());
    all.push_back(nullptr);
    return all;
  };
  fresh.arguments = pointers(fresh.how.arguments);
  fresh.environment = pointers(fresh.how.environment);
  // For a script without a first line that names its interpreter: sh PATH ARGUMENTS..., as execvp(3).
  fresh.for_shell = fresh.arguments;
  fresh.for_shell.insert(fresh.for_shell.begin(), nullptr);
  if (fresh.for_shell.size() == 2) fresh.for_shell.push_back(nullptr);
  for (const descriptor& each : fresh.given) fresh.sources.push_back(each.get());
}

[[gnu::noinline]] inline pid_t keeper::fork(program& fresh, pid_t keeper, std::uint32_t id) {
  pid_t made = ::vfork();
  if (made == 0) become(fresh, keeper, id);
  return made;
}

[[gnu::noinline]] inline void keeper::become(program& fresh, pid_t keeper, std::uint32_t id) noexcept {
  // In the child, which has the keeper's memory until it executes or exits: it allocates nothing and takes no lock.
  auto fail = [&](int reason) {
    fresh.error = reason != 0 ? reason : EINVAL;
    ::_exit(127);
  };
  ::setpgid(0, 0);
  fresh.process = ::getpid();
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != keeper) ::_exit(127);
  ::umask(fresh.how.mask);
  if (fresh.how.nice > ::getpriority(PRIO_PROCESS, 0)) ::setpriority(PRIO_PROCESS, 0, fresh.how.nice);
  fresh.where = stage::directory;
  if (::chdir(fresh.how.directory.c_str()) != 0) fail(errno);
  fresh.where = stage::descriptors;
  if (!place_descriptors(fresh)) fail(errno);
  fresh.where = stage::limits;
  if (!set_limits(fresh, id)) fail(errno);
  for (int signal = 1; signal < NSIG; ++signal)
    if ((fresh.how.ignored & (std::uint64_t{1} << (signal - 1))) != 0) ::signal(signal, SIG_IGN);
  sigset_t blocked;
  ::sigemptyset(&blocked);
  for (int signal = 1; signal < NSIG; ++signal)
    if ((fresh.how.blocked & (std::uint64_t{1} << (signal - 1))) != 0) ::sigaddset(&blocked, signal);
  ::sigprocmask(SIG_SETMASK, &blocked, nullptr);
  fresh.where = stage::execution;
  execute(fresh);
}

inline bool keeper::place_descriptors(program& fresh) noexcept {
  const std::vector<int>& targets = fresh.how.targets;
  int above = targets.empty() ? 0 : *std::max_element(targets.begin(), targets.end()) + 1;
  for (int& source : fresh.sources) {
    if (std::find(targets.begin(), targets.end(), source) == targets.end()) continue;
    source = ::fcntl(source, F_DUPFD_CLOEXEC, above); // out of the way of what goes there
    if (source < 0) return false;
  }
  for (std::size_t i = 0; i < targets.size(); ++i)
    if (::dup2(fresh.sources[i], targets[i]) < 0) return false;
  return true;
}

inline bool keeper::set_limits(program& fresh, std::uint32_t id) noexcept {
  rlimit now{};
  rlim_t tag = tag_of(id, fresh.how.serial);
  if (::getrlimit(RLIMIT_RTTIME, &now) == 0 && now.rlim_max > tag) {
    now.rlim_cur = tag;
    ::setrlimit(RLIMIT_RTTIME, &now);
  }
  for (const limit& each : fresh.how.limits) {
    auto resource = static_cast<__rlimit_resource>(each.resource);
    if (::getrlimit(resource, &now) != 0) return false;
    rlimit wanted{};
    wanted.rlim_max = std::min(each.hard, now.rlim_max);
    wanted.rlim_cur = std::min(each.soft, wanted.rlim_max);
    if (::setrlimit(resource, &wanted) != 0) return false;
  }
  return true;
}

inline void keeper::execute(program& fresh) noexcept {
  // As execvp(3): the first of the paths that can be executed; EACCES if one was there that could not.
  int reason = ENOENT;
  for (std::string& path : fresh.how.executables) {
    ::execve(path.c_str(), fresh.arguments.data(), fresh.environment.data());
    if (errno == ENOEXEC) {
      static char shell[] = "/bin/sh";
      fresh.for_shell[0] = shell;
      fresh.for_shell[1] = path.data();
      ::execve(shell, fresh.for_shell.data(), fresh.environment.data());
      errno = ENOEXEC;
    }
    if (errno == EACCES) reason = EACCES;
    bool next = errno == EACCES || errno == ENOENT || errno == ENOTDIR || errno == ESTALE || errno == ENODEV;
    if (next) continue;
    reason = errno;
    break;
  }
  fresh.error = reason;
  ::_exit(127);
}

// --- ends --------------------------------------------------------------------------------------------

inline void keeper::reap() {
  for (;;) {
    siginfo_t info{};
    if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) break;
    std::lock_guard guard(lock_);
    auto found = std::find_if(programs_.begin(), programs_.end(),
                              [&](const auto& each) { return each.second->process.load() == info.si_pid; });
    shared which = found == programs_.end() || found->second->ended ? nullptr : found->second;
    bool failed = which != nullptr && which->error.load() != 0;
    // As long as it is not collected, nobody else can have its number, nor its group's.
    if (which != nullptr && !failed) ::kill(-info.si_pid, SIGKILL);
    int status = 0;
    ::rusage used{};
    ::wait4(info.si_pid, &status, 0, &used);
    if (which == nullptr) continue;
    which->ended = true;
    which->status = status;
    which->used = used;
    if (!which->begun) continue; // the starter goes on with it
    if (failed)
      programs_.erase(which->how.serial);
    else
      settle(*which);
  }
  std::lock_guard guard(lock_);
  std::vector<shared> clearing;
  for (auto& [serial, each] : programs_)
    if (each->ended && each->begun) clearing.push_back(each);
  for (const shared& each : clearing) settle(*each);
}

inline void keeper::settle(program& which) {
  // It has ended: told when all its descendants have, too.
  auto now = std::chrono::steady_clock::now();
  if (which.clear_by == decltype(which.clear_by){}) which.clear_by = now + patience;
  std::vector<pid_t> left = descendants(which);
  if (!left.empty() && now < which.clear_by) {
    kill_all(which);
    return;
  }
  if (WIFSIGNALED(which.status)) remove_outputs(which);
  say(news::ended, which, which.status, static_cast<unsigned>(left.size()));
  programs_.erase(which.how.serial);
}

inline void keeper::remove_outputs(const program& which) {
  for (const std::string& path : which.how.outputs) ::unlink(path.c_str());
}

inline std::vector<pid_t> keeper::orphans() const {
  // The starter's children are programs; what a descendant leaves behind becomes the first thread's.
  std::vector<pid_t> found;
  if (processes::kernel_lists_children()) {
    processes::children_of_thread(self_, self_, found);
    return found;
  }
  processes::children_of(self_, found);
  std::erase_if(found, [&](pid_t each) {
    return std::any_of(programs_.begin(), programs_.end(),
                       [&](const auto& known) { return known.second->process.load() == each; });
  });
  return found;
}

inline std::vector<pid_t> keeper::descendants(const program& which) {
  std::vector<pid_t> found;
  if (!which.ended && which.process.load() != 0) processes::add_tree(which.process.load(), found);
  rlim_t tag = tag_of(id_, which.how.serial);
  for (pid_t each : orphans()) {
    rlim_t its = processes::tag_of(each);
    bool somebody_elses = its != tag && ((its & keeper_bits) == (tag & keeper_bits) || programs_.size() > 1);
    if (!somebody_elses) processes::add_tree(each, found);
  }
  return found;
}
// An orphan without a tag, which it was forbidden to have or has taken off, is taken for the only program's there is.

inline unsigned keeper::signal_all(program& which, int signal) {
  // Until there are no new ones: who is stopped makes no more.
  std::vector<pid_t> done;
  for (int round = 0; round < 1000; ++round) {
    bool more = false;
    for (pid_t each : descendants(which)) {
      if (std::find(done.begin(), done.end(), each) != done.end()) continue;
      done.push_back(each);
      more = ::kill(each, signal) == 0 || more;
    }
    if (!more || signal != SIGSTOP) break;
  }
  return static_cast<unsigned>(done.size());
}

inline void keeper::kill_all(program& which) {
  if (signal_all(which, SIGSTOP) > 0) signal_all(which, SIGKILL);
}

inline void keeper::stop() {
  // The node is gone, or has no more use for programs.
  {
    std::lock_guard guard(lock_);
    stopping_ = true;
    to_start_.clear();
  }
  changed_.notify_one();
  auto limit = std::chrono::steady_clock::now() + patience;
  for (;;) {
    std::vector<pid_t> all;
    processes::children_of(self_, all);
    for (int signal : {SIGSTOP, SIGKILL}) {
      std::vector<pid_t> tree;
      for (pid_t each : all) processes::add_tree(each, tree);
      for (pid_t each : tree) ::kill(each, signal);
    }
    int status = 0;
    pid_t ended = 0;
    while ((ended = ::waitpid(-1, &status, WNOHANG)) > 0) {
      std::lock_guard guard(lock_);
      for (auto& [serial, each] : programs_)
        if (each->process.load() == ended && !std::exchange(each->ended, true) && WIFSIGNALED(status)) remove_outputs(*each);
    }
    if (ended < 0 || std::chrono::steady_clock::now() >= limit) return;
    pollfd ready{children_, POLLIN, 0};
    ::poll(&ready, 1, 10);
    signalfd_siginfo news;
    while (::read(children_, &news, sizeof news) > 0) {
    }
  }
}

// ---------------------------------------------------------------------------------------------------

inline bool keep_if_asked() {
  const char* given = std::getenv(variable);
  if (given == nullptr) return false;
  int type = 0;
  socklen_t bytes = sizeof type;
  if (::getsockopt(socket_number, SOL_SOCKET, SO_TYPE, &type, &bytes) != 0 || type != SOCK_SEQPACKET) return false;
  keeper(socket_number, static_cast<std::uint32_t>(std::strtoul(given, nullptr, 10))).run();
}

inline const bool not_a_keeper = !keep_if_asked();
// Before main(): a process that was started to be a keeper is nothing else.

} // namespace migrate::detail::keeping
