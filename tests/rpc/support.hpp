// What the tests of the rpc layer share: a log of events that a test can wait for.
#pragma once

#include <migrate/rpc/peers.hpp>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace rpc_test {

using namespace migrate;

struct event {
  std::string kind;
  node_id node{};
  std::string text;
  std::error_code code;
  bool gone = false;
  std::size_t bytes = 0;
  bool broken = false;
};

class recorder : public peer_listener, public connection_handler {
public:
  void on_connected(node_id node, const peer_info& info) override {
    add({"connected", node, info.address, {}, false, 0});
  }
  void on_message(connection& from, node_id node, protocol::Message::Reader message,
                  kj::ArrayPtr<const kj::byte> attachment) override {
    if (answer_joiners != no_node && node == no_node) owner->name(from, answer_joiners);
    if (message.isTest())
      add({"message",
           node,
           std::string(message.getTest().asChars().begin(), message.getTest().size()),
           {},
           false,
           attachment.size()});
  }
  void on_message(connection& from, protocol::Message::Reader message,
                  kj::ArrayPtr<const kj::byte> attachment) override {
    on_message(from, no_node, message, attachment);
  }
  void on_closed(connection&, const error& reason) override {
    add({"closed", {}, reason.what(), reason.code(), false, 0});
  }
  void on_disconnected(node_id node, const error& reason, peer_loss how) override {
    add({"disconnected", node, reason.what(), reason.code(), how == peer_loss::gone, 0, how == peer_loss::broken});
  }
  void on_unreachable(node_id node, const error& reason, std::size_t dropped) override {
    add({"unreachable", node, reason.what(), reason.code(), false, dropped});
  }
  void on_refused(const std::string&, const error& reason) override {
    add({"refused", {}, reason.what(), reason.code(), false, 0});
  }
  void on_drained(node_id node) override { add({"drained", node, "", {}, false, 0}); }
  void on_drained(connection&) override { add({"drained", {}, "", {}, false, 0}); }

  event wait(const std::string& kind, std::chrono::seconds limit = std::chrono::seconds(30)) {
    // The first event of the kind that was not taken before; kind "" when there is none within the limit.
    std::unique_lock lock(mutex_);
    for (;;) {
      for (auto at = events_.begin(); at != events_.end(); ++at)
        if (at->kind == kind) {
          event found = *at;
          events_.erase(at);
          return found;
        }
      if (changed_.wait_for(lock, limit) == std::cv_status::timeout) return {};
    }
  }

  std::size_t count(const std::string& kind) {
    std::lock_guard lock(mutex_);
    std::size_t n = 0;
    for (const event& each : events_) n += each.kind == kind;
    return n;
  }

  peers* owner = nullptr;
  node_id answer_joiners{};

private:
  void add(event what) {
    std::lock_guard lock(mutex_);
    events_.push_back(std::move(what));
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<event> events_;
};

struct node {
  explicit node(unsigned id, peer_options options = {})
      : links(started(loop), prepared(std::move(options)), events) {
    events.owner = &links;
    if (id != 0) links.set_own_id(node_id(static_cast<std::uint16_t>(id)), {7, 7});
    links.start();
  }
  ~node() {
    links.stop();
    loop.stop();
  }
  send_result say(unsigned to, const std::string& text, std::size_t attachment = 0) {
    capnp::MallocMessageBuilder message;
    message.initRoot<protocol::Message>().setTest(
        kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size()));
    std::string bytes(attachment, 'x');
    iovec part{bytes.data(), bytes.size()};
    return links.send(node_id(static_cast<std::uint16_t>(to)), message, {&part, 1});
  }

  static event_loop& started(event_loop& loop) {
    loop.start();
    return loop;
  }
  static peer_options prepared(peer_options options) {
    if (options.self.objects.empty()) options.self = identity::of_this_process({1, 2});
    return options;
  }

  event_loop loop;
  recorder events;
  peers links;
};

inline int raw_connect(const std::string& address) {
  auto parts = detail::split_address(address);
  auto where = detail::socket_address::numeric(parts.host, parts.port);
  int made = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::connect(made, where->get(), where->size) != 0) {
    ::close(made);
    return -1;
  }
  return made;
}

inline bool closed_by_peer(int socket) {
  // Blocks until the peer closes or resets.
  char bytes[4096];
  for (;;) {
    ssize_t n = ::recv(socket, bytes, sizeof bytes, 0);
    if (n <= 0) return n == 0 || errno == ECONNRESET;
  }
}

} // namespace rpc_test
