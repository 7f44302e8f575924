#include <migrate/rpc/channel.hpp>

#include "../support/folder.hpp"
#include "support.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <thread>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

using namespace rpc_test;
using namespace std::chrono_literals;

// The build passes the script's path.
#ifndef MIGRATE_CREDENTIALS_SCRIPT
#define MIGRATE_CREDENTIALS_SCRIPT "examples/credentials/migrate-credentials"
#endif

namespace {

struct told {
  std::string kind;
  std::string text;
  std::error_code code;
  std::shared_ptr<channel> from;
};

class listener : public channel_handler {
public:
  void on_hello(channel& from) override {
    if (from.peer().name == refused_name) throw error(errc::move_refused, "no " + refused_name + " here");
  }
  void on_open(channel& from) override { add("open", from.peer().name, {}, from); }
  void on_message(channel& from, protocol::HostMessage::Reader message,
                  kj::ArrayPtr<const kj::byte> attachment) override {
    auto said = message.getTest().asChars();
    std::string text(said.begin(), said.size());
    add("message", text + (attachment.size() > 0 ? "+" + std::to_string(attachment.size()) : ""), {}, from);
    if (text == "throw") throw error(errc::store_full, "no room for that");
    if (text == "system")
      throw error(std::make_error_code(std::errc::no_space_on_device), "the disk is full");
    if (text == "die") ::_exit(0);
    if (message.getCall() != 0 && text != "silence")
      from.answer(message.getCall(), [&](protocol::HostMessage::Builder out) {
        out.setTest(kj::StringPtr((text + "!").c_str()).asBytes());
      });
  }
  void on_closed(channel& from, const error& reason) override {
    add("closed", reason.what(), reason.code(), from);
  }
  void on_refused(const std::string&, const error& reason) override {
    add("refused", reason.what(), reason.code());
  }
  void on_unreachable(const error& reason) override { add("unreachable", reason.what(), reason.code()); }

  told wait(const std::string& kind, std::chrono::seconds limit = 30s) {
    // The first of the kind that was not taken before.
    std::unique_lock lock(mutex_);
    auto deadline = std::chrono::steady_clock::now() + limit;
    for (;;) {
      for (auto at = all_.begin(); at != all_.end(); ++at)
        if (at->kind == kind) {
          told found = *at;
          all_.erase(at);
          return found;
        }
      if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) return {};
    }
  }
  std::size_t count(const std::string& kind) {
    std::lock_guard lock(mutex_);
    std::size_t n = 0;
    for (const told& each : all_) n += each.kind == kind;
    return n;
  }
  std::string refused_name = "nobody like that";

private:
  void add(std::string kind, std::string text, std::error_code code) {
    add({std::move(kind), std::move(text), code, {}});
  }
  void add(std::string kind, std::string text, std::error_code code, channel& from) {
    add({std::move(kind), std::move(text), code, from.shared_from_this()});
  }
  void add(told what) {
    std::lock_guard lock(mutex_);
    all_.push_back(std::move(what));
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<told> all_;
};

channel_options named(const std::string& name, protocol::HostRole role = protocol::HostRole::AGENT) {
  channel_options options;
  options.self = channel_party::of_this_process(role, name);
  options.handshake = 2s;
  return options;
}

struct started_loop : event_loop {
  started_loop() { start(); }
  ~started_loop() { stop(); }
};

struct server : started_loop {
  explicit server(channel_options options = named("database"),
                  std::vector<std::string> where = {"127.0.0.1:0"})
      : channels(*this, std::move(options), heard) {
    channels.start(std::move(where));
  }
  ~server() { channels.stop(); }
  std::string address(std::size_t which = 0) const { return channels.addresses()[which]; }

  listener heard;
  channel_server channels;
};

struct client : started_loop {
  client(const std::string& address, channel_options options = named("agent"))
      : channels(*this, address, std::move(options), heard) {
    channels.start();
  }
  ~client() { channels.stop(); }
  std::string ask(const std::string& text, std::chrono::milliseconds limit = 10s) {
    return channels.wait_open(10s)->call(saying(text), answered, limit);
  }
  static std::string answered(protocol::HostMessage::Reader answer) {
    auto bytes = answer.getTest().asChars();
    return std::string(bytes.begin(), bytes.size());
  }
  static std::function<void(protocol::HostMessage::Builder)> saying(const std::string& text) {
    return [text](protocol::HostMessage::Builder out) { out.setTest(kj::StringPtr(text.c_str()).asBytes()); };
  }

  listener heard;
  channel_client channels;
};

struct certificates : migrate_test::folder {
  certificates() {
    for (const char* arguments :
         {"authority ours", "authority others", "node ours one", "node ours two", "node others one",
          "node ours guest --cluster some-other-service", "node ours old --days -1"}) {
      std::string words = arguments;
      std::size_t space = words.find(' ');
      REQUIRE(std::system(("sh '" MIGRATE_CREDENTIALS_SCRIPT "' " + words.substr(0, space + 1) +
                           path.string() + "/" + words.substr(space + 1) + " >/dev/null")
                              .c_str()) == 0);
    }
  }
  credentials of(const std::string& cluster, const std::string& name, const std::string& authority) const {
    credentials files;
    files.certificate = (path / cluster / (name + ".crt")).string();
    files.key = (path / cluster / (name + ".key")).string();
    files.authority = (path / authority / "authority.crt").string();
    return files;
  }
};

const certificates& files() {
  static certificates made;
  return made;
}

channel_options secured(const std::string& name, const credentials& with) {
  auto options = named(name);
  options.security = with;
  return options;
}

void send_frame(int socket, const std::function<void(protocol::Message::Builder)>& fill,
                std::size_t cut = 0) {
  capnp::MallocMessageBuilder message;
  fill(message.initRoot<protocol::Message>());
  std::vector<std::byte> frame;
  connection::encode(frame, message, {}, {});
  frame.resize(frame.size() - cut);
  REQUIRE(::send(socket, frame.data(), frame.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(frame.size()));
}

void say_hello(int socket, std::uint32_t version = channel_version, uid_t user = ::geteuid()) {
  send_frame(socket, [&](protocol::Message::Builder out) {
    auto hello = out.initHost().initAs<protocol::HostMessage>().initHello();
    hello.setVersion(version);
    hello.setName("by hand");
    hello.setUser(user);
  });
}

errc code_of(const std::function<void()>& function) {
  try {
    function();
  } catch (const error& problem) {
    CAPTURE(problem.what());
    CHECK(std::string(problem.what()).size() > 10);
    return static_cast<errc>(problem.code().value());
  }
  return errc::ok;
}

} // namespace

TEST_CASE("two programs say who they are, and each sends, asks and answers") {
  migrate_test::folder folder;
  server s(named("the database", protocol::HostRole::DATABASE),
           {"127.0.0.1:0", "unix:" + (folder.path / "own" / "s.sock").string()});
  for (std::size_t which : {0u, 1u}) {
    client c(s.address(which), named("the agent"));
    auto up = c.channels.wait_open();
    CHECK(up->peer().name == "the database");
    CHECK(up->peer().role == protocol::HostRole::DATABASE);
    CHECK(up->peer().user == ::geteuid());
    CHECK(up->peer().process == ::getpid());
    CHECK(up->peer().host == channel_party::of_this_process(protocol::HostRole::AGENT, "").host);
    CHECK(up->peer_user().value() == ::geteuid());
    auto down = s.heard.wait("open").from;
    CHECK(down->peer().name == "the agent");
    CHECK(down->peer().role == protocol::HostRole::AGENT);
    CHECK(down->peer_user().value() == ::geteuid());

    CHECK(up->send(client::saying("one way")));
    CHECK(s.heard.wait("message").text == "one way");
    std::string pages(10'000, 'x');
    iovec part{pages.data(), pages.size()};
    CHECK(down->send(client::saying("back"), {&part, 1}));
    CHECK(c.heard.wait("message").text == "back+10000");
    CHECK(c.ask("a question") == "a question!");
    CHECK(down->call(client::saying("another"), client::answered) == "another!");
    for (int i = 0; i < 100; ++i) up->send(client::saying(std::to_string(i)));
    s.heard.wait("message");
    for (int i = 0; i < 100; ++i) REQUIRE(s.heard.wait("message").text == std::to_string(i));
  }
  CHECK(s.heard.wait("closed").code == errc::ok);
}

TEST_CASE("a request is answered with what its handler throws") {
  server s;
  client c(s.address());
  try {
    c.ask("throw");
    FAIL("no failure");
  } catch (const error& problem) {
    CHECK(problem.code() == errc::store_full);
    CHECK(problem.what() == std::string("no room for that"));
  }
  try {
    c.ask("system");
    FAIL("no failure");
  } catch (const error& problem) {
    CHECK(problem.code() == std::errc::no_space_on_device);
  }
  CHECK(c.ask("still there") == "still there!");
  // No answer would say that a one-way message has failed.
  c.channels.current()->send(client::saying("throw"));
  CHECK(s.heard.wait("closed").code == errc::store_full);
}

TEST_CASE("every request ends: by its answer, its limit, or the loss of the channel") {
  server s;
  client c(s.address());
  CHECK(code_of([&] { c.ask("silence", 50ms); }) == errc::timed_out);
  auto up = c.channels.wait_open();
  std::vector<std::thread> askers;
  std::atomic<int> lost{0};
  for (int i = 0; i < 4; ++i)
    askers.emplace_back([&] {
      try {
        up->call(client::saying("silence"), client::answered, 60s);
      } catch (const error& problem) {
        lost += problem.code() == errc::node_unreachable;
      }
    });
  for (int i = 0; i < 5; ++i) s.heard.wait("message");
  s.heard.wait("open").from->close();
  for (auto& each : askers) each.join();
  CHECK(lost == 4);
  CHECK_FALSE(up->open());
  CHECK(code_of([&] { up->call(client::saying("late"), client::answered); }) == errc::node_unreachable);
  CHECK_FALSE(up->send(client::saying("late")));
  CHECK(code_of([&] { c.channels.wait_open(); }) != errc::ok);
}

TEST_CASE("a request of the I/O thread ends after the call that made it has returned") {
  server s;
  client c(s.address());
  auto up = c.channels.wait_open();
  std::atomic<int> ended{0};
  std::promise<void> both;
  c.run([&] {
    for (bool closed : {false, true}) {
      if (closed) up->close();
      up->request(client::saying("x"), [&](const channel_answer& got) {
        CHECK(got.failure != nullptr);
        if (++ended == 2) both.set_value();
      });
      CHECK(ended == (closed ? 1 : 0));
    }
  });
  REQUIRE(both.get_future().wait_for(30s) == std::future_status::ready);
}

TEST_CASE("a peer that is killed in the midst of a request") {
  migrate_test::folder folder;
  std::string address = "unix:" + (folder.path / "own" / "s.sock").string();
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  pid_t dying = ::fork();
  if (dying == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    server s(named("database"), {address});
    if (::write(ready[1], "r", 1) < 0) ::_exit(1);
    for (;;) ::pause();
  }
  char byte;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  ::close(ready[0]);
  ::close(ready[1]);
  {
    auto options = named("agent");
    options.reconnect = true;
    client c(address, options);
    CHECK(code_of([&] { c.ask("die"); }) == errc::node_unreachable);
    ::waitpid(dying, nullptr, 0);
    CHECK(c.heard.wait("unreachable").text.find("refused") != std::string::npos);
    // What a killed program leaves in the directory is in nobody's way, and its clients come back by themselves.
    server next(named("the next"), {address});
    CHECK(c.channels.wait_open()->peer().name == "the next");
    CHECK(c.ask("hello again") == "hello again!");
  }
  CHECK(::access(address.substr(5).c_str(), F_OK) != 0);
}

TEST_CASE("a client that is to connect again does so with pauses that grow") {
  server s;
  std::string address = s.address();
  auto options = named("agent");
  options.reconnect = true;
  options.least_pause = 4ms;
  options.most_pause = 100ms;
  client c(address, options);
  c.channels.wait_open();
  s.channels.stop();
  CHECK(c.heard.wait("closed").code == errc::ok);
  auto before = std::chrono::steady_clock::now();
  for (int i = 0; i < 6; ++i) REQUIRE(c.heard.wait("unreachable").code == errc::node_unreachable);
  CHECK(std::chrono::steady_clock::now() - before >= 2ms + 4ms + 8ms + 16ms + 32ms);
  server next(named("next"), {address});
  CHECK(c.channels.wait_open()->peer().name == "next");
}

TEST_CASE("who calls nobody is told so") {
  client refused("127.0.0.1:1");
  CHECK(code_of([&] { refused.channels.wait_open(); }) == errc::node_unreachable);
  client absent("unix:/nowhere/at/all");
  CHECK(code_of([&] { absent.channels.wait_open(); }) == errc::node_unreachable);
  client abroad("192.0.2.1:7000");
  CHECK(code_of([&] { abroad.channels.wait_open(); }) == errc::not_authenticated);
  client no_address("nonsense");
  CHECK(code_of([&] { no_address.channels.wait_open(); }) == errc::node_unreachable);
  int silent = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(::listen(silent, 1) == 0);
  auto options = named("agent");
  options.handshake = 100ms;
  auto port = detail::socket_address::local_of(silent).port();
  client waiting("127.0.0.1:" + std::to_string(port), options);
  CHECK(code_of([&] { waiting.channels.wait_open(); }) == errc::timed_out);
  ::close(silent);
}

TEST_CASE("garbage, half a message and silence end the caller's connection and disturb nobody") {
  auto options = named("database");
  options.handshake = 300ms;
  server s(options);
  client c(s.address());
  REQUIRE(c.ask("before") == "before!");
  int raw = raw_connect(s.address());
  REQUIRE(raw >= 0);
  SECTION("silence") { CHECK(s.heard.wait("refused").code == errc::timed_out); }
  SECTION("another protocol") {
    std::string text = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    REQUIRE(::send(raw, text.data(), text.size(), MSG_NOSIGNAL) > 0);
    CHECK(s.heard.wait("refused").code == errc::protocol);
  }
  SECTION("an empty frame's worth of zeros in a message") {
    send_frame(raw, [](protocol::Message::Builder out) { out.initHost(); });
    CHECK(s.heard.wait("refused").code == errc::not_compatible); // version 0
  }
  SECTION("a node's hello") {
    send_frame(raw, [](protocol::Message::Builder out) { out.initHello(); });
    CHECK(s.heard.wait("refused").code == errc::protocol);
  }
  SECTION("a request before the hello") {
    send_frame(raw, [](protocol::Message::Builder out) {
      auto content = out.initHost().initAs<protocol::HostMessage>();
      content.setCall(1);
      content.setTest({});
    });
    CHECK(s.heard.wait("refused").text.find("out of turn") != std::string::npos);
  }
  SECTION("half a hello") {
    send_frame(
        raw,
        [](protocol::Message::Builder out) {
          out.initHost().initAs<protocol::HostMessage>().initHello().setName(std::string(100, 'x').c_str());
        },
        16);
    ::shutdown(raw, SHUT_WR);
    CHECK(s.heard.wait("refused").text.find("part of a message") != std::string::npos);
  }
  SECTION("another version") {
    say_hello(raw, channel_version + 1);
    CHECK(s.heard.wait("refused").code == errc::not_compatible);
  }
  SECTION("a lie about its user") {
    say_hello(raw, channel_version, ::geteuid() + 1);
    CHECK(s.heard.wait("refused").code == errc::not_authenticated);
  }
  SECTION("two hellos") {
    say_hello(raw);
    say_hello(raw);
    CHECK(s.heard.wait("closed").text.find("twice") != std::string::npos);
  }
  SECTION("half a request after the hello") {
    say_hello(raw);
    send_frame(
        raw,
        [](protocol::Message::Builder out) { out.initHost().initAs<protocol::HostMessage>().setCall(7); }, 8);
    ::shutdown(raw, SHUT_WR);
    CHECK(s.heard.wait("closed").code == errc::protocol);
    CHECK(s.heard.count("message") == 1);
  }
  SECTION("a text with a pointer out of the message") {
    say_hello(raw);
    capnp::MallocMessageBuilder message;
    message.initRoot<protocol::Message>().initHost().initAs<protocol::HostMessage>().initFailed().setText(
        "text");
    std::vector<std::byte> frame;
    connection::encode(frame, message, {}, {});
    for (std::size_t i = detail::frame_header_size + 16; i < frame.size(); ++i) frame[i] |= std::byte{0xf5};
    REQUIRE(::send(raw, frame.data(), frame.size(), MSG_NOSIGNAL) > 0);
    CHECK(s.heard.wait("closed").code == errc::protocol);
  }
  SECTION("answers to what was never asked") {
    say_hello(raw);
    for (std::uint64_t number : {0u, 1u, 77u})
      send_frame(raw, [&](protocol::Message::Builder out) {
        auto content = out.initHost().initAs<protocol::HostMessage>();
        content.setCall(number);
        content.setAnswer(true);
        content.setTest({});
      });
    ::shutdown(raw, SHUT_WR);
    CHECK(s.heard.wait("closed").code == errc::node_unreachable);
    CHECK(s.heard.count("message") == 1);
  }
  CHECK(closed_by_peer(raw));
  ::close(raw);
  CHECK(c.ask("after") == "after!");
}

TEST_CASE("a handler may refuse a peer when it has said who it is") {
  server s;
  s.heard.refused_name = "spy";
  client c(s.address(), named("spy"));
  CHECK(code_of([&] { c.channels.wait_open(); }) == errc::move_refused);
  CHECK(c.heard.wait("unreachable").text.find("no spy here") != std::string::npos);
  CHECK(s.heard.wait("refused").code == errc::move_refused);
  CHECK(s.heard.count("open") == 0);
}

TEST_CASE("beyond this machine, programs know each other by certificates only") {
  CHECK(code_of([] { server s(named("database"), {"0.0.0.0:0"}); }) == errc::not_authenticated);
  server s(secured("database", files().of("ours", "one", "ours")), {"0.0.0.0:0"});
  std::string address = "127.0.0.1:" + std::to_string(detail::split_address(s.address()).port);
  SECTION("the right one") {
    client c(address, secured("agent", files().of("ours", "two", "ours")));
    CHECK(c.ask("secret") == "secret!");
    CHECK_FALSE(c.channels.current()->peer_user());
    CHECK(s.heard.wait("open").text == "agent");
  }
  SECTION("none") {
    client c(address);
    CHECK(code_of([&] { c.channels.wait_open(); }) != errc::ok);
    CHECK(c.heard.wait("unreachable").text.find("credentials") != std::string::npos);
    CHECK(s.heard.wait("refused").code == errc::not_authenticated);
  }
  SECTION("one of another authority") {
    client c(address, secured("agent", files().of("others", "one", "others")));
    CHECK(code_of([&] { c.channels.wait_open(); }) == errc::not_authenticated);
    CHECK(s.heard.wait("refused").code == errc::not_authenticated);
  }
  SECTION("bad ones are noticed before anybody is called") {
    CHECK_THROWS_AS(client(address, secured("agent", files().of("others", "one", "ours"))), error);
    CHECK_THROWS_AS(client(address, secured("agent", files().of("ours", "old", "ours"))), error);
    CHECK_THROWS_AS(client(address, secured("agent", files().of("ours", "guest", "ours"))), error);
  }
  CHECK(s.heard.count("message") <= 1);
}

TEST_CASE("sockets lie where nobody else can put one") {
  migrate_test::folder folder;
  std::string directory = (folder.path / "own").string(), address = "unix:" + directory + "/s.sock";
  {
    server s(named("database"), {address});
    struct stat status {};
    REQUIRE(::stat(directory.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0700);
    CHECK(code_of([&] { server second(named("second"), {address}); }) == errc::node_unreachable);
    client c(address);
    CHECK(c.ask("mine") == "mine!");
  }
  REQUIRE(::chmod(directory.c_str(), 0755) == 0);
  CHECK(code_of([&] { server open(named("database"), {address}); }) == errc::not_authenticated);
  CHECK(code_of([&] {
          server lost(named("database"), {"unix:" + (folder.path / "no/such/s.sock").string()});
        }) != errc::ok);
  CHECK(code_of([&] { server lengthy(named("database"), {"unix:/tmp/" + std::string(200, 'x')}); }) ==
        errc::node_unreachable);
}

TEST_CASE("the sockets of a user's programs are found") {
  migrate_test::folder folder;
  ::setenv("XDG_RUNTIME_DIR", folder.path.c_str(), 1);
  CHECK(control_addresses().empty());
  {
    server s(named("database"), {control_address("database")});
    CHECK(control_addresses() == std::vector<std::string>{control_address("database")});
    CHECK(control_addresses("database").size() == 1);
    CHECK(control_addresses("node").empty());
    client c(control_addresses().at(0));
    CHECK(c.ask("found") == "found!");
  }
  CHECK(control_addresses().empty());
  ::unsetenv("XDG_RUNTIME_DIR");
}

TEST_CASE("another user of the host is not talked to") {
  if (::geteuid() != 0) {
    WARN("skipped: needs root to become another user");
    return;
  }
  migrate_test::folder folder;
  REQUIRE(::chmod(folder.path.c_str(), 0755) == 0);
  std::string theirs = "unix:" + (folder.path / "theirs" / "s.sock").string();
  REQUIRE(::mkdir((folder.path / "theirs").c_str(), 0700) == 0);
  REQUIRE(::chown((folder.path / "theirs").c_str(), 65534, 65534) == 0);
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  pid_t stranger = ::fork();
  if (stranger == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(1);
    server s(named("stranger"), {"127.0.0.1:0", theirs});
    std::string own = s.address();
    if (::write(pair[1], own.data(), own.size()) < 0) ::_exit(1);
    char where[64] = {};
    if (::read(pair[1], where, sizeof where - 1) <= 0) ::_exit(1);
    client c(where, named("stranger"));
    for (;;) ::pause();
  }
  char where[64] = {};
  REQUIRE(::read(pair[0], where, sizeof where - 1) > 0);
  {
    // This process is root, and root talks to its own kind only.
    server s;
    std::string own = s.address();
    REQUIRE(::write(pair[0], own.data(), own.size()) > 0);
    auto refused = s.heard.wait("refused");
    CHECK(refused.code == errc::not_authenticated);
    CHECK(refused.text.find("another user") != std::string::npos);
    for (const std::string& address : {std::string(where), theirs}) {
      client c(address);
      CHECK(code_of([&] { c.channels.wait_open(); }) == errc::not_authenticated);
    }
    CHECK(s.heard.count("open") == 0);
  }
  ::kill(stranger, SIGKILL);
  ::waitpid(stranger, nullptr, 0);
  ::close(pair[0]);
  ::close(pair[1]);
}
