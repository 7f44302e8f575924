#include <migrate/rpc/credentials.hpp>

#include "support.hpp"

#include <catch2/catch.hpp>

#include <migrate/rpc/socket_stream.hpp>

#include <cstdlib>
#include <memory>

#include <sys/stat.h>

using namespace rpc_test;
using namespace std::chrono_literals;

// The build passes the script's path.
#ifndef MIGRATE_CREDENTIALS_SCRIPT
#define MIGRATE_CREDENTIALS_SCRIPT "examples/credentials/migrate-credentials"
#endif

namespace {

class folder {
public:
  folder() {
    char made[] = "/tmp/migrate-credentials-XXXXXX";
    REQUIRE(::mkdtemp(made) != nullptr);
    path_ = made;
    make("authority " + path_ + "/ours");
    make("authority " + path_ + "/others");
    make("node " + path_ + "/ours one");
    make("node " + path_ + "/ours two");
    make("node " + path_ + "/ours old --days -1");
    make("node " + path_ + "/ours guest --cluster some-other-service");
    make("node " + path_ + "/others one");
  }
  ~folder() { (void)!std::system(("rm -rf " + path_).c_str()); }

  void make(const std::string& arguments) {
    REQUIRE(std::system(("sh '" MIGRATE_CREDENTIALS_SCRIPT "' " + arguments + " >/dev/null").c_str()) == 0);
  }
  credentials of(const std::string& cluster, const std::string& name) const {
    credentials files;
    files.certificate = path_ + "/" + cluster + "/" + name + ".crt";
    files.key = path_ + "/" + cluster + "/" + name + ".key";
    files.authority = path_ + "/" + cluster + "/authority.crt";
    return files;
  }
  const std::string& path() const { return path_; }

private:
  std::string path_;
};

const folder& files() {
  static folder made;
  return made;
}

peer_options with(const credentials& security) {
  peer_options options;
  options.security = security;
  options.handshake = options.reconnect = 1000ms;
  return options;
}

} // namespace

TEST_CASE("two nodes of one cluster speak over mutual TLS, on an address of the world too") {
  auto options = with(files().of("ours", "one"));
  options.listen = "0.0.0.0:0";
  node a(1, options), b(2, with(files().of("ours", "two")));
  auto port = detail::split_address(a.links.address()).port;
  b.links.set_address(node_id(1), "127.0.0.1:" + std::to_string(port));
  for (int i = 0; i < 100; ++i) b.say(1, std::to_string(i), static_cast<std::size_t>(i) * 10'000);
  for (int i = 0; i < 100; ++i) {
    auto heard = a.events.wait("message");
    REQUIRE(heard.text == std::to_string(i));
    REQUIRE(heard.bytes == static_cast<std::size_t>(i) * 10'000);
  }
  a.say(2, "answer");
  CHECK(b.events.wait("message").text == "answer");
}

TEST_CASE("a node that is stopped under TLS says goodbye") {
  node a(1, with(files().of("ours", "one")));
  auto b = std::make_unique<node>(2, with(files().of("ours", "two")));
  b->links.set_address(node_id(1), a.links.address());
  for (int i = 0; i < 50; ++i) b->say(1, std::to_string(i), 100'000);
  REQUIRE(b->events.wait("connected").kind == "connected");
  b.reset();
  for (int i = 0; i < 50; ++i) REQUIRE(a.events.wait("message").text == std::to_string(i));
  auto lost = a.events.wait("disconnected");
  CHECK(lost.gone);
  CHECK(lost.code == errc::ok);
}

TEST_CASE("a node of another cluster, or without credentials, is refused and refuses") {
  node a(1, with(files().of("ours", "one")));
  std::unique_ptr<node> b;
  bool secure = true;
  SECTION("another authority") { b = std::make_unique<node>(2, with(files().of("others", "one"))); }
  SECTION("none: it speaks plainly") {
    peer_options plain;
    plain.handshake = plain.reconnect = 1000ms;
    b = std::make_unique<node>(2, plain);
    secure = false;
  }
  b->links.set_address(node_id(1), a.links.address());
  b->say(1, "let me in");
  CHECK(a.events.wait("refused").code == errc::not_authenticated);
  auto told = b->events.wait("unreachable");
  CAPTURE(told.text);
  CHECK(told.bytes == 1);
  if (secure)
    CHECK(told.code == errc::not_authenticated);
  else
    CHECK(told.text.find("credentials") != std::string::npos);
  a.links.set_address(node_id(2), b->links.address());
  a.say(2, "come in");
  CHECK(a.events.wait("unreachable").bytes == 1);
  CHECK(a.events.count("connected") == 0);
  CHECK(a.events.count("message") == 0);
  CHECK(b->events.count("connected") == 0);
  CHECK(b->events.count("message") == 0);
}

TEST_CASE("a caller without a right certificate gets no answer but a refusal") {
  // The caller's own side of TLS may well succeed, so what counts is that nothing it sends is heard.
  node a(1, with(files().of("ours", "one")));
  credentials security;
  bool accepted = false;
  SECTION("the right one, so that this test shows something") {
    security = files().of("ours", "two");
    accepted = true;
  }
  SECTION("one that has expired") { security = files().of("ours", "old"); }
  SECTION("one of another authority") {
    security = files().of("others", "one");
    security.authority = files().of("ours", "one").authority;
  }
  SECTION("one of our authority for another purpose") { security = files().of("ours", "guest"); }

  security.name = "migrate-node";
  event_loop loop;
  loop.start();
  recorder heard;
  std::unique_ptr<tls> client;
  std::shared_ptr<connection> conn;
  loop.run([&] {
    client = std::make_unique<tls>(security);
    loop.detach(client->wrap(kj::heap<detail::socket_stream>(loop, raw_connect(a.links.address())), true)
                    .then([&](tls::secured&& secured) {
                      conn = connection::adopt(loop, kj::mv(secured.stream), heard, "the node");
                      capnp::MallocMessageBuilder message;
                      auto hello = message.initRoot<protocol::Message>().initHello();
                      hello.setNode(2);
                      hello.setIncarnation(4711);
                      hello.setAddress("127.0.0.1:1");
                      identity::of_this_process({1, 2}).write(hello.initIdentity());
                      conn->send(message);
                    }));
  });
  if (accepted) {
    CHECK(a.events.wait("connected").node == node_id(2));
  } else {
    auto refused = a.events.wait("refused");
    CAPTURE(refused.text);
    CHECK(refused.code == errc::not_authenticated);
    CHECK(heard.wait("closed").kind == "closed");
    CHECK(a.events.count("connected") == 0);
  }
  loop.run([&] {
    if (conn) conn->close();
  });
  loop.run([&] { client.reset(); });
  loop.stop();
}

TEST_CASE("a node does not start with credentials that none would accept") {
  auto start = [](const credentials& security) { node made(1, with(security)); };
  CHECK_THROWS_WITH(start(files().of("ours", "old")), Catch::Contains("expired"));
  CHECK_THROWS_WITH(start(files().of("ours", "guest")), Catch::Contains("migrate-node"));
  auto mixed = files().of("others", "one");
  mixed.authority = files().of("ours", "one").authority;
  CHECK_THROWS_WITH(start(mixed), Catch::Contains("do not fit together"));
}

TEST_CASE("a TLS client that says nothing or nonsense is dropped") {
  auto options = with(files().of("ours", "one"));
  options.handshake = 300ms;
  node a(1, options);
  int raw = raw_connect(a.links.address());
  REQUIRE(raw >= 0);
  SECTION("nothing") {
    CHECK(closed_by_peer(raw));
    CHECK(a.events.wait("refused").code == errc::timed_out);
  }
  SECTION("nonsense") {
    REQUIRE(::send(raw, "plain text, no TLS at all\n", 26, MSG_NOSIGNAL) == 26);
    CHECK(closed_by_peer(raw));
    CHECK(a.events.wait("refused").code == errc::not_authenticated);
  }
  ::close(raw);
}

TEST_CASE("bad credentials are refused at the start, by name") {
  auto start = [](const credentials& security) { node made(1, with(security)); };
  auto good = files().of("ours", "one");
  auto bad = good;
  bad.certificate = files().path() + "/nowhere.crt";
  CHECK_THROWS_WITH(start(bad), Catch::Contains("nowhere.crt") && Catch::Contains("cannot be read"));
  bad = good;
  bad.key = files().of("ours", "two").key;
  CHECK_THROWS_WITH(start(bad), Catch::Contains("do not fit together"));
  bad = good;
  bad.authority = good.key;
  CHECK_THROWS_WITH(start(bad), Catch::Contains("cannot be used together"));
  bad = good;
  bad.key = files().path() + "/open.key";
  REQUIRE(std::system(("cp " + good.key + " " + bad.key + " && chmod 644 " + bad.key).c_str()) == 0);
  CHECK_THROWS_WITH(start(bad), Catch::Contains("chmod 600"));
}

TEST_CASE("the script keeps its secrets to the owner and overwrites nothing") {
  struct stat status {};
  for (const char* name : {"authority", "one"}) {
    REQUIRE(::stat((files().path() + "/ours/" + name + ".key").c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
  }
  REQUIRE(::stat((files().path() + "/ours").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0700);
  CHECK(std::system(("sh '" MIGRATE_CREDENTIALS_SCRIPT "' node " + files().path() + "/ours one 2>/dev/null")
                        .c_str()) != 0);
  CHECK(std::system(("sh '" MIGRATE_CREDENTIALS_SCRIPT "' node " + files().path() + "/empty one 2>/dev/null")
                        .c_str()) != 0);
}
