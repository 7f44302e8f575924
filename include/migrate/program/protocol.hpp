// What a node and its keeper say to each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include <sys/resource.h>
#include <sys/types.h>

#include <migrate/task/codec.hpp>

namespace migrate::detail::keeping {

// Over one SOCK_SEQPACKET socket pair. The keeper is the same executable as the node, so structures go as they are.

struct limit {
  int resource;
  rlim_t soft, hard;
};

struct program_start {
  std::uint64_t serial = 0;
  std::vector<std::string> executables; // tried in this order, as execvp(3) does
  std::vector<std::string> arguments;
  std::vector<std::string> environment;
  std::string directory;
  mode_t mask = 0;
  int nice = 0;               // at least
  std::uint64_t ignored = 0;  // bit n - 1: signal n
  std::uint64_t blocked = 0;
  std::vector<limit> limits;
  std::vector<int> targets;   // the numbers of the descriptors that come along
  std::vector<std::string> outputs;

  auto migrate_fields() {
    return std::tie(serial, executables, arguments, environment, directory, mask, nice, ignored, blocked, limits, targets,
                    outputs);
  }
};

enum class order : std::uint32_t {
  start,       // a program_start follows, its descriptors beside it
  start_apart, // the program_start is in the first descriptor that comes along
  signal,      // to the program's process group
  signal_all,  // to all its descendants
  end,         // kill it and all its descendants
};

struct request {
  order what;
  std::int32_t signal;
  std::uint64_t serial;
};

enum class stage : std::uint32_t { process, directory, limits, descriptors, execution };

enum class news : std::uint32_t { started, failed, ended };

struct report {
  news what;
  stage where;           // of `failed`
  std::uint64_t serial;
  std::int32_t process;
  std::int32_t status;   // of `ended`: of wait(2); of `failed`: an errno
  std::uint32_t left;    // of `ended`: descendants that could not be killed
  std::uint32_t unused;
  ::rusage used;
};
// `ended` comes when all descendants have gone, too.

inline constexpr std::size_t most_descriptors = 250; // in one message, below the kernel's SCM_MAX_FD
inline constexpr std::size_t most_inline = 32 * 1024;

inline constexpr int socket_number = 3; // the keeper's end, in the keeper
inline constexpr const char* variable = "MIGRATE_KEEPER";

inline constexpr rlim_t tag_bit = rlim_t{1} << 62;
inline constexpr rlim_t tag_of(std::uint32_t keeper, std::uint64_t serial) noexcept {
  return tag_bit | (static_cast<rlim_t>(keeper & 0x1fff'ffff) << 32) | (serial & 0xffff'ffff);
}
inline constexpr rlim_t keeper_bits = ~rlim_t{0xffff'ffff};
// Every process of a program has a soft limit of RLIMIT_RTTIME by which it is known: no process without a real-time
// policy is ever measured by it, and unlike its environment, its process group and its session, a process that turns
// itself into a daemon keeps it.

} // namespace migrate::detail::keeping
