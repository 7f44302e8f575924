// Handing open descriptors to another node of the same machine.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <migrate/id.hpp>
#include <migrate/store/descriptor.hpp>

namespace migrate::detail {

class descriptor_passing {
  // Each node listens on a Unix socket in the store's directory, which only the nodes' user may enter. A source sends a
  // moving task's descriptors there before the offer that names them, so that they lie in the target's queue when the
  // offer comes, and stay there when the source is killed. What arrives is the same open file description: offset,
  // flags, locks and an unlinked file's bytes stay as they are, for 0.1 microseconds a descriptor, where opening it
  // anew takes nine. A machine apart the socket's path leads nowhere, and the sender is told so.

public:
  struct ticket {
    std::uint16_t from = 0;
    std::uint64_t number = 0;
    friend bool operator==(const ticket&, const ticket&) = default;
  };
  // Names one task's descriptors on their way.

  descriptor_passing(const std::string& store, const std::string& cluster, node_id here);
  ~descriptor_passing();
  descriptor_passing(const descriptor_passing&) = delete;
  descriptor_passing& operator=(const descriptor_passing&) = delete;

  struct arrival_key {
    task_id task;
    std::uint64_t epoch = 0;
    friend bool operator==(const arrival_key&, const arrival_key&) = default;
  };
  // Of the offer that they belong to.

  int send(node_id target, const arrival_key& whose, std::span<const int> kernel, ticket& made);
  // 0, or an errno; ENOENT: the target is on another machine, or does not listen yet; ECONNREFUSED: it is on another
  // machine, or dead.

  bool take(const ticket& which, std::vector<int>& kernel, std::size_t count);
  // What send() sent, in its order. False: it has not come, or not all of it; nothing is left open then.

  void discard(const arrival_key& whose) noexcept;
  // Closes what came for an offer that is refused: while it lies here a pipe's other end sees no end of file.

private:
  static constexpr std::size_t batch = 250; // the kernel takes 253 in one message
  static constexpr auto patience = std::chrono::seconds(30);

  struct message {
    ticket which;
    arrival_key whose;
  };
  struct hash {
    std::size_t operator()(const ticket& which) const noexcept {
      return std::hash<std::uint64_t>()(which.number * 65'537 + which.from);
    }
  };
  struct waiting {
    std::vector<int> kernel;
    arrival_key whose;
    std::chrono::steady_clock::time_point since;
  };

  bool address(const std::string& name, sockaddr_un& into) const noexcept;
  int connect(node_id target, descriptor& made) const;
  static int send_batch(int to, const message& head, std::span<const int> kernel);
  void drain();
  void drain_until(const ticket& which, std::size_t count);
  void forget_old() noexcept;
  bool receive(int from);
  static void close_all(const std::vector<int>& kernel) noexcept {
    for (int each : kernel) ::close(each);
  }

  node_id here_;
  descriptor folder_;
  descriptor listener_;
  std::mutex lock_;
  std::uint64_t last_ = 0;
  std::unordered_map<std::uint16_t, std::shared_ptr<descriptor>> outgoing_;
  std::vector<descriptor> incoming_;
  std::unordered_map<ticket, waiting, hash> arrived_;
};
// Thread safety: any thread, inside a node_heap_scope where a task runs.

inline descriptor_passing* this_passing = nullptr;

inline descriptor_passing::descriptor_passing(const std::string& store, const std::string& cluster, node_id here)
    : here_(here) {
  // Without a socket, as on file systems that have none, everything is opened anew.
  std::string path = store + "/descriptors-" + cluster;
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return;
  folder_ = descriptor(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  sockaddr_un where;
  std::string name = std::to_string(number(here));
  std::string unfinished = name + ".new"; // under its own name nobody finds it before it listens
  if (!folder_ || !address(unfinished, where)) return;
  ::unlinkat(folder_.get(), unfinished.c_str(), 0);
  descriptor made(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made || ::bind(made.get(), reinterpret_cast<sockaddr*>(&where), sizeof where) != 0) return;
  if (::listen(made.get(), 1024) != 0) return;
  if (::renameat(folder_.get(), unfinished.c_str(), folder_.get(), name.c_str()) == 0) listener_ = std::move(made);
}

inline descriptor_passing::~descriptor_passing() {
  if (folder_) ::unlinkat(folder_.get(), std::to_string(number(here_)).c_str(), 0);
  for (auto& [which, each] : arrived_) close_all(each.kernel);
}

inline bool descriptor_passing::address(const std::string& name, sockaddr_un& into) const noexcept {
  // By way of /proc, as a socket's path must be short.
  std::memset(&into, 0, sizeof into);
  into.sun_family = AF_UNIX;
  std::string path = "/proc/self/fd/" + std::to_string(folder_.get()) + "/" + name;
  if (path.size() >= sizeof into.sun_path) return false;
  std::memcpy(into.sun_path, path.c_str(), path.size());
  return true;
}

inline int descriptor_passing::connect(node_id target, descriptor& made) const {
  sockaddr_un where;
  if (!listener_ || !address(std::to_string(number(target)), where)) return ECONNREFUSED;
  made = descriptor(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made) return errno;
  return ::connect(made.get(), reinterpret_cast<sockaddr*>(&where), sizeof where) == 0 ? 0 : errno;
}

inline int descriptor_passing::send_batch(int to, const message& head, std::span<const int> kernel) {
  alignas(cmsghdr) char space[CMSG_SPACE(batch * sizeof(int))] = {};
  iovec data{const_cast<message*>(&head), sizeof head};
  msghdr out{};
  out.msg_iov = &data;
  out.msg_iovlen = 1;
  out.msg_control = space;
  out.msg_controllen = CMSG_SPACE(kernel.size_bytes());
  cmsghdr* rights = CMSG_FIRSTHDR(&out);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(kernel.size_bytes());
  std::memcpy(CMSG_DATA(rights), kernel.data(), kernel.size_bytes());
  while (::sendmsg(to, &out, MSG_NOSIGNAL) < 0) {
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return errno;
    pollfd room{to, POLLOUT, 0};
    if (::poll(&room, 1, 1000) == 0) return EAGAIN; // hundreds of tasks' descriptors wait there
  }
  return 0;
}

inline int descriptor_passing::send(node_id target, const arrival_key& whose, std::span<const int> kernel,
                                    ticket& made) {
  std::shared_ptr<descriptor> to;
  {
    std::lock_guard guard(lock_);
    made = {number(here_), ++last_};
    std::shared_ptr<descriptor>& known = outgoing_[number(target)];
    if (known == nullptr) {
      auto fresh = std::make_shared<descriptor>();
      if (int failed = connect(target, *fresh); failed != 0) return failed;
      known = std::move(fresh);
    }
    to = known;
  }
  for (std::size_t at = 0; at < kernel.size(); at += batch) {
    int failed = send_batch(to->get(), {made, whose}, kernel.subspan(at, std::min(batch, kernel.size() - at)));
    if (failed == 0) continue;
    std::lock_guard guard(lock_);
    outgoing_.erase(number(target));
    return failed;
  }
  return 0;
}

inline bool descriptor_passing::receive(int from) {
  // False: there is nothing more. A connection that has ended stays, silent, until this node ends.
  alignas(cmsghdr) char space[CMSG_SPACE(batch * sizeof(int))];
  message head{};
  iovec data{&head, sizeof head};
  msghdr in{};
  in.msg_iov = &data;
  in.msg_iovlen = 1;
  in.msg_control = space;
  in.msg_controllen = sizeof space;
  if (::recvmsg(from, &in, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != sizeof head) return false;
  waiting& into = arrived_[head.which];
  into.whose = head.whose;
  into.since = std::chrono::steady_clock::now();
  for (cmsghdr* each = CMSG_FIRSTHDR(&in); each != nullptr; each = CMSG_NXTHDR(&in, each)) {
    if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
    std::size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    std::size_t before = into.kernel.size();
    into.kernel.resize(before + count);
    std::memcpy(into.kernel.data() + before, CMSG_DATA(each), count * sizeof(int));
  }
  return true;
}

inline void descriptor_passing::drain() {
  if (!listener_) return;
  for (int fresh; (fresh = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;)
    incoming_.emplace_back(fresh);
  for (descriptor& each : incoming_)
    while (receive(each.get())) {}
}

inline void descriptor_passing::drain_until(const ticket& which, std::size_t count) {
  // Most often the next message is the one, and nobody new has connected: one system call.
  auto here = [&] {
    auto found = arrived_.find(which);
    return found != arrived_.end() && found->second.kernel.size() >= count;
  };
  for (descriptor& each : incoming_)
    while (!here() && receive(each.get())) {}
  if (!here()) drain();
}

inline void descriptor_passing::forget_old() noexcept {
  // Of offers that were refused before anybody asked for their descriptors.
  auto too_old = std::chrono::steady_clock::now() - patience;
  std::erase_if(arrived_, [&](const auto& each) {
    if (each.second.since > too_old) return false;
    close_all(each.second.kernel);
    return true;
  });
}

inline bool descriptor_passing::take(const ticket& which, std::vector<int>& kernel, std::size_t count) {
  std::lock_guard guard(lock_);
  drain_until(which, count);
  forget_old();
  auto found = arrived_.find(which);
  if (found == arrived_.end()) return count == 0;
  std::vector<int> all = std::move(found->second.kernel);
  arrived_.erase(found);
  if (all.size() != count) {
    close_all(all);
    return false;
  }
  kernel = std::move(all);
  return true;
}

inline void descriptor_passing::discard(const arrival_key& whose) noexcept {
  std::lock_guard guard(lock_);
  drain();
  std::erase_if(arrived_, [&](const auto& each) {
    if (!(each.second.whose == whose)) return false;
    close_all(each.second.kernel);
    return true;
  });
}

} // namespace migrate::detail
