// What belongs to one machine: devices and sockets.
#include <migrate/file.hpp>

#include "file_fixture.hpp"

#include <algorithm>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <migrate/mailbox.hpp>
#include <migrate/posix/poll.hpp>
#include <migrate/posix/socket.hpp>

namespace {

text refusal() {
  // Why the running task cannot leave its node; nothing: it has left.
  node_id here = this_task::node();
  try {
    this_task::migrate_to(here == nodes().back() ? nodes().front() : nodes().back());
    return "";
  } catch (const error& refused) {
    if (refused.code() != errc::not_movable) return "another error: " + text(refused.what());
    return this_task::node() == here ? refused.what() : "it has moved";
  }
}

bool mentions(const text& whole, const text& part) { return whole.find(part) != text::npos; }

sockaddr* generic(sockaddr_in& at) { return reinterpret_cast<sockaddr*>(&at); }

} // namespace

TEST_CASE("a device that is open refuses the move by its path, and those that every machine has do not") {
  text wrong = migrate_test::run([]() -> text {
    int null = px::open("/dev/null", O_RDWR);
    EXPECT(null >= 0);
    be_moved();
    EXPECT(px::write(null, "x", 1) == 1);
    int device = px::open("/dev/ptmx", O_RDWR | O_NOCTTY);
    if (device < 0) return ""; // a container without terminals
    EXPECT(mentions(refusal(), "/dev/ptmx"));
    px::close(device);
    EXPECT(refusal() == "");
    return "";
  });
  CHECK(wrong == "");
}

TEST_CASE("a socket refuses the move by its address, waits without holding up others, and lets go when closed") {
  each_way([](const text&) -> text {
    int listening = px::socket(AF_INET, SOCK_STREAM, 0);
    EXPECT(listening >= 3);
    EXPECT(mentions(refusal(), "a socket"));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT(px::bind(listening, generic(at), sizeof at) == 0);
    EXPECT(mentions(refusal(), "the socket at 127.0.0.1:"));
    socklen_t size = sizeof at;
    EXPECT(px::getsockname(listening, generic(at), &size) == 0);
    EXPECT(px::listen(listening, 5) == 0);
    px::fcntl(listening, F_SETFD, FD_CLOEXEC);

    // From anywhere: another task's socket does not keep this one here, but its own does.
    auto caller = spawn([](sockaddr_in to) -> text {
      be_moved();
      int out = px::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      EXPECT(px::connect(out, generic(to), sizeof to) == 0);
      EXPECT(mentions(refusal(), "the socket to 127.0.0.1:" + std::to_string(ntohs(to.sin_port))));
      char got[8] = {};
      EXPECT(px::read(out, got, sizeof got) == 5 && text(got) == "hello");
      EXPECT(px::send(out, "you", 3, 0) == 3);
      EXPECT(px::close(out) == 0);
      EXPECT(refusal() == "");
      return "";
    }, at);
    int in = px::accept(listening, nullptr, nullptr); // the worker goes on with the caller meanwhile
    EXPECT(in >= 3);
    EXPECT(mentions(refusal(), "the socket"));
    EXPECT(px::write(in, "hello", 5) == 5);
    pollfd what{in, POLLIN, 0};
    EXPECT(px::poll(&what, 1, 30'000) == 1 && (what.revents & POLLIN) != 0);
    char got[8] = {};
    EXPECT(px::recv(in, got, sizeof got, 0) == 3 && text(got) == "you");
    EXPECT(px::recv(in, got, sizeof got, 0) == 0);
    text wrong = caller.join();
    EXPECT(wrong == "");
    px::close(in);
    px::close(listening);
    EXPECT(refusal() == "");
    int nobody = px::socket(AF_INET, SOCK_STREAM, 0);
    EXPECT(px::connect(nobody, generic(at), sizeof at) == -1 && errno == ECONNREFUSED);
    px::close(nobody);
    return "";
  });
}
