// Starting programs for grants, and leaving nothing of them.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <migrate/cluster/control_groups.hpp>
#include <migrate/cluster/launch_order.hpp>
#include <migrate/cluster/warden.hpp>
#include <migrate/error.hpp>
#include <migrate/store/descriptor.hpp>

namespace migrate::detail {

class keeper {
  // The process that starts wardens. It is forked from the agent before that has threads, so that it may fork as often as
  // it likes, and outlives it by as long as it takes until nothing of any grant is left. As subreaper it gets what is left
  // when a warden is killed.

public:
  keeper(launch_places places, descriptor agent) : places_(std::move(places)), agent_(std::move(agent)) {}

  void run() {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    ::setsid(); // what a terminal sends to the agent is not for the grants
    for (int each : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT}) ::signal(each, SIG_IGN);
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    ::sigprocmask(SIG_SETMASK, &child, nullptr);
    signals_ = descriptor(::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
    while (agent_ || !wardens_.empty() || !lost_.empty()) {
      pollfd waited[2] = {{signals_.get(), POLLIN, 0}, {agent_.get(), POLLIN, 0}};
      ::poll(waited, 2, lost_.empty() ? -1 : 10);
      if (waited[1].revents != 0) hear();
      reap();
      if (!lost_.empty()) end_orphans();
    }
  }

private:
  void hear() {
    descriptor received[3];
    char byte;
    iovec part{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))];
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t got = ::recvmsg(agent_.get(), &message, MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (got <= 0) {
      agent_.close();
      for (const auto& [id, grant] : wardens_) ::kill(id, SIGKILL);
      return;
    }
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (header == nullptr || header->cmsg_len != CMSG_LEN(3 * sizeof(int))) return;
    int numbers[3];
    std::memcpy(numbers, CMSG_DATA(header), sizeof numbers);
    for (std::size_t i = 0; i < 3; ++i) received[i] = descriptor(numbers[i]);
    std::string bytes = read_file("/proc/self/fd/" + std::to_string(received[0].get()));
    auto order = decode_order(std::move(bytes));
    if (!order) return;
    std::uint64_t grant = order->grant;
    pid_t made = ::fork();
    if (made == 0) {
      agent_.close();
      signals_.close();
      warden(places_, std::move(*order), std::move(received[1]), std::move(received[2])).run();
      ::_exit(0);
    }
    if (made > 0) wardens_.emplace(made, grant);
  }

  void reap() {
    signalfd_siginfo told[16];
    while (::read(signals_.get(), told, sizeof told) > 0) {
    }
    int status = 0;
    for (pid_t id; (id = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      auto found = wardens_.find(id);
      if (found == wardens_.end()) continue;
      if (status != 0) lost_.push_back(found->second);
      wardens_.erase(found);
    }
  }

  void end_orphans() {
    for (std::uint64_t grant : lost_) groups_of(grant).kill();
    bool any = false;
    process_tree tree;
    for (const process_entry& each : tree.descendants(::getpid())) {
      if (each.parent != ::getpid() || wardens_.contains(each.id)) continue;
      any = true;
      auto all = tree.descendants(each.id);
      all.push_back(each);
      signal_processes(all, SIGKILL);
    }
    if (any) return;
    descriptor scratch(::open(places_.scratch.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    for (std::uint64_t grant : lost_)
      warden::remove_places(groups_of(grant), scratch.get(), grant_name(places_, grant));
    lost_.clear();
  }

  control_groups groups_of(std::uint64_t grant) const { return {places_.groups, grant_name(places_, grant)}; }

  launch_places places_;
  descriptor agent_, signals_;
  std::map<pid_t, std::uint64_t> wardens_;
  std::vector<std::uint64_t> lost_; // grants whose warden was killed
};

struct launch_options {
  launch_user user = launch_user::own();
  std::string cache; // folder of executables; empty: migrate-executables in the user's ~/.cache
  std::string
      scratch; // folder for grants' folders; empty: migrate-hostd-UID in the folder of temporary files
  bool control_groups = true; // use them where it can be done
};

struct launched_grant {
  descriptor warden; // for `tell`; readable when take_report() has news
  descriptor node;   // the other end is the descriptor in the node's MIGRATE_AGENT
};

class launcher {
  // Thread safety: launch() from any one thread at a time.

public:
  explicit launcher(const launch_options& options) {
    // While the process has one thread. Throws when the folders cannot be made or used.
    places_ = prepare(options);
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
      fail("a pair of sockets for the keeper");
    keeper_ = descriptor(ends[0]);
    descriptor theirs(ends[1]);
    process_ = ::fork();
    if (process_ < 0) fail("a process that keeps grants");
    if (process_ == 0) {
      keep(std::move(places_), theirs.get(), lock_.get());
      ::_exit(0);
    }
  }

  ~launcher() {
    keeper_.close();
    if (process_ > 0) ::waitpid(process_, nullptr, 0);
    lock_.close();
    std::error_code ignored;
    std::filesystem::remove(places_.scratch, ignored);
  }
  // Kills what is left of all grants, and waits until it is gone.

  launcher(const launcher&) = delete;
  launcher& operator=(const launcher&) = delete;

  launched_grant launch(const launch_order& order) {
    // Throws when there is no keeper any more, or no descriptors. All else is in a report.
    int warden_ends[2], node_ends[2];
    launched_grant made;
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, warden_ends) != 0)
      fail("a pair of sockets for a grant");
    made.warden = descriptor(warden_ends[0]);
    descriptor warden_end(warden_ends[1]);
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, node_ends) != 0)
      fail("a pair of sockets for a node");
    made.node = descriptor(node_ends[0]);
    descriptor node_end(node_ends[1]);
    descriptor text(::memfd_create("migrate-launch", MFD_CLOEXEC));
    std::string bytes = encode(order);
    if (!text || ::pwrite(text.get(), bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
      fail("memory for what is to be started");
    int numbers[3] = {text.get(), warden_end.get(), node_end.get()};
    char byte = 0;
    iovec part{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof numbers)]{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof numbers);
    std::memcpy(CMSG_DATA(header), numbers, sizeof numbers);
    if (::sendmsg(keeper_.get(), &message, MSG_NOSIGNAL) != 1) fail("the process that keeps grants");
    return made;
  }

  int keeper_descriptor() const { return keeper_.get(); }
  // Readable when the keeper has died: nothing can be started any more.

  pid_t keeper_process() const { return process_; }
  const launch_places& places() const { return places_; }

private:
  [[noreturn]] static void fail(const std::string& what) {
    throw error(std::error_code(errno, std::system_category()),
                what + " is not to be had: " + std::strerror(errno) +
                    "; nothing can be launched on this host");
  }

  launch_places prepare(const launch_options& options) {
    namespace fs = std::filesystem;
    launch_places made;
    made.user = options.user;
    made.prefix = "migrate-" + std::to_string(::getpid()) + "-";
    made.cache = options.cache.empty() ? made.user.home + "/.cache/migrate-executables" : options.cache;
    std::string top = options.scratch;
    if (top.empty())
      top = (fs::temp_directory_path() / ("migrate-hostd-" + std::to_string(::geteuid()))).string();
    // Root's folders are passed through by the user of the nodes, and no more.
    mode_t mode = made.user.id == ::geteuid() ? 0700 : 0711;
    if (::mkdir(top.c_str(), mode) != 0 && errno != EEXIST) fail("the folder " + top + " for grants' files");
    descriptor folder(::open(top.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    struct stat status {};
    if (!folder || ::fstat(folder.get(), &status) != 0) fail("the folder " + top + " for grants' files");
    if (status.st_uid != ::geteuid() || (status.st_mode & 077 & ~(mode & 077)) != 0)
      throw error(errc::store_owner, "the folder " + top +
                                         " for grants' files belongs to somebody else or is open to others" +
                                         "; name one of this user's own (--scratch)");
    remove_left_over(folder.get());
    std::string name = "agent-" + std::to_string(::getpid());
    if (::mkdirat(folder.get(), name.c_str(), mode) != 0 && errno != EEXIST)
      fail("the folder " + top + "/" + name);
    made.scratch = top + "/" + name;
    lock_ = descriptor(::open(made.scratch.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (!lock_ || ::flock(lock_.get(), LOCK_SH | LOCK_NB) != 0) fail("the folder " + made.scratch);
    if (options.control_groups) made.groups = control_group_places::find();
    return made;
  }

  static void remove_left_over(int folder) {
    // Of agents that died together with their keepers: theirs are not locked any more.
    std::vector<std::string> names;
    for_each_name(folder, ".", [&](std::string_view name) { names.emplace_back(name); });
    for (const std::string& name : names) {
      descriptor one(::openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
      if (one && ::flock(one.get(), LOCK_EX | LOCK_NB) == 0) remove_tree(folder, name);
    }
  }

  static void keep(launch_places places, int agent, int lock) {
    // In the forked child. It has nothing of the agent's but its socket, the lock and standard error; 3 is kept free for
    // a node's end of its socket.
    int socket = ::fcntl(agent, F_DUPFD_CLOEXEC, 16);
    int held = ::fcntl(lock, F_DUPFD_CLOEXEC, 16);
    int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int each : {0, 1, 3}) ::dup2(null, each);
    ::dup2(socket, 4);
    ::dup2(held, 5);
    ::close_range(6, ~0u, 0);
    for (int each : {3, 4, 5}) ::fcntl(each, F_SETFD, FD_CLOEXEC);
    keeper(std::move(places), descriptor(4)).run();
  }

  launch_places places_;
  descriptor keeper_, lock_;
  pid_t process_ = -1;
};

inline bool tell_warden(const launched_grant& grant, std::string_view what) {
  // "stop": everything stands still. "go": it goes on. "end MS": the node may finish by then; all that is left is killed.
  return ::send(grant.warden.get(), what.data(), what.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
         static_cast<ssize_t>(what.size());
}

inline std::optional<warden_report> take_report(const launched_grant& grant, bool& closed) {
  // None when there is none just now; `closed` when none will come any more, which without kind::gone or failed before
  // means that the warden was killed.
  char bytes[16 * 1024];
  ssize_t got = ::recv(grant.warden.get(), bytes, sizeof bytes, MSG_DONTWAIT);
  closed = got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
  if (got <= 0) return {};
  return decode_report(std::string(bytes, static_cast<std::size_t>(got)));
}

} // namespace migrate::detail
