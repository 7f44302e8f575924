// Calling an address: resolving its name, connecting, and whose the other end is.
#pragma once

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include <kj/function.h>

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <migrate/error.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/rpc/loopback_owner.hpp>
#include <migrate/rpc/socket_address.hpp>

namespace migrate::detail {

enum class dial_result {
  connected,
  refused,   // nobody listens there
  transient, // may be otherwise soon
  final,     // trying again is of no use
};

class dialer final : private event_loop::watcher, public std::enable_shared_from_this<dialer> {
  // One attempt. On the I/O thread only.

  struct key {};

public:
  using callback = kj::Function<void(dial_result how, int socket, const error* reason)>;

  static std::shared_ptr<dialer> make(event_loop& loop, std::string address, bool secured,
                                      event_loop::clock::time_point deadline, callback done) {
    return std::make_shared<dialer>(key{}, loop, std::move(address), secured, deadline, kj::mv(done));
  }
  // `address` is host:port or unix:PATH. Without `secured`, only this host is called, and only programs of this process's
  // user or of root are spoken to, as always over unix:PATH.

  dialer(key, event_loop& loop, std::string address, bool secured, event_loop::clock::time_point deadline,
         callback done)
      : loop_(loop), address_(std::move(address)), secured_(secured), deadline_(deadline),
        done_(kj::mv(done)) {}
  ~dialer() { close_socket(); }

  void begin();
  // Calls `done` once, perhaps before it returns, unless it is cancelled. The socket, which is non-blocking, is then the caller's.

  void cancel() noexcept {
    ended_ = true;
    loop_.cancel(timer_);
    close_socket();
  }

private:
  void resolve(const host_and_port& parts);
  void connect_to(const socket_address& where);
  void on_ready(std::uint32_t events) noexcept override;

  void end(dial_result how, const error* reason, int socket = -1) {
    auto self = shared_from_this();
    if (ended_) return;
    cancel();
    auto done = kj::mv(done_);
    done(how, socket, reason);
  }
  void fail(dial_result how, const error& reason) { end(how, &reason); }
  void fail(int code) {
    fail(code == ECONNREFUSED || code == ENOENT ? dial_result::refused : dial_result::transient,
         error(errc::node_unreachable, "cannot connect to " + address_ + ": " + std::strerror(code)));
  }
  void close_socket() noexcept {
    if (socket_ < 0) return;
    loop_.unwatch(socket_, *this);
    ::close(std::exchange(socket_, -1));
  }

  event_loop& loop_;
  const std::string address_;
  const bool secured_;
  const event_loop::clock::time_point deadline_;
  callback done_;
  event_loop::timer timer_;
  int socket_ = -1;
  bool ended_ = false;
};

inline void dialer::begin() {
  try {
    if (auto path = path_in(address_)) {
      connect_to(socket_address::at_path(*path));
      return;
    }
    auto parts = split_address(address_);
    if (auto where = socket_address::numeric(parts.host, parts.port))
      connect_to(*where);
    else
      resolve(parts);
  } catch (const error& reason) {
    fail(dial_result::final, reason);
  }
}

inline void dialer::resolve(const host_and_port& parts) {
  struct query {
    uv_getaddrinfo_t request{};
    std::weak_ptr<dialer> of;
    std::string host;
  };
  auto asked = std::make_unique<query>();
  asked->of = weak_from_this();
  asked->host = parts.host;
  asked->request.data = asked.get();
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  int failed = ::uv_getaddrinfo(
      loop_.uv(), &asked->request,
      [](uv_getaddrinfo_t* request, int status, addrinfo* found) {
        std::unique_ptr<query> answered(static_cast<query*>(request->data));
        if (auto self = answered->of.lock(); self && !self->ended_) {
          if (status == 0 && found != nullptr) {
            socket_address where;
            std::memcpy(&where.storage, found->ai_addr, found->ai_addrlen);
            where.size = found->ai_addrlen;
            self->connect_to(where);
          } else {
            self->fail(dial_result::final,
                       error(errc::node_unreachable, "the host name \"" + answered->host +
                                                         "\" cannot be resolved: " + ::uv_strerror(status)));
          }
        }
        ::uv_freeaddrinfo(found);
      },
      asked->host.c_str(), std::to_string(parts.port).c_str(), &hints);
  if (failed == 0)
    asked.release();
  else
    fail(dial_result::final,
         error(errc::node_unreachable, "cannot resolve host names: " + std::string(::uv_strerror(failed))));
}

inline void dialer::connect_to(const socket_address& where) {
  if (!where.within_host() && !where.loopback() && !secured_)
    return fail(dial_result::final,
                error(errc::not_authenticated,
                      "will not connect to " + address_ +
                          " without credentials; give a certificate, a key and an authority"));
  int made = ::socket(where.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (made < 0) return fail(errno);
  if (::connect(made, where.get(), where.size) != 0 && errno != EINPROGRESS) {
    int code = errno;
    ::close(made);
    return fail(code);
  }
  socket_ = made;
  loop_.watch(socket_, EPOLLOUT, *this);
  timer_ = loop_.at(deadline_, [this] {
    fail(dial_result::transient,
         error(errc::node_unreachable, "cannot connect to " + address_ + ": no answer"));
  });
}

inline void dialer::on_ready(std::uint32_t) noexcept {
  int code = 0;
  socklen_t size = sizeof code;
  ::getsockopt(socket_, SOL_SOCKET, SO_ERROR, &code, &size);
  if (code != 0) return fail(code);
  auto here = socket_address::local_of(socket_), there = socket_address::peer_of(socket_);
  // TCP may connect a socket to itself when nobody listens on a port of the ephemeral range.
  if (!here.within_host() && here.text() == there.text())
    return fail(dial_result::refused,
                error(errc::node_unreachable, "cannot connect to " + address_ + ": nobody listens there"));
  if (!secured_ || here.within_host()) {
    auto user = owner_of(socket_, loopback_end::listener).kind;
    if (user == loopback_user::other)
      return fail(dial_result::final,
                  error(errc::not_authenticated,
                        "will not talk to " + address_ +
                            ": the process that listens there belongs to another user of this host"));
    if (user == loopback_user::nobody)
      return fail(
          dial_result::transient,
          error(errc::not_authenticated, "will not talk to " + address_ + ": nobody listens there any more"));
  }
  loop_.unwatch(socket_, *this);
  end(dial_result::connected, nullptr, std::exchange(socket_, -1));
}

} // namespace migrate::detail
