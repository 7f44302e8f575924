// A listening socket on the event loop.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>

#include <kj/function.h>

#include <sys/socket.h>
#include <unistd.h>

#include <migrate/error.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/rpc/socket_address.hpp>

namespace migrate::detail {

inline socket_address address_to_listen_on(const std::string& text, bool secured) {
  // Throws errc::node_unreachable when it is no numeric address, errc::not_authenticated when others than this host's
  // programs could call there and nothing secures the connection.
  auto parts = split_address(text);
  auto where = socket_address::numeric(parts.host, parts.port);
  if (!where)
    throw error(errc::node_unreachable,
                "cannot listen on \"" + text +
                    "\": give a numeric address of this host, or 0.0.0.0 with --advertise");
  if (!where->loopback() && !secured)
    throw error(
        errc::not_authenticated,
        "will not listen on " + text +
            " without credentials, since whoever speaks to a node can run code on it; give a certificate, "
            "a key and an authority (examples/credentials makes them), or listen on 127.0.0.1");
  return *where;
}

class listener final : private event_loop::watcher {
  // On the I/O thread only.

public:
  using callback = kj::Function<void(int socket)>;

  listener(event_loop& loop, const socket_address& where, const std::string& shown, callback accepted)
      : loop_(loop), accepted_(kj::mv(accepted)) {
    socket_ = ::socket(where.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    if (socket_ >= 0 && !where.within_host()) ::setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (socket_ < 0 || ::bind(socket_, where.get(), where.size) != 0 || ::listen(socket_, 1024) != 0) {
      int code = errno;
      if (socket_ >= 0) ::close(socket_);
      throw error(std::error_code(code, std::system_category()),
                  "cannot listen on " + shown + ": " + std::strerror(code));
    }
    loop_.watch(socket_, EPOLLIN, *this);
  }
  // Throws the system's error. `accepted` owns each socket that it is called with, which is non-blocking.

  ~listener() {
    loop_.cancel(pause_);
    if (watched_) loop_.unwatch(socket_, *this);
    ::close(socket_);
  }
  listener(const listener&) = delete;
  listener& operator=(const listener&) = delete;

  socket_address address() const { return socket_address::local_of(socket_); }

private:
  void on_ready(std::uint32_t) noexcept override {
    for (int i = 0; i < 16; ++i) {
      int socket = ::accept4(socket_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (socket >= 0) {
        accepted_(socket);
        continue;
      }
      if (errno == EAGAIN || errno == EWOULDBLOCK) return;
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        // The caller stays in the queue and would wake us for ever.
        loop_.unwatch(socket_, *this);
        watched_ = false;
        pause_ = loop_.after(std::chrono::milliseconds(100), [this] {
          loop_.watch(socket_, EPOLLIN, *this);
          watched_ = true;
        });
        return;
      }
    }
  }

  event_loop& loop_;
  callback accepted_;
  int socket_ = -1;
  bool watched_ = true;
  event_loop::timer pause_;
};

} // namespace migrate::detail
