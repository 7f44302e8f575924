// The peers: the connections of one node to all others, made on demand and authenticated.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <migrate/error.hpp>
#include <migrate/id.hpp>
#include <migrate/rpc/connection.hpp>
#include <migrate/rpc/credentials.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/rpc/identity.hpp>
#include <migrate/rpc/listener.hpp>
#include <migrate/rpc/socket_address.hpp>

namespace migrate {

struct peer_info {
  node_id node = no_node;        // none while it asks to join
  std::uint64_t incarnation = 0; // differs between two processes that were given one id
  std::string address;           // where it listens
};
// What a node says of itself in its hello.

enum class peer_loss {
  broken, // messages were lost, the process was not: it is connected again, and on_connected follows at once
  unreachable, // it could not be reached for the time of peer_options::reconnect, and may be alive; `gone` follows when a
               // later attempt shows that it is not
  gone,        // it said goodbye, its address refuses connections, or another process answers there
};
// What has become of a peer whose connection was lost.

class peer_listener {
  // What happens between this node and others, always on the I/O thread.

public:
  virtual void on_connected(node_id, const peer_info&) {}

  virtual void on_message(connection& from, node_id node, protocol::Message::Reader message,
                          kj::ArrayPtr<const kj::byte> attachment) = 0;
  // `node` is none for a peer that asks to join, until peers::name. See connection_handler::on_message for lifetimes.

  virtual void on_disconnected(node_id, const error&, peer_loss) {}
  // A connection was lost, and messages with it.

  virtual void on_unreachable(node_id, const error&, std::size_t /*dropped*/) {}
  // `dropped` messages that waited for a connection will not be sent. The node is none for peers::connect.

  virtual void on_unnamed_closed(connection&, const error&) {}
  // A peer that asked to join has gone before it was named.

  virtual void on_refused(const std::string& /*peer*/, const error&) {}
  // Somebody connected to this node and was sent away: not compatible, not authenticated, or silent.

  virtual void on_drained(node_id) {}
  // See connection_handler::on_drained.

protected:
  ~peer_listener() = default;
};

struct peer_options {
  std::string listen = "127.0.0.1:0";  // port 0: any free one
  std::string advertise;               // the address others are told; empty: the one listened on
  identity self;                       // what this process is
  std::optional<credentials> security; // none: loopback addresses only
  connection_limits limits;
  std::chrono::milliseconds handshake{5'000}; // for a peer to say hello
  std::chrono::milliseconds reconnect{2'000}; // for finding out what has become of a lost peer
  std::chrono::milliseconds grace{1'000};     // for unsent bytes when this node stops
  std::size_t handshakes = 256;               // callers that may be in the midst of a handshake
};

class peers {
  // Thread safety: send, set_address, connect and the figures from any thread; start and stop from one thread that is
  // not the I/O thread; name and disconnect on the I/O thread.

public:
  peers(event_loop& loop, peer_options options, peer_listener& listener);
  ~peers();
  peers(const peers&) = delete;
  peers& operator=(const peers&) = delete;

  void start();
  // Listens. Throws errc::not_authenticated when the address is not a loopback one and there are no credentials, or
  // they are not good; the system's error when it cannot be listened on.

  void stop();
  // Sends what is queued, says goodbye, and returns when all connections are closed (at most
  // peer_options::grace later). Messages that wait for a connection are reported to on_unreachable. Before the loop is stopped.

  std::string address() const;
  // Where this node listens; valid after start().

  std::uint64_t incarnation() const noexcept { return incarnation_; }

  node_id own_id() const noexcept { return node_id(own_id_.load(std::memory_order_relaxed)); }
  void set_own_id(node_id id, id128 cluster);
  // What this node calls itself from now on; none before it has joined.

  void set_address(node_id node, std::string address);

  void connect(std::string address);
  // Connects to whichever node listens there. Ends in on_connected with its id, or on_unreachable with none. A refused
  // connection is tried again for peer_options::reconnect, since that node may be just starting.

  send_result send(node_id to, capnp::MessageBuilder& message, std::span<const iovec> attachment = {});
  // Sends a message, after connecting when need be. Messages of one thread arrive in order, unless
  // on_disconnected or on_unreachable say that some did not. Never blocks. Throws errc::message_too_large,
  // and errc::no_such_node for this node itself or none. send_result::closed: this node is stopping, or too much waits.

  std::size_t queued_bytes(node_id to) const;
  // Bytes accepted and not yet given to the system, for senders that want to wait for their peer.

  bool connected(node_id to) const;
  std::string address_of(node_id node) const;
  std::uint64_t incarnation_of(node_id node) const;

  void name(connection& joiner, node_id id);
  // Gives a peer that asked to join its id; on_connected follows before this returns.

  void disconnect(node_id node, const error& reason);
  // Cuts the connections to a node, as a broken network would.

private:
  struct record;
  struct link;
  struct attempt;
  struct record_leaf {
    std::array<std::atomic<record*>, 256> records{};
    ~record_leaf();
  };
  enum class outcome { again, refused, final, replaced }; // of an attempt that failed

  record* find(node_id node) const noexcept;
  record& record_for(node_id node);
  void request_dial(record& to);
  void dial(record& to);
  void attempt_failed(const std::shared_ptr<attempt>& which, const error& reason, outcome how);
  void end_attempt(attempt& which);
  void give_up(record& of, const error& reason, bool gone);
  void accepted(int socket);
  void make_link(int socket, std::shared_ptr<attempt> from);
  void ready(const std::shared_ptr<link>& which);
  void attach(link& which, node_id id);
  void link_closed(link& which, const error& reason);
  void forget_link(link& which);
  void write_hello(protocol::Hello::Builder out, const connection& over, node_id expected) const;
  void refuse(link& which, const error& reason);

  event_loop& loop_;
  const peer_options options_;
  peer_listener& listener_;
  std::uint64_t incarnation_ = 0;
  std::atomic<std::uint16_t> own_id_{0};
  std::atomic<bool> stopping_{false};

  mutable std::mutex mutex_; // own_, address_, and making records
  identity own_;
  std::string address_;
  bool address_any_ = false;
  std::array<std::atomic<record_leaf*>, 256> table_{};

  // On the I/O thread.
  std::unique_ptr<tls> tls_;
  std::unique_ptr<detail::listener> door_;
  std::set<std::shared_ptr<link>> links_;
  std::set<std::shared_ptr<attempt>> attempts_;
  std::size_t handshaking_ = 0;

  std::mutex stop_mutex_;
  std::condition_variable stopped_;
  bool all_closed_ = false; // under stop_mutex_
};

} // namespace migrate

#include <migrate/rpc/peers_impl.hpp>
