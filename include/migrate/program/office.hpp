// The programs that run on this node for its tasks.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <migrate/file/readiness.hpp>
#include <migrate/file/streams_at_home.hpp>
#include <migrate/home/request.hpp>
#include <migrate/program/descendants.hpp>
#include <migrate/program/keeper.hpp>
#include <migrate/program/services.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/store/descriptor.hpp>
#include <migrate/task/scheduler.hpp>

namespace migrate::detail {

struct program_summary {
  task_id task;
  std::int32_t process = 0; // 0: not yet known
  std::string name;
  bool restartable = false;
};

class program_office final : private event_loop::watcher {
public:
  explicit program_office(event_loop& loop) : loop_(loop) {}
  program_office(const program_office&) = delete;
  program_office& operator=(const program_office&) = delete;

  void stop() noexcept;
  // Returns when no program runs any more. Not from the I/O thread, which must still run; no task runs.

  // By tasks:
  int start(const program_order& order, std::uint64_t& serial); // an errno
  bool look(std::uint64_t serial, program_view& into) noexcept;
  int end_of_pipe(std::uint64_t serial, std::size_t index) noexcept;
  void close_pipe(std::uint64_t serial, std::size_t index) noexcept;
  void signal(std::uint64_t serial, int number) noexcept;
  void end(std::uint64_t serial) noexcept;
  void forget(std::uint64_t serial) noexcept;
  bool held_back() noexcept;

  // For whoever vacates this node, on any thread:
  void suspend_all(const std::string& reason);
  // Stops all programs with all that stems from them, and holds new ones back, also those of tasks that come to this
  // node. Their tasks can still not be moved: the refusal gives the program's name and this reason.
  void resume_all();
  // They go on, and what was held back begins.
  std::vector<program_summary> give_up_all(std::function<void(task_id)> movable);
  // Kills those that are restartable. When one has gone, with what stems from it and with its outputs, movable(its task)
  // is called on the I/O thread: the task can move then, and runs its program again from the beginning, where it comes to
  // or here after resume_all(). Returns the others: their tasks stay, or die with this node.
  std::vector<program_summary> running();

  failure refusal(std::uint64_t serial);
  // Of a move of a task whose program this is.
  void task_gone(task_id task) noexcept;
  // It has left or ended: kills what still runs for it.

private:
  struct record {
    task_id task;
    resident* who = nullptr;
    std::string name;
    bool restartable = false;
    bool suspended = false; // by suspend_all()
    bool stopped = false;   // by a signal that was passed on
    bool giving_up = false;
    program_view seen;
    std::vector<int> ends;
    std::chrono::nanoseconds grace{0};
    event_loop::timer timer;
  };
  struct unsent {
    std::vector<std::byte> bytes;
    std::vector<descriptor> given;
  };

  int need_keeper();
  int spawn_keeper(int socket, std::uint32_t id, pid_t& process);
  int send(const keeping::request& what, const void* body, std::size_t bytes, const std::vector<int>& given);
  static int transmit(int socket, const void* head, std::size_t head_bytes, const void* body, std::size_t bytes,
                      const int* given, std::size_t count) noexcept;
  void order(keeping::order what, std::uint64_t serial, int signal = 0);
  void send_again();
  void on_ready(std::uint32_t events) noexcept override;
  resident* take(const keeping::report& got, std::function<void()>& after);
  void keeper_lost() noexcept;
  void time_over(std::uint64_t serial, bool grace_over);
  void close_ends(record& which) noexcept;
  static void close_end(int& end) noexcept;
  static task_usage to_usage(const ::rusage& used) noexcept;

  event_loop& loop_;
  std::mutex starting_; // of the keeper
  std::mutex lock_;
  int socket_ = -1;
  pid_t keeper_ = -1;
  std::uint32_t id_ = 0;
  std::uint64_t last_ = 0;
  std::unordered_map<std::uint64_t, record> records_;
  std::deque<unsent> unsent_; // the keeper has not taken it yet
  bool holds_back_ = false;
  std::string reason_;
  std::vector<resident*> held_back_;
  std::function<void(task_id)> movable_;
};
// Thread safety: any thread, inside a node_heap_scope where a task runs. The lock is not held while a task is woken.

inline constinit program_office* this_programs = nullptr;

// --- the keeper --------------------------------------------------------------------------------------

inline int program_office::spawn_keeper(int socket, std::uint32_t id, pid_t& process) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t how;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawnattr_init(&how);
  ::posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_adddup2(&files, socket, keeping::socket_number);
  sigset_t all;
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&how, &all);
  ::posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
  std::string mark = std::string(keeping::variable) + "=" + std::to_string(id);
  std::vector<char*> environment{mark.data()};
  for (char** each = ::environ; each != nullptr && *each != nullptr; ++each) environment.push_back(*each);
  environment.push_back(nullptr);
  std::string name = "migrate-keeper";
  char* arguments[] = {name.data(), nullptr};
  int failed = ::posix_spawn(&process, "/proc/self/exe", &files, &how, arguments, environment.data());
  ::posix_spawnattr_destroy(&how);
  ::posix_spawn_file_actions_destroy(&files);
  return failed;
}

inline int program_office::need_keeper() {
  // With the first program, so that a node without programs has none.
  std::lock_guard only(starting_);
  {
    std::lock_guard guard(lock_);
    if (socket_ >= 0) return 0;
  }
  int both[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, both) != 0) return errno;
  descriptor mine(both[0]), its(both[1]);
  std::uint32_t id = 0;
  if (::getrandom(&id, sizeof id, 0) != sizeof id) return EAGAIN;
  pid_t process = -1;
  if (int failed = spawn_keeper(its.get(), id, process); failed != 0) return failed;
  std::lock_guard guard(lock_);
  socket_ = mine.release();
  keeper_ = process;
  id_ = id;
  loop_.post([this, socket = socket_] {
    std::lock_guard again(lock_);
    if (socket_ == socket) loop_.watch(socket, EPOLLIN, *this);
  });
  return 0;
}

inline int program_office::transmit(int socket, const void* head, std::size_t head_bytes, const void* body,
                                    std::size_t bytes, const int* given, std::size_t count) noexcept {
  iovec parts[] = {{const_cast<void*>(head), head_bytes}, {const_cast<void*>(body), bytes}};
  alignas(cmsghdr) std::byte beside[CMSG_SPACE(keeping::most_descriptors * sizeof(int))];
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = bytes > 0 ? 2 : 1;
  if (count > 0) {
    message.msg_control = beside;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::memcpy(CMSG_DATA(part), given, count * sizeof(int));
  }
  return ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 ? 0 : errno;
}

inline int program_office::send(const keeping::request& what, const void* body, std::size_t bytes,
                                const std::vector<int>& given) {
  // With the lock held. What the keeper does not take now is sent by the I/O thread.
  if (socket_ < 0) return ECONNREFUSED;
  int failed = unsent_.empty()
                   ? transmit(socket_, &what, sizeof what, body, bytes, given.data(), given.size())
                   : EAGAIN;
  if (failed != EAGAIN) return failed == EPIPE ? 0 : failed; // a lost keeper is noticed by itself
  unsent later;
  later.bytes.resize(sizeof what + bytes);
  std::memcpy(later.bytes.data(), &what, sizeof what);
  if (bytes > 0) std::memcpy(later.bytes.data() + sizeof what, body, bytes);
  for (int each : given) {
    later.given.emplace_back(::fcntl(each, F_DUPFD_CLOEXEC, 3));
    if (!later.given.back()) return errno;
  }
  unsent_.push_back(std::move(later));
  if (unsent_.size() == 1) loop_.post([this] { send_again(); });
  return 0;
}

inline void program_office::send_again() {
  std::lock_guard guard(lock_);
  while (!unsent_.empty()) {
    const unsent& next = unsent_.front();
    std::vector<int> given;
    for (const descriptor& each : next.given) given.push_back(each.get());
    if (transmit(socket_, next.bytes.data(), next.bytes.size(), nullptr, 0, given.data(), given.size()) == EAGAIN) {
      loop_.after(std::chrono::milliseconds(1), [this] { send_again(); });
      return;
    }
    unsent_.pop_front();
  }
}

inline void program_office::order(keeping::order what, std::uint64_t serial, int signal) {
  send({what, signal, serial}, nullptr, 0, {});
}

inline void program_office::on_ready(std::uint32_t) noexcept {
  for (;;) {
    keeping::report got;
    ssize_t bytes = ::recv(socket_, &got, sizeof got, MSG_DONTWAIT);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (bytes <= 0) {
      keeper_lost();
      return;
    }
    if (bytes != sizeof got) continue;
    std::function<void()> after;
    resident* wake = nullptr;
    {
      std::lock_guard guard(lock_);
      wake = take(got, after);
    }
    if (wake != nullptr) this_scheduler->wake(*wake);
    if (after) after();
  }
}

inline task_usage program_office::to_usage(const ::rusage& used) noexcept {
  auto nanoseconds = [](const timeval& time) {
    return std::int64_t{time.tv_sec} * 1'000'000'000 + std::int64_t{time.tv_usec} * 1000;
  };
  return {nanoseconds(used.ru_utime), nanoseconds(used.ru_stime), std::int64_t{used.ru_maxrss} * 1024,
          used.ru_minflt,             used.ru_majflt,             used.ru_nvcsw,
          used.ru_nivcsw};
}

inline resident* program_office::take(const keeping::report& got, std::function<void()>& after) {
  auto found = records_.find(got.serial);
  if (found == records_.end()) return nullptr; // its task has gone
  record& which = found->second;
  if (got.process != 0) which.seen.process = got.process;
  switch (got.what) {
  case keeping::news::started: which.seen.state = program_state::running; break;
  case keeping::news::failed:
    which.seen.state = program_state::failed;
    which.seen.status = got.status;
    which.seen.where = got.where;
    break;
  case keeping::news::ended:
    which.seen.status = got.status;
    which.seen.used = to_usage(got.used);
    which.seen.state = program_state::ended;
    if (got.left > 0)
      the_services->report(("of the program '" + which.name + "' (process " + std::to_string(got.process) + ") " +
                            std::to_string(got.left) + " processes are left, which this user may not kill")
                               .c_str());
    if (which.giving_up && WIFSIGNALED(got.status)) {
      which.seen.state = program_state::given_up;
      close_ends(which);
      if (movable_) after = [tell = movable_, task = which.task] { tell(task); };
    }
    break;
  default: return nullptr;
  }
  if (which.timer && got.what != keeping::news::started) loop_.cancel(which.timer);
  return which.who;
}

inline void program_office::keeper_lost() noexcept {
  // The kernel has killed the programs themselves with it; what they had started is found by its tag.
  std::vector<resident*> wake;
  std::vector<task_id> given_up;
  std::function<void(task_id)> movable;
  pid_t process = -1;
  std::uint32_t id = 0;
  {
    std::lock_guard guard(lock_);
    loop_.unwatch(socket_, *this);
    ::close(std::exchange(socket_, -1));
    process = std::exchange(keeper_, -1);
    id = id_;
    unsent_.clear();
    movable = movable_;
    for (auto& [serial, each] : records_) {
      if (each.seen.state > program_state::running) continue;
      each.seen.state = each.giving_up ? program_state::given_up : program_state::ended;
      each.seen.status = SIGKILL;
      if (each.giving_up) {
        close_ends(each);
        given_up.push_back(each.task);
      }
      wake.push_back(each.who);
    }
  }
  rlim_t tag = keeping::tag_of(id, 0);
  processes::for_each_number_in("/proc", [&](pid_t each) {
    if ((processes::tag_of(each) & keeping::keeper_bits) == tag) ::kill(each, SIGKILL);
  });
  ::waitpid(process, nullptr, 0);
  the_services->report(("the keeper of this node's programs (process " + std::to_string(process) +
                        ") has been killed, and they with it")
                           .c_str());
  for (resident* each : wake) this_scheduler->wake(*each);
  for (task_id each : given_up)
    if (movable) movable(each);
}

inline void program_office::stop() noexcept {
  pid_t process = -1;
  try {
    loop_.run([&] {
      std::lock_guard guard(lock_);
      process = std::exchange(keeper_, -1);
      if (socket_ >= 0) loop_.unwatch(socket_, *this);
      if (socket_ >= 0) ::close(std::exchange(socket_, -1));
      unsent_.clear();
    });
  } catch (const error&) {
    return; // the loop never ran
  }
  if (process < 0) return;
  constexpr int patience = 10'000; // milliseconds; the keeper's own is less
  descriptor end(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
  pollfd ready{end.get(), POLLIN, 0};
  if (end && ::poll(&ready, 1, patience) == 0) ::kill(process, SIGKILL);
  ::waitpid(process, nullptr, 0);
}

// --- one program -------------------------------------------------------------------------------------

inline int program_office::start(const program_order& order, std::uint64_t& serial) {
  if (int failed = need_keeper(); failed != 0) return failed;
  byte_writer out;
  out.put(order.how);
  std::vector<int> given = order.given;
  descriptor apart;
  bool inline_ = out.bytes().size() <= keeping::most_inline;
  if (!inline_) {
    apart = descriptor(::memfd_create("program", MFD_CLOEXEC));
    if (!apart) return errno;
    ssize_t wrote = ::pwrite(apart.get(), out.bytes().data(), out.bytes().size(), 0);
    if (wrote != static_cast<ssize_t>(out.bytes().size())) return wrote < 0 ? errno : ENOSPC;
    given.insert(given.begin(), apart.get());
  }
  std::lock_guard guard(lock_);
  serial = ++last_;
  int failed = send({inline_ ? keeping::order::start : keeping::order::start_apart, 0, serial}, out.bytes().data(),
                    inline_ ? out.bytes().size() : 0, given);
  if (failed != 0) return failed;
  record& made = records_[serial];
  made.who = current_task();
  made.task = made.who->id;
  made.name = std::string(order.name.c_str());
  made.restartable = order.restartable;
  made.ends = order.ends;
  made.grace = std::chrono::nanoseconds(order.grace);
  if (order.wall > 0)
    loop_.post([this, number = serial, wall = std::chrono::nanoseconds(order.wall)] {
      auto timer = loop_.after(wall, [this, number] { time_over(number, false); });
      std::lock_guard again(lock_);
      if (auto found = records_.find(number); found != records_.end()) found->second.timer = timer;
    });
  return 0;
}

inline void program_office::time_over(std::uint64_t serial, bool grace_over) {
  std::lock_guard guard(lock_);
  auto found = records_.find(serial);
  if (found == records_.end() || found->second.seen.state > program_state::running) return;
  record& which = found->second;
  which.seen.timed_out = true;
  if (grace_over) {
    order(keeping::order::end, serial);
    return;
  }
  order(keeping::order::signal, serial, SIGTERM);
  which.timer = loop_.after(which.grace, [this, serial] { time_over(serial, true); });
}

inline bool program_office::look(std::uint64_t serial, program_view& into) noexcept {
  std::lock_guard guard(lock_);
  auto found = records_.find(serial);
  if (found == records_.end()) return false;
  into = found->second.seen;
  return true;
}

inline int program_office::end_of_pipe(std::uint64_t serial, std::size_t index) noexcept {
  std::lock_guard guard(lock_);
  auto found = records_.find(serial);
  return found == records_.end() || index >= found->second.ends.size() ? -1 : found->second.ends[index];
}

inline void program_office::close_end(int& end) noexcept {
  if (end < 0) return;
  this_readiness->forget(end);
  ::close(std::exchange(end, -1));
}

inline void program_office::close_ends(record& which) noexcept {
  for (int& each : which.ends) close_end(each);
}

inline void program_office::close_pipe(std::uint64_t serial, std::size_t index) noexcept {
  std::lock_guard guard(lock_);
  auto found = records_.find(serial);
  if (found != records_.end() && index < found->second.ends.size()) close_end(found->second.ends[index]);
}

inline void program_office::signal(std::uint64_t serial, int number) noexcept {
  std::lock_guard guard(lock_);
  auto found = records_.find(serial);
  if (found == records_.end() || found->second.seen.state > program_state::running) return;
  record& which = found->second;
  bool stops = number == SIGSTOP || number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;
  if (stops || number == SIGCONT) which.stopped = stops;
  if (number == SIGCONT && which.suspended) return; // resume_all() continues it
  order(keeping::order::signal, serial, number);
}

inline void program_office::end(std::uint64_t serial) noexcept {
  std::lock_guard guard(lock_);
  auto found = records_.find(serial);
  if (found != records_.end() && found->second.seen.state <= program_state::running) order(keeping::order::end, serial);
}

inline void program_office::forget(std::uint64_t serial) noexcept {
  std::lock_guard guard(lock_);
  auto found = records_.find(serial);
  if (found == records_.end()) return;
  record& which = found->second;
  if (which.seen.state <= program_state::running) order(keeping::order::end, serial);
  close_ends(which);
  if (which.timer) loop_.post([this, timer = which.timer]() mutable { loop_.cancel(timer); });
  records_.erase(found);
}

// --- vacating the node -------------------------------------------------------------------------------

inline bool program_office::held_back() noexcept {
  std::lock_guard guard(lock_);
  if (holds_back_) held_back_.push_back(current_task());
  return holds_back_;
}

inline void program_office::suspend_all(const std::string& reason) {
  std::lock_guard guard(lock_);
  holds_back_ = true;
  reason_ = reason;
  for (auto& [serial, each] : records_) {
    if (each.seen.state > program_state::running || each.suspended) continue;
    each.suspended = true;
    order(keeping::order::signal_all, serial, SIGSTOP);
  }
}

inline void program_office::resume_all() {
  std::vector<resident*> wake;
  {
    std::lock_guard guard(lock_);
    holds_back_ = false;
    reason_.clear();
    movable_ = nullptr;
    wake.swap(held_back_);
    for (auto& [serial, each] : records_) {
      if (!std::exchange(each.suspended, false)) continue;
      if (each.seen.state <= program_state::running && !each.stopped)
        order(keeping::order::signal_all, serial, SIGCONT);
    }
  }
  for (resident* each : wake) this_scheduler->wake(*each);
}

inline std::vector<program_summary> program_office::give_up_all(std::function<void(task_id)> movable) {
  std::vector<program_summary> others;
  std::lock_guard guard(lock_);
  movable_ = std::move(movable);
  for (auto& [serial, each] : records_) {
    if (each.seen.state > program_state::running) continue;
    if (!each.restartable) {
      others.push_back({each.task, each.seen.process, each.name, false});
      continue;
    }
    each.giving_up = true;
    order(keeping::order::end, serial);
  }
  return others;
}

inline std::vector<program_summary> program_office::running() {
  std::vector<program_summary> all;
  std::lock_guard guard(lock_);
  for (const auto& [serial, each] : records_)
    if (each.seen.state <= program_state::running)
      all.push_back({each.task, each.seen.process, each.name, each.restartable});
  return all;
}

inline failure program_office::refusal(std::uint64_t serial) {
  std::lock_guard guard(lock_);
  auto found = records_.find(serial);
  if (found == records_.end()) return {};
  const record& which = found->second;
  std::string process = which.seen.process != 0 ? " (process " + std::to_string(which.seen.process) + ")" : "";
  std::string why = which.suspended ? ", stopped because " + reason_ : "";
  return {make_error_code(errc::not_movable), "the task runs the program '" + which.name + "'" + process + why +
                                                  ", which cannot move; wait for its end, or kill it first"};
}

inline void program_office::task_gone(task_id task) noexcept {
  std::lock_guard guard(lock_);
  for (auto each = records_.begin(); each != records_.end();) {
    if (each->second.task != task) {
      ++each;
      continue;
    }
    if (each->second.seen.state <= program_state::running) order(keeping::order::end, each->first);
    close_ends(each->second);
    if (each->second.timer) loop_.post([this, timer = each->second.timer]() mutable { loop_.cancel(timer); });
    each = records_.erase(each);
  }
}

// --- as tasks see it ---------------------------------------------------------------------------------

namespace program_calls {

inline failure start(const program_order& order, std::uint64_t& serial) {
  int failed = 0;
  {
    node_heap_scope scope;
    failed = this_programs->start(order, serial);
  }
  if (failed == 0) return {};
  std::error_code code(failed, std::generic_category());
  return {code, code.message()};
}

inline std::uint64_t ask_input(std::uint64_t number, std::size_t bytes) {
  node_heap_scope scope;
  resident* task = current_task();
  node_id home = task->id.home();
  std::uint64_t call = this_calling.calls->open(home == this_home->here() ? no_node : home, task, nullptr);
  request_home(home, service::stream, call, [&](byte_writer& out) {
    out.put(stream_request::read);
    out.put(number);
    out.put(static_cast<std::uint32_t>(bytes));
  });
  return call;
}

inline bool take_input(std::uint64_t call, std::int64_t& status, std::string& into) {
  std::optional<answer> got;
  {
    node_heap_scope scope;
    got = this_calling.calls->take(call);
  }
  if (!got) return false;
  status = got->code == errc::ok ? static_cast<std::int64_t>(got->first) : -EIO;
  if (got->code == errc::cancelled) status = -EINTR; // the connection was lost and is there again: to be asked again
  if (got->code == errc::ok)
    into.assign(reinterpret_cast<const char*>(got->bytes.data()), got->bytes.size());
  return true;
}

template <auto Member> struct in_node;
template <class R, class... A, R (program_office::*Member)(A...) noexcept> struct in_node<Member> {
  static R call(A... arguments) noexcept {
    node_heap_scope scope;
    return (this_programs->*Member)(arguments...);
  }
};

inline constexpr program_services services{
    .start = start,
    .look = [](std::uint64_t serial, program_view& into) noexcept { return this_programs->look(serial, into); },
    .end_of_pipe = in_node<&program_office::end_of_pipe>::call,
    .close_pipe = in_node<&program_office::close_pipe>::call,
    .signal = in_node<&program_office::signal>::call,
    .end = in_node<&program_office::end>::call,
    .forget = in_node<&program_office::forget>::call,
    .held_back = in_node<&program_office::held_back>::call,
    .ask_input = ask_input,
    .take_input = take_input,
    .drop_input =
        [](std::uint64_t call) noexcept {
          node_heap_scope scope;
          this_calling.calls->close(call);
        },
};

} // namespace program_calls
} // namespace migrate::detail
