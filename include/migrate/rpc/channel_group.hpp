// How channels open and close: what servers and clients have in common. Included by channel.hpp.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include <migrate/rpc/channel_link.hpp>
#include <migrate/rpc/loopback_owner.hpp>
#include <migrate/rpc/secured_socket.hpp>
#include <migrate/rpc/socket_address.hpp>

namespace migrate::detail {

class channel_group {
  // Everything on the I/O thread, but for the constructor and stop_all.

public:
  channel_group(event_loop& its_loop, channel_options with, channel_handler& told)
      : loop(its_loop), options(std::move(with)), handler(told) {}
  channel_group(const channel_group&) = delete;
  channel_group& operator=(const channel_group&) = delete;

  void add(int socket, bool client, std::string peer);
  // Takes over a connected socket.

protected:
  ~channel_group() = default;

  template <class Begin> void stop_all(Begin&& begin);
  // Calls begin() on the I/O thread, closes all, and returns when they are closed. Once.

  virtual void opened(channel&) {}
  virtual void closed(channel& which, const error& reason, bool was_open) = 0;
  // `which` is none of the group's any more.

  event_loop& loop;
  const channel_options options;
  channel_handler& handler;
  std::unique_ptr<tls> security;
  std::set<std::shared_ptr<channel>> channels;
  std::size_t handshaking = 0;
  bool stopping = false;

private:
  friend class migrate::channel;

  void opened_one(channel& which);
  void closed_one(channel& which, const error& reason);

  std::uint64_t last_ = 0;
  std::mutex stop_mutex_;
  std::condition_variable stopped_;
  bool all_closed_ = false; // under stop_mutex_
};

inline void channel_group::add(int socket, bool client, std::string peer) {
  const bool within_host = socket_address::local_of(socket).within_host();
  std::optional<uid_t> user;
  if (within_host || !options.security) {
    auto owner = owner_of(socket, client ? loopback_end::listener : loopback_end::peer);
    if (owner.kind != loopback_user::own) { // of a client, the dialer has seen to that
      ::close(socket);
      if (owner.kind == loopback_user::other) handler.on_refused(peer, stranger(peer));
      return;
    }
    user = owner.uid;
  }
  auto made = std::make_shared<channel>(channel::key{}, *this, loop, client, ++last_, std::move(peer), user);
  channels.insert(made);
  made->counted_ = true;
  ++handshaking;
  made->handshake_timer_ = loop.after(options.handshake, [this, raw = made.get()] {
    auto self = raw->shared_from_this();
    error reason(errc::timed_out, raw->peer_ + " has said nothing for " +
                                      std::to_string(options.handshake.count()) +
                                      " ms after connecting, so it speaks another protocol or hangs");
    if (raw->conn_)
      raw->conn_->close(reason);
    else
      closed_one(*raw, reason);
  });
  if (!options.security || within_host) {
    made->start(connection::adopt(loop, socket, *made, made->peer_, options.limits));
    return;
  }
  made->securing_ = secure(
      loop, *security, socket, client,
      [this, weak = std::weak_ptr(made)](tls::secured&& secured) {
        auto self = weak.lock();
        if (channels.count(self) == 0) return;
        auto over = connection::adopt(loop, kj::mv(secured.stream), *self, self->peer_, options.limits);
        if (secured.name_is_right) {
          self->start(std::move(over));
        } else {
          self->conn_ = std::move(over);
          self->refuse(security->wrong_name(self->peer_));
        }
      },
      [this, weak = std::weak_ptr(made)](const kj::Exception& exception) {
        auto self = weak.lock();
        if (channels.count(self) == 0) return;
        closed_one(*self, security->explain(self->peer_, exception));
      });
}

inline void channel_group::opened_one(channel& which) {
  loop.cancel(which.handshake_timer_);
  if (std::exchange(which.counted_, false)) --handshaking;
  opened(which);
}

inline void channel_group::closed_one(channel& which, const error& reason) {
  auto self = which.shared_from_this();
  if (channels.erase(self) == 0) return;
  loop.cancel(which.handshake_timer_);
  if (std::exchange(which.counted_, false)) --handshaking;
  loop.post([self] {}); // its promise may be running
  closed(which, reason, which.ready_);
  if (!stopping || !channels.empty()) return;
  std::lock_guard lock(stop_mutex_);
  all_closed_ = true;
  stopped_.notify_all();
}

template <class Begin> void channel_group::stop_all(Begin&& begin) {
  try {
    loop.run([&] {
      if (std::exchange(stopping, true)) return;
      begin();
      for (const auto& each : std::set(channels)) {
        if (each->ready_)
          each->conn_->close_after_flush(options.grace);
        else if (each->conn_)
          each->conn_->close();
        else
          closed_one(*each, error(errc::cancelled, "this side is stopping"));
      }
      std::lock_guard lock(stop_mutex_);
      all_closed_ = channels.empty();
    });
  } catch (const error&) {
    return; // the loop was never started, or has been stopped, so there is nothing left
  }
  std::unique_lock lock(stop_mutex_);
  stopped_.wait(lock, [&] { return all_closed_; });
  lock.unlock();
  loop.run([&] { security.reset(); });
}

} // namespace migrate::detail

namespace migrate {

inline void channel::start(std::shared_ptr<connection> over) {
  conn_ = std::move(over);
  if (client_) say_hello();
}

inline void channel::say_hello() {
  const channel_party& self = group_.options.self;
  send([&](protocol::HostMessage::Builder into) {
    auto hello = into.initHello();
    hello.setVersion(channel_version);
    hello.setRole(self.role);
    hello.setName(self.name.c_str());
    hello.setUser(self.user);
    hello.setUserName(self.user_name.c_str());
    hello.setHost(self.host.c_str());
    hello.setProcess(static_cast<std::uint32_t>(self.process));
  });
}

inline void channel::hear_hello(protocol::HostMessage::Reader message) {
  if (!message.isHello())
    throw error(errc::protocol,
                peer_ + " sent a message out of turn: a channel begins with one hello from each side");
  auto said = message.getHello();
  if (said.getVersion() != channel_version)
    return refuse(error(errc::not_compatible, peer_ + " speaks version " + std::to_string(said.getVersion()) +
                                                  " of the protocol of hosts, this side version " +
                                                  std::to_string(channel_version) +
                                                  "; install the same migrate on both"));
  party_.role = said.getRole();
  party_.name = said.getName().cStr();
  party_.user = said.getUser();
  party_.user_name = said.getUserName().cStr();
  party_.host = said.getHost().cStr();
  party_.process = static_cast<pid_t>(said.getProcess());
  if (user_ && *user_ != party_.user)
    return refuse(error(errc::not_authenticated, peer_ + " says that it acts for user " +
                                                     std::to_string(party_.user) + " and belongs to user " +
                                                     std::to_string(*user_)));
  try {
    group_.handler.on_hello(*this);
  } catch (const error& reason) {
    return refuse(reason);
  }
  if (!client_) say_hello();
  ready_ = true;
  group_.opened_one(*this);
  if (conn_->open()) group_.handler.on_open(*this);
}

inline void channel::refuse(const error& reason) {
  refusal_ = reason;
  capnp::MallocMessageBuilder message;
  auto refusal = message.initRoot<protocol::Message>().initRefused();
  bool own = reason.code().category() == error_category();
  refusal.setCode(
      static_cast<std::uint32_t>(own ? reason.code().value() : static_cast<int>(errc::cancelled)));
  refusal.setText(reason.what());
  conn_->send(message);
  conn_->close_after_flush(group_.options.grace);
}

inline void channel::on_message(connection&, protocol::Message::Reader message,
                                kj::ArrayPtr<const kj::byte> attachment) {
  if (refusal_) return; // what it still sends is not heard
  auto self = shared_from_this();
  if (message.isRefused()) {
    auto refusal = message.getRefused();
    conn_->close(error(static_cast<errc>(refusal.getCode()),
                       peer_ + " refuses this program: " + refusal.getText().cStr()));
    return;
  }
  if (!message.isHost())
    throw error(errc::protocol,
                peer_ + " sent a message for nodes; this is a channel between an agent, the host database, "
                        "applications and commands");
  auto content = message.getHost().getAs<protocol::HostMessage>();
  if (!ready_) return hear_hello(content);
  if (content.isHello()) throw error(errc::protocol, peer_ + " said hello twice");
  std::uint64_t number = content.getCall();
  if (content.getAnswer()) { // also to a request that has been given up
    if (content.isFailed()) {
      error failure = detail::read_failure(content.getFailed());
      end_call(number, {&failure, content, attachment});
    } else {
      end_call(number, {nullptr, content, attachment});
    }
    return;
  }
  try {
    group_.handler.on_message(*this, content, attachment);
  } catch (const error& reason) {
    if (number == 0) throw;
    fail(number, reason);
  }
}

inline void channel::on_closed(connection&, const error& reason) {
  auto self = shared_from_this();
  fail_calls(error(errc::node_unreachable,
                   "the channel to " + peer_ + " closed before the answer came: " + reason.what()));
  group_.closed_one(*this, refusal_ ? *refusal_ : reason);
}

} // namespace migrate
