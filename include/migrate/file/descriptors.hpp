// The running task's descriptors: giving out numbers, sharing, closing, inheriting.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <migrate/file/file_services.hpp>
#include <migrate/file/open_file.hpp>
#include <migrate/task/control_block.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate::detail::descriptors {

// Functions return what the system call of their name does, or a negative errno. They are called after the last
// safe point of a library call, so that the task stays while they run.

inline constexpr std::size_t most = 65'536; // descriptors of a task

inline open_file& add_file(file_table& table, open_kind kind, int kernel, int flags, std::string path) {
  auto made = std::make_unique<open_file>();
  made->kind = kind;
  made->kernel = kernel;
  made->flags = flags & ~flags_at_opening;
  made->path = std::move(path);
  made->position = static_cast<std::uint32_t>(table.files.size());
  table.files.push_back(made.get());
  return *made.release();
}

inline file_table& table() {
  file_table*& mine = self().control->process.files;
  if (mine == nullptr) {
    auto made = std::make_unique<file_table>();
    made->owner = node_services().incarnation();
    made->requests = made->sharings = self().control->process.first_number;
    static constexpr const char* names[] = {"standard input", "standard output", "standard error"};
    for (int fd = 0; fd < 3; ++fd) {
      open_file& stream = add_file(*made, open_kind::stream, -1, fd == 0 ? O_RDONLY : O_WRONLY, names[fd]);
      stream.references = 1;
      stream.stream = static_cast<std::uint8_t>(fd);
      made->slots.push_back({&stream, false});
    }
    made->lowest = 3;
    mine = made.release();
  }
  return *mine;
}
// Made at the first use, with the standard streams in it.

inline descriptor_slot* find_slot(int fd) {
  file_table& mine = table();
  if (fd < 0 || static_cast<std::size_t>(fd) >= mine.slots.size()) return nullptr;
  descriptor_slot& slot = mine.slots[static_cast<std::size_t>(fd)];
  return slot.file == nullptr ? nullptr : &slot;
}

inline open_file* find(int fd) {
  descriptor_slot* slot = find_slot(fd);
  return slot == nullptr ? nullptr : slot->file;
}

inline long lowest_free(file_table& mine, std::size_t from) {
  for (std::size_t at = std::max(from, mine.lowest);; ++at) {
    if (at >= most) return -EMFILE;
    if (at >= mine.slots.size()) mine.slots.resize(at + 1);
    if (mine.slots[at].file != nullptr) continue;
    if (from <= mine.lowest) mine.lowest = at;
    return static_cast<long>(at);
  }
}

inline void put(file_table& mine, std::size_t at, open_file& file, bool close_on_exec) {
  mine.slots[at] = {&file, close_on_exec};
  ++file.references;
}

inline int drop(file_table& mine, open_file& file) noexcept {
  open_file* last = mine.files.back();
  mine.files[file.position] = last;
  last->position = file.position;
  mine.files.pop_back();
  if (file.kind == open_kind::locks) --mine.lock_files;
  if (file.kind == open_kind::pipe || file.kind == open_kind::foreign) the_files->forget(file.kernel);
  if (file.shared.key) the_files->holders_change(file.shared, false);
  file.each_end([](pipe_end& each) { the_files->leave_pipe(each); });
  int failed = file.kernel >= 0 && ::close(file.kernel) != 0 ? -errno : 0;
  delete &file;
  return failed;
}

inline open_file* find_locks(const file_table& mine, const struct stat& status) noexcept {
  if (mine.lock_files == 0) return nullptr;
  for (open_file* each : mine.files)
    if (each->kind == open_kind::locks && each->inode == status.st_ino && each->device == status.st_dev) return each;
  return nullptr;
}

inline int let_go(file_table& mine, open_file& file) noexcept {
  // One descriptor less; with the last the file is closed. A process that closes any descriptor of a file loses its
  // record locks on it (fcntl(2)).
  struct stat status;
  if (mine.lock_files > 0 && file.kernel >= 0 && ::fstat(file.kernel, &status) == 0)
    if (open_file* locks = find_locks(mine, status)) drop(mine, *locks);
  return --file.references > 0 ? 0 : drop(mine, file);
}
// What close(2) says.

inline long open_as(open_kind kind, int kernel, int flags, std::string path, std::size_t from = 0) {
  // Takes the kernel's descriptor over, whatever happens.
  file_table& mine = table();
  long at = lowest_free(mine, from);
  if (at < 0) {
    if (kernel >= 0) ::close(kernel);
    return at;
  }
  open_file& file = add_file(mine, kind, kernel, flags, std::move(path));
  put(mine, static_cast<std::size_t>(at), file, (flags & O_CLOEXEC) != 0);
  return at;
}

inline long close(int fd) {
  descriptor_slot* slot = find_slot(fd);
  if (slot == nullptr) return -EBADF;
  file_table& mine = table();
  open_file* file = std::exchange(slot->file, nullptr);
  mine.lowest = std::min(mine.lowest, static_cast<std::size_t>(fd));
  return let_go(mine, *file);
}

inline long duplicate(int fd, std::size_t from, bool close_on_exec) {
  open_file* file = find(fd);
  if (file == nullptr) return -EBADF;
  if (from >= most) return -EINVAL;
  file_table& mine = table();
  long at = lowest_free(mine, from);
  if (at >= 0) put(mine, static_cast<std::size_t>(at), *file, close_on_exec);
  return at;
}

inline long duplicate_over(int fd, int onto, bool close_on_exec) {
  open_file* file = find(fd);
  if (file == nullptr || onto < 0 || static_cast<std::size_t>(onto) >= most) return -EBADF;
  if (fd == onto) return onto;
  file_table& mine = table();
  if (static_cast<std::size_t>(onto) >= mine.slots.size()) mine.slots.resize(static_cast<std::size_t>(onto) + 1);
  open_file* before = mine.slots[static_cast<std::size_t>(onto)].file;
  put(mine, static_cast<std::size_t>(onto), *file, close_on_exec);
  if (before != nullptr) let_go(mine, *before);
  return onto;
}

inline open_kind kind_of(const struct stat& status) noexcept {
  if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)) return open_kind::file;
  if (S_ISFIFO(status.st_mode)) return open_kind::pipe;
  constexpr unsigned memory_devices = 1; // null, zero, full, random: the same on every machine
  if (S_ISCHR(status.st_mode) && major(status.st_rdev) == memory_devices) return open_kind::file;
  return open_kind::foreign;
}

inline void give_to_child(open_file& file, file_table& mine, task_id parent, task_id child) {
  // Says so to whoever must know that another task has the file too.
  if (file.kind == open_kind::file && !file.directory && the_files->sharing != offset_sharing::kernel && !file.shared.key)
    if (off_t at = ::lseek(file.kernel, 0, SEEK_CUR); at >= 0)
      file.shared = {{parent.bits(), ++mine.sharings}, the_files->sharing, at};
  if (file.shared.key) the_files->holders_change(file.shared, true);
  file.each_end([&](pipe_end& each) {
    ++each.given;
    the_files->give_pipe(each, parent, child);
  });
}

inline void inherit(control_block& parent, control_block& child) {
  // As posix_spawn(3): what is not to be closed at exec is the child's too, with the same numbers and offsets.
  file_table* from = parent.process.files;
  if (from == nullptr) return;
  auto made = std::make_unique<file_table>();
  made->owner = from->owner;
  made->lowest = 0;
  std::vector<open_file*> copies(from->files.size());
  try {
    for (std::size_t fd = 0; fd < from->slots.size(); ++fd) {
      const descriptor_slot& slot = from->slots[fd];
      if (slot.file == nullptr || slot.close_on_exec) continue;
      open_file*& copy = copies[slot.file->position];
      if (copy == nullptr) {
        int kernel = -1;
        if (slot.file->kernel >= 0 && (kernel = ::fcntl(slot.file->kernel, F_DUPFD_CLOEXEC, 3)) < 0)
          throw error(std::error_code(errno, std::generic_category()),
                      "giving a child the descriptor " + std::to_string(fd) + " (" + slot.file->path + ")");
        copy = &add_file(*made, slot.file->kind, kernel, slot.file->flags, slot.file->path);
        copy->directory = slot.file->directory;
        copy->stream = slot.file->stream;
        give_to_child(*slot.file, *from, parent.id, child.id);
        copy->shared = slot.file->shared;
        copy->end = {slot.file->end.key, slot.file->end.writes, 0};
        copy->other = {slot.file->other.key, slot.file->other.writes, 0};
        copy->locked = slot.file->locked; // by flock(), which the child has part in; record locks it has none of
      }
      made->slots.resize(fd + 1);
      put(*made, fd, *copy, false);
    }
  } catch (...) {
    for (open_file* each : made->files)
      if (each->kernel >= 0) ::close(each->kernel);
    throw;
  }
  child.process.files = made.release();
}

inline void ending() noexcept {
  // The kernel's descriptors are closed with the task (see file_carrier); others hear of its end from itself.
  file_table* mine = self().control->process.files;
  if (mine == nullptr) return;
  for (open_file* each : mine->files) {
    if (each->shared.key) the_files->holders_change(each->shared, false);
    each->each_end([](pipe_end& end) { the_files->leave_pipe(end); });
  }
}

} // namespace migrate::detail::descriptors
