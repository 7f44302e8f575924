// A KJ stream over a socket on the event loop, for KJ code such as TLS.
#pragma once

#include <cerrno>
#include <cstddef>
#include <utility>

#include <kj/async-io.h>
#include <kj/debug.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <migrate/rpc/event_loop.hpp>

namespace migrate::detail {

class socket_stream final : public kj::AsyncIoStream, private event_loop::watcher {
  // Owns the socket. One read and one write at a time, on the I/O thread, as kj::AsyncIoStream says.

public:
  socket_stream(event_loop& loop, int socket) : loop_(loop), socket_(socket) {
    int on = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) | O_NONBLOCK);
    ::fcntl(socket, F_SETFD, FD_CLOEXEC);
    loop_.watch(socket_, 0, *this);
  }
  ~socket_stream() noexcept {
    if (!unwatched_) loop_.unwatch(socket_, *this);
    ::close(socket_);
  }
  KJ_DISALLOW_COPY(socket_stream);

  kj::Promise<std::size_t> tryRead(void* buffer, std::size_t least, std::size_t most) override {
    return read_on(static_cast<char*>(buffer), least, most, 0);
  }

  kj::Promise<void> write(const void* buffer, std::size_t size) override {
    return write_on(static_cast<const char*>(buffer), size);
  }

  kj::Promise<void> write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override {
    if (pieces.size() == 0) return kj::READY_NOW;
    return write_on(reinterpret_cast<const char*>(pieces[0].begin()), pieces[0].size())
        .then([this, rest = pieces.slice(1, pieces.size())] { return write(rest); });
  }

  kj::Promise<void> whenWriteDisconnected() override { return kj::NEVER_DONE; }
  void shutdownWrite() override { ::shutdown(socket_, SHUT_WR); }
  void abortRead() override { ::shutdown(socket_, SHUT_RD); }
  kj::Maybe<int> getFd() const override { return socket_; }

private:
  kj::Promise<std::size_t> read_on(char* buffer, std::size_t least, std::size_t most, std::size_t before) {
    for (;;) {
      ssize_t n = ::recv(socket_, buffer, most, MSG_DONTWAIT);
      if (n < 0) {
        if (errno == EINTR) continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) KJ_FAIL_SYSCALL("recv", errno);
        return wait(reader_, EPOLLIN).then([this, buffer, least, most, before] {
          return read_on(buffer, least, most, before);
        });
      }
      auto got = static_cast<std::size_t>(n);
      before += got;
      if (got == 0 || got >= least) return before;
      buffer += got;
      least -= got;
      most -= got;
    }
  }

  kj::Promise<void> write_on(const char* buffer, std::size_t size) {
    while (size > 0) {
      ssize_t n = ::send(socket_, buffer, size, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0) {
        if (errno == EINTR) continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS) KJ_FAIL_SYSCALL("send", errno);
        return wait(writer_, EPOLLOUT).then([this, buffer, size] { return write_on(buffer, size); });
      }
      buffer += n;
      size -= static_cast<std::size_t>(n);
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> wait(kj::Own<kj::PromiseFulfiller<void>>& slot, std::uint32_t event) {
    auto pair = kj::newPromiseAndFulfiller<void>();
    slot = kj::mv(pair.fulfiller);
    events_ |= event;
    if (std::exchange(unwatched_, false))
      loop_.watch(socket_, events_, *this);
    else
      loop_.rewatch(socket_, events_, *this);
    return kj::mv(pair.promise);
  }

  void on_ready(std::uint32_t events) noexcept override {
    // An error or a hang-up comes whatever is watched for, so an unheeded one would spin.
    const bool broken = (events & (EPOLLERR | EPOLLHUP)) != 0;
    kj::Own<kj::PromiseFulfiller<void>> reader, writer;
    if (broken || (events & EPOLLIN)) reader = kj::mv(reader_);
    if (broken || (events & EPOLLOUT)) writer = kj::mv(writer_);
    events_ = (reader_.get() ? unsigned{EPOLLIN} : 0u) | (writer_.get() ? unsigned{EPOLLOUT} : 0u);
    if (reader.get() == nullptr && writer.get() == nullptr) {
      if (broken && !std::exchange(unwatched_, true)) loop_.unwatch(socket_, *this);
      return;
    }
    loop_.rewatch(socket_, events_, *this);
    if (reader.get()) reader->fulfill();
    if (writer.get()) writer->fulfill();
  }

  event_loop& loop_;
  int socket_;
  std::uint32_t events_ = 0;
  bool unwatched_ = false; // broken, with nobody waiting
  kj::Own<kj::PromiseFulfiller<void>> reader_, writer_;
};

} // namespace migrate::detail
