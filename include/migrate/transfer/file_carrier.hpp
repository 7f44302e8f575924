// How a task's open files get from one node to another.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/file/descriptor_passing.hpp>
#include <migrate/file/descriptors.hpp>
#include <migrate/file/file_services.hpp>
#include <migrate/file/offset_home.hpp>
#include <migrate/file/open_file.hpp>
#include <migrate/task/codec.hpp>
#include <migrate/task/control_block.hpp>
#include <migrate/task/services.hpp>
#include <migrate/transfer/carrier.hpp>
#include <migrate/transfer/move_order.hpp>
#include <migrate/transfer/reopening.hpp>

namespace migrate::detail::file_carrying {

// The table itself is in the task's heap and moves with it; here are only the kernel's descriptors. On one machine they
// are handed over as they are, all in a few messages. To another machine goes what is needed to open each file again:
// its path, the number of its inode to be sure that it is the same file, and the offset. Either way the source closes
// nothing before the task runs on the target.

struct setting {
  bool reopen = false;           // as between machines, also on one machine
  bool several_machines = false; // a node may be on another machine
  std::string hideaway;          // a directory that all nodes see, for files that have no name any more
};
inline setting how;
// Filled by the node before its first task.

inline file_table* table_of(const resident& task) noexcept {
  return task.control == nullptr ? nullptr : task.control->process.files;
}

inline failure prepare(resident& task) {
  file_table* table = table_of(task);
  if (table == nullptr) return {};
  for (const open_file* each : table->files)
    if (each->kind == open_kind::foreign)
      return {make_error_code(errc::not_movable),
              "the task has " + each->path + " open, which belongs to this machine; close it first"};
  return {};
}

inline std::string system_failure(const open_file& file, const std::string& what) {
  return "the task's file " + file.path + ": " + what;
}

// --- opening again -----------------------------------------------------------------------------------

inline std::string keep_bytes(const open_file& file, int kernel, off_t size, task_id task) {
  // Of a file without a name; the target takes the copy and leaves it without a name too.
  static std::atomic<std::uint64_t> last{0};
  std::string hidden = how.hideaway + "/unlinked-" + std::to_string(task.bits()) + "-" +
                       std::to_string(node_services().incarnation()) + "-" + std::to_string(++last);
  descriptor from(::open(("/proc/self/fd/" + std::to_string(kernel)).c_str(), O_RDONLY | O_CLOEXEC));
  descriptor to(::open(hidden.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
  bool whole = from && to;
  for (off_t at = 0; whole && at < size;) whole = ::sendfile(to.get(), from.get(), &at, static_cast<std::size_t>(size - at)) > 0;
  if (!whole) {
    int reason = errno;
    ::unlink(hidden.c_str());
    throw error(errc::not_movable, system_failure(file, "it has been unlinked, and a copy of its bytes cannot be made: " +
                                                            system_message(reason)));
  }
  return hidden;
}

inline void write_for_reopening(const open_file& file, task_id task, std::vector<ino_t>& nameless, byte_writer& out) {
  struct stat status;
  if (file.kind == open_kind::pipe)
    throw error(errc::not_movable, system_failure(file, "a pipe of the kernel cannot reach another machine"));
  if (file.locked)
    throw error(errc::not_movable, system_failure(file, "a lock on it cannot be handed to another machine without a "
                                                        "moment in which somebody else can take it; unlock it first"));
  if (::fstat(file.kernel, &status) != 0) throw error(errc::not_movable, system_failure(file, system_message(errno)));
  std::string hidden;
  if (status.st_nlink == 0 && S_ISREG(status.st_mode)) {
    if (file.shared.key || std::find(nameless.begin(), nameless.end(), status.st_ino) != nameless.end())
      throw error(errc::not_movable,
                  system_failure(file, "it has been unlinked and is open twice, so that a copy would make two of it"));
    nameless.push_back(status.st_ino);
    hidden = keep_bytes(file, file.kernel, status.st_size, task);
  }
  out.put(reopening{status.st_ino, status.st_mode, ::lseek(file.kernel, 0, SEEK_CUR), ::fcntl(file.kernel, F_GETFL),
                    std::move(hidden)});
}

inline int open_again(const open_file& file, byte_reader& in) {
  auto [inode, mode, at, flags, hidden] = in.get<reopening>();
  const std::string& path = hidden.empty() ? file.path : hidden;
  descriptor made(::open(path.c_str(), (flags & ~flags_at_opening) | O_CLOEXEC | O_NOCTTY));
  if (!made) throw error(errc::move_refused, system_failure(file, "it cannot be opened there: " + system_message(errno)));
  struct stat status;
  if (::fstat(made.get(), &status) != 0) throw error(errc::move_refused, system_failure(file, system_message(errno)));
  if (!hidden.empty())
    ::unlink(hidden.c_str());
  else if (status.st_ino != inode || (status.st_mode & S_IFMT) != (mode & S_IFMT))
    throw error(errc::move_refused, system_failure(file, "its path leads to another file there"));
  if (at > 0 && ::lseek(made.get(), at, SEEK_SET) != at)
    throw error(errc::move_refused, system_failure(file, "its offset cannot be set there: " + system_message(errno)));
  int kernel = ::fcntl(made.get(), F_DUPFD_CLOEXEC, 3);
  if (kernel < 0) throw error(errc::move_refused, system_failure(file, system_message(errno)));
  return kernel;
}

// --- the carrier -------------------------------------------------------------------------------------

enum class way : std::uint8_t { nothing, handed_over, opened_again };

inline bool travels(const open_file& file, bool as_copy) noexcept {
  return file.kernel >= 0 && !(as_copy && file.kind == open_kind::locks); // a child has none of its parent's record locks
}

inline void write_files(const file_table* table, const descriptor_passing::arrival_key& whose, node_id target,
                        bool as_copy, byte_writer& out) {
  std::vector<int> kernel;
  if (table != nullptr)
    for (const open_file* each : table->files)
      if (travels(*each, as_copy)) kernel.push_back(each->kernel);
  if (kernel.empty()) {
    out.put(way::nothing);
    return;
  }
  descriptor_passing::ticket ticket;
  int refused = how.reopen ? ENOENT : this_passing->send(target, whose, kernel, ticket);
  // A node is known to the others a moment before it listens.
  auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  while (refused == ENOENT && !how.several_machines && std::chrono::steady_clock::now() < patience) {
    ::usleep(200);
    refused = this_passing->send(target, whose, kernel, ticket);
  }
  if (refused == 0) {
    out.put(way::handed_over);
    out.put(ticket);
    return;
  }
  if (refused != ENOENT && refused != ECONNREFUSED)
    throw error(errc::not_movable, "the task's descriptors cannot be handed over: " + system_message(refused));
  out.put(way::opened_again);
  std::vector<ino_t> nameless; // of the files that have been unlinked
  for (const open_file* each : table->files)
    if (travels(*each, as_copy)) write_for_reopening(*each, whose.task, nameless, out);
}

inline void read_files(file_table* table, bool as_copy, byte_reader& in) {
  way which = in.get<way>();
  std::vector<open_file*> files;
  if (table != nullptr)
    for (open_file* each : table->files)
      if (travels(*each, as_copy)) files.push_back(each);
  std::vector<int> kernel;
  if (which == way::handed_over) {
    auto ticket = in.get<descriptor_passing::ticket>();
    if (!this_passing->take(ticket, kernel, files.size()))
      throw error(errc::move_refused, "the task's descriptors did not arrive; does this process have too many open?");
  } else if (which == way::opened_again) {
    try {
      for (open_file* each : files) kernel.push_back(open_again(*each, in));
    } catch (...) {
      for (int each : kernel) ::close(each);
      throw;
    }
  }
  if (kernel.size() != files.size()) throw error(errc::protocol, "the offer has other descriptors than the task");
  for (std::size_t i = 0; i < files.size(); ++i) files[i]->kernel = kernel[i];
  if (table != nullptr) table->owner = node_services().incarnation();
}

inline void encapsulate(resident& task, byte_writer& out) {
  file_table* table = table_of(task);
  if (table != nullptr)
    for (const open_file* each : table->files)
      if (each->shared.way == offset_sharing::token) this_offset_tokens->yield(task, each->shared);
  write_files(table, {task.id, task.epoch}, task.move->target, false, out);
}

inline void checkpoint(resident& task, byte_writer& out) {
  // Files are opened again, with their offsets; what is in them is not part of it.
  auto refuse = [](const open_file& file, const char* why) {
    throw error(errc::not_movable, system_failure(file, std::string("it cannot be part of a checkpoint, ") + why));
  };
  file_table* table = table_of(task);
  bool any = false;
  if (table != nullptr)
    for (const open_file* each : table->files) {
      if (each->kind == open_kind::pipe || each->kind == open_kind::home_pipe)
        refuse(*each, "since what is on its way in it would be lost");
      if (each->shared.key) refuse(*each, "since its offset is shared with other tasks");
      if (each->kind == open_kind::locks || (each->kernel >= 0 && each->locked))
        refuse(*each, "since a lock ends with its node");
      if (each->kernel < 0) continue;
      struct stat status;
      if (::fstat(each->kernel, &status) != 0) throw error(errc::not_movable, system_failure(*each, system_message(errno)));
      if (status.st_nlink == 0) refuse(*each, "since it has been unlinked, and its bytes go with its node");
      any = true;
    }
  out.put(any ? way::opened_again : way::nothing);
  std::vector<ino_t> nameless;
  if (table != nullptr)
    for (const open_file* each : table->files)
      if (travels(*each, false)) write_for_reopening(*each, task.id, nameless, out);
}

inline void restarted(resident& task, std::uint64_t from) {
  if (file_table* table = table_of(task)) table->requests = table->sharings = from;
}

inline void restore(resident& task, byte_reader& in) { read_files(table_of(task), false, in); }

inline void copy(resident& task, task_id child, byte_writer& out) {
  // For fork(): the two have every file in common from now on.
  file_table* table = table_of(task);
  if (table != nullptr)
    for (open_file* each : table->files) descriptors::give_to_child(*each, *table, task.id, child);
  write_files(table, {child, 1}, task.move->target, true, out); // see offer_copy() for the epoch
}

inline void restore_copy(resident& child, byte_reader& in) {
  file_table* table = table_of(child);
  if (table != nullptr)
    for (open_file* each : table->files) {
      each->each_end([](pipe_end& end) { end.given = 0; });
      if (each->kind != open_kind::locks) continue;
      each->kernel = -1;
      each->inode = 0;
    }
  read_files(table, true, in);
}

inline void look(resident& task, memory_visitor visit) {
  const file_table* table = table_of(task);
  if (table == nullptr) return;
  visit(table, sizeof *table);
  visit(table->files.data(), table->files.size() * sizeof(open_file*));
  for (const open_file* each : table->files) {
    visit(each, sizeof *each);
    visit(each->path.data(), each->path.size() + 1);
  }
}

inline void refused(task_id task, std::uint64_t epoch) noexcept { this_passing->discard({task, epoch}); }

inline void close_descriptors(std::vector<int>& kernel) noexcept {
  // Neighbours at once: close(2) is a system call for each.
  std::sort(kernel.begin(), kernel.end());
  for (std::size_t first = 0; first < kernel.size();) {
    std::size_t end = first + 1;
    while (end < kernel.size() && kernel[end] == kernel[end - 1] + 1) ++end;
    if (::close_range(static_cast<unsigned>(kernel[first]), static_cast<unsigned>(kernel[end - 1]), 0) != 0)
      for (std::size_t i = first; i < end; ++i) ::close(kernel[i]);
    first = end;
  }
}

inline void release(resident& task, bool moved) noexcept {
  if (!moved) return; // it runs already, and may have ended
  file_table* table = table_of(task);
  if (table == nullptr || table->owner != node_services().incarnation()) return; // or not laid out here
  std::vector<int> kernel;
  for (open_file* each : table->files) {
    if (each->kernel < 0) continue;
    if (each->kind == open_kind::pipe) the_files->forget(each->kernel);
    kernel.push_back(each->kernel);
  }
  close_descriptors(kernel);
  table->owner = 0;
}

} // namespace migrate::detail::file_carrying
