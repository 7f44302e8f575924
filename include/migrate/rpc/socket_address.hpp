// Socket addresses as text: "127.0.0.1:4711", "[::1]:4711", "host.example:4711", "unix:/path".
#pragma once

#include <charconv>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <migrate/error.hpp>

namespace migrate::detail {

struct host_and_port {
  std::string host;
  std::uint16_t port = 0;
};

inline host_and_port split_address(std::string_view text) {
  // Throws errc::node_unreachable when the text is not host:port.
  auto fail = [&]() {
    return error(errc::node_unreachable,
                 "\"" + std::string(text) +
                     "\" is not an address; write host:port, as 192.0.2.7:4711 or [::1]:4711");
  };
  auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) throw fail();
  std::string_view host = text.substr(0, colon);
  std::string_view port = text.substr(colon + 1);
  if (host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  else if (host.find(':') != std::string_view::npos)
    throw fail();
  host_and_port parts;
  parts.host = std::string(host);
  auto [end, problem] = std::from_chars(port.data(), port.data() + port.size(), parts.port);
  if (problem != std::errc() || end != port.data() + port.size() || host.empty()) throw fail();
  return parts;
}

inline std::optional<std::string_view> path_in(std::string_view text) {
  // Of an address of the form unix:PATH.
  constexpr std::string_view prefix = "unix:";
  if (!text.starts_with(prefix)) return std::nullopt;
  return text.substr(prefix.size());
}

struct socket_address {
  sockaddr_storage storage{};
  socklen_t size = 0;

  const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
  int family() const noexcept { return storage.ss_family; }
  const sockaddr_in& v4() const noexcept { return reinterpret_cast<const sockaddr_in&>(storage); }
  const sockaddr_in6& v6() const noexcept { return reinterpret_cast<const sockaddr_in6&>(storage); }

  static std::optional<socket_address> numeric(const std::string& host, std::uint16_t port) {
    socket_address made;
    auto& four = reinterpret_cast<sockaddr_in&>(made.storage);
    auto& six = reinterpret_cast<sockaddr_in6&>(made.storage);
    if (host == "localhost" || ::inet_pton(AF_INET, host.c_str(), &four.sin_addr) == 1) {
      if (host == "localhost") four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      four.sin_family = AF_INET;
      four.sin_port = htons(port);
      made.size = sizeof four;
      return made;
    }
    if (::inet_pton(AF_INET6, host.c_str(), &six.sin6_addr) == 1) {
      six.sin6_family = AF_INET6;
      six.sin6_port = htons(port);
      made.size = sizeof six;
      return made;
    }
    return std::nullopt;
  }

  static socket_address at_path(std::string_view path) {
    // Throws errc::node_unreachable when a socket cannot have that name.
    socket_address made;
    auto& local = reinterpret_cast<sockaddr_un&>(made.storage);
    if (path.empty() || path.size() >= sizeof local.sun_path)
      throw error(errc::node_unreachable, "a socket cannot be named \"" + std::string(path) +
                                              "\": give a path of 1 to " +
                                              std::to_string(sizeof local.sun_path - 1) + " bytes");
    local.sun_family = AF_UNIX;
    std::memcpy(local.sun_path, path.data(), path.size());
    made.size = sizeof local;
    return made;
  }

  static socket_address local_of(int socket) {
    socket_address made;
    made.size = sizeof made.storage;
    ::getsockname(socket, made.get(), &made.size);
    return made;
  }

  static socket_address peer_of(int socket) {
    socket_address made;
    made.size = sizeof made.storage;
    ::getpeername(socket, made.get(), &made.size);
    return made;
  }

  bool within_host() const noexcept { return family() == AF_UNIX; }
  std::string path() const { return reinterpret_cast<const sockaddr_un&>(storage).sun_path; }

  std::uint16_t port() const noexcept {
    return family() == AF_INET6 ? ntohs(v6().sin6_port) : ntohs(v4().sin_port);
  }

  bool loopback() const noexcept {
    if (family() == AF_INET) return (ntohl(v4().sin_addr.s_addr) >> 24) == 127;
    if (family() != AF_INET6) return false;
    if (IN6_IS_ADDR_V4MAPPED(&v6().sin6_addr)) return v6().sin6_addr.s6_addr[12] == 127;
    return IN6_IS_ADDR_LOOPBACK(&v6().sin6_addr);
  }

  bool any() const noexcept {
    if (family() == AF_INET) return v4().sin_addr.s_addr == htonl(INADDR_ANY);
    return family() == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&v6().sin6_addr);
  }

  std::string text() const { return within_host() ? "unix:" + path() : text_with_port(port()); }

  std::string text_with_port(std::uint16_t shown) const {
    char host[INET6_ADDRSTRLEN] = "?";
    if (family() == AF_INET) {
      ::inet_ntop(AF_INET, &v4().sin_addr, host, sizeof host);
      return std::string(host) + ":" + std::to_string(shown);
    }
    if (family() == AF_INET6) ::inet_ntop(AF_INET6, &v6().sin6_addr, host, sizeof host);
    return "[" + std::string(host) + "]:" + std::to_string(shown);
  }
};

} // namespace migrate::detail
