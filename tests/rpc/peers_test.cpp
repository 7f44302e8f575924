#include <migrate/rpc/peers.hpp>

#include "support.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <memory>
#include <thread>

#include <signal.h>
#include <sys/wait.h>

using namespace rpc_test;

TEST_CASE("two nodes connect on the first message and talk both ways") {
  node a(1), b(2);
  a.links.set_address(node_id(2), b.links.address());
  REQUIRE(a.say(2, "first", 5) != send_result::closed);
  auto heard = b.events.wait("message");
  CHECK(heard.text == "first");
  CHECK(heard.node == node_id(1));
  CHECK(heard.bytes == 5);
  CHECK(b.events.wait("connected").node == node_id(1));
  auto known = a.events.wait("connected");
  CHECK(known.node == node_id(2));
  CHECK(known.text == b.links.address());
  CHECK(a.links.connected(node_id(2)));
  // b never heard a's address but from its hello.
  CHECK(b.links.address_of(node_id(1)) == a.links.address());
  REQUIRE(b.say(1, "second") != send_result::closed);
  CHECK(a.events.wait("message").text == "second");
  CHECK(a.links.incarnation_of(node_id(2)) == b.links.incarnation());
}

TEST_CASE("messages of a thread arrive in order and whole, while many threads send to a node that is being "
          "connected") {
  node a(1), b(2);
  a.links.set_address(node_id(2), b.links.address());
  constexpr int threads = 4, messages = 300;
  std::vector<std::thread> senders;
  for (int t = 0; t < threads; ++t)
    senders.emplace_back([&, t] {
      for (int i = 0; i < messages; ++i)
        a.say(2, std::to_string(t) + ":" + std::to_string(i),
              i % 50 == 0 ? 300'000 : static_cast<std::size_t>(i));
    });
  std::vector<int> next(threads, 0);
  for (int n = 0; n < threads * messages; ++n) {
    auto heard = b.events.wait("message");
    REQUIRE(heard.kind == "message");
    int t = heard.text[0] - '0', i = std::stoi(heard.text.substr(2));
    REQUIRE(i == next[static_cast<std::size_t>(t)]++);
    REQUIRE(heard.bytes == (i % 50 == 0 ? 300'000u : static_cast<std::size_t>(i)));
  }
  for (auto& sender : senders) sender.join();
}

TEST_CASE("both sides may connect at once") {
  for (int round = 0; round < 20; ++round) {
    node a(1), b(2);
    a.links.set_address(node_id(2), b.links.address());
    b.links.set_address(node_id(1), a.links.address());
    std::thread other([&] {
      for (int i = 0; i < 10; ++i) b.say(1, "b" + std::to_string(i));
    });
    for (int i = 0; i < 10; ++i) a.say(2, "a" + std::to_string(i));
    other.join();
    for (int i = 0; i < 10; ++i) {
      REQUIRE(a.events.wait("message").text == "b" + std::to_string(i));
      REQUIRE(b.events.wait("message").text == "a" + std::to_string(i));
    }
    REQUIRE(a.events.wait("connected").kind == "connected");
    REQUIRE(a.events.count("connected") == 0);
    REQUIRE(a.events.count("disconnected") == 0);
    REQUIRE(b.events.count("disconnected") == 0);
  }
}

TEST_CASE("a node joins by address and is given its number over the connection") {
  node first(1);
  first.events.answer_joiners = node_id(9);
  node joiner(0);
  joiner.links.connect(first.links.address());
  CHECK(joiner.events.wait("connected").node == node_id(1));
  joiner.say(1, "let me in");
  CHECK(first.events.wait("connected").node == node_id(9));
  CHECK(first.events.wait("message").text == "let me in");
  first.say(9, "welcome");
  CHECK(joiner.events.wait("message").text == "welcome");
}

TEST_CASE("a node that differs is refused by name on both sides") {
  node a(1);
  peer_options options;
  options.self = identity::of_this_process({1, 3});
  node b(2, options);
  b.links.set_address(node_id(1), a.links.address());
  b.say(1, "hello");
  auto told = b.events.wait("unreachable");
  CHECK(told.code == errc::not_compatible);
  CHECK(told.text.find("the store differs") != std::string::npos);
  CHECK(a.events.wait("refused").text.find("the store differs") != std::string::npos);
  CHECK(a.events.count("connected") == 0);
  CHECK(b.events.count("connected") == 0);

  a.links.connect(a.links.address());
  CHECK(a.events.wait("unreachable").text.find("called itself") != std::string::npos);
}

TEST_CASE("an address where another node answers") {
  node a(1), b(2);
  a.links.set_address(node_id(3), b.links.address());
  a.say(3, "hello");
  auto told = a.events.wait("unreachable");
  CHECK(told.node == node_id(3));
  CHECK(told.code == errc::no_such_node);
}

TEST_CASE("no node listens to the world without credentials") {
  event_loop loop;
  loop.start();
  recorder events;
  peer_options options;
  options.listen = "0.0.0.0:0";
  options.self = identity::of_this_process({1, 2});
  {
    peers links(loop, options, events);
    CHECK_THROWS_WITH(links.start(), Catch::Contains("without credentials"));
    links.connect("192.0.2.1:1");
    CHECK(events.wait("unreachable").code == errc::not_authenticated);
  }
  loop.stop();
}

TEST_CASE("who connects and talks nonsense or nothing is sent away, and others are not disturbed") {
  peer_options options;
  options.handshake = std::chrono::milliseconds(300);
  node a(1, options), b(2);
  b.links.set_address(node_id(1), a.links.address());
  b.say(1, "before");
  REQUIRE(a.events.wait("message").text == "before");
  int raw = raw_connect(a.links.address());
  REQUIRE(raw >= 0);

  SECTION("nothing") {
    CHECK(closed_by_peer(raw));
    CHECK(a.events.wait("refused").code == errc::timed_out);
  }
  SECTION("another protocol") {
    std::string text = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    REQUIRE(::send(raw, text.data(), text.size(), MSG_NOSIGNAL) > 0);
    CHECK(closed_by_peer(raw));
    CHECK(a.events.wait("refused").code == errc::protocol);
  }
  SECTION("a message before the hello") {
    capnp::MallocMessageBuilder message;
    message.initRoot<protocol::Message>().initTest(8);
    std::vector<std::byte> frame;
    connection::encode(frame, message, {}, {});
    REQUIRE(::send(raw, frame.data(), frame.size(), MSG_NOSIGNAL) > 0);
    CHECK(closed_by_peer(raw));
    CHECK(a.events.wait("refused").text.find("out of turn") != std::string::npos);
  }
  SECTION("a wrong hello and then a right one") {
    std::vector<std::byte> frames;
    for (std::uint64_t store : {3u, 2u}) {
      capnp::MallocMessageBuilder message;
      auto hello = message.initRoot<protocol::Message>().initHello();
      hello.setNode(5);
      hello.setIncarnation(4711);
      identity::of_this_process({1, store}).write(hello.initIdentity());
      connection::encode(frames, message, {}, {});
    }
    REQUIRE(::send(raw, frames.data(), frames.size(), MSG_NOSIGNAL) > 0);
    ::shutdown(raw, SHUT_WR);
    CHECK(closed_by_peer(raw));
    CHECK(a.events.wait("refused").code == errc::not_compatible);
    CHECK_FALSE(a.links.connected(node_id(5)));
  }
  SECTION("half a hello") {
    detail::frame_header header{detail::frame_magic, 1, 0, 100, 0, 0};
    REQUIRE(::send(raw, &header, sizeof header, MSG_NOSIGNAL) > 0);
    ::shutdown(raw, SHUT_WR);
    CHECK(closed_by_peer(raw));
    CHECK(a.events.wait("refused").text.find("part of a message") != std::string::npos);
  }
  SECTION("an enormous length") {
    detail::frame_header header{detail::frame_magic, 1, 0, 1, 0, ~std::uint64_t{0}};
    REQUIRE(::send(raw, &header, sizeof header, MSG_NOSIGNAL) > 0);
    CHECK(closed_by_peer(raw));
    CHECK(a.events.wait("refused").text.find("18446744073709551615") != std::string::npos);
  }
  ::close(raw);
  b.say(1, "after");
  CHECK(a.events.wait("message").text == "after");
  CHECK(a.events.count("disconnected") == 0);
}

TEST_CASE("another user of the host is not talked to") {
  if (::geteuid() != 0) {
    WARN("skipped: needs root to become another user");
    return;
  }
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  pid_t stranger = ::fork();
  if (stranger == 0) {
    // Listens, tells where, then calls where it is told and says a right hello.
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(1);
    int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    if (::listen(listener, 5) != 0) ::_exit(1);
    auto port = detail::socket_address::local_of(listener).port();
    if (::write(pair[1], &port, sizeof port) < 0) ::_exit(1);
    char where[64] = {};
    if (::read(pair[1], where, sizeof where - 1) <= 0) ::_exit(1);
    closed_by_peer(raw_connect(where));
    ::pause();
  }
  std::uint16_t port = 0;
  REQUIRE(::read(pair[0], &port, sizeof port) == sizeof port);
  {
    // This process is root, and root would talk to its own kind only.
    peer_options options;
    options.reconnect = std::chrono::milliseconds(100);
    node a(1, options);
    std::string own = a.links.address();
    REQUIRE(::write(pair[0], own.data(), own.size()) > 0);
    auto refused = a.events.wait("refused");
    CHECK(refused.code == errc::not_authenticated);
    CHECK(refused.text.find("another user") != std::string::npos);
    a.links.set_address(node_id(2), "127.0.0.1:" + std::to_string(port));
    a.say(2, "hello");
    auto told = a.events.wait("unreachable");
    CHECK(told.code == errc::not_authenticated);
  }
  ::kill(stranger, SIGKILL);
  ::waitpid(stranger, nullptr, 0);
  ::close(pair[0]);
  ::close(pair[1]);
}

TEST_CASE("nobody listens at an address") {
  node a(1);
  std::string dead;
  {
    node b(2);
    dead = b.links.address();
  }
  a.links.set_address(node_id(2), dead);
  a.say(2, "one");
  auto told = a.events.wait("unreachable");
  CHECK(told.node == node_id(2));
  CHECK(told.bytes >= 1);
  CHECK(told.code == errc::node_unreachable);
  CHECK(told.text.find("refused") != std::string::npos);
  a.say(77, "no address");
  CHECK(a.events.wait("unreachable").code == errc::no_such_node);
  a.links.connect("no colon");
  CHECK(a.events.wait("unreachable").text.find("not an address") != std::string::npos);
  CHECK_THROWS_AS(a.say(1, "to myself"), error);
  CHECK_THROWS_AS(a.say(0, "to none"), error);
}

TEST_CASE("a node that stops is gone at once for its peers, and what it sent before arrives") {
  node a(1);
  auto b = std::make_unique<node>(2);
  b->links.set_address(node_id(1), a.links.address());
  for (int i = 0; i < 100; ++i) b->say(1, std::to_string(i), 50'000);
  REQUIRE(b->events.wait("connected").kind == "connected");
  b.reset();
  for (int i = 0; i < 100; ++i) REQUIRE(a.events.wait("message").text == std::to_string(i));
  auto lost = a.events.wait("disconnected");
  CHECK(lost.node == node_id(2));
  CHECK(lost.gone);
  CHECK(lost.code == errc::ok);
}

TEST_CASE("stopping with messages that wait for a connection ends them") {
  auto a = std::make_unique<node>(1);
  int silent = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::bind(silent, reinterpret_cast<sockaddr*>(&where), sizeof where) == 0);
  REQUIRE(::listen(silent, 1) == 0);
  a->links.set_address(node_id(2), detail::socket_address::local_of(silent).text());
  for (int i = 0; i < 10; ++i) a->say(2, "x");
  a->links.stop();
  auto told = a->events.wait("unreachable");
  CHECK(told.code == errc::shutting_down);
  CHECK(told.bytes == 10);
  CHECK(a->say(2, "late") == send_result::closed);
  ::close(silent);
}

TEST_CASE("a connection that breaks is told, and made again with the same process") {
  node a(1), b(2);
  a.links.set_address(node_id(2), b.links.address());
  a.say(2, "one");
  REQUIRE(b.events.wait("message").text == "one");
  REQUIRE(a.events.wait("connected").kind == "connected");
  a.loop.run([&] { a.links.disconnect(node_id(2), error(errc::node_unreachable, "cut")); });
  auto lost = a.events.wait("disconnected");
  CHECK(lost.node == node_id(2));
  CHECK(lost.broken);
  CHECK(lost.text == "cut");
  CHECK(a.events.wait("connected").node == node_id(2));
  a.say(2, "two");
  CHECK(b.events.wait("message").text == "two");
  CHECK(b.events.wait("disconnected").broken);
}

namespace {

class child {
  // A node in a process of its own. Made before this process has threads; starts when it is told the address of node 1.

public:
  explicit child(unsigned id) {
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair_) == 0);
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ != 0) {
      ::close(pair_[1]);
      return;
    }
    ::close(pair_[0]);
    char where[64] = {};
    if (::read(pair_[1], where, sizeof where) <= 0) ::_exit(1);
    peer_options options;
    options.listen = std::string(where).substr(where[0] == '@' ? 1 : std::string(where).size());
    if (options.listen.empty()) options.listen = "127.0.0.1:0";
    node self(id, options);
    std::string own = self.links.address();
    if (::write(pair_[1], own.data(), own.size()) < 0) ::_exit(1);
    char end;
    while (::read(pair_[1], &end, 1) > 0) {
    }
    ::_exit(0); // the test program has ended
  }
  ~child() { kill(); }

  std::string start(const std::string& listen = "") {
    std::string order = "@" + listen;
    REQUIRE(::write(pair_[0], order.data(), order.size()) > 0);
    char own[64] = {};
    REQUIRE(::read(pair_[0], own, sizeof own - 1) > 0);
    return own;
  }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    ::close(pair_[0]);
    pid_ = 0;
  }
  void suspend() { ::kill(pid_, SIGSTOP); }

private:
  pid_t pid_ = 0;
  int pair_[2] = {-1, -1};
};

} // namespace

TEST_CASE("a killed process is reported gone, and its successor is not taken for it") {
  child first(2), second(2);
  node a(1);
  std::string address = first.start();
  a.links.set_address(node_id(2), address);
  a.say(2, "hello");
  REQUIRE(a.events.wait("connected").node == node_id(2));
  auto incarnation = a.links.incarnation_of(node_id(2));
  first.kill();
  auto lost = a.events.wait("disconnected");
  CHECK(lost.node == node_id(2));
  CHECK(lost.gone);
  a.say(2, "to the dead");
  CHECK(a.events.wait("unreachable").text.find("refused") != std::string::npos);

  REQUIRE(second.start(address) == address);
  a.say(2, "to the next");
  REQUIRE(a.events.wait("connected").node == node_id(2));
  CHECK(a.links.incarnation_of(node_id(2)) != incarnation);
}

TEST_CASE("a process that was replaced while the connection was lost is reported gone") {
  child first(2), second(2), other(3);
  node a(1);
  std::string address = first.start();
  a.links.set_address(node_id(2), address);
  a.say(2, "hello");
  REQUIRE(a.events.wait("connected").node == node_id(2));

  SECTION("by one of the same number") {
    a.loop.run([&] {
      // While the I/O thread is held up, one process ends and another takes its port.
      first.kill();
      second.start(address);
    });
    auto lost = a.events.wait("disconnected");
    CHECK(lost.gone);
    CHECK(a.events.wait("connected").node == node_id(2));
  }
  SECTION("by one of another number") {
    a.loop.run([&] {
      first.kill();
      other.start(address);
    });
    auto lost = a.events.wait("disconnected");
    CHECK(lost.node == node_id(2));
    CHECK(lost.gone);
  }
}

TEST_CASE("a process that stands still is unreachable, not gone") {
  child still(2);
  peer_options options;
  options.limits.silence = std::chrono::milliseconds(400);
  options.handshake = options.reconnect = std::chrono::milliseconds(400);
  node a(1, options);
  a.links.set_address(node_id(2), still.start());
  a.say(2, "hello");
  REQUIRE(a.events.wait("connected").node == node_id(2));
  still.suspend();
  auto lost = a.events.wait("disconnected");
  CHECK(lost.node == node_id(2));
  CHECK_FALSE(lost.gone);
  CHECK_FALSE(lost.broken);
  CHECK(lost.text.find("silent") != std::string::npos);
}
