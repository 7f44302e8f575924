// The link between a host's agent and a node that it has started: a socket that the node inherits.
#pragma once

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include <capnp/message.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <migrate/error.hpp>
#include <migrate/rpc/connection.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/rpc/hosts.capnp.h>
#include <migrate/rpc/protocol.capnp.h>

namespace migrate::detail {

class agent_link final : private connection_handler, public std::enable_shared_from_this<agent_link> {
  // HostMessages without a hello: whoever has an end was given it. Thread safety: send() and close() from any thread,
  // all else on the I/O thread.

  struct key {};

public:
  class listener {
  public:
    virtual void on_link_message(agent_link& from, protocol::HostMessage::Reader message) = 0;
    virtual void on_link_closed(agent_link& which, const error& reason) = 0;
    // Once, and the last call. To a node: the agent has ended, and whoever keeps its grants is about to kill what is left.

  protected:
    ~listener() = default;
  };

  static constexpr const char* variable = "MIGRATE_AGENT";

  static int take_inherited() {
    // The node's end, or -1 when no agent has started this process. Takes the variable out of the environment, so that
    // nothing that this process starts takes the end for its own. In main, after the last exec of the program itself.
    const char* text = std::getenv(variable);
    if (text == nullptr) return -1;
    int number = -1, kind = 0;
    socklen_t size = sizeof kind;
    auto [end, problem] = std::from_chars(text, text + std::strlen(text), number);
    bool good =
        problem == std::errc() && *end == 0 && ::getsockopt(number, SOL_SOCKET, SO_TYPE, &kind, &size) == 0;
    ::unsetenv(variable);
    if (!good) return -1;
    ::fcntl(number, F_SETFD, FD_CLOEXEC);
    return number;
  }

  static std::shared_ptr<agent_link> adopt(event_loop& loop, int socket, listener& told, std::string peer) {
    // Takes over a socket. The listener must live until on_link_closed.
    auto made = std::make_shared<agent_link>(key{}, told);
    connection_limits limits;
    limits.silence = std::chrono::hours(24 * 365); // a node that is made to stand still says nothing
    made->self_ = made;
    made->over_ = connection::adopt(loop, socket, *made, std::move(peer), limits);
    return made;
  }

  template <class Fill> bool send(Fill&& fill) {
    // fill(protocol::HostMessage::Builder). False: the other end is closed.
    capnp::MallocMessageBuilder message;
    fill(message.initRoot<protocol::Message>().initHost().initAs<protocol::HostMessage>());
    return over_->send(message) != send_result::closed;
  }

  void close() { over_->close(); }

  agent_link(key, listener& told) : told_(told) {}

private:
  void on_message(connection&, protocol::Message::Reader message, kj::ArrayPtr<const kj::byte>) override {
    if (message.isHost()) told_.on_link_message(*this, message.getHost().getAs<protocol::HostMessage>());
  }
  void on_closed(connection&, const error& reason) override {
    auto keep = std::exchange(self_, nullptr);
    told_.on_link_closed(*this, reason);
  }

  listener& told_;
  std::shared_ptr<connection> over_;
  std::shared_ptr<agent_link> self_; // until closed
};

} // namespace migrate::detail
