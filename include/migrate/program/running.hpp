// A program that a task runs, as the task sees it: started, fed, read and waited for by its own calls.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/file/file_calls.hpp>
#include <migrate/file/path.hpp>
#include <migrate/home/signal_delivery.hpp>
#include <migrate/program/options.hpp>
#include <migrate/program/services.hpp>
#include <migrate/store/descriptor.hpp>
#include <migrate/task/wait.hpp>

namespace migrate::detail {

struct program_pipe {
  enum class way : std::uint8_t { to_stream, to_descriptor, to_text, from_home, from_descriptor };

  way where = way::to_stream;
  int number = -1;             // of the stream, or of the task's descriptor
  std::string* text = nullptr; // of to_text
  std::size_t most = 0;
  std::size_t end = 0;         // which of the node's ends it is; for input, the next one is the program's
  std::string rest;            // read and not yet given on
  bool over = false;

  bool inward() const noexcept { return where == way::from_home || where == way::from_descriptor; }
};

struct lent_offset {
  int number;
  off_t at;
};
// A file's offset that is not in the kernel (see shared_offset.hpp), while a program uses the kernel's.

struct running_program {
  task_id owner;
  std::vector<std::string> arguments;
  std::string path;           // what to execute; without a slash it is looked for in PATH
  program_options how;
  bool whole_table = false;   // it gets all of the task's descriptors that are not closed at exec
  bool is_task = false;       // by exec: the task has nothing beside it
  signal_bits absorbs = 0;    // signals that are the program's alone while it runs
  std::uint64_t serial = 0;   // 0: it is not started, or not any more
  std::uint64_t incarnation = 0; // of the node that runs it
  std::int32_t process = 0;
  std::vector<program_pipe> pipes;
  std::vector<lent_offset> offsets;
  std::unique_ptr<char[]> buffer;
  std::uint64_t input_call = 0; // a request to home's standard input that has no answer yet
  bool polls = false;  // something has to be looked at again after a while
  bool ended = false;  // and the node has nothing of it any more
  bool over = false;   // and what it wrote has been given on
  bool home_lost = false;
  program_result result;

  running_program(std::vector<std::string> words, program_options with)
      : arguments(std::move(words)), path(arguments.empty() ? std::string() : arguments.front()), how(std::move(with)) {}

  bool runs() const noexcept { return !ended && serial != 0; }
};
// In its task's heap.

struct program_list {
  std::vector<running_program*> all;
};

namespace running {

// All of this runs as the task. What the node has is looked up anew after everything that waits, by the serial number
// and the node's incarnation: a program that was given up lets its task go elsewhere while it waits.

inline constexpr std::size_t piece = 64 * 1024; // what is read from a pipe at once, and its capacity
inline constexpr auto pause = std::chrono::milliseconds(10); // between two looks at what cannot be waited for

inline std::string quoted(const running_program& it) { return "'" + it.path + "'"; }

inline failure cannot_start(const running_program& it, int reason, const std::string& why) {
  std::error_code code(reason, std::generic_category());
  return {code, "starting " + quoted(it) + ": " + (why.empty() ? "" : why + ": ") + code.message()};
}

// --- what it is started with -------------------------------------------------------------------------

inline void set_variable(std::vector<std::string>& all, std::string_view name, std::string_view value) {
  std::string entry(name);
  entry.append("=").append(value);
  for (std::string& each : all)
    if (each.size() > name.size() && each[name.size()] == '=' && each.compare(0, name.size(), name) == 0) {
      each = std::move(entry);
      return;
    }
  all.push_back(std::move(entry));
}

inline std::vector<std::string> environment_of(const running_program& it, surroundings& around) {
  std::vector<std::string> all;
  if (it.how.environment) {
    all = *it.how.environment;
  } else {
    for (char** each = *around.environment.address(); each != nullptr && *each != nullptr; ++each) all.emplace_back(*each);
  }
  for (const auto& [name, value] : it.how.variables) set_variable(all, name, value);
  return all;
}

inline std::string search_path(const std::vector<std::string>& environment) {
  for (const std::string& each : environment)
    if (each.starts_with("PATH=")) return each.substr(5);
  return "/usr/local/bin:/usr/bin:/bin";
}

inline std::vector<std::string> candidates(const std::string& path, const std::string& search) {
  if (path.empty() || path.find('/') != path.npos) return {path};
  std::vector<std::string> all;
  for (std::size_t at = 0; at <= search.size();) {
    std::size_t end = std::min(search.find(':', at), search.size());
    std::string folder = search.substr(at, end - at);
    all.push_back(folder.empty() ? "./" + path : folder + "/" + path);
    at = end + 1;
  }
  return all;
}

inline void add_limits(const program_limits& limits, std::uint64_t open_files, std::vector<keeping::limit>& into) {
  auto add = [&](int resource, std::uint64_t soft, std::uint64_t hard) {
    if (soft != program_limits::none) into.push_back({resource, soft, hard});
  };
  add(RLIMIT_CPU, limits.processor_seconds,
      limits.processor_seconds == program_limits::none ? 0 : limits.processor_seconds + 1);
  add(RLIMIT_AS, limits.memory, limits.memory);
  add(RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes);
  if (limits.open_files == program_limits::none)
    into.push_back({RLIMIT_NOFILE, open_files, RLIM_INFINITY}); // a node has more than a process begins with
  else
    add(RLIMIT_NOFILE, limits.open_files, limits.open_files);
  add(RLIMIT_NPROC, limits.processes, limits.processes);
  add(RLIMIT_CORE, limits.core_bytes, limits.core_bytes);
}

inline void add_signals(const control_block& control, keeping::program_start& how) {
  // As execve(2): what is ignored stays ignored, and the mask stays.
  const signal_state* state = control.process.signals;
  if (state == nullptr) return;
  how.blocked = state->mask;
  for (std::size_t i = 0; i < state->actions.size(); ++i)
    if (state->actions[i].what == signal_action::kind::ignore) how.ignored |= signal_bit(static_cast<int>(i) + 1);
}

class attachments {
  // Makes the descriptors that the program gets. Between the first and the start its task must not wait.

public:
  attachments(running_program& it, program_order& order) : it_(it), order_(order) {}
  ~attachments() {
    if (!kept_)
      for (int each : order_.ends) ::close(each);
  }
  attachments(const attachments&) = delete;
  attachments& operator=(const attachments&) = delete;

  void keep() noexcept { kept_ = true; } // the ends are the node's now

  failure redirect(int target, const redirection& how) {
    bool input = target == 0;
    switch (how.what()) {
    case redirection::kind::inherited: return attach(target, target);
    case redirection::kind::descriptor: return attach(target, how.number());
    case redirection::kind::file:
      return open(target, how.word(), input ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC);
    case redirection::kind::append: return open(target, how.word(), O_WRONLY | O_CREAT | O_APPEND);
    case redirection::kind::text: return input ? give_text(target, how.word()) : unfit(target);
    case redirection::kind::capture: {
      if (input) return unfit(target);
      program_pipe into;
      into.where = program_pipe::way::to_text;
      into.text = target == 1 ? &it_.result.output : &it_.result.error;
      into.most = how.most();
      return connect(target, std::move(into));
    }
    case redirection::kind::with_output: {
      auto other = std::find(order_.how.targets.begin(), order_.how.targets.end(), 1);
      if (target != 2 || other == order_.how.targets.end()) return unfit(target);
      give(target, order_.given[static_cast<std::size_t>(other - order_.how.targets.begin())]);
      return {};
    }
    case redirection::kind::nothing: break;
    }
    return open(target, "/dev/null", input ? O_RDONLY : O_WRONLY);
  }

  failure attach(int target, int number) {
    open_file* file = descriptors::find(number);
    if (file == nullptr) {
      if (number != target) return cannot_start(it_, EBADF, "its descriptor " + std::to_string(target));
      return target <= 2 ? open(target, "/dev/null", target == 0 ? O_RDONLY : O_WRONLY) : failure{};
    }
    for (const auto& [known, kernel] : attached_)
      if (known == file) {
        give(target, kernel);
        return {};
      }
    failure refused;
    if (file->kind == open_kind::stream || file->kind == open_kind::home_pipe)
      refused = connect_to_task(target, number, *file);
    else if (file->kind == open_kind::pipe)
      refused = open_pipe(target, *file);
    else
      give(target, file->kernel);
    if (!refused.code) attached_.emplace_back(file, order_.given.back());
    return refused;
  }

private:
  failure unfit(int target) const {
    return cannot_start(it_, EINVAL, "its descriptor " + std::to_string(target) + " cannot be redirected so");
  }

  void give(int target, int kernel) {
    order_.how.targets.push_back(target);
    order_.given.push_back(kernel);
  }

  failure own(int target, int kernel, const std::string& what) {
    if (kernel < 0) return cannot_start(it_, errno, what);
    opened_.emplace_back(kernel);
    give(target, kernel);
    return {};
  }

  failure open(int target, const std::string& name, int flags) {
    // Without waiting for the other end of a fifo, as all opening by tasks; the program's own reads and writes wait.
    std::string path = name.empty() || name.front() == '/' ? name : order_.how.directory + "/" + name;
    mode_t before = ::umask(order_.how.mask);
    int kernel = ::open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
    int reason = errno;
    ::umask(before);
    errno = reason;
    if (kernel >= 0) ::fcntl(kernel, F_SETFL, flags & O_APPEND);
    return own(target, kernel, "opening " + path);
  }

  failure open_pipe(int target, const open_file& file) {
    // A task's end never makes the kernel wait, which a program does not expect: it gets a description of its own.
    std::string path = "/proc/self/fd/" + std::to_string(file.kernel);
    int access = file.flags & O_ACCMODE;
    int kernel = ::open(path.c_str(), access | O_CLOEXEC | O_NONBLOCK);
    if (kernel < 0 && errno == ENXIO) kernel = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK); // nobody reads it
    if (kernel < 0 && errno == ENXIO) { // a socket has one description
      give(target, file.kernel);
      return {};
    }
    if (kernel >= 0 && (file.flags & O_NONBLOCK) == 0) ::fcntl(kernel, F_SETFL, 0);
    return own(target, kernel, "its descriptor " + std::to_string(target) + " (" + file.path + ")");
  }

  failure give_text(int target, const std::string& text) {
    int kernel = ::memfd_create("input", MFD_CLOEXEC);
    std::size_t done = 0;
    while (kernel >= 0 && done < text.size()) {
      ssize_t wrote = ::pwrite(kernel, text.data() + done, text.size() - done, static_cast<off_t>(done));
      if (wrote < 0) {
        int reason = errno;
        ::close(std::exchange(kernel, -1));
        errno = reason;
        break;
      }
      done += static_cast<std::size_t>(wrote);
    }
    return own(target, kernel, "its input");
  }

  failure connect_to_task(int target, int number, const open_file& file) {
    if (file.other.key)
      return cannot_start(it_, ENOTSUP, "its descriptor " + std::to_string(target) + ", one of a pair of sockets that may "
                                        "be on two machines");
    program_pipe made;
    made.number = number;
    bool input = file.kind == open_kind::stream ? file.stream == 0 : !file.end.writes;
    if (file.kind == open_kind::stream) {
      made.where = input ? program_pipe::way::from_home : program_pipe::way::to_stream;
      made.number = file.stream;
    } else {
      made.where = input ? program_pipe::way::from_descriptor : program_pipe::way::to_descriptor;
    }
    return connect(target, std::move(made));
  }

  failure connect(int target, program_pipe&& made) {
    int both[2];
    if (::pipe2(both, O_CLOEXEC) != 0) return cannot_start(it_, errno, "a pipe");
    bool input = made.inward();
    int mine = both[input ? 1 : 0];
    int its = both[input ? 0 : 1];
    ::fcntl(mine, F_SETFL, O_NONBLOCK);
    made.end = order_.ends.size();
    order_.ends.push_back(mine);
    if (input) {
      // Kept for what the program leaves unread.
      order_.ends.push_back(its);
      give(target, its);
    } else {
      opened_.emplace_back(its);
      give(target, its);
    }
    it_.pipes.push_back(std::move(made));
    return {};
  }

  running_program& it_;
  program_order& order_;
  std::vector<descriptor> opened_; // closed here when they have been sent
  std::vector<std::pair<open_file*, int>> attached_;
  bool kept_ = false;
};

inline failure borrow_offsets(running_program& it) {
  // Waits for whoever has them.
  it.offsets.clear();
  if (the_files->sharing == offset_sharing::kernel) return {};
  auto borrow = [&](int number) {
    if (!files::is_shared(descriptors::find(number))) return;
    if (long at = files::shared_seek(number, 0, SEEK_CUR); at >= 0) it.offsets.push_back({number, at});
  };
  std::vector<int> numbers{0, 1, 2};
  for (const auto& [target, number] : it.how.descriptors) numbers.push_back(number);
  for (const redirection* each : {&it.how.input, &it.how.output, &it.how.error})
    if (each->what() == redirection::kind::descriptor) numbers.push_back(each->number());
  if (it.whole_table)
    for (std::size_t fd = 3; fd < descriptors::table().slots.size(); ++fd) numbers.push_back(static_cast<int>(fd));
  for (int each : numbers) borrow(each);
  return {};
}

inline void return_offsets(running_program& it) {
  std::vector<lent_offset> all = std::exchange(it.offsets, {});
  for (lent_offset& each : all) {
    open_file* file = descriptors::find(each.number);
    each.at = file == nullptr || file->kernel < 0 ? -1 : ::lseek(file->kernel, 0, SEEK_CUR);
  }
  for (const lent_offset& each : all)
    if (each.at >= 0) files::shared_seek(each.number, each.at, SEEK_SET);
}

inline failure start_here(running_program& it) {
  // On the node where the task is then. May wait, and move, before it begins.
  surroundings& around = my_surroundings();
  failure refused = borrow_offsets(it);
  while (the_programs->held_back()) {
    park();
    safe_point();
  }
  if (it.arguments.empty()) return cannot_start(it, EINVAL, "it has no name");
  program_order order;
  order.name = it.path.substr(it.path.rfind('/') + 1);
  order.restartable = it.how.restartable;
  order.wall = std::chrono::nanoseconds(it.how.limits.wall).count();
  order.grace = std::chrono::nanoseconds(it.how.grace).count();
  order.how.arguments = it.arguments;
  order.how.environment = environment_of(it, around);
  std::string search = search_path(order.how.environment);
  order.how.executables = candidates(it.path, search);
  order.how.directory = it.how.directory.empty() ? around.directory : resolve(it.how.directory.native());
  order.how.mask = it.how.mask.value_or(around.mask);
  order.how.nice = around.nice;
  add_limits(it.how.limits, around.open_files, order.how.limits);
  add_signals(*self().control, order.how);
  for (const auto& each : it.how.outputs)
    order.how.outputs.push_back(each.is_absolute() ? each.native() : order.how.directory + "/" + each.native());

  it.pipes.clear();
  it.pipes.reserve(4);
  it.result.output.clear();
  it.result.error.clear();
  it.result.lost = 0;
  for (const lent_offset& each : it.offsets) ::lseek(descriptors::find(each.number)->kernel, each.at, SEEK_SET);
  attachments all(it, order);
  if (it.whole_table) {
    file_table& mine = descriptors::table();
    for (std::size_t fd = 0; fd < mine.slots.size() && !refused.code; ++fd)
      if (mine.slots[fd].file != nullptr && !mine.slots[fd].close_on_exec)
        refused = all.attach(static_cast<int>(fd), static_cast<int>(fd));
  } else {
    refused = all.redirect(0, it.how.input);
    if (!refused.code) refused = all.redirect(1, it.how.output);
    if (!refused.code) refused = all.redirect(2, it.how.error);
    for (const auto& [target, number] : it.how.descriptors)
      if (!refused.code) refused = all.attach(target, number);
  }
  if (!refused.code && order.given.size() >= keeping::most_descriptors)
    refused = cannot_start(it, EMFILE, "more descriptors than go along at once");
  if (refused.code) return refused;
  refused = the_programs->start(order, it.serial);
  if (refused.code) return {refused.code, "starting " + quoted(it) + ": " + refused.what};
  all.keep();
  it.incarnation = node_services().incarnation();
  it.process = 0;
  ++it.result.starts;
  return {};
}

// --- what it reads and writes ------------------------------------------------------------------------

inline bool deliver(running_program& it, std::size_t which, const char* data, std::size_t bytes) {
  // What the program has written. False: nobody takes it any more. May wait; the task stays, unless it is given up.
  program_pipe& pipe = it.pipes[which];
  switch (pipe.where) {
  case program_pipe::way::to_text: {
    std::size_t room = pipe.most - std::min(pipe.most, pipe.text->size());
    pipe.text->append(data, std::min(room, bytes));
    it.result.lost += bytes - std::min(room, bytes);
    return true;
  }
  case program_pipe::way::to_stream: {
    output_buffer& to = pipe.number == 1 ? my_streams().out : my_streams().err;
    return to.write(data, bytes);
  }
  case program_pipe::way::to_descriptor: {
    int number = pipe.number;
    while (bytes > 0) {
      long wrote = files::write(number, data, bytes);
      if (wrote == -EINTR) continue;
      if (wrote <= 0) return false;
      data += wrote;
      bytes -= static_cast<std::size_t>(wrote);
    }
    return true;
  }
  default: return false;
  }
}

inline void finish_pipe(running_program& it, std::size_t which) {
  program_pipe& pipe = it.pipes[which];
  pipe.over = true;
  the_programs->close_pipe(it.serial, pipe.end);
  bool of_task = pipe.where == program_pipe::way::to_descriptor || pipe.where == program_pipe::way::from_descriptor;
  if (it.is_task && of_task) descriptors::close(pipe.number); // who is at the other end learns that the program has closed it
}

inline bool pump_out(running_program& it, std::size_t which) {
  program_pipe& pipe = it.pipes[which];
  int end = the_programs->end_of_pipe(it.serial, pipe.end);
  if (end < 0) return false;
  if (!it.buffer) it.buffer.reset(new char[piece]);
  long got = files::result(::read(end, it.buffer.get(), piece));
  if (got == -EAGAIN || got == -EINTR) return false;
  if (got <= 0 || !deliver(it, which, it.buffer.get(), static_cast<std::size_t>(got))) finish_pipe(it, which);
  return true;
}

inline bool fill_from_home(running_program& it, program_pipe& pipe) {
  // Asks for input only when the program has read all that there was: what nobody reads is for others.
  stream_state& mine = my_streams();
  if (!mine.rest.empty()) {
    pipe.rest = std::exchange(mine.rest, {});
    return true;
  }
  if (it.input_call == 0) {
    if (!mine.unanswered) ++mine.asked;
    mine.unanswered = true;
    it.input_call = the_programs->ask_input(mine.asked, piece);
  }
  std::int64_t status = 0;
  if (!the_programs->take_input(it.input_call, status, pipe.rest)) return false;
  it.input_call = 0;
  if (status == -EINTR) return true;
  mine.unanswered = false;
  if (status <= 0) pipe.over = true;
  return true;
}

inline bool fill_from_descriptor(running_program& it, program_pipe& pipe) {
  open_file* file = descriptors::find(pipe.number);
  if (file == nullptr || file->kind != open_kind::home_pipe) {
    pipe.over = true;
    return true;
  }
  if (!it.buffer) it.buffer.reset(new char[piece]);
  long got = the_files->read_pipe(file->end, files::next_request(), false, it.buffer.get(), piece);
  if (got == -EAGAIN) {
    it.polls = true;
    return false;
  }
  if (got > 0)
    pipe.rest.assign(it.buffer.get(), static_cast<std::size_t>(got));
  else
    pipe.over = true;
  return true;
}

inline bool pump_in(running_program& it, std::size_t which) {
  program_pipe& pipe = it.pipes[which];
  int end = the_programs->end_of_pipe(it.serial, pipe.end);
  if (end < 0) return false;
  if (pipe.rest.empty() && !pipe.over) {
    int unread = 0;
    if (::ioctl(end, FIONREAD, &unread) == 0 && unread > 0) {
      it.polls = true;
      return false;
    }
    bool changed = pipe.where == program_pipe::way::from_home ? fill_from_home(it, pipe) : fill_from_descriptor(it, pipe);
    if (!changed) return false;
    if (pipe.over) finish_pipe(it, which);
    return true; // it waited: everything is looked up anew
  }
  long wrote = files::result(::write(end, pipe.rest.data(), pipe.rest.size()));
  if (wrote == -EAGAIN || wrote == -EINTR) return false;
  if (wrote < 0)
    finish_pipe(it, which);
  else
    pipe.rest.erase(0, static_cast<std::size_t>(wrote));
  return true;
}

inline bool pump(running_program& it) {
  // Whether something went on.
  bool changed = false;
  it.polls = false;
  std::uint64_t serial = it.serial;
  for (std::size_t i = 0; i < it.pipes.size() && it.serial == serial; ++i)
    if (!it.pipes[i].over) changed |= it.pipes[i].inward() ? pump_in(it, i) : pump_out(it, i);
  return changed;
}

inline void watch_pipes(running_program& it) {
  for (const program_pipe& each : it.pipes) {
    int end = each.over ? -1 : the_programs->end_of_pipe(it.serial, each.end);
    if (end < 0 || (each.inward() && each.rest.empty())) continue;
    the_files->wake_when(end, each.inward() ? EPOLLOUT : EPOLLIN);
  }
}

inline void take_end(running_program& it, const program_view& seen) {
  // Of a program that has ended: all that the node still has of it becomes the task's. Also called by the carrier, with
  // the task frozen and its heap current.
  std::unique_ptr<char[]> bytes(new char[piece]);
  auto drain = [&](int end, std::string& into) {
    for (ssize_t got; end >= 0 && (got = ::read(end, bytes.get(), piece)) > 0;) into.append(bytes.get(), static_cast<std::size_t>(got));
  };
  for (program_pipe& each : it.pipes) {
    if (each.inward()) {
      std::string unread;
      int read_end = the_programs->end_of_pipe(it.serial, each.end + 1);
      if (read_end >= 0) ::fcntl(read_end, F_SETFL, O_NONBLOCK);
      drain(read_end, unread);
      each.rest.insert(0, unread);
    } else if (!each.over) {
      drain(the_programs->end_of_pipe(it.serial, each.end), each.rest);
    }
  }
  if (it.input_call != 0) the_programs->drop_input(std::exchange(it.input_call, 0));
  the_programs->forget(it.serial);
  it.serial = 0;
  it.ended = true;
  it.process = seen.process;
  it.result.status = seen.status;
  it.result.used = seen.used;
  it.result.timed_out = seen.timed_out;
  it.result.node = node_services().here();
}

inline void finish(running_program& it) {
  // Gives on what it wrote last.
  for (std::size_t i = 0; i < it.pipes.size(); ++i) {
    program_pipe& each = it.pipes[i];
    std::string rest = std::exchange(each.rest, {});
    if (each.where == program_pipe::way::from_home)
      my_streams().rest.insert(0, rest);
    else if (!each.inward() && !rest.empty())
      deliver(it, i, rest.data(), rest.size());
  }
  for (const program_pipe& each : it.pipes)
    if (each.where == program_pipe::way::to_stream) (each.number == 1 ? my_streams().out : my_streams().err).flush();
  return_offsets(it);
  it.buffer.reset();
  self().control->process.programs_used += it.result.used;
  it.over = true;
}

// --- waiting -----------------------------------------------------------------------------------------

enum class outlook : std::uint8_t { goes_on, begins, over };

inline failure why_not(const running_program& it, const program_view& seen) {
  using keeping::stage;
  switch (seen.where) {
  case stage::process: return cannot_start(it, seen.status, "making a process for it");
  case stage::directory:
    return cannot_start(it, seen.status, "its directory " + (it.how.directory.empty() ? my_surroundings().directory
                                                                                      : it.how.directory.native()));
  case stage::limits: return cannot_start(it, seen.status, "its limits");
  case stage::descriptors: return cannot_start(it, seen.status, "its descriptors");
  case stage::execution: break;
  }
  if (it.path.find('/') != it.path.npos) return cannot_start(it, seen.status, "");
  return cannot_start(it, seen.status, "looked for in " + search_path(environment_of(it, my_surroundings())));
}

inline failure look(running_program& it, outlook& found) {
  // Takes on what has happened to it; starts it again when it has been given up.
  found = outlook::goes_on;
  if (it.over || it.ended) {
    found = outlook::over;
    return {};
  }
  program_view seen;
  bool here = it.serial != 0 && it.incarnation == node_services().incarnation();
  if (here && !the_programs->look(it.serial, seen)) seen.state = program_state::given_up;
  if (!here || seen.state == program_state::given_up) {
    if (here) the_programs->forget(it.serial);
    it.serial = 0;
    it.input_call = 0;
    found = outlook::begins;
    return start_here(it);
  }
  it.process = seen.process;
  if (seen.state == program_state::starting) found = outlook::begins;
  if (seen.state == program_state::failed) {
    the_programs->forget(it.serial);
    it.serial = 0;
    it.ended = it.over = true;
    it.result.status = exited_with(127);
    return why_not(it, seen);
  }
  if (seen.state == program_state::ended) {
    take_end(it, seen);
    found = outlook::over;
  }
  return {};
}

inline bool rest(running_program& it, const steady_point* deadline) {
  // Until something may have happened; false when the deadline has passed.
  if (!it.polls) {
    if (deadline != nullptr) return park_until(*deadline);
    park();
    return true;
  }
  steady_point soon = task_now() + pause;
  bool last = deadline != nullptr && *deadline <= soon;
  bool in_time = park_until(last ? *deadline : soon);
  return in_time || !last;
}

inline failure wait(running_program& it, const steady_point* deadline, bool& over) {
  // `over`: it has ended, and what it wrote has been given on.
  over = false;
  for (bool in_time = true;;) {
    safe_point();
    outlook found;
    if (failure failed = look(it, found); failed.code) return failed;
    if (found == outlook::over) {
      if (!it.over) finish(it);
      over = true;
      return {};
    }
    if (pump(it)) continue;
    if (!in_time) return {};
    watch_pipes(it);
    in_time = rest(it, deadline);
  }
}

inline failure wait_for_start(running_program& it, bool takes_signals = true) {
  for (;;) {
    if (takes_signals) safe_point();
    outlook found;
    if (failure failed = look(it, found); failed.code) return failed;
    if (found != outlook::begins) return {};
    park();
  }
}

inline void wait_until_gone(running_program& it) noexcept {
  // After it was ended. What does not die is given up on, and its node's operator is told so by the node.
  constexpr auto patience = std::chrono::seconds(10);
  steady_point limit = task_now() + patience;
  for (bool in_time = true; in_time;) {
    program_view seen;
    if (it.serial == 0 || it.incarnation != node_services().incarnation() || !the_programs->look(it.serial, seen) ||
        seen.state == program_state::ended || seen.state == program_state::failed || seen.state == program_state::given_up)
      break;
    in_time = park_until(limit);
  }
}

inline void end(running_program& it) noexcept {
  // Kills it with all that stems from it, and returns when that has gone.
  if (!it.runs() || it.incarnation != node_services().incarnation()) return;
  the_programs->end(it.serial);
  wait_until_gone(it);
  program_view seen;
  if (the_programs->look(it.serial, seen)) self().control->process.programs_used += seen.used;
  if (it.input_call != 0) the_programs->drop_input(std::exchange(it.input_call, 0));
  the_programs->forget(it.serial);
  it.serial = 0;
  it.ended = true;
}

// --- its task ----------------------------------------------------------------------------------------

inline void enter(running_program& it) {
  it.owner = self().id;
  program_list*& mine = self().control->process.programs;
  if (mine == nullptr) mine = new program_list;
  mine->all.push_back(&it);
}

inline void leave(running_program& it) noexcept {
  if (program_list* mine = self().control->process.programs) std::erase(mine->all, &it);
}

inline void ending() noexcept {
  program_list* mine = self().control->process.programs;
  if (mine == nullptr) return;
  for (std::size_t i = 0; i < mine->all.size(); ++i) end(*mine->all[i]);
  mine->all.clear();
}

inline void copied(control_block& child, task_id) noexcept { child.process.programs = nullptr; }
// A copy by fork() has none of them: a program that it finds in its memory is the original's.

inline constexpr process_part part{.copied = copied, .ending = ending};

inline bool sent_by_own_timer(const signal_info& got) noexcept {
  return got.code == SI_TIMER || (got.number == SIGALRM && got.code == SI_KERNEL);
}

inline void wait_for_ends(std::chrono::nanoseconds grace) {
  steady_point limit = task_now() + grace;
  program_list& mine = *self().control->process.programs;
  for (bool in_time = true; in_time;) {
    bool runs = false, changed = false;
    for (std::size_t i = 0; i < mine.all.size(); ++i) {
      running_program& each = *mine.all[i];
      program_view seen;
      if (!each.runs() || each.incarnation != node_services().incarnation()) continue;
      if (!the_programs->look(each.serial, seen) || seen.state > program_state::running) continue;
      runs = true;
      if (pump(each))
        changed = true;
      else
        watch_pipes(each);
    }
    if (!runs) return;
    if (!changed) in_time = park_until(limit);
  }
}

inline bool pass_on(const signal_info& got) {
  // True: the signal was the programs' alone. One that ends the task gives its programs time to end first.
  program_list* mine = self().control->process.programs;
  if (mine == nullptr || got.number == SIGCHLD || got.number == SIGKILL) return false;
  const signal_state* state = self().control->process.signals;
  bool ignored = is_ignored(state, got.number);
  bool for_all = !sent_by_own_timer(got) && (!ignored || got.number == SIGCONT);
  bool absorbed = false, passed = false;
  std::chrono::nanoseconds grace{0};
  for (running_program* each : mine->all) {
    if (!each->runs() || each->incarnation != node_services().incarnation()) continue;
    bool absorbs = (each->absorbs & signal_bit(got.number)) != 0;
    if (!absorbs && (!for_all || !each->how.pass_signals)) continue;
    the_programs->signal(each->serial, got.number);
    absorbed |= absorbs;
    passed = true;
    grace = std::max(grace, std::chrono::nanoseconds(each->how.grace));
  }
  if (absorbed) return true;
  bool handled = state != nullptr && state->actions[static_cast<std::size_t>(got.number - 1)].what == signal_action::kind::call;
  if (passed && !ignored && !handled && default_of(got.number) == default_action::end) wait_for_ends(grace);
  return false;
}

inline void pass_stop_on(int number) {
  program_list* mine = self().control->process.programs;
  if (mine == nullptr) return;
  for (running_program* each : mine->all)
    if (each->runs() && each->how.pass_signals && each->incarnation == node_services().incarnation())
      the_programs->signal(each->serial, number);
}

} // namespace running
} // namespace migrate::detail
