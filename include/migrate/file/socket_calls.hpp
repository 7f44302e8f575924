// Sockets. One to the outside belongs to the machine: the task that has it stays there until it is closed.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <string>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <migrate/file/file_calls.hpp>
#include <migrate/task/presence.hpp>

namespace migrate::detail::files {

inline std::string address_text(const sockaddr* at, socklen_t size) {
  char text[INET6_ADDRSTRLEN] = {};
  if (at->sa_family == AF_INET && size >= sizeof(sockaddr_in)) {
    auto* four = reinterpret_cast<const sockaddr_in*>(at);
    ::inet_ntop(AF_INET, &four->sin_addr, text, sizeof text);
    return std::string(text) + ":" + std::to_string(ntohs(four->sin_port));
  }
  if (at->sa_family == AF_INET6 && size >= sizeof(sockaddr_in6)) {
    auto* six = reinterpret_cast<const sockaddr_in6*>(at);
    ::inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
    return "[" + std::string(text) + "]:" + std::to_string(ntohs(six->sin6_port));
  }
  constexpr std::size_t head = offsetof(sockaddr_un, sun_path);
  if (at->sa_family == AF_UNIX && size > head) {
    const char* path = reinterpret_cast<const sockaddr_un*>(at)->sun_path;
    return std::string(path, ::strnlen(path, size - head));
  }
  return "somewhere";
}

inline long foreign_socket(long kernel, int type, std::string name) {
  if (kernel < 0) return kernel;
  int flags = O_RDWR | ((type & SOCK_NONBLOCK) != 0 ? O_NONBLOCK : 0) | ((type & SOCK_CLOEXEC) != 0 ? O_CLOEXEC : 0);
  return descriptors::open_as(open_kind::foreign, static_cast<int>(kernel), flags, std::move(name));
}

inline long socket(int domain, int type, int protocol) {
  safe_point();
  return foreign_socket(result(::socket(domain, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol)), type, "a socket");
}

inline long bind(int fd, const sockaddr* at, socklen_t size) {
  return with_file(fd, [&](int kernel) {
    int done = ::bind(kernel, at, size);
    if (done == 0) descriptors::find(fd)->path = "the socket at " + address_text(at, size);
    return done;
  });
}

inline long connect(int fd, const sockaddr* to, socklen_t size) {
  safe_point();
  open_file* file = descriptors::find(fd);
  if (file == nullptr) return -EBADF;
  if (file->kernel < 0) return -ENOTSOCK;
  long done = result(::connect(file->kernel, to, size));
  if (done == 0 || done == -EINPROGRESS) file->path = "the socket to " + address_text(to, size);
  if (done != -EINPROGRESS || (file->flags & O_NONBLOCK) != 0) return done;
  for (;;) {
    pollfd what{file->kernel, POLLOUT, 0};
    if (::poll(&what, 1, 0) == 1) break;
    if (long failed = wait_until_ready(file->kernel, EPOLLOUT); failed < 0) return failed;
  }
  int error = 0;
  socklen_t bytes = sizeof error;
  if (long failed = result(::getsockopt(file->kernel, SOL_SOCKET, SO_ERROR, &error, &bytes)); failed < 0) return failed;
  return -error;
}

inline long accept(int fd, sockaddr* from, socklen_t* size, int flags) {
  safe_point();
  if ((flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) != 0) return -EINVAL;
  sockaddr_storage caller{};
  socklen_t bytes = sizeof caller;
  auto* peer = reinterpret_cast<sockaddr*>(&caller);
  long kernel = when_ready(fd, EPOLLIN, [&](open_file& file) {
    bytes = sizeof caller;
    return ::accept4(file.kernel, peer, &bytes, SOCK_CLOEXEC | SOCK_NONBLOCK);
  });
  if (kernel < 0) return kernel;
  if (from != nullptr && size != nullptr) {
    std::memcpy(from, peer, std::min(*size, bytes));
    *size = bytes;
  }
  return foreign_socket(kernel, flags, "the socket to " + address_text(peer, bytes));
}

inline long send(int fd, const void* from, std::size_t bytes, int flags, const sockaddr* to, socklen_t size) {
  safe_point();
  open_file* file = descriptors::find(fd);
  if (is_home_pipe(file)) return flags == 0 && to == nullptr ? write(fd, from, bytes) : -EOPNOTSUPP;
  long done = when_ready(fd, EPOLLOUT, [&](open_file& out) {
    make_present(from, bytes);
    return ::sendto(out.kernel, from, bytes, flags | MSG_NOSIGNAL, to, size);
  });
  return (flags & MSG_NOSIGNAL) != 0 ? done : told(done);
}

inline long receive(int fd, void* into, std::size_t bytes, int flags, sockaddr* from, socklen_t* size) {
  safe_point();
  open_file* file = descriptors::find(fd);
  if (is_home_pipe(file)) return flags == 0 ? read(fd, into, bytes) : -EOPNOTSUPP;
  return when_ready(fd, EPOLLIN, [&](open_file& in) { return make_present(into, bytes), ::recvfrom(in.kernel, into, bytes, flags, from, size); });
}

} // namespace migrate::detail::files
