// A channel: an authenticated link between two programs that need not be the same executable, as between an agent and the
// host database. Its messages are HostMessages (hosts.capnp).
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include <capnp/message.h>
#include <kj/function.h>

#include <pwd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <migrate/error.hpp>
#include <migrate/memory/current_heap.hpp>
#include <migrate/rpc/connection.hpp>
#include <migrate/rpc/credentials.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/rpc/hosts.capnp.h>
#include <migrate/rpc/protocol.capnp.h>

namespace migrate {

class channel;

inline constexpr std::uint32_t channel_version = 1;

struct channel_party {
  protocol::HostRole role = protocol::HostRole::COMMAND;
  std::string name; // of the program or application
  uid_t user = 0;
  std::string user_name;
  std::string host;
  pid_t process = 0;

  static channel_party of_this_process(protocol::HostRole role, std::string name);
};
// What a program says of itself when a channel opens.

struct channel_options {
  channel_party self;
  std::optional<credentials> security; // none: programs of this user on this machine only
  connection_limits limits{.message_words = 1 << 20,
                           .attachment_bytes = 1u << 20,
                           .congested_bytes = 4u << 20,
                           .queued_bytes = 64u << 20,
                           .silence = std::chrono::milliseconds(20'000)};
  std::chrono::milliseconds handshake{5'000}; // for a peer to say hello, or an address to answer
  std::chrono::milliseconds grace{1'000};     // for unsent bytes when this side stops
  std::size_t handshakes = 256;               // of a server: callers that may be in the midst of a handshake
  bool reconnect = false;                     // a client connects again whenever it has no channel
  std::chrono::milliseconds least_pause{
      10}; // before it does: doubled at each failure, and drawn from the upper half
  std::chrono::milliseconds most_pause{2'000};
};

class channel_handler {
  // What happens on channels, always on the I/O thread.

public:
  virtual void on_hello(channel&) {}
  // The peer has said who it is. A migrate::error thrown here refuses it.

  virtual void on_open(channel&) {}

  virtual void on_message(channel& from, protocol::HostMessage::Reader message,
                          kj::ArrayPtr<const kj::byte> attachment) = 0;
  // A one-way message, or a request when getCall() is not zero: then answer it, at once or later, with channel::answer or
  // channel::fail. The message is valid until this returns. A migrate::error thrown here fails the request, or
  // closes the channel when it is none; a kj::Exception, as reading a malformed message throws, closes it with errc::protocol.

  virtual void on_closed(channel&, const error& /*reason*/) {}
  // Of a channel that was open, once, and the last call for it. The codes are those of connection_handler::on_closed.

  virtual void on_refused(const std::string& /*peer*/, const error&) {}
  // Of a server: somebody connected and was sent away, or did not get as far as saying hello.

  virtual void on_unreachable(const error&) {}
  // Of a client: an attempt to connect failed. It is the last call unless channel_options::reconnect is set.

protected:
  ~channel_handler() = default;
};

struct channel_answer {
  const error* failure; // null: answered
  protocol::HostMessage::Reader message;
  kj::ArrayPtr<const kj::byte> attachment;
};
// To a request. Valid until the function that gets it returns.

namespace detail {
class channel_group;
}

class channel final : private connection_handler, public std::enable_shared_from_this<channel> {
  // Thread safety: any thread, after on_open. Held by its server or client while it is open; whoever keeps it longer can
  // only find out that it is closed. Not after its loop.

  struct key {};

public:
  using on_answer = kj::Function<void(const channel_answer&)>;

  template <class Fill> bool send(Fill&& fill, std::span<const iovec> attachment = {}) {
    return send_numbered(0, false, fill, attachment);
  }
  // fill(protocol::HostMessage::Builder). Messages of one thread arrive in their order. False: it will not arrive; true:
  // it may. Throws errc::message_too_large, as all that send.

  template <class Fill>
  void request(Fill&& fill, on_answer done, std::chrono::milliseconds limit = std::chrono::seconds(10),
               std::span<const iovec> attachment = {});
  // Sends a message that is to be answered. done(answer) is called once, on the I/O thread and not before this returns: with
  // the answer, with what the peer says has failed, with errc::timed_out, or with errc::node_unreachable when the channel
  // is lost. From a task only inside a node_heap_scope.

  template <class Fill, class Read>
  auto call(Fill&& fill, Read&& read, std::chrono::milliseconds limit = std::chrono::seconds(10));
  // request(), waiting for the answer: returns read(protocol::HostMessage::Reader) of it, or throws its failure. Blocks the
  // calling thread, so neither from a task nor on the I/O thread.

  template <class Fill>
  bool answer(std::uint64_t request, Fill&& fill, std::span<const iovec> attachment = {}) {
    return send_numbered(request, true, fill, attachment);
  }
  bool fail(std::uint64_t request, const error& reason);
  // End a request of the peer, by its number.

  const channel_party& peer() const noexcept { return party_; }
  // What it says of itself.

  std::optional<uid_t> peer_user() const noexcept { return user_; }
  // Whose process it is, as the kernel says; none for one on another machine.

  const std::string& peer_name() const noexcept { return peer_; }
  // For messages to a person.

  std::uint64_t id() const noexcept { return id_; }
  // Differs between any two channels of one server or client.

  bool open() const noexcept { return conn_->open(); }

  void close(const error& reason = error(errc::cancelled, "closed by this side")) { conn_->close(reason); }
  // Unsent messages are lost.

  void close_after_flush(std::chrono::milliseconds limit = std::chrono::milliseconds(1'000)) {
    conn_->close_after_flush(limit);
  }

  channel(key, detail::channel_group& group, event_loop& loop, bool client, std::uint64_t id,
          std::string peer, std::optional<uid_t> user)
      : group_(group), loop_(loop), client_(client), id_(id), user_(user), peer_(std::move(peer)) {}

private:
  friend class detail::channel_group;

  struct call_entry {
    on_answer done;
    event_loop::timer timer;
  };

  template <class Fill>
  bool send_numbered(std::uint64_t number, bool is_answer, Fill&& fill, std::span<const iovec> attachment) {
    node_heap_scope scope;
    capnp::word scratch[64];
    std::memset(scratch, 0, sizeof scratch);
    capnp::MallocMessageBuilder message(kj::arrayPtr(scratch, std::size(scratch)));
    auto content = message.initRoot<protocol::Message>().initHost().initAs<protocol::HostMessage>();
    content.setCall(number);
    content.setAnswer(is_answer);
    fill(content);
    return conn_->send(message, attachment) != send_result::closed;
  }

  void start(std::shared_ptr<connection> over);
  void say_hello();
  void hear_hello(protocol::HostMessage::Reader message);
  void refuse(const error& reason);
  void on_message(connection&, protocol::Message::Reader message,
                  kj::ArrayPtr<const kj::byte> attachment) override;
  void on_closed(connection&, const error& reason) override;
  void limit_call(std::uint64_t number, std::chrono::milliseconds limit);
  void end_call(std::uint64_t number, const channel_answer& with);
  void fail_calls(const error& reason);

  detail::channel_group& group_;
  event_loop& loop_;
  const bool client_;
  const std::uint64_t id_;
  const std::optional<uid_t> user_;
  std::string peer_;
  channel_party party_;
  std::shared_ptr<connection> conn_;

  std::mutex mutex_;
  std::uint64_t last_call_ = 0;                         // under mutex_
  std::unordered_map<std::uint64_t, call_entry> calls_; // under mutex_

  // On the I/O thread.
  kj::Promise<void> securing_ = kj::READY_NOW;
  event_loop::timer handshake_timer_;
  bool ready_ = false;
  std::optional<error> refusal_; // this side has refused the peer
  bool counted_ = false;
};

namespace detail {

inline std::string user_name(uid_t user) {
  passwd entry{};
  passwd* found = nullptr;
  char text[4096];
  if (::getpwuid_r(user, &entry, text, sizeof text, &found) != 0 || found == nullptr)
    return std::to_string(user);
  return found->pw_name;
}

inline void write_failure(protocol::HostFailure::Builder into, const error& reason) {
  bool own = reason.code().category() == error_category();
  into.setCode(reason.code().value());
  into.setSystem(!own);
  into.setText(reason.what());
}

inline error read_failure(protocol::HostFailure::Reader in) {
  std::string text = in.getText().cStr();
  return in.getSystem() ? error(std::error_code(in.getCode(), std::system_category()), text)
                        : error(static_cast<errc>(in.getCode()), text);
}

} // namespace detail

inline channel_party channel_party::of_this_process(protocol::HostRole role, std::string name) {
  channel_party made;
  made.role = role;
  made.name = std::move(name);
  made.user = ::geteuid();
  made.user_name = detail::user_name(made.user);
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  made.host = host;
  made.process = ::getpid();
  return made;
}

template <class Fill>
void channel::request(Fill&& fill, on_answer done, std::chrono::milliseconds limit,
                      std::span<const iovec> attachment) {
  node_heap_scope scope;
  std::uint64_t number = 0;
  {
    std::lock_guard lock(mutex_);
    number = ++last_call_;
    calls_.emplace(number, call_entry{kj::mv(done), {}});
  }
  bool sent = false;
  try {
    sent = send_numbered(number, false, fill, attachment);
  } catch (...) {
    std::lock_guard lock(mutex_);
    calls_.erase(number);
    throw;
  }
  auto prepare = [self = shared_from_this(), number, sent, limit] {
    if (sent && self->conn_->open())
      self->limit_call(number, limit);
    else if (error lost(errc::node_unreachable, "the channel to " + self->peer_ + " is closed"); true)
      self->end_call(number, {&lost, {}, {}});
  };
  if (sent && loop_.on_loop_thread())
    limit_call(number, limit);
  else if (!loop_.post(prepare))
    prepare();
}

template <class Fill, class Read>
auto channel::call(Fill&& fill, Read&& read, std::chrono::milliseconds limit) {
  using result = decltype(read(protocol::HostMessage::Reader()));
  struct {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    std::optional<error> failure;
    std::conditional_t<std::is_void_v<result>, char, std::optional<result>> value{};
  } state;
  request(
      fill,
      [&state, &read](const channel_answer& got) {
        std::lock_guard lock(state.mutex);
        try {
          if (got.failure != nullptr)
            state.failure = *got.failure;
          else if constexpr (std::is_void_v<result>)
            read(got.message);
          else
            state.value = read(got.message);
        } catch (const kj::Exception& exception) {
          state.failure = error(errc::protocol,
                                std::string("the answer is malformed: ") + exception.getDescription().cStr());
        } catch (const error& problem) {
          state.failure = problem;
        }
        state.done = true;
        state.changed.notify_one();
      },
      limit);
  std::unique_lock lock(state.mutex);
  state.changed.wait(lock, [&] { return state.done; });
  if (state.failure) throw *state.failure;
  if constexpr (!std::is_void_v<result>) return std::move(*state.value);
}

inline bool channel::fail(std::uint64_t request, const error& reason) {
  return answer(request,
                [&](protocol::HostMessage::Builder into) { detail::write_failure(into.initFailed(), reason); });
}

inline void channel::limit_call(std::uint64_t number, std::chrono::milliseconds limit) {
  std::lock_guard lock(mutex_);
  auto found = calls_.find(number);
  if (found == calls_.end()) return; // answered already
  found->second.timer = loop_.after(limit, [this, number, limit] {
    error late(errc::timed_out,
               peer_ + " has not answered a request within " + std::to_string(limit.count()) + " ms");
    end_call(number, {&late, {}, {}});
  });
}

inline void channel::end_call(std::uint64_t number, const channel_answer& with) {
  std::unique_lock lock(mutex_);
  auto found = calls_.extract(number);
  if (found.empty()) return; // late
  lock.unlock();
  loop_.cancel(found.mapped().timer);
  found.mapped().done(with);
}

inline void channel::fail_calls(const error& reason) {
  std::unique_lock lock(mutex_);
  auto calls = std::exchange(calls_, {});
  lock.unlock();
  for (auto& [number, each] : calls) {
    loop_.cancel(each.timer);
    each.done({&reason, {}, {}});
  }
}

} // namespace migrate
