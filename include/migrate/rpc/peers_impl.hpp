// How peers makes, uses and mourns connections. Included by peers.hpp.
#pragma once

#include <migrate/rpc/dialer.hpp>
#include <migrate/rpc/listener.hpp>
#include <migrate/rpc/loopback_owner.hpp>
#include <migrate/rpc/peers.hpp>
#include <migrate/rpc/secured_socket.hpp>

namespace migrate {

struct peers::record {
  explicit record(node_id number) : id(number) {}

  const node_id id;
  mutable std::mutex mutex;
  // Under the mutex:
  std::shared_ptr<connection> active; // the one that is sent on
  std::string address;
  std::vector<std::byte> pending; // whole frames that wait for a connection
  std::size_t pending_messages = 0;
  bool dialling = false; // an attempt is under way or requested
  std::uint64_t incarnation = 0;
  // On the I/O thread: at most one connection in each direction, since both sides may connect at once.
  link* outbound = nullptr;
  link* inbound = nullptr;
  bool connected = false;
  std::optional<error> loss; // of the last connection, until it is known what became of the peer
  bool doubtful = false;     // the listener was told that it is unreachable
};

struct peers::link final : connection_handler, std::enable_shared_from_this<link> {
  link(peers& its, bool calling) : owner(its), initiator(calling) {}

  void on_message(connection& from, protocol::Message::Reader message,
                  kj::ArrayPtr<const kj::byte> attachment) override;
  void on_closed(connection&, const error& reason) override { owner.link_closed(*this, reason); }
  void on_drained(connection&) override {
    if (is_ready && info.node != no_node) owner.listener_.on_drained(info.node);
  }
  void hello(protocol::Message::Reader message);
  void start(std::shared_ptr<connection> over);

  peers& owner;
  const bool initiator;
  std::shared_ptr<attempt> from;
  std::shared_ptr<connection> conn;
  kj::Promise<void> securing = kj::READY_NOW;
  event_loop::timer handshake_timer;
  std::string peer;
  peer_info info;
  record* of = nullptr;
  bool is_ready = false;
  bool counted = false;
  bool refused = false;
};

struct peers::attempt final : std::enable_shared_from_this<attempt> {
  attempt(peers& of, record* who, std::string where) : owner(of), target(who), address(std::move(where)) {}

  void begin();
  void dialled(detail::dial_result how, int socket, const error* reason);

  peers& owner;
  record* target; // none: whoever answers
  const std::string address;
  event_loop::clock::time_point deadline{};
  std::chrono::milliseconds pause{1};
  event_loop::timer timer;
  std::shared_ptr<detail::dialer> dial;
  bool done = false;
};

// Life ---------------------------------------------------------------------------------------------

inline peers::record_leaf::~record_leaf() {
  for (auto& entry : records) delete entry.load(std::memory_order_relaxed);
}

inline peers::peers(event_loop& loop, peer_options options, peer_listener& listener)
    : loop_(loop), options_(std::move(options)), listener_(listener), own_(options_.self) {
  while (incarnation_ == 0)
    if (::getrandom(&incarnation_, sizeof incarnation_, 0) != sizeof incarnation_) incarnation_ = 0;
}

inline peers::~peers() {
  stop();
  for (auto& leaf : table_) delete leaf.load(std::memory_order_relaxed);
}

inline void peers::start() {
  auto where = detail::address_to_listen_on(options_.listen, options_.security.has_value());
  if (options_.security) tls::check(*options_.security);
  loop_.run([&] {
    if (options_.security) tls_ = std::make_unique<tls>(*options_.security);
    auto made = std::make_unique<detail::listener>(loop_, where, options_.listen, [this](int socket) { accepted(socket); });
    auto actual = made->address();
    {
      std::lock_guard lock(mutex_);
      address_ = options_.advertise.empty() ? actual.text() : options_.advertise;
      address_any_ = actual.any() && options_.advertise.empty();
    }
    door_ = std::move(made);
  });
}

inline void peers::stop() {
  if (stopping_.exchange(true)) return;
  try {
    loop_.run([&] {
      door_.reset();
      for (const auto& each : std::set(attempts_)) end_attempt(*each);
      for (const auto& each : std::set(links_)) {
        if (each->conn && each->is_ready)
          each->conn->close_after_flush(options_.grace);
        else if (each->conn)
          each->conn->close();
        else
          forget_link(*each);
      }
      for (auto& top : table_)
        if (auto* leaf = top.load(std::memory_order_acquire))
          for (auto& entry : leaf->records)
            if (auto* of = entry.load(std::memory_order_acquire))
              give_up(*of, error(errc::shutting_down, "this node is stopping"), false);
      std::lock_guard lock(stop_mutex_);
      all_closed_ = links_.empty();
    });
  } catch (const error&) {
    return; // the loop was never started, or has been stopped, so there is nothing left
  }
  std::unique_lock lock(stop_mutex_);
  stopped_.wait(lock, [&] { return all_closed_; });
  lock.unlock();
  loop_.run([&] { tls_.reset(); });
}

inline std::string peers::address() const {
  std::lock_guard lock(mutex_);
  return address_;
}

inline void peers::set_own_id(node_id id, id128 cluster) {
  std::lock_guard lock(mutex_);
  own_.cluster = cluster;
  own_id_.store(number(id), std::memory_order_relaxed);
}

// Records and sending ------------------------------------------------------------------------------

inline peers::record* peers::find(node_id node) const noexcept {
  auto* leaf = table_[number(node) >> 8].load(std::memory_order_acquire);
  return leaf == nullptr ? nullptr : leaf->records[number(node) & 0xff].load(std::memory_order_acquire);
}

inline peers::record& peers::record_for(node_id node) {
  if (auto* found = find(node)) return *found;
  std::lock_guard lock(mutex_);
  auto& top = table_[number(node) >> 8];
  if (top.load(std::memory_order_relaxed) == nullptr) top.store(new record_leaf, std::memory_order_release);
  auto& entry = top.load(std::memory_order_relaxed)->records[number(node) & 0xff];
  if (entry.load(std::memory_order_relaxed) == nullptr)
    entry.store(new record(node), std::memory_order_release);
  return *entry.load(std::memory_order_relaxed);
}

inline void peers::set_address(node_id node, std::string address) {
  node_heap_scope heap;
  record& of = record_for(node);
  std::lock_guard lock(of.mutex);
  of.address = std::string(address);
}

inline send_result peers::send(node_id to, capnp::MessageBuilder& message,
                               std::span<const iovec> attachment) {
  if (to == no_node || to == own_id())
    throw error(errc::no_such_node, "a message was sent to node " + to_string(to) + ", which is " +
                                        (to == no_node ? "none" : "this node itself"));
  connection::check_size(message, attachment, options_.limits);
  node_heap_scope heap; // from here on nothing throws that the task could carry away
  record& target = record_for(to);
  std::shared_ptr<connection> tried;
  for (;;) {
    std::unique_lock lock(target.mutex);
    if (target.active && target.active != tried) {
      tried = target.active;
      lock.unlock();
      if (auto result = tried->send(message, attachment); result != send_result::closed) return result;
      continue;
    }
    // No connection, or one whose end the I/O thread has not yet noticed.
    if (stopping_.load(std::memory_order_relaxed) || target.pending.size() >= options_.limits.queued_bytes)
      return send_result::closed;
    connection::encode(target.pending, message, attachment, options_.limits);
    ++target.pending_messages;
    if (!target.active && !target.dialling) {
      target.dialling = true;
      lock.unlock();
      request_dial(target);
    }
    return send_result::queued;
  }
}

inline std::size_t peers::queued_bytes(node_id to) const {
  record* of = find(to);
  if (of == nullptr) return 0;
  std::lock_guard lock(of->mutex);
  return of->pending.size() + (of->active ? of->active->queued_bytes() : 0);
}

inline bool peers::connected(node_id to) const {
  record* of = find(to);
  if (of == nullptr) return false;
  std::lock_guard lock(of->mutex);
  return of->active && of->active->open();
}

inline std::string peers::address_of(node_id node) const {
  record* of = find(node);
  if (of == nullptr) return {};
  std::lock_guard lock(of->mutex);
  return of->address;
}

inline std::uint64_t peers::incarnation_of(node_id node) const {
  record* of = find(node);
  if (of == nullptr) return 0;
  std::lock_guard lock(of->mutex);
  return of->incarnation;
}

// Calling ------------------------------------------------------------------------------------------

inline void peers::request_dial(record& to) {
  loop_.post([this, &to] { dial(to); });
}

inline void peers::dial(record& to) {
  std::string address;
  {
    std::lock_guard lock(to.mutex);
    address = to.address;
  }
  if (stopping_.load()) {
    give_up(to, error(errc::shutting_down, "this node is stopping"), false);
  } else if (address.empty()) {
    give_up(to, error(errc::no_such_node, "no address is known of node " + to_string(to.id)), false);
  } else {
    auto made = std::make_shared<attempt>(*this, &to, std::move(address));
    made->deadline = event_loop::clock::now() + options_.reconnect;
    attempts_.insert(made);
    made->begin();
  }
}

inline void peers::connect(std::string address) {
  node_heap_scope heap;
  loop_.post([this, where = std::string(address)] {
    auto made = std::make_shared<attempt>(*this, nullptr, where);
    made->deadline = event_loop::clock::now() + options_.reconnect;
    if (stopping_.load()) return;
    attempts_.insert(made);
    made->begin();
  });
}

inline void peers::attempt::begin() {
  dial = detail::dialer::make(owner.loop_, address, owner.options_.security.has_value(), deadline,
                              [self = shared_from_this()](detail::dial_result how, int socket, const error* reason) {
                                self->dialled(how, socket, reason);
                              });
  dial->begin();
}

inline void peers::attempt::dialled(detail::dial_result how, int socket, const error* reason) {
  auto self = shared_from_this();
  switch (how) {
  case detail::dial_result::connected: owner.make_link(socket, self); break;
  case detail::dial_result::refused: owner.attempt_failed(self, *reason, outcome::refused); break;
  case detail::dial_result::transient: owner.attempt_failed(self, *reason, outcome::again); break;
  case detail::dial_result::final: owner.attempt_failed(self, *reason, outcome::final); break;
  }
}

inline void peers::attempt_failed(const std::shared_ptr<attempt>& which, const error& reason, outcome how) {
  if (which->done) return;
  bool refused = how == outcome::refused;
  if (refused && which->target == nullptr) how = outcome::again;
  if (how == outcome::again && event_loop::clock::now() + which->pause < which->deadline) {
    which->timer = loop_.after(which->pause, [which] { which->begin(); });
    which->pause = std::min(which->pause * 2, std::chrono::milliseconds(100));
    return;
  }
  record* target = which->target;
  end_attempt(*which);
  if (target != nullptr)
    give_up(*target, reason, refused || how == outcome::replaced);
  else
    listener_.on_unreachable(no_node, reason, 0);
}

inline void peers::end_attempt(attempt& which) {
  if (which.done) return;
  which.done = true;
  auto self = which.shared_from_this();
  loop_.cancel(which.timer);
  if (auto dial = std::exchange(which.dial, nullptr)) dial->cancel();
  attempts_.erase(self);
}

inline void peers::give_up(record& of, const error& reason, bool gone) {
  // No connection is there or can be had: what waits for one is dropped.
  std::size_t dropped = 0;
  {
    std::lock_guard lock(of.mutex);
    of.dialling = false;
    if (of.active && of.active->open() && !stopping_.load()) return; // the peer has called meanwhile
    of.pending = {};
    dropped = std::exchange(of.pending_messages, 0);
    if (gone) of.incarnation = 0;
  }
  if (of.loss) {
    error loss = *std::exchange(of.loss, std::nullopt);
    of.connected = false;
    of.doubtful = !gone;
    if (!stopping_.load()) listener_.on_disconnected(of.id, loss, gone ? peer_loss::gone : peer_loss::unreachable);
  } else if (gone && std::exchange(of.doubtful, false) && !stopping_.load()) {
    listener_.on_disconnected(of.id, reason, peer_loss::gone);
  }
  if (dropped > 0) listener_.on_unreachable(of.id, reason, dropped);
}

// Links --------------------------------------------------------------------------------------------

inline void peers::accepted(int socket) {
  if (handshaking_ >= options_.handshakes || stopping_.load()) {
    ::close(socket);
    return;
  }
  auto user = options_.security ? detail::loopback_user::own : detail::owner_of(socket, detail::loopback_end::peer).kind;
  if (user == detail::loopback_user::nobody) { // the caller has hung up already
    ::close(socket);
    return;
  }
  if (user == detail::loopback_user::other) {
    std::string peer = detail::socket_address::peer_of(socket).text();
    ::close(socket);
    listener_.on_refused(peer, detail::stranger(peer));
    return;
  }
  make_link(socket, nullptr);
}

inline void peers::make_link(int socket, std::shared_ptr<attempt> from) {
  auto made = std::make_shared<link>(*this, from != nullptr);
  links_.insert(made);
  made->from = std::move(from);
  made->peer = made->from ? made->from->address : detail::socket_address::peer_of(socket).text();
  if (made->from && made->from->target)
    made->peer = "node " + to_string(made->from->target->id) + " (" + made->peer + ")";
  made->counted = made->from == nullptr;
  if (made->counted) ++handshaking_;
  made->handshake_timer = loop_.after(options_.handshake, [this, raw = made.get()] {
    auto self = raw->shared_from_this();
    error reason(errc::timed_out, raw->peer + " has said nothing for " +
                                      std::to_string(options_.handshake.count()) +
                                      " ms after connecting, so it is not a node of this cluster");
    if (raw->conn)
      raw->conn->close(reason);
    else
      link_closed(*raw, reason);
  });
  if (tls_ == nullptr) {
    made->start(connection::adopt(loop_, socket, *made, made->peer, options_.limits));
    return;
  }
  made->securing = detail::secure(
      loop_, *tls_, socket, made->initiator,
      [this, weak = std::weak_ptr(made)](tls::secured&& secured) {
        auto self = weak.lock();
        if (links_.count(self) == 0) return;
        self->conn = connection::adopt(loop_, kj::mv(secured.stream), *self, self->peer, options_.limits);
        if (secured.name_is_right)
          self->start(self->conn);
        else
          refuse(*self, tls_->wrong_name(self->peer));
      },
      [this, weak = std::weak_ptr(made)](const kj::Exception& exception) {
        auto self = weak.lock();
        if (links_.count(self) == 0) return;
        link_closed(*self, tls_->explain(self->peer, exception));
      });
}

inline void peers::link::start(std::shared_ptr<connection> over) {
  conn = std::move(over);
  if (!initiator) return;
  capnp::MallocMessageBuilder message;
  owner.write_hello(message.initRoot<protocol::Message>().initHello(), *conn,
                    from->target ? from->target->id : no_node);
  conn->send(message);
}

inline void peers::write_hello(protocol::Hello::Builder out, const connection& over, node_id expected) const {
  std::lock_guard lock(mutex_);
  out.setNode(own_id_.load(std::memory_order_relaxed));
  out.setIncarnation(incarnation_);
  std::string shown = address_;
  if (address_any_ && over.descriptor() >= 0)
    shown = detail::socket_address::local_of(over.descriptor())
                .text_with_port(detail::split_address(address_).port);
  out.setAddress(shown.c_str());
  out.setExpectedNode(number(expected));
  own_.write(out.initIdentity());
}

inline void peers::link::on_message(connection& over, protocol::Message::Reader message,
                                    kj::ArrayPtr<const kj::byte> attachment) {
  if (refused) return; // what it still sends is not heard
  if (is_ready && !message.isHello() && !message.isRefused())
    owner.listener_.on_message(over, info.node, message, attachment);
  else
    hello(message);
}

inline void peers::link::hello(protocol::Message::Reader message) {
  auto self = shared_from_this();
  if (message.isRefused()) {
    auto text = message.getRefused();
    refused = true;
    conn->close(
        error(static_cast<errc>(text.getCode()), peer + " refuses this node: " + text.getText().cStr()));
    return;
  }
  if (is_ready || !message.isHello())
    throw error(errc::protocol,
                peer + " sent a message out of turn: a connection begins with one hello from each side");
  auto said = message.getHello();
  info.node = node_id(said.getNode());
  info.incarnation = said.getIncarnation();
  info.address = said.getAddress().cStr();
  identity theirs = identity::read(said.getIdentity());
  identity mine;
  {
    std::lock_guard lock(owner.mutex_);
    mine = owner.own_;
  }
  std::string who = peer + (info.node != no_node ? ", node " + to_string(info.node) : std::string());
  node_id own = owner.own_id();
  node_id expected =
      initiator ? (from->target ? from->target->id : no_node) : node_id(said.getExpectedNode());
  if (info.incarnation == owner.incarnation_)
    return owner.refuse(
        *this, error(errc::not_compatible, "this node has called itself; name another node's address"));
  if (auto difference = first_difference(mine, theirs))
    return owner.refuse(
        *this, error(errc::not_compatible, who + " cannot be in one cluster with this node: " + *difference));
  if (!initiator && expected != no_node && expected != own)
    return owner.refuse(*this,
                        error(errc::no_such_node, "this is node " + to_string(own) + ", not node " +
                                                      to_string(expected) + " as its caller believes"));
  if (initiator && expected != no_node && expected != info.node)
    return owner.refuse(*this, error(errc::no_such_node, "node " + to_string(expected) + " is no more at " +
                                                             from->address + ", where node " +
                                                             to_string(info.node) + " answers"));
  if (info.node != no_node && info.node == own)
    return owner.refuse(*this, error(errc::not_compatible, who + " calls itself by this node's own number"));
  if (!initiator) {
    capnp::MallocMessageBuilder answer;
    owner.write_hello(answer.initRoot<protocol::Message>().initHello(), *conn, info.node);
    conn->send(answer);
  }
  owner.ready(self);
}

inline void peers::refuse(link& which, const error& reason) {
  which.refused = true;
  capnp::MallocMessageBuilder message;
  auto refusal = message.initRoot<protocol::Message>().initRefused();
  refusal.setCode(static_cast<std::uint32_t>(reason.code().value()));
  refusal.setText(reason.what());
  which.conn->send(message);
  which.conn->close_after_flush(options_.grace);
  if (!which.initiator) listener_.on_refused(which.peer, reason);
  if (which.from) {
    auto of = std::exchange(which.from, nullptr);
    attempt_failed(of, reason, reason.code() == errc::no_such_node ? outcome::replaced : outcome::final);
  }
}

inline void peers::ready(const std::shared_ptr<link>& which) {
  loop_.cancel(which->handshake_timer);
  if (std::exchange(which->counted, false)) --handshaking_;
  which->is_ready = true;
  auto of = std::exchange(which->from, nullptr);
  if (of) end_attempt(*of);
  if (which->info.node != no_node) attach(*which, which->info.node);
}

inline void peers::attach(link& which, node_id id) {
  auto self = which.shared_from_this();
  record& to = record_for(id);
  which.info.node = id;
  std::uint64_t before = 0;
  std::size_t dropped = 0;
  {
    std::lock_guard lock(to.mutex);
    before = std::exchange(to.incarnation, which.info.incarnation);
    if (before != 0 && before != which.info.incarnation) {
      to.active.reset();
      to.pending = {};
      dropped = std::exchange(to.pending_messages, 0);
    }
  }
  auto cut = [&](link*& slot, const error& reason) {
    if (slot == nullptr) return;
    link& old = *std::exchange(slot, nullptr);
    old.of = nullptr;
    {
      std::lock_guard lock(to.mutex);
      if (to.active == old.conn) to.active.reset();
    }
    old.conn->close(reason);
  };
  if (before != 0 && before != which.info.incarnation) {
    error reason(errc::node_lost,
                 "node " + to_string(id) + " has ended: another process answers in its name");
    cut(to.outbound, reason);
    cut(to.inbound, reason);
    if (std::exchange(to.connected, false) || to.loss || to.doubtful) {
      to.loss.reset();
      listener_.on_disconnected(id, reason, peer_loss::gone);
    }
    if (dropped > 0) listener_.on_unreachable(id, reason, dropped);
  }
  to.doubtful = false;
  link*& slot = which.initiator ? to.outbound : to.inbound;
  if (slot != nullptr) {
    // Nobody keeps two connections in one direction, so the peer has lost the former.
    error reason(errc::node_unreachable, "node " + to_string(id) + " has connected anew");
    cut(slot, reason);
    if (!to.loss) to.loss = reason;
  }
  slot = &which;
  which.of = &to;
  if (to.loss) {
    error reason = *std::exchange(to.loss, std::nullopt);
    to.connected = false;
    listener_.on_disconnected(id, reason, peer_loss::broken);
  }
  bool first = !std::exchange(to.connected, true);
  {
    std::lock_guard lock(to.mutex);
    if (!which.info.address.empty()) to.address = which.info.address;
    if (!to.active) {
      to.active = which.conn;
      if (!to.pending.empty()) which.conn->send_encoded(to.pending);
      to.pending = {};
      to.pending_messages = 0;
    }
    if (which.initiator) to.dialling = false;
  }
  if (first) listener_.on_connected(id, which.info);
}

inline void peers::name(connection& joiner, node_id id) {
  auto& which = static_cast<link&>(joiner.handler());
  if (which.is_ready && which.of == nullptr && joiner.open()) attach(which, id);
}

inline void peers::disconnect(node_id node, const error& reason) {
  record* of = find(node);
  if (of == nullptr) return;
  if (of->outbound != nullptr)
    of->outbound->conn->close(reason);
  else if (of->inbound != nullptr)
    of->inbound->conn->close(reason);
}

inline void peers::forget_link(link& which) {
  auto self = which.shared_from_this();
  loop_.cancel(which.handshake_timer);
  if (std::exchange(which.counted, false)) --handshaking_;
  if (links_.erase(self) > 0) loop_.post([dying = self] {}); // its promise may be running
  if (stopping_.load() && links_.empty()) {
    std::lock_guard lock(stop_mutex_);
    all_closed_ = true;
    stopped_.notify_all();
  }
}

inline void peers::link_closed(link& which, const error& reason) {
  auto self = which.shared_from_this();
  record* of = std::exchange(which.of, nullptr);
  auto from = std::exchange(which.from, nullptr);
  bool was_ready = which.is_ready;
  if (of != nullptr) {
    (which.initiator ? of->outbound : of->inbound) = nullptr;
    link*& other = which.initiator ? of->inbound : of->outbound;
    bool orderly = reason.code() == errc::ok;
    std::shared_ptr<connection> also;
    if (other != nullptr) {
      other->of = nullptr;
      also = std::exchange(other, nullptr)->conn;
    }
    bool dial_now = false;
    bool over = orderly || which.refused || stopping_.load();
    {
      std::lock_guard lock(of->mutex);
      of->active.reset();
      if (!over) dial_now = !std::exchange(of->dialling, true);
    }
    if (also) {
      if (stopping_.load())
        also->close_after_flush(options_.grace);
      else
        also->close(reason);
    }
    of->loss = reason;
    if (over)
      give_up(*of, reason, orderly);
    else if (dial_now)
      dial(*of);
  } else if (!stopping_.load()) {
    if (from) {
      // A peer that ends in this moment, or one that wants credentials, closes without a word.
      outcome how = reason.code() == errc::no_such_node       ? outcome::replaced
                    : reason.code() == errc::node_unreachable ? outcome::again
                                                              : outcome::final;
      attempt_failed(from,
                     how == outcome::again ? error(errc::node_unreachable,
                                                   std::string(reason.what()) +
                                                       " before it said hello; perhaps it wants credentials")
                                           : reason,
                     how);
    } else if (was_ready && which.info.node == no_node)
      listener_.on_unnamed_closed(*which.conn, reason);
    else if (!was_ready && !which.initiator && !which.refused)
      listener_.on_refused(which.peer, reason);
  }
  forget_link(which);
}

} // namespace migrate
