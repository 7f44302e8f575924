// A warden: the process that starts a grant's node, keeps its limits, and does not end before everything of it has.
#pragma once

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <linux/close_range.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <migrate/cluster/control_groups.hpp>
#include <migrate/cluster/launch_order.hpp>
#include <migrate/cluster/launch_user.hpp>
#include <migrate/cluster/process_tree.hpp>
#include <migrate/cluster/scratch.hpp>
#include <migrate/error.hpp>
#include <migrate/store/descriptor.hpp>

namespace migrate::detail {

struct launch_places {
  launch_user user;
  std::string cache;   // folder of executables; it and the next belong to the user
  std::string scratch; // folder in which each grant has one
  control_group_places groups;
  std::string prefix; // of the names that grants have there, this agent's own
};
// Of all grants of an agent.

inline std::string grant_name(const launch_places& places, std::uint64_t grant) {
  return places.prefix + std::to_string(grant);
}

inline void signal_processes(const std::vector<process_entry>& processes, int signal) {
  // Whole process groups first, which the kernel does in one step: of those that keep forking nobody escapes.
  std::set<pid_t> groups;
  for (const process_entry& each : processes)
    if (each.group > 1 && each.group != ::getpgrp() && groups.insert(each.group).second)
      ::kill(-each.group, signal);
  for (const process_entry& each : processes) ::kill(each.id, signal);
}

inline void signal_descendants(pid_t root, int signal) {
  // SIGSTOP or SIGCONT, until twice none is found that has not had it: the kernel's lists of children may leave one out
  // while another ends.
  std::set<pid_t> had;
  for (int round = 0, none = 0; round < 20 && none < 2; ++round) {
    auto found = descendants_of(root);
    std::erase_if(found, [&](const process_entry& each) { return !had.insert(each.id).second; });
    none = found.empty() ? none + 1 : 0;
    signal_processes(found, signal);
  }
}

class warden {
  // It is the nearest subreaper above all processes of its grant (prctl(2), PR_SET_CHILD_SUBREAPER): whoever of them
  // loses its parent becomes its child, also one that called fork and setsid twice. So when it has no children any more,
  // nothing is left. Its one thread owns it.

public:
  warden(const launch_places& places, launch_order order, descriptor agent, descriptor node)
      : places_(places), order_(std::move(order)), agent_(std::move(agent)), node_(std::move(node)),
        name_(grant_name(places, order_.grant)) {}

  void run() {
    // Returns when nothing is left.
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    ::sigprocmask(SIG_BLOCK, &child, nullptr);
    signals_ = descriptor(::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
    prepare();
    if (std::string why = start(); !why.empty()) {
      clear();
      report({warden_report::kind::failed, 0, 0, why, last_words()});
      return;
    }
    report({warden_report::kind::started, main_, 0, limits_text_, {}});
    while (!ended_) turn();
    clear();
    report({warden_report::kind::gone, main_, status_, ending(), last_words()});
  }

private:
  using clock = std::chrono::steady_clock;

  void prepare() {
    groups_ = control_groups(places_.groups, name_);
    const launch_limits& limits = order_.limits;
    if (limits.memory_bytes > 0) {
      memory_watched_ = !groups_.limit_memory(limits.memory_bytes);
      limits_text_ +=
          std::string("memory limited by ") + (memory_watched_ ? "looking at it" : "a control group");
    }
    if (limits.processes > 0) {
      processes_by_user_ = !groups_.limit_processes(limits.processes);
      limits_text_ += std::string(limits_text_.empty() ? "" : ", ") + "processes by " +
                      (processes_by_user_ ? "rlimit" : "a control group");
    }
    scratch_parent_ =
        descriptor(::open(places_.scratch.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (::mkdirat(scratch_parent_.get(), name_.c_str(), 0700) == 0 && ::geteuid() == 0)
      if (::fchownat(scratch_parent_.get(), name_.c_str(), places_.user.id, places_.user.group,
                     AT_SYMLINK_NOFOLLOW) != 0)
        return; // start() says what it cannot enter
  }

  std::string start() {
    // Empty, or why it could not be done.
    int outcome[2], output[2];
    if (::pipe2(outcome, O_CLOEXEC) != 0) return std::string("pipe: ") + std::strerror(errno);
    descriptor outcome_in(outcome[0]), outcome_out(outcome[1]);
    if (::pipe2(output, O_CLOEXEC) != 0) return std::string("pipe: ") + std::strerror(errno);
    output_ = descriptor(output[0]);
    descriptor output_out(output[1]);
    ::fcntl(output_.get(), F_SETFL, O_NONBLOCK);
    pid_t self = ::getpid();
    main_ = ::fork();
    if (main_ < 0) return std::string("fork: ") + std::strerror(errno);
    if (main_ == 0) {
      std::string why;
      try {
        become_node(self, output_out.get());
        why = std::string("exec: ") + std::strerror(errno);
      } catch (const std::exception& problem) {
        why = problem.what();
      }
      static_cast<void>(!::write(outcome_out.get(), why.data(), std::min<std::size_t>(why.size(), PIPE_BUF)));
      ::_exit(127);
    }
    outcome_out.close();
    output_out.close();
    node_.close();
    std::string
        why; // ends when exec closes the pipe. The copying of an executable may be given up meanwhile.
    for (;;) {
      pollfd waited[2] = {{outcome_in.get(), POLLIN, 0}, {agent_.get(), POLLIN, 0}};
      if (::poll(waited, 2, -1) < 0 && errno != EINTR) break;
      if (waited[0].revents != 0) {
        char bytes[PIPE_BUF];
        ssize_t got = ::read(outcome_in.get(), bytes, sizeof bytes);
        if (got <= 0) break;
        why.append(bytes, static_cast<std::size_t>(got));
      } else if (waited[1].revents != 0) {
        hear();
        if (deadline_) return "the grant ended before the program was started";
      }
    }
    return why;
  }

  [[gnu::noinline]] void become_node(pid_t parent, int output) {
    // In the child. Returns when exec has failed.
    groups_.join();
    ::setsid();
    write_file("/proc/self/oom_score_adj", "1000"); // before the owner's own programs
    ::setpriority(PRIO_PROCESS, 0, order_.limits.nice);
    if (order_.limits.idle_only) {
      sched_param none{};
      ::sched_setscheduler(0, SCHED_IDLE, &none);
    }
    limit(RLIMIT_CORE, 0);
    if (processes_by_user_) limit(RLIMIT_NPROC, threads_of_user() + order_.limits.processes);
    if (::geteuid() == 0) ::unshare(CLONE_NEWIPC); // System V's shared memory and message queues go with it
    places_.user.become();
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); // nothing that this user cannot kill again
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);

    std::error_code ignored;
    std::filesystem::create_directories(std::filesystem::path(places_.cache).parent_path(), ignored);
    descriptor file = open_executable(order_.executable, places_.cache);
    std::string scratch = places_.scratch + "/" + name_;
    if (::chdir(scratch.c_str()) != 0)
      throw error(std::error_code(errno, std::system_category()),
                  "the folder " + scratch + " cannot be entered: " + std::strerror(errno));
    if (!order_.directory.empty() && ::chdir(order_.directory.c_str()) != 0)
      if (::chdir(scratch.c_str()) != 0) return;

    std::vector<std::string> environment = environment_with(scratch);
    std::vector<char*> arguments, variables;
    for (std::string& each : order_.arguments) arguments.push_back(each.data());
    for (std::string& each : environment) variables.push_back(each.data());
    arguments.push_back(nullptr);
    variables.push_back(nullptr);

    for (int each = 1; each < NSIG; ++each) ::signal(each, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    if (int persona = ::personality(0xffffffff); persona != -1) // a node would only start itself again
      ::personality(static_cast<unsigned long>(persona) | ADDR_NO_RANDOMIZE);

    // The keeper has seen to it that none of these is below 4.
    descriptor null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (::dup2(null.get(), 0) < 0 || ::dup2(output, 1) < 0 || ::dup2(output, 2) < 0 ||
        ::dup2(node_.get(), 3) < 0)
      return;
    ::close_range(4, ~0u, CLOSE_RANGE_CLOEXEC);
    ::fexecve(file.get(), arguments.data(), variables.data());
  }

  static void limit(int resource, std::uint64_t most) {
    rlimit now{};
    if (::getrlimit(static_cast<__rlimit_resource_t>(resource), &now) != 0) return;
    now.rlim_cur = std::min<rlim_t>(now.rlim_max, most);
    now.rlim_max = now.rlim_cur;
    ::setrlimit(static_cast<__rlimit_resource_t>(resource), &now);
  }

  std::uint64_t threads_of_user() const {
    std::uint64_t threads = 0;
    struct stat status {};
    process_tree tree;
    for (const auto& [id, each] : tree.all())
      if (::stat(("/proc/" + std::to_string(id)).c_str(), &status) == 0 && status.st_uid == places_.user.id)
        threads += each.threads;
    return threads;
  }

  std::vector<std::string> environment_with(const std::string& scratch) const {
    std::vector<std::string> made;
    auto has = [&](std::string_view name) {
      return std::any_of(made.begin(), made.end(), [&](const std::string& each) {
        return each.size() > name.size() && each.starts_with(name) && each[name.size()] == '=';
      });
    };
    auto put = [&](const std::string& name, const std::string& value) { made.push_back(name + "=" + value); };
    for (const std::string& each : order_.environment)
      if (!each.starts_with("MIGRATE_AGENT=") && !each.starts_with("TMPDIR=")) made.push_back(each);
    put("MIGRATE_AGENT", "3");
    put("TMPDIR", scratch);
    const launch_user& user = places_.user;
    const std::pair<const char*, std::string> others[] = {{"HOME", user.home},
                                                          {"USER", user.name},
                                                          {"LOGNAME", user.name},
                                                          {"SHELL", user.shell},
                                                          {"PATH", "/usr/local/bin:/usr/bin:/bin"}};
    for (const auto& [name, value] : others)
      if (!has(name) && !value.empty()) put(name, value);
    return made;
  }

  void turn() {
    auto now = clock::now();
    auto wake = now + std::chrono::hours(1);
    if (deadline_) wake = std::min(wake, *deadline_);
    if (memory_watched_) wake = std::min(wake, now + std::chrono::milliseconds(100));
    if (order_.limits.scratch_bytes > 0) wake = std::min(wake, now + std::chrono::milliseconds(500));
    pollfd waited[3] = {{agent_.get(), POLLIN, 0}, {signals_.get(), POLLIN, 0}, {output_.get(), POLLIN, 0}};
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(wake - now).count() + 1;
    ::poll(waited, 3, static_cast<int>(std::max<std::int64_t>(left, 0)));
    if (waited[2].revents != 0) take_output();
    if (waited[1].revents != 0) reap();
    if (waited[0].revents != 0) hear();
    if (deadline_ && clock::now() >= *deadline_) ended_ = true;
    if (!ended_) check_use();
  }

  void hear() {
    char bytes[64];
    ssize_t got = ::recv(agent_.get(), bytes, sizeof bytes - 1, 0);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    std::string_view said(bytes, got > 0 ? static_cast<std::size_t>(got) : 0);
    bool running = main_ > 0;
    if (said == "stop" && running) {
      if (!groups_.freeze(true)) signal_descendants(::getpid(), SIGSTOP);
    } else if (said == "go" && running) {
      go();
    } else if (said.empty() || said.starts_with("end ")) { // an agent that has died says nothing any more
      unsigned milliseconds = 0;
      if (!said.empty()) std::from_chars(said.data() + 4, said.data() + said.size(), milliseconds);
      if (milliseconds == 0) at_once_ = true;
      auto when = clock::now() + std::chrono::milliseconds(milliseconds);
      deadline_ = deadline_ ? std::min(*deadline_, when) : when;
      if (running) {
        go();
        hurry();
      }
    }
  }

  void go() {
    groups_.freeze(false);
    signal_descendants(::getpid(), SIGCONT);
  }

  void hurry() {
    // What has to leave shall not wait until nothing else wants the processors. Only root may take SCHED_IDLE back.
    sched_param none{};
    std::string tasks = "/proc/" + std::to_string(main_) + "/task";
    for_each_name(AT_FDCWD, tasks.c_str(), [&](std::string_view name) {
      if (auto thread = parse_number(name, 1u << 30)) {
        ::sched_setscheduler(static_cast<pid_t>(*thread), SCHED_OTHER, &none);
        ::setpriority(PRIO_PROCESS, static_cast<id_t>(*thread), 0);
      }
    });
  }

  void reap() {
    signalfd_siginfo told[16];
    while (::read(signals_.get(), told, sizeof told) > 0) {
    }
    int status = 0;
    for (pid_t id; (id = ::waitpid(-1, &status, WNOHANG)) > 0;)
      if (id == main_) {
        status_ = status;
        if (!ended_) ended_ = exited_ = true;
      }
  }

  void take_output() {
    char bytes[16 * 1024];
    ssize_t got = ::read(output_.get(), bytes, sizeof bytes);
    if (got == 0) output_.close();
    if (got <= 0) return;
    constexpr std::size_t kept = 4096;
    words_.append(bytes, static_cast<std::size_t>(got));
    if (words_.size() > 2 * kept) words_.erase(0, words_.size() - kept);
  }
  // Nobody's tasks print here: theirs goes to their homes. A node that says much is read and forgotten.

  void check_use() {
    auto now = clock::now();
    const launch_limits& limits = order_.limits;
    if (memory_watched_ && now - memory_looked_ >= std::chrono::milliseconds(100)) {
      memory_looked_ = now;
      std::uint64_t used = 0;
      for (const process_entry& each : descendants_of(::getpid())) used += private_bytes(each.id);
      if (used > limits.memory_bytes)
        over_ = "its processes used " + std::to_string(used >> 20) + " MiB of memory, over the limit of " +
                std::to_string(limits.memory_bytes >> 20);
    }
    if (limits.scratch_bytes > 0 && now - scratch_looked_ >= std::chrono::milliseconds(500)) {
      scratch_looked_ = now;
      std::uint64_t used = tree_bytes(scratch_parent_.get(), name_);
      if (used > limits.scratch_bytes)
        over_ = "its files in TMPDIR took " + std::to_string(used >> 20) + " MiB, over the limit of " +
                std::to_string(limits.scratch_bytes >> 20);
    }
    if (!over_.empty()) ended_ = true;
  }

  static std::uint64_t private_bytes(pid_t process) {
    // The limits of rlimits are of no use here: a node reserves 64 TiB of addresses, and opens regions that it may
    // never touch.
    unsigned long long resident = 0, shared = 0;
    std::string text = read_file("/proc/" + std::to_string(process) + "/statm");
    if (std::sscanf(text.c_str(), "%*u %llu %llu", &resident, &shared) != 2 || shared > resident) return 0;
    return (resident - shared) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  }

  void clear() {
    auto began = clock::now();
    auto pause = std::chrono::milliseconds(1);
    bool told = false;
    for (int round = 0;; ++round) {
      groups_.kill();
      if (round > 0) signal_descendants(::getpid(), SIGSTOP); // whoever forks faster than it is killed
      auto left = descendants_of(::getpid());
      signal_processes(left, SIGKILL);
      reap();
      bool childless = ::waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD;
      if (childless && groups_.processes().empty()) break;
      if (!told && clock::now() - began > std::chrono::seconds(5)) {
        std::string names;
        for (const process_entry& each : left)
          names += " " + std::to_string(each.id) + " in state " + each.state;
        report({warden_report::kind::stuck, main_, 0, "processes do not die:" + names, {}});
        told = true;
      }
      pollfd waited{signals_.get(), POLLIN, 0};
      ::poll(&waited, 1, static_cast<int>(pause.count()));
      pause = std::min(pause * 2, std::chrono::milliseconds(100));
    }
    out_of_memory_ = groups_.out_of_memory();
    while (output_) {
      pollfd waited{output_.get(), POLLIN, 0};
      if (::poll(&waited, 1, 0) <= 0) break;
      take_output();
    }
    remove_places(groups_, scratch_parent_.get(), name_);
  }

public:
  static void remove_places(const control_groups& groups, int scratch_parent, const std::string& name) {
    // The kernel may need a moment to see that a group is empty.
    for (int round = 0; !groups.remove() && round < 100; ++round) ::poll(nullptr, 0, 1 + round);
    remove_tree(scratch_parent, name);
  }

private:
  std::string ending() const {
    if (!over_.empty()) return over_;
    if (out_of_memory_)
      return "it was killed over its limit of " + std::to_string(order_.limits.memory_bytes >> 20) +
             " MiB of memory";
    if (!exited_) return at_once_ ? "it was ended at once" : "it was killed at its deadline";
    return WIFSIGNALED(status_) ? "it was ended by signal " + std::to_string(WTERMSIG(status_))
                                : "it exited with status " + std::to_string(WEXITSTATUS(status_));
  }

  std::string last_words() const {
    return words_.size() > 4096 ? words_.substr(words_.size() - 4096) : words_;
  }

  void report(const warden_report& what) {
    std::string bytes = encode(what);
    ::send(agent_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }

  const launch_places& places_;
  launch_order order_;
  descriptor agent_, node_, output_, signals_, scratch_parent_;
  std::string name_;
  control_groups groups_;
  bool memory_watched_ = false, processes_by_user_ = false, out_of_memory_ = false;
  std::string limits_text_, over_, words_;
  pid_t main_ = 0;
  int status_ = 0;
  bool exited_ = false; // by itself
  bool ended_ = false;
  bool at_once_ = false; // nobody waits for it any more
  std::optional<clock::time_point> deadline_;
  clock::time_point memory_looked_{}, scratch_looked_{};
};

} // namespace migrate::detail
