// sys/socket.h, for tasks.
#pragma once

#include <cerrno>

#include <sys/socket.h>

#include <migrate/file/socket_calls.hpp>
#include <migrate/posix/errors.hpp>

namespace migrate::posix {

inline int socketpair(int domain, int type, int protocol, int ends[2]) {
  return detail::posix_call([&]() -> long {
    constexpr int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    if (domain != AF_UNIX) return -EOPNOTSUPP;
    if ((type & ~flags) != SOCK_STREAM || protocol != 0) return -EPROTONOSUPPORT;
    return migrate::detail::files::socket_pair(ends, ((type & SOCK_NONBLOCK) != 0 ? O_NONBLOCK : 0) |
                                                         ((type & SOCK_CLOEXEC) != 0 ? O_CLOEXEC : 0));
  });
}
// Streams of AF_UNIX. They move like the ends of a pipe.

// A socket made by one of these belongs to the machine, as whoever is at its other end knows that machine's address. As
// long as a task has one it stays: a move fails with errc::not_movable and the socket's name, which says its address.

inline int socket(int domain, int type, int protocol) {
  return detail::posix_call([&] { return migrate::detail::files::socket(domain, type, protocol); });
}
inline int bind(int fd, const sockaddr* at, socklen_t size) {
  return detail::posix_call([&] { return migrate::detail::files::bind(fd, at, size); });
}
inline int listen(int fd, int most) {
  return detail::posix_call([&] {
    return migrate::detail::files::with_file(fd, [&](int kernel) { return ::listen(kernel, most); });
  });
}
inline int connect(int fd, const sockaddr* to, socklen_t size) {
  return detail::posix_call([&] { return migrate::detail::files::connect(fd, to, size); });
}
inline int accept4(int fd, sockaddr* from, socklen_t* size, int flags) {
  return detail::posix_call([&] { return migrate::detail::files::accept(fd, from, size, flags); });
}
inline int accept(int fd, sockaddr* from, socklen_t* size) { return posix::accept4(fd, from, size, 0); }
inline ssize_t sendto(int fd, const void* from, std::size_t bytes, int flags, const sockaddr* to, socklen_t size) {
  return detail::posix_call<ssize_t>([&] { return migrate::detail::files::send(fd, from, bytes, flags, to, size); });
}
inline ssize_t send(int fd, const void* from, std::size_t bytes, int flags) {
  return posix::sendto(fd, from, bytes, flags, nullptr, 0);
}
inline ssize_t recvfrom(int fd, void* into, std::size_t bytes, int flags, sockaddr* from, socklen_t* size) {
  return detail::posix_call<ssize_t>(
      [&] { return migrate::detail::files::receive(fd, into, bytes, flags, from, size); });
}
inline ssize_t recv(int fd, void* into, std::size_t bytes, int flags) {
  return posix::recvfrom(fd, into, bytes, flags, nullptr, nullptr);
}
inline int shutdown(int fd, int how) {
  return detail::posix_call([&] {
    return migrate::detail::files::with_file(fd, [&](int kernel) { return ::shutdown(kernel, how); });
  });
}
inline int getsockname(int fd, sockaddr* into, socklen_t* size) {
  return detail::posix_call([&] {
    return migrate::detail::files::with_file(fd, [&](int kernel) { return ::getsockname(kernel, into, size); });
  });
}
inline int getpeername(int fd, sockaddr* into, socklen_t* size) {
  return detail::posix_call([&] {
    return migrate::detail::files::with_file(fd, [&](int kernel) { return ::getpeername(kernel, into, size); });
  });
}
inline int getsockopt(int fd, int level, int name, void* into, socklen_t* size) {
  return detail::posix_call([&] {
    return migrate::detail::files::with_file(fd,
                                             [&](int kernel) { return ::getsockopt(kernel, level, name, into, size); });
  });
}
inline int setsockopt(int fd, int level, int name, const void* from, socklen_t size) {
  return detail::posix_call([&] {
    return migrate::detail::files::with_file(fd,
                                             [&](int kernel) { return ::setsockopt(kernel, level, name, from, size); });
  });
}
// Calls that wait let the worker go. These, read(), write() and poll() take the ends of socketpair(), too; between
// machines send() and recv() take them without flags, and shutdown() and the options do not.

} // namespace migrate::posix
