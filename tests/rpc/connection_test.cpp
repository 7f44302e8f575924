#include <migrate/rpc/connection.hpp>

#include "support.hpp"

#include <catch2/catch.hpp>

#include <migrate/rpc/socket_stream.hpp>

#include <map>
#include <random>
#include <thread>

using namespace rpc_test;
using namespace std::chrono_literals;

namespace {

struct tcp_pair {
  tcp_pair() {
    int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(listener, reinterpret_cast<sockaddr*>(&where), sizeof where) == 0);
    REQUIRE(::listen(listener, 1) == 0);
    one = raw_connect(detail::socket_address::local_of(listener).text());
    two = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    ::close(listener);
    REQUIRE(one >= 0);
    REQUIRE(two >= 0);
  }
  int one = -1, two = -1;
};

struct end {
  // One end of a connection, with its own loop.
  end(int socket, bool stream, const connection_limits& limits = {}) {
    loop.start();
    loop.run([&] {
      conn = stream ? connection::adopt(loop, kj::heap<detail::socket_stream>(loop, socket), events,
                                        "the peer", limits)
                    : connection::adopt(loop, socket, events, "the peer", limits);
    });
  }
  ~end() {
    loop.run([&] { conn->close(); });
    loop.stop();
  }
  send_result say(const std::string& text, const std::string& attachment = {}) {
    capnp::MallocMessageBuilder message;
    message.initRoot<protocol::Message>().setTest(
        kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size()));
    std::string copy = attachment;
    iovec part{copy.data(), copy.size()};
    return conn->send(message, {&part, 1});
  }
  event_loop loop;
  recorder events;
  std::shared_ptr<connection> conn;
};

std::vector<std::byte> frame_of(const std::string& text) {
  capnp::MallocMessageBuilder message;
  message.initRoot<protocol::Message>().setTest(
      kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size()));
  std::vector<std::byte> frame;
  connection::encode(frame, message, {}, {});
  return frame;
}

} // namespace

TEST_CASE("messages of every size arrive whole") {
  bool stream = GENERATE(false, true);
  tcp_pair sockets;
  end a(sockets.one, stream), b(sockets.two, stream);
  std::vector<std::size_t> sizes;
  for (std::size_t size = 0; size < 40; ++size) sizes.push_back(size);
  for (std::size_t edge : {4096u, 65536u, 131072u, 1u << 20})
    for (std::size_t size = edge - 72; size <= edge + 16; size += 3) sizes.push_back(size);
  sizes.push_back((5u << 20) + 1);
  auto fill = [](std::size_t size, char first) {
    std::string bytes(size, 0);
    for (std::size_t i = 0; i < size; ++i)
      bytes[i] = static_cast<char>(first + static_cast<char>(i * 31 >> 3));
    return bytes;
  };
  struct checker : connection_handler {
    void on_message(connection&, protocol::Message::Reader message,
                    kj::ArrayPtr<const kj::byte> attachment) override {
      std::lock_guard lock(mutex);
      auto text = message.getTest();
      texts.emplace_back(reinterpret_cast<const char*>(text.begin()), text.size());
      attachments.emplace_back(reinterpret_cast<const char*>(attachment.begin()), attachment.size());
      aligned = aligned && reinterpret_cast<std::uintptr_t>(attachment.begin()) % 8 == 0;
      changed.notify_all();
    }
    void on_closed(connection&, const error&) override {}
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::string> texts, attachments;
    bool aligned = true;
  } seen;
  // A second pair with its own handler, so that content is kept.
  tcp_pair others;
  end sender(others.one, stream);
  event_loop loop;
  loop.start();
  std::shared_ptr<connection> receiver;
  loop.run([&] {
    receiver = stream ? connection::adopt(loop, kj::heap<detail::socket_stream>(loop, others.two), seen, "p")
                      : connection::adopt(loop, others.two, seen, "p");
  });
  for (std::size_t size : sizes) {
    sender.say(fill(size % 5000, 'a'), fill(size, 'A'));
    a.say(fill(size, 'b'));
  }
  {
    std::unique_lock lock(seen.mutex);
    REQUIRE(seen.changed.wait_for(lock, 60s, [&] { return seen.texts.size() == sizes.size(); }));
    CHECK(seen.aligned);
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      REQUIRE(seen.texts[i] == fill(sizes[i] % 5000, 'a'));
      REQUIRE(seen.attachments[i] == fill(sizes[i], 'A'));
    }
  }
  for (std::size_t size : sizes) REQUIRE(b.events.wait("message").text == fill(size, 'b'));
  loop.run([&] { receiver->close(); });
  loop.stop();
}

TEST_CASE("frames are found at whatever borders the bytes arrive") {
  unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  tcp_pair sockets;
  end b(sockets.two, false);
  int on = 1;
  ::setsockopt(sockets.one, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  std::vector<std::byte> bytes;
  for (int i = 0; i < 200; ++i) {
    auto frame = frame_of(std::string(random() % 90, static_cast<char>('a' + i % 26)) + std::to_string(i));
    bytes.insert(bytes.end(), frame.begin(), frame.end());
  }
  for (std::size_t at = 0; at < bytes.size();) {
    std::size_t n = std::min<std::size_t>(bytes.size() - at, 1 + random() % 60);
    REQUIRE(::send(sockets.one, bytes.data() + at, n, MSG_NOSIGNAL) == static_cast<ssize_t>(n));
    at += n;
  }
  for (int i = 0; i < 200; ++i) {
    std::string text = b.events.wait("message").text, number = std::to_string(i);
    REQUIRE(text.substr(text.size() - number.size()) == number);
  }
  ::close(sockets.one);
  CHECK(b.events.wait("closed").code == errc::node_unreachable);
}

TEST_CASE("many threads send at once and nothing is interleaved, when the socket is full too") {
  bool stream = GENERATE(false, true);
  tcp_pair sockets;
  int small = 128 * 1024;
  ::setsockopt(sockets.one, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  end a(sockets.one, stream), b(sockets.two, stream);
  constexpr int threads = 6, messages = 400;
  std::vector<std::thread> senders;
  for (int t = 0; t < threads; ++t)
    senders.emplace_back([&, t] {
      for (int i = 0; i < messages; ++i)
        a.say(std::to_string(t) + ":" + std::to_string(i),
              std::string(static_cast<std::size_t>(i * 37 % 9000), 'z'));
    });
  std::map<int, int> next;
  for (int n = 0; n < threads * messages; ++n) {
    auto heard = b.events.wait("message");
    REQUIRE(heard.kind == "message");
    int t = heard.text[0] - '0', i = std::stoi(heard.text.substr(2));
    REQUIRE(i == next[t]++);
    REQUIRE(heard.bytes == static_cast<std::size_t>(i * 37 % 9000));
  }
  for (auto& sender : senders) sender.join();
}

TEST_CASE("a peer that does not read: congestion shows, drains, and is bounded") {
  connection_limits limits;
  limits.congested_bytes = 1u << 20;
  limits.queued_bytes = 20u << 20;
  tcp_pair sockets;
  end a(sockets.one, false, limits);
  std::string part(256 * 1024, 'p');

  SECTION("it reads later") {
    while (!a.conn->congested()) REQUIRE(a.say("x", part) != send_result::closed);
    std::size_t sent = 0;
    std::thread reader([&] {
      char bytes[65536];
      ssize_t n;
      while ((n = ::recv(sockets.two, bytes, sizeof bytes, 0)) > 0) sent += static_cast<std::size_t>(n);
    });
    CHECK(a.events.wait("drained").kind == "drained");
    CHECK_FALSE(a.conn->congested());
    a.conn->close_after_flush();
    // The reader sees every byte, then the end; it closes, and so does the connection.
    ::shutdown(sockets.two, SHUT_WR);
    reader.join();
    CHECK(a.events.wait("closed").code == errc::cancelled);
    CHECK(sent > part.size());
  }
  SECTION("it never reads") {
    bool closed = false;
    for (int i = 0; i < 1000 && !closed; ++i) closed = a.say("x", part) == send_result::closed;
    CHECK(closed);
    auto end = a.events.wait("closed");
    CHECK(end.code == errc::node_unreachable);
    CHECK(end.text.find("does not read") != std::string::npos);
    CHECK(a.conn->queued_bytes() == 0);
  }
  ::close(sockets.two);
}

TEST_CASE("nonsense closes the connection with a reason, once") {
  connection_limits limits;
  limits.message_words = 1000;
  limits.attachment_bytes = 10'000;
  tcp_pair sockets;
  end a(sockets.one, false, limits);
  auto put = [&](const void* bytes, std::size_t size) {
    REQUIRE(::send(sockets.two, bytes, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size));
  };
  using detail::frame_header;
  std::string expected;

  SECTION("not a frame") {
    put("this is no frame at all......", 29);
    expected = "bytes that do not begin a message";
  }
  SECTION("an unknown kind") {
    frame_header header{detail::frame_magic, 9, 0, 0, 0, 0};
    put(&header, sizeof header);
    expected = "unknown kind 9";
  }
  SECTION("a message over the limit") {
    frame_header header{detail::frame_magic, 1, 0, 0xffff'ffff, 0, 0};
    put(&header, sizeof header);
    expected = "a message of 34359738360 bytes";
  }
  SECTION("an attachment over the limit") {
    frame_header header{detail::frame_magic, 1, 0, 2, 0, 10'001};
    put(&header, sizeof header);
    expected = "an attachment of 10001 bytes";
  }
  SECTION("an empty message") {
    frame_header header{detail::frame_magic, 1, 0, 0, 0, 0};
    put(&header, sizeof header);
    expected = "wrong length";
  }
  SECTION("a ping with a body") {
    frame_header header{detail::frame_magic, 2, 0, 3, 0, 0};
    put(&header, sizeof header);
    expected = "wrong length";
  }
  SECTION("a segment table that lies") {
    struct {
      frame_header header{detail::frame_magic, 1, 0, 4, 0, 0};
      std::uint32_t table[8] = {600, 5000, 1, 1, 1, 1, 1, 1};
    } bad;
    put(&bad, sizeof bad);
    expected = "malformed message";
  }
  SECTION("a pointer out of bounds, met by the handler") {
    auto frame = frame_of("text");
    std::uint64_t far_away = 0x0000'0800'7fff'ff01u;
    // header 3 words, table 1, root pointer 1, data 1, pointer 1
    std::size_t at = frame.size() - 16;
    std::memcpy(frame.data() + at, &far_away, 8);
    put(frame.data(), frame.size());
    expected = "malformed message";
  }
  SECTION("half a message") {
    auto frame = frame_of(std::string(500, 'x'));
    put(frame.data(), frame.size() / 2);
    ::shutdown(sockets.two, SHUT_WR);
    expected = "part of a message";
  }
  SECTION("half a header") {
    put("mgr1", 4);
    ::shutdown(sockets.two, SHUT_WR);
    expected = "part of a message";
  }
  auto reason = a.events.wait("closed");
  CHECK(reason.code == errc::protocol);
  CHECK(reason.text.find(expected) != std::string::npos);
  CHECK(reason.text.find("the peer") != std::string::npos);
  CHECK(closed_by_peer(sockets.two));
  CHECK(a.say("more") == send_result::closed);
  a.loop.run([&] { a.conn->close(); });
  CHECK(a.events.count("closed") == 0);
  ::close(sockets.two);
}

TEST_CASE("random bytes and damaged frames never do harm") {
  unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    tcp_pair sockets;
    end a(sockets.one, false);
    std::vector<std::byte> bytes = frame_of(std::string(random() % 200, 'q'));
    for (unsigned flips = 1 + random() % 4; flips > 0; --flips)
      bytes[24 + random() % (bytes.size() - 24)] ^= std::byte(1u << (random() % 8));
    REQUIRE(::send(sockets.two, bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0);
    ::shutdown(sockets.two, SHUT_WR);
    auto reason = a.events.wait("closed");
    REQUIRE((reason.code == errc::protocol || reason.code == errc::node_unreachable));
    ::close(sockets.two);
  }
}

TEST_CASE("a silent peer is found out by pings; one that answers them is kept") {
  connection_limits limits;
  limits.silence = 200ms;
  tcp_pair dead, alive;
  end a(dead.one, false, limits); // nobody answers at dead.two
  end b(alive.one, false, limits);
  end c(alive.two, false, {});
  auto reason = a.events.wait("closed");
  CHECK(reason.code == errc::node_unreachable);
  CHECK(reason.text.find("silent for 200 ms") != std::string::npos);
  CHECK(b.conn->open());
  c.say("still here");
  CHECK(b.events.wait("message").text == "still here");
  ::close(dead.two);
}

TEST_CASE(
    "a peer behind a link that is too slow for an answer in time is kept while bytes get through to it") {
  for (bool stream : {false, true}) {
    CAPTURE(stream);
    connection_limits limits;
    limits.silence = 400ms;
    tcp_pair sockets;
    int little = 16 * 1024; // of the message are on their way at a time
    ::setsockopt(sockets.one, SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
    ::setsockopt(sockets.two, SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
    end a(sockets.one, stream, limits);
    // The peer's system takes a little from time to time; the peer says nothing for four times the limit.
    const std::string large(4u << 20, 'l');
    REQUIRE(a.say("slow", large) != send_result::closed);
    std::thread reader([&] {
      std::vector<char> part(large.size() / 16);
      for (int i = 0; i < 16; ++i) {
        if (::recv(sockets.two, part.data(), part.size(), MSG_WAITALL) <= 0) return;
        std::this_thread::sleep_for(limits.silence / 4); // the link's rate
      }
    });
    reader.join();
    CHECK(a.conn->open());
    // Nothing gets through any more.
    auto reason = a.events.wait("closed");
    CHECK(reason.code == errc::node_unreachable);
    CHECK(reason.text.find("silent for 400 ms") != std::string::npos);
    ::close(sockets.two);
  }
}

TEST_CASE("half a message and then silence") {
  connection_limits limits;
  limits.silence = 200ms;
  tcp_pair sockets;
  end a(sockets.one, false, limits);
  auto frame = frame_of("half");
  REQUIRE(::send(sockets.two, frame.data(), 30, MSG_NOSIGNAL) == 30);
  CHECK(a.events.wait("closed").code == errc::protocol);
  ::close(sockets.two);
}

TEST_CASE("closing after a flush delivers everything, then says goodbye") {
  bool stream = GENERATE(false, true);
  tcp_pair sockets;
  end a(sockets.one, stream), b(sockets.two, stream);
  for (int i = 0; i < 50; ++i) a.say(std::to_string(i), std::string(100'000, 'f'));
  a.conn->close_after_flush(30s);
  CHECK(a.say("too late") == send_result::closed);
  for (int i = 0; i < 50; ++i) REQUIRE(b.events.wait("message").text == std::to_string(i));
  CHECK(b.events.wait("closed").code == errc::ok);
  CHECK(a.events.wait("closed").code == errc::cancelled);
}

TEST_CASE("a message over the limit is refused where it is sent") {
  connection_limits limits;
  limits.attachment_bytes = 1000;
  tcp_pair sockets;
  end a(sockets.one, false, limits), b(sockets.two, false);
  CHECK_THROWS_WITH(a.say("x", std::string(1001, 'x')), Catch::Contains("over the limits"));
  a.say("fits", std::string(1000, 'x'));
  CHECK(b.events.wait("message").bytes == 1000);
}

TEST_CASE("a message of many segments and an attachment of many pieces") {
  tcp_pair sockets;
  end a(sockets.one, false), b(sockets.two, false);
  capnp::MallocMessageBuilder message(1, capnp::AllocationStrategy::FIXED_SIZE);
  auto hello = message.initRoot<protocol::Message>().initHello();
  auto objects = hello.initIdentity().initObjects(100);
  for (auto object : objects) object.setName("a name that needs a segment of its own");
  REQUIRE(message.getSegmentsForOutput().size() > 40);
  std::vector<iovec> pieces(3000, iovec{const_cast<char*>("abc"), 3});
  CHECK(a.conn->send(message, pieces) != send_result::closed);
  a.say("next");
  CHECK(b.events.wait("message").text == "next");
  CHECK(b.conn->open());
}
