// What a task has open: its descriptors and the files behind them, in the task's own heap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/types.h>

#include <migrate/file/home_pipe.hpp>
#include <migrate/file/shared_offset.hpp>
#include <migrate/id.hpp>

namespace migrate::detail {

enum class open_kind : std::uint8_t {
  file,      // a regular file, a directory, or a device that every machine has, such as /dev/null
  stream,    // one of the standard streams, until something is put over it
  pipe,      // an end of a kernel pipe, or a fifo: it may make its task wait
  home_pipe, // an end of a pipe whose bytes its home has, or one of a pair of sockets that is two such pipes
  foreign,   // belongs to this machine: the task that has one cannot move
  locks,     // holds the task's record locks on a file; no descriptor refers to it
};

struct open_file {
  open_kind kind = open_kind::file;
  std::uint8_t stream = 0;       // which of the standard streams it is
  bool directory = false;
  bool locked = false;           // may hold a lock
  bool roomy = false;            // of a kernel's pipe: it has got more room
  int kernel = -1;               // the kernel's descriptor on the node that file_table::owner names
  int flags = 0;                 // of open(2), without those that matter at opening only
  std::uint32_t references = 0;  // descriptors of the task
  std::uint32_t position = 0;    // in file_table::files
  shared_offset shared;          // with tasks that inherited it
  pipe_end end;                  // of a home_pipe
  pipe_end other;                // of one that is a socket: what it writes, as `end` is what it reads
  dev_t device = 0;              // of `locks`: the file that they are on
  ino_t inode = 0;
  std::string path;              // absolute, as it was when the file was opened; for others a name for messages

  template <class F> void each_end(F&& visit) {
    if (kind != open_kind::home_pipe) return;
    visit(end);
    if (other.key) visit(other);
  }
};
// One for each of the kernel's open file descriptions that the task has. Descriptors that dup() made share one.
// Nothing is buffered: each read and write is one of the kernel's, so that written data is there for whoever reads next.

struct descriptor_slot {
  open_file* file = nullptr; // none: the descriptor is free
  bool close_on_exec = false;
};

struct memory_mapping {
  char* begin = nullptr;
  std::size_t bytes = 0; // whole pages
};

struct file_table {
  std::uint64_t owner = 0; // the incarnation of the node whose descriptors the files have
  std::size_t lowest = 0;  // no slot below is free
  std::vector<descriptor_slot> slots;
  std::uint64_t requests = 0;  // to homes of shared offsets and pipes, so far
  std::uint64_t sharings = 0;  // offsets that began to be shared, and pipes made
  std::size_t lock_files = 0; // how many of the files are `locks`
  std::vector<open_file*> files;
  std::vector<memory_mapping> mappings; // of files and of nothing, by mmap
};

inline constexpr int flags_at_opening = O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY | O_CLOEXEC;

} // namespace migrate::detail
