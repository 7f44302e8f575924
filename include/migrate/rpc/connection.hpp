// A connection: one stream, plain TCP or TLS, that carries frames between two nodes.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <capnp/message.h>
#include <kj/async-io.h>

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <migrate/error.hpp>
#include <migrate/memory/current_heap.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/rpc/frame.hpp>
#include <migrate/rpc/message_frame.hpp>
#include <migrate/rpc/protocol.capnp.h>

namespace migrate {

class connection;

class connection_handler {
  // What a connection tells, always on the I/O thread.

public:
  virtual void on_message(connection& from, protocol::Message::Reader message,
                          kj::ArrayPtr<const kj::byte> attachment) = 0;
  // The message and the attachment (8-byte aligned) are valid until this returns. A kj::Exception thrown here,
  // as reading a malformed message does, closes the connection with errc::protocol; a migrate::error closes it with that.

  virtual void on_closed(connection& from, const error& reason) = 0;
  // Exactly once, and the last call. The code is errc::cancelled when this side closed it, errc::ok when
  // the peer did so on purpose, errc::protocol when the peer sent nonsense, errc::not_authenticated when it refuses this
  // node's certificate, else errc::node_unreachable.

  virtual void on_drained(connection&) {}
  // The queue of unsent bytes was above the congestion mark and is below half of it again.

protected:
  ~connection_handler() = default;
};

struct connection_limits {
  std::size_t message_words = 1 << 20;             // longest message, in words of 8 bytes
  std::size_t attachment_bytes = 64u << 20;        // longest attachment
  std::size_t congested_bytes = 4u << 20;          // unsent bytes from which congested() holds
  std::size_t queued_bytes = std::size_t{1} << 30; // unsent bytes at which the peer is given up
  std::chrono::milliseconds silence{10'000};       // after that a peer is unreachable, unless bytes get through to it
};

enum class send_result {
  sent,   // handed to the operating system
  queued, // will be sent by the I/O thread
  closed, // the connection is closed, or the message was over the limit of queued bytes
};

class connection final : public std::enable_shared_from_this<connection>, private event_loop::watcher {
  // Thread safety: send, close, close_after_flush and the figures from any thread. It keeps itself alive
  // until on_closed has been called, which must be before the loop stops.

  struct key {};

public:
  static std::shared_ptr<connection> adopt(event_loop& loop, int socket, connection_handler& handler,
                                           std::string peer, const connection_limits& limits = {});
  // Takes over a connected TCP socket. On the I/O thread. `peer` names the other side in errors.

  static std::shared_ptr<connection> adopt(event_loop& loop, kj::Own<kj::AsyncIoStream> stream,
                                           connection_handler& handler, std::string peer,
                                           const connection_limits& limits = {});
  // The same with a KJ stream, as TLS makes them. It is written by the I/O thread only.

  ~connection() noexcept;
  connection(key, event_loop& loop, int socket, kj::Own<kj::AsyncIoStream> stream,
             connection_handler& handler, std::string peer, const connection_limits& limits);

  send_result send(capnp::MessageBuilder& message, std::span<const iovec> attachment = {});
  // Sends one message. Never blocks on the peer. Messages of one thread arrive in their order, and
  // none in the midst of another. Throws errc::message_too_large when over the limits. The attachment's bytes are used before it returns.

  send_result send_encoded(std::span<const std::byte> frames);
  // Sends whole frames made by encode().

  static void encode(std::vector<std::byte>& out, capnp::MessageBuilder& message,
                     std::span<const iovec> attachment, const connection_limits& limits);
  // Appends the message's frame. Throws errc::message_too_large.

  static void check_size(capnp::MessageBuilder& message, std::span<const iovec> attachment,
                         const connection_limits& limits);
  // Throws errc::message_too_large when encode or send would.

  void close(const error& reason = error(errc::cancelled, "closed by this node"));
  // Closes at once. Unsent bytes are lost. The first reason given is the one reported.

  void close_after_flush(std::chrono::milliseconds limit = std::chrono::milliseconds(1000));
  // Sends what is queued and a goodbye, refuses further messages, and closes when the peer has closed or the limit is over.

  bool open() const noexcept { return state_.load(std::memory_order_acquire) == state::open; }
  std::size_t queued_bytes() const noexcept { return queued_.load(std::memory_order_relaxed); }
  bool congested() const noexcept { return queued_bytes() >= limits_.congested_bytes; }
  const std::string& peer_name() const noexcept { return peer_; }
  int descriptor() const noexcept { return socket_; }
  event_loop& loop() const noexcept { return loop_; }
  connection_handler& handler() const noexcept { return *handler_; }

private:
  enum class state { open, flushing, closed };

  class frame_writer;

  void begin();
  void on_ready(std::uint32_t events) noexcept override;
  bool receive_plain();
  void receive_stream();
  bool received(std::size_t bytes);
  bool parse();
  bool dispatch(const detail::frame_header& header, const std::byte* body);
  void make_room(std::size_t frame);
  void release_buffer();

  [[gnu::noinline]] send_result send_pieces(std::span<iovec> pieces, std::size_t bytes, bool last = false) {
    std::lock_guard lock(mutex_);
    if (state_.load(std::memory_order_relaxed) != state::open || broken_) return send_result::closed;
    if (last) state_.store(state::flushing, std::memory_order_release);
    std::size_t waiting = queued_.load(std::memory_order_relaxed);
    std::size_t written = 0;
    accepted_ += bytes;
    if (waiting == 0 && socket_ >= 0) {
      written = write_some(pieces, broken_);
      if (written == bytes && !last) return send_result::sent;
      if (broken_) {
        request_flush(); // the I/O thread first reads what the peer said before
        return send_result::closed;
      }
    }
    if (waiting + bytes > limits_.queued_bytes) {
      broken_ = overfull_ = true;
      request_flush();
      return send_result::closed;
    }
    enqueue(pieces, bytes - written);
    request_flush();
    return send_result::queued;
  }
  std::size_t write_some(std::span<iovec> pieces, bool& broken) noexcept;
  void enqueue(std::span<const iovec> pieces, std::size_t bytes);
  void request_flush();
  void flush_plain();
  void flush_stream();
  void write_failed();
  bool take_queued();
  void after_flush(std::size_t written);
  void shut_down_writing();
  void send_control(detail::frame_kind kind);
  void finish(const error& reason);
  void lost(int error_number);
  void lost(const kj::Exception& exception);
  void check_silence();
  std::uint64_t got_through();
  error closed_early() const;

  event_loop& loop_;
  int socket_ = -1;
  kj::Own<kj::AsyncIoStream> stream_;
  connection_handler* handler_;
  const std::string peer_;
  const connection_limits limits_;

  std::atomic<state> state_{state::open};
  std::atomic<std::size_t> queued_{0}; // written under mutex_
  std::mutex mutex_;                   // sending, and the life of the socket
  std::vector<std::byte> pending_;     // under mutex_: bytes that follow those in writing_
  bool flush_requested_ = false;       // under mutex_
  bool broken_ = false;                // under mutex_: a write has failed
  bool overfull_ = false;              // under mutex_: it has, since too much was queued
  std::uint64_t accepted_ = 0;         // under mutex_: bytes to be sent so far

  // The rest belongs to the I/O thread.
  std::vector<std::byte> writing_;
  std::size_t written_ = 0;
  bool watching_output_ = false;
  bool output_shut_ = false;
  bool stream_writing_ = false;
  bool finished_ = false;
  bool congestion_seen_ = false;
  kj::Promise<void> read_task_ = kj::READY_NOW;
  kj::Promise<void> write_task_ = kj::READY_NOW;

  std::unique_ptr<std::uint64_t[]> buffer_;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0; // of the bytes not yet parsed, a multiple of 8
  std::size_t end_ = 0;

  bool heard_ = false;    // since the last check
  int silent_checks_ = 0; // in a row; counted rather than timed, so that a pause of our own does no harm
  std::uint64_t asked_at_ = 0; // where among the bytes to be sent the first ping ends that is not answered
  std::uint64_t through_ = 0;  // bytes that the peer's system had at the last check
  event_loop::timer silence_timer_;
  event_loop::timer linger_timer_;
  std::shared_ptr<connection> self_; // until closed
};

// The pieces of one frame, gathered without copying the message.
class connection::frame_writer {
public:
  frame_writer(capnp::MessageBuilder& message, std::span<const iovec> attachment) {
    auto segments = message.getSegmentsForOutput();
    std::size_t table_words = segments.size() / 2 + 1;
    std::size_t count = segments.size() + attachment.size() + 2;
    if (3 + table_words > head_small_.size()) {
      head_large_.resize(3 + table_words);
      head_ = head_large_.data();
    }
    if (count > pieces_small_.size()) {
      pieces_large_.resize(count);
      pieces_ = pieces_large_.data();
    }
    auto* table = reinterpret_cast<std::uint32_t*>(head_ + 3);
    head_[2 + table_words] = 0; // the padding of the table
    table[0] = static_cast<std::uint32_t>(segments.size() - 1);
    for (std::size_t i = 0; i < segments.size(); ++i) {
      table[i + 1] = static_cast<std::uint32_t>(segments[i].size());
      words_ += segments[i].size();
      pieces_[i + 1] = {const_cast<capnp::word*>(segments[i].begin()), segments[i].asBytes().size()};
    }
    words_ += table_words;
    std::size_t next = segments.size() + 1;
    for (const iovec& part : attachment) {
      attachment_ += part.iov_len;
      if (part.iov_len > 0) pieces_[next++] = part;
    }
    if (std::size_t pad = detail::padded(attachment_) - attachment_; pad > 0) {
      static constexpr std::uint64_t zeros = 0;
      pieces_[next++] = {const_cast<std::uint64_t*>(&zeros), pad};
    }
    detail::frame_header header{detail::frame_magic,
                                static_cast<std::uint16_t>(detail::frame_kind::message),
                                0,
                                static_cast<std::uint32_t>(words_),
                                0,
                                attachment_};
    std::memcpy(head_, &header, sizeof header);
    pieces_[0] = {head_, (3 + table_words) * 8};
    count_ = next;
  }
  frame_writer(const frame_writer&) = delete;
  frame_writer& operator=(const frame_writer&) = delete;

  void check(const connection_limits& limits, const std::string& peer) const {
    if (words_ > limits.message_words || attachment_ > limits.attachment_bytes)
      throw error(errc::message_too_large,
                  "a message of " + std::to_string(words_ * 8) + " bytes with an attachment of " +
                      std::to_string(attachment_) + " bytes to " + peer + " is over the limits of " +
                      std::to_string(limits.message_words * 8) + " and " +
                      std::to_string(limits.attachment_bytes) + " bytes; send it in parts");
  }

  std::span<iovec> pieces() noexcept { return {pieces_, count_}; }
  std::size_t bytes() const noexcept {
    return detail::frame_header_size + words_ * 8 + detail::padded(attachment_);
  }

private:
  std::array<std::uint64_t, 12> head_small_;
  std::array<iovec, 40> pieces_small_;
  std::vector<std::uint64_t> head_large_;
  std::vector<iovec> pieces_large_;
  std::uint64_t* head_ = head_small_.data();
  iovec* pieces_ = pieces_small_.data();
  std::size_t count_ = 0;
  std::size_t words_ = 0;
  std::size_t attachment_ = 0;
};

inline connection::connection(key, event_loop& loop, int socket, kj::Own<kj::AsyncIoStream> stream,
                              connection_handler& handler, std::string peer, const connection_limits& limits)
    : loop_(loop), socket_(socket), stream_(kj::mv(stream)), handler_(&handler), peer_(std::move(peer)),
      limits_(limits) {}

inline connection::~connection() noexcept {
  if (socket_ >= 0) ::close(socket_);
}

inline std::shared_ptr<connection> connection::adopt(event_loop& loop, int socket,
                                                     connection_handler& handler, std::string peer,
                                                     const connection_limits& limits) {
  int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) | O_NONBLOCK);
  ::fcntl(socket, F_SETFD, FD_CLOEXEC);
  auto made = std::make_shared<connection>(key{}, loop, socket, kj::Own<kj::AsyncIoStream>(), handler,
                                           std::move(peer), limits);
  made->begin();
  return made;
}

inline std::shared_ptr<connection> connection::adopt(event_loop& loop, kj::Own<kj::AsyncIoStream> stream,
                                                     connection_handler& handler, std::string peer,
                                                     const connection_limits& limits) {
  auto made = std::make_shared<connection>(key{}, loop, -1, kj::mv(stream), handler, std::move(peer), limits);
  made->begin();
  return made;
}

inline void connection::begin() {
  self_ = shared_from_this();
  make_room(0);
  silence_timer_ = loop_.after(limits_.silence / 4, [this] { check_silence(); });
  if (socket_ >= 0)
    loop_.watch(socket_, EPOLLIN, *this);
  else
    receive_stream();
}

// Sending ------------------------------------------------------------------------------------------

inline send_result connection::send(capnp::MessageBuilder& message, std::span<const iovec> attachment) {
  frame_writer frame(message, attachment);
  frame.check(limits_, peer_); // throws, so not in the scope: the task may carry the exception away
  node_heap_scope heap;
  return send_pieces(frame.pieces(), frame.bytes());
}

inline void connection::check_size(capnp::MessageBuilder& message, std::span<const iovec> attachment,
                                   const connection_limits& limits) {
  frame_writer(message, attachment).check(limits, "a peer");
}

inline send_result connection::send_encoded(std::span<const std::byte> frames) {
  node_heap_scope heap;
  iovec piece{const_cast<std::byte*>(frames.data()), frames.size()};
  return send_pieces({&piece, 1}, frames.size());
}

inline void connection::encode(std::vector<std::byte>& out, capnp::MessageBuilder& message,
                               std::span<const iovec> attachment, const connection_limits& limits) {
  frame_writer frame(message, attachment);
  frame.check(limits, "a peer");
  out.reserve(out.size() + frame.bytes());
  for (const iovec& piece : frame.pieces()) {
    auto* from = static_cast<const std::byte*>(piece.iov_base);
    out.insert(out.end(), from, from + piece.iov_len);
  }
}

inline std::size_t connection::write_some(std::span<iovec> pieces, bool& broken) noexcept {
  // Consumes what it has written from the front of the pieces.
  std::size_t total = 0;
  std::size_t first = 0;
  while (first < pieces.size()) {
    msghdr header{};
    header.msg_iov = &pieces[first];
    header.msg_iovlen = std::min<std::size_t>(pieces.size() - first, 1024);
    ssize_t n = ::sendmsg(socket_, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS) broken = true;
      return total;
    }
    total += static_cast<std::size_t>(n);
    auto rest = static_cast<std::size_t>(n);
    while (first < pieces.size() && rest >= pieces[first].iov_len) {
      rest -= pieces[first].iov_len;
      pieces[first].iov_len = 0;
      ++first;
    }
    if (first < pieces.size()) {
      pieces[first].iov_base = static_cast<char*>(pieces[first].iov_base) + rest;
      pieces[first].iov_len -= rest;
    }
  }
  return total;
}

inline void connection::enqueue(std::span<const iovec> pieces, std::size_t bytes) {
  if (pending_.capacity() < pending_.size() + bytes)
    pending_.reserve(std::max(pending_.size() + bytes, pending_.capacity() * 2));
  for (const iovec& piece : pieces) {
    auto* from = static_cast<const std::byte*>(piece.iov_base);
    pending_.insert(pending_.end(), from, from + piece.iov_len);
  }
  queued_.store(queued_.load(std::memory_order_relaxed) + bytes, std::memory_order_relaxed);
}

inline void connection::request_flush() {
  if (flush_requested_) return;
  flush_requested_ = loop_.post([self = shared_from_this()] {
    if (self->socket_ >= 0)
      self->flush_plain();
    else
      self->flush_stream();
  });
}

inline bool connection::take_queued() {
  // Returns whether there is something to write in writing_. Must be called with the mutex held.
  if (written_ < writing_.size()) return true;
  if (writing_.capacity() > (1u << 20)) writing_ = {};
  writing_.clear();
  written_ = 0;
  writing_.swap(pending_);
  return !writing_.empty();
}

inline void connection::flush_plain() {
  std::unique_lock lock(mutex_);
  flush_requested_ = false;
  if (finished_) return;
  if (broken_) {
    lock.unlock();
    write_failed();
    return;
  }
  // The lock is not held over the call: while bytes are queued nobody else writes.
  bool more = take_queued();
  lock.unlock();
  while (more) {
    iovec piece{writing_.data() + written_, writing_.size() - written_};
    bool broken = false;
    std::size_t n = write_some({&piece, 1}, broken);
    written_ += n;
    if (broken) {
      lock.lock();
      broken_ = true;
      lock.unlock();
      write_failed();
      return;
    }
    after_flush(n);
    if (finished_) return;
    if (written_ < writing_.size()) break;
    lock.lock();
    more = take_queued();
    lock.unlock();
  }
  if (more != watching_output_) {
    watching_output_ = more;
    loop_.rewatch(socket_, more ? EPOLLIN | EPOLLOUT : EPOLLIN, *this);
  }
  if (!more) shut_down_writing();
}

inline void connection::write_failed() {
  if (overfull_) {
    finish(error(errc::node_unreachable, peer_ + " does not read: " + std::to_string(queued_bytes()) +
                                             " bytes wait for it, and the limit is " +
                                             std::to_string(limits_.queued_bytes)));
    return;
  }
  while (!finished_ && receive_plain()) { // what the peer said before
  }
  if (!finished_) lost(EPIPE);
}

inline void connection::flush_stream() {
  std::unique_lock lock(mutex_);
  flush_requested_ = false;
  if (finished_) return;
  if (broken_) {
    lock.unlock();
    write_failed();
    return;
  }
  if (stream_writing_) return;
  bool more = take_queued();
  lock.unlock();
  if (!more) {
    shut_down_writing();
    return;
  }
  stream_writing_ = true;
  constexpr std::size_t most = 256 * 1024; // so that it shows on a slow link that some of it gets through
  const std::size_t n = std::min(writing_.size() - written_, most);
  write_task_ = stream_->write(writing_.data() + written_, n)
                    .then(
                        [this, n] {
                          loop_.post([self = shared_from_this(), n] {
                            self->stream_writing_ = false;
                            if (self->finished_) return;
                            self->written_ += n;
                            self->after_flush(n);
                            self->flush_stream();
                          });
                        },
                        [this](kj::Exception&& exception) {
                          loop_.post([self = shared_from_this(), exception = kj::mv(exception)] {
                            self->lost(exception);
                          });
                        })
                    .eagerlyEvaluate(nullptr);
}

inline void connection::after_flush(std::size_t written) {
  bool drained = false;
  {
    std::lock_guard lock(mutex_);
    std::size_t before = queued_.load(std::memory_order_relaxed);
    std::size_t left = before - written;
    queued_.store(left, std::memory_order_relaxed);
    if (before >= limits_.congested_bytes) congestion_seen_ = true;
    drained = congestion_seen_ && left < limits_.congested_bytes / 2;
    if (drained) congestion_seen_ = false;
  }
  if (drained) handler_->on_drained(*this);
}

inline void connection::shut_down_writing() {
  if (state_.load(std::memory_order_acquire) != state::flushing || output_shut_ || finished_) return;
  output_shut_ = true;
  if (socket_ >= 0) {
    ::shutdown(socket_, SHUT_WR);
  } else {
    try {
      stream_->shutdownWrite();
    } catch (const kj::Exception&) {
      finish(error(errc::cancelled, "closed by this node"));
    }
  }
}

inline void connection::send_control(detail::frame_kind kind) {
  detail::frame_header header{detail::frame_magic, static_cast<std::uint16_t>(kind), 0, 0, 0, 0};
  iovec piece{&header, sizeof header};
  send_pieces({&piece, 1}, sizeof header, kind == detail::frame_kind::goodbye);
}

// Receiving ----------------------------------------------------------------------------------------

inline void connection::make_room(std::size_t frame) {
  // Makes room for a frame of that many bytes at begin_, and for as much as is sensible to read at once.
  constexpr std::size_t usual = 64 * 1024;
  std::size_t wanted = std::max(frame, usual);
  if (capacity_ < wanted) {
    auto larger = std::make_unique_for_overwrite<std::uint64_t[]>((wanted + 7) / 8);
    if (end_ > begin_)
      std::memcpy(larger.get(), reinterpret_cast<std::byte*>(buffer_.get()) + begin_, end_ - begin_);
    buffer_ = std::move(larger);
    capacity_ = (wanted + 7) / 8 * 8;
  } else if (begin_ > 0) {
    auto* base = reinterpret_cast<std::byte*>(buffer_.get());
    std::memmove(base, base + begin_, end_ - begin_);
  }
  end_ -= begin_;
  begin_ = 0;
}

inline void connection::release_buffer() {
  constexpr std::size_t keep = 2u << 20;
  begin_ = end_ = 0;
  if (capacity_ <= keep) return;
  buffer_.reset();
  capacity_ = 0;
  make_room(0);
}

inline void connection::on_ready(std::uint32_t events) noexcept {
  auto self = shared_from_this();
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
    for (int turns = 0; turns < 16 && !finished_; ++turns)
      if (!receive_plain()) break;
  }
  if ((events & EPOLLOUT) && !finished_ && watching_output_) flush_plain();
}

inline bool connection::receive_plain() {
  // Returns whether there may be more to read at once.
  if (capacity_ == end_) make_room(0);
  std::size_t room = capacity_ - end_;
  ssize_t n = ::recv(socket_, reinterpret_cast<std::byte*>(buffer_.get()) + end_, room, MSG_DONTWAIT);
  if (n > 0) {
    auto self = shared_from_this();
    return received(static_cast<std::size_t>(n)) && static_cast<std::size_t>(n) == room;
  }
  if (n == 0)
    lost(0);
  else if (errno == EINTR)
    return true;
  else if (errno != EAGAIN && errno != EWOULDBLOCK)
    lost(errno);
  return false;
}

inline void connection::receive_stream() {
  if (finished_) return;
  if (capacity_ == end_) make_room(0);
  read_task_ = stream_->tryRead(reinterpret_cast<std::byte*>(buffer_.get()) + end_, 1, capacity_ - end_)
                   .then(
                       [this](std::size_t n) {
                         // In a job of its own, since a promise must not be destroyed by its own continuation.
                         loop_.post([self = shared_from_this(), n] {
                           if (self->finished_) return;
                           if (n == 0)
                             self->lost(0);
                           else if (self->received(n))
                             self->receive_stream();
                         });
                       },
                       [this](kj::Exception&& exception) {
                         loop_.post([self = shared_from_this(), exception = kj::mv(exception)] {
                           self->lost(exception);
                         });
                       })
                   .eagerlyEvaluate(nullptr);
}

inline bool connection::received(std::size_t bytes) {
  end_ += bytes;
  heard_ = true;
  return parse();
}

inline bool connection::parse() {
  while (end_ - begin_ >= detail::frame_header_size) {
    const auto* start = reinterpret_cast<const std::byte*>(buffer_.get()) + begin_;
    detail::frame_header header;
    std::memcpy(&header, start, sizeof header);
    if (std::string wrong = detail::what_is_wrong(header, limits_.message_words, limits_.attachment_bytes); !wrong.empty()) {
      finish(error(errc::protocol, peer_ + " sent " + wrong + "; the connection is closed"));
      return false;
    }
    std::size_t total = detail::frame_bytes(header);
    if (end_ - begin_ < total) {
      if (capacity_ - begin_ < total) make_room(total);
      return true;
    }
    if (!dispatch(header, start + detail::frame_header_size)) return false;
    begin_ += total;
  }
  if (begin_ == end_)
    release_buffer();
  else if (begin_ > 0 && capacity_ - end_ < capacity_ / 4)
    make_room(0);
  return true;
}

inline bool connection::dispatch(const detail::frame_header& header, const std::byte* body) {
  switch (static_cast<detail::frame_kind>(header.kind)) {
  case detail::frame_kind::ping: send_control(detail::frame_kind::pong); return !finished_;
  case detail::frame_kind::pong: return true;
  case detail::frame_kind::goodbye:
    finish(state_.load(std::memory_order_acquire) == state::flushing
               ? error(errc::cancelled, "closed by this node")
               : error(errc::ok, peer_ + " has closed the connection"));
    return false;
  case detail::frame_kind::message: break;
  }
  try {
    detail::read_frame(header, body, [&](protocol::Message::Reader message, kj::ArrayPtr<const kj::byte> attachment) {
      handler_->on_message(*this, message, attachment);
    });
  } catch (const kj::Exception& exception) {
    finish(error(errc::protocol, peer_ + " sent a malformed message (" + exception.getDescription().cStr() +
                                     "); the connection is closed"));
  } catch (const error& reason) {
    finish(reason);
  }
  return !finished_;
}

// Closing ------------------------------------------------------------------------------------------

inline void connection::close(const error& reason) {
  node_heap_scope heap;
  {
    std::lock_guard lock(mutex_);
    if (state_.load(std::memory_order_relaxed) == state::closed) return;
    state_.store(state::closed, std::memory_order_release);
  }
  if (loop_.on_loop_thread())
    finish(reason);
  else
    loop_.post([self = shared_from_this(), reason] { self->finish(reason); });
}

inline void connection::close_after_flush(std::chrono::milliseconds limit) {
  node_heap_scope heap;
  send_control(detail::frame_kind::goodbye);
  loop_.post([self = shared_from_this(), limit] {
    if (self->finished_ || self->linger_timer_) return;
    self->linger_timer_ = self->loop_.after(limit, [raw = self.get()] {
      auto keep = raw->shared_from_this();
      raw->finish(error(errc::cancelled, "closed by this node"));
    });
  });
}

inline error connection::closed_early() const {
  return error(errc::protocol, peer_ + " sent part of a message (" + std::to_string(end_ - begin_) +
                                   " bytes) and no more; the connection is closed");
}

inline void connection::lost(int error_number) {
  if (state_.load(std::memory_order_acquire) == state::flushing)
    finish(error(errc::cancelled, "closed by this node"));
  else if (error_number == 0 && end_ > begin_)
    finish(closed_early());
  else
    finish(error(errc::node_unreachable,
                 "the connection to " + peer_ + " was lost: " +
                     (error_number == 0 ? std::string("the peer closed it without a word")
                                        : std::string(std::strerror(error_number)))));
}

inline void connection::lost(const kj::Exception& exception) {
  if (state_.load(std::memory_order_acquire) == state::flushing)
    finish(error(errc::cancelled, "closed by this node"));
  else if (std::strstr(exception.getDescription().cStr(), " alert ") != nullptr)
    finish(error(errc::not_authenticated,
                 peer_ + " does not accept this node's credentials: " + exception.getDescription().cStr()));
  else
    finish(error(errc::node_unreachable,
                 "the connection to " + peer_ + " was lost: " + exception.getDescription().cStr()));
}

inline std::uint64_t connection::got_through() {
  // Of the bytes to be sent, those that the peer's system has taken. With TLS a few less.
  int waiting = 0;
  int socket = socket_;
  if (stream_.get() != nullptr) {
    KJ_IF_MAYBE(own, stream_->getFd()) { socket = *own; }
  }
  if (socket < 0 || ::ioctl(socket, SIOCOUTQ, &waiting) != 0) waiting = 0;
  std::lock_guard lock(mutex_);
  std::uint64_t left = queued_.load(std::memory_order_relaxed) + static_cast<std::uint64_t>(waiting);
  return accepted_ > left ? accepted_ - left : 0;
}

inline void connection::check_silence() {
  auto self = shared_from_this();
  const bool first = silent_checks_ == 0;
  silent_checks_ = std::exchange(heard_, false) ? 0 : silent_checks_ + 1;
  // On a slow link a ping waits for what was sent before it: until it is there, that bytes get through is answer enough.
  const std::uint64_t through = got_through();
  if (silent_checks_ > 1 && through > through_ && through < asked_at_) silent_checks_ = 1;
  through_ = through;
  if (silent_checks_ >= 4) {
    if (end_ > begin_)
      finish(closed_early());
    else
      finish(error(errc::node_unreachable, peer_ + " has been silent for " +
                                               std::to_string(limits_.silence.count()) +
                                               " ms and does not answer"));
    return;
  }
  if (silent_checks_ > 0) {
    send_control(detail::frame_kind::ping);
    std::lock_guard lock(mutex_);
    if (first) asked_at_ = accepted_;
  }
  if (!finished_) silence_timer_ = loop_.after(limits_.silence / 4, [this] { check_silence(); });
}

inline void connection::finish(const error& reason) {
  if (finished_) return;
  finished_ = true;
  auto self = shared_from_this();
  loop_.cancel(silence_timer_);
  loop_.cancel(linger_timer_);
  {
    std::lock_guard lock(mutex_);
    state_.store(state::closed, std::memory_order_release);
    queued_.store(0, std::memory_order_relaxed);
    pending_ = {};
    if (socket_ >= 0) {
      loop_.unwatch(socket_, *this);
      ::close(socket_);
      socket_ = -1;
    }
  }
  // A promise may be running just now: let it end before it is destroyed. The buffer lives as long as
  // the connection, since the caller may be in the midst of it.
  if (stream_.get() != nullptr) {
    struct remains {
      kj::Own<kj::AsyncIoStream> stream; // destroyed last
      kj::Promise<void> reader, writer;
      std::shared_ptr<connection> owner;
    };
    loop_.post([rest = remains{kj::mv(stream_), kj::mv(read_task_), kj::mv(write_task_), self}] {});
  }
  handler_->on_closed(*this, reason);
  self_.reset();
}

} // namespace migrate
