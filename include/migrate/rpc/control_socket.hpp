// Where the programs of one user on one machine find each other: Unix sockets in a directory that only that user can enter.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/error.hpp>
#include <migrate/rpc/socket_address.hpp>

namespace migrate {

inline std::string control_directory() {
  // Without making it.
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  return std::string(runtime != nullptr && *runtime != 0 ? runtime : "/tmp") + "/migrate-" +
         std::to_string(::geteuid());
}

inline std::string control_address(std::string_view kind) {
  // Of this process: the kind is node, agent or database.
  return "unix:" + control_directory() + "/" + std::string(kind) + "-" + std::to_string(::getpid()) + ".sock";
}

inline std::vector<std::string> control_addresses(std::string_view kind = {}) {
  // Of this user's programs on this machine, in order of their names; of all kinds when none is given. Some may have ended.
  std::vector<std::string> found;
  DIR* directory = ::opendir(control_directory().c_str());
  if (directory == nullptr) return found;
  while (const dirent* entry = ::readdir(directory)) {
    std::string_view name = entry->d_name;
    if (name.ends_with(".sock") && name.starts_with(kind) &&
        (kind.empty() || name.substr(kind.size()).starts_with('-')))
      found.push_back("unix:" + control_directory() + "/" + std::string(name));
  }
  ::closedir(directory);
  std::sort(found.begin(), found.end());
  return found;
}

namespace detail {

inline void make_private_directory(const std::string& path) {
  // Makes it unless it is there. Throws when anybody else may enter it, since whoever can write there can take a
  // socket's place.
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    throw error(std::error_code(errno, std::system_category()),
                "cannot make the directory " + path + " for a socket: " + std::strerror(errno));
  struct stat status {};
  int failed = ::lstat(path.c_str(), &status);
  if (failed != 0 || !S_ISDIR(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & 077) != 0)
    throw error(errc::not_authenticated,
                "will not listen in " + path +
                    ": it must be a directory that belongs to this user and that nobody else "
                    "can enter; chmod 700 it, or set XDG_RUNTIME_DIR");
}

inline void clear_socket_path(const std::string& path) {
  // Removes the socket of a program that has ended. Throws errc::node_unreachable when one listens there.
  auto where = socket_address::at_path(path);
  int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  bool dead = ::connect(probe, where.get(), where.size) != 0 && errno == ECONNREFUSED;
  bool absent = !dead && errno == ENOENT;
  ::close(probe);
  if (absent) return;
  if (!dead)
    throw error(errc::node_unreachable,
                "cannot listen on unix:" + path +
                    ": another program listens there, or it is no socket; give another path");
  ::unlink(path.c_str());
}

} // namespace detail

} // namespace migrate
