// Which user owns the other end of a connection within this host.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <migrate/error.hpp>
#include <migrate/rpc/socket_address.hpp>

namespace migrate::detail {

inline std::string in_proc_form(const socket_address& address) {
  // As /proc/net/tcp and tcp6 print it: the words of the address as this machine reads them, then the port.
  char text[48];
  if (address.family() == AF_INET) {
    std::snprintf(text, sizeof text, "%08X:%04X", address.v4().sin_addr.s_addr, address.port());
  } else {
    const std::uint32_t* words = reinterpret_cast<const std::uint32_t*>(&address.v6().sin6_addr);
    std::snprintf(text, sizeof text, "%08X%08X%08X%08X:%04X", words[0], words[1], words[2], words[3],
                  address.port());
  }
  return text;
}

enum class loopback_end {
  peer,     // the connected socket at the other end
  listener, // the socket that listens at the address that was called
};

enum class loopback_user { own, other, nobody };

struct loopback_owner {
  loopback_user kind;
  uid_t uid; // unless it is nobody

  static loopback_owner of(uid_t uid) noexcept {
    return {uid == ::geteuid() || uid == 0 ? loopback_user::own : loopback_user::other, uid};
  }
};

inline loopback_owner owner_of(int socket, loopback_end which) {
  // Whether that socket belongs to this process's user (or to root), to another, or is closed already. Between
  // loopback addresses there are no credentials, and any user of the host could call or be called. `own` when the
  // kernel does not tell (no /proc). Follows proc(5), /proc/net/tcp, and unix(7), SO_PEERCRED.
  auto local = socket_address::local_of(socket), peer = socket_address::peer_of(socket);
  if (local.within_host()) {
    ucred other{};
    socklen_t size = sizeof other;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &other, &size) != 0) return {loopback_user::nobody, 0};
    return loopback_owner::of(other.uid);
  }
  std::string here = in_proc_form(local), there = in_proc_form(peer);
  std::string there_any = there;
  for (std::size_t i = 0; i < there.find(':'); ++i) there_any[i] = '0';
  for (const char* path : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path, "re"), &std::fclose);
    if (!file) {
      if (path == std::string("/proc/net/tcp")) return loopback_owner::of(::geteuid());
      continue;
    }
    char line[512];
    while (std::fgets(line, sizeof line, file.get()) != nullptr) {
      char owner_end[64], other_end[64];
      unsigned state = 0, uid = 0;
      unsigned long inode = 0;
      if (std::sscanf(line, " %*d: %63s %63s %x %*s %*s %*s %u %*u %lu", owner_end, other_end, &state, &uid,
                      &inode) != 5)
        continue;
      bool matches = which == loopback_end::peer
                         ? there == owner_end && here == other_end
                         : state == 10 && (there == owner_end || there_any == owner_end ||
                                           std::string(owner_end) ==
                                               std::string(32, '0') + there.substr(there.find(':')));
      if (!matches) continue;
      if (inode == 0) return {loopback_user::nobody, 0};
      return loopback_owner::of(uid);
    }
  }
  return {loopback_user::nobody, 0};
}

inline error stranger(const std::string& peer) {
  return error(errc::not_authenticated,
               peer + " belongs to another user of this host; programs that speak to each other "
                      "without credentials must belong to one user");
}

} // namespace migrate::detail
