// Moves and messages between nodes, against a Cap'n Proto call and against copying through a file.
#include <migrate/mailbox.hpp>
#include <migrate/node.hpp>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include <capnp/capability.h>
#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.hpp"

using namespace migrate;

namespace {

// --- what the other process offers beside being a node -----------------------------------------------

struct empty_server final : capnp::Capability::Server {
  DispatchCallResult dispatchCall(std::uint64_t, std::uint16_t,
                                  capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer>) override {
    return {kj::READY_NOW, false};
  }
};

struct copy_request {
  char file[256];
  std::size_t bytes;
};

void touch(char* memory, std::size_t bytes, char value) {
  for (std::size_t at = 0; at < bytes; at += 4096) memory[at] = static_cast<char>(value + static_cast<char>(at >> 12));
}

[[noreturn]] void map_and_touch(int listener) {
  int peer = ::accept(listener, nullptr, nullptr);
  copy_request request;
  while (::recv(peer, &request, sizeof request, MSG_WAITALL) == sizeof request) {
    int file = ::open(request.file, O_RDONLY | O_CLOEXEC);
    auto* memory = static_cast<char*>(
        ::mmap(nullptr, request.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0));
    touch(memory, request.bytes, 1);
    char done = 1;
    if (::send(peer, &done, 1, 0) != 1) break;
    ::munmap(memory, request.bytes);
    ::close(file);
  }
  for (;;) ::pause();
}

int listen_on_loopback(int& port) {
  int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address);
  ::listen(socket, 4);
  ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length);
  port = ntohs(address.sin_port);
  return socket;
}

void offer_comparisons(const std::string& where) {
  std::thread([where] {
    int copy_port = 0;
    int listener = listen_on_loopback(copy_port);
    std::thread(map_and_touch, listener).detach();
    auto io = kj::setupAsyncIo();
    auto rpc = io.provider->getNetwork().parseAddress("127.0.0.1").wait(io.waitScope)->listen();
    capnp::TwoPartyServer server(kj::heap<empty_server>());
    std::ofstream(where + ".new") << rpc->getPort() << ' ' << copy_port << '\n';
    ::rename((where + ".new").c_str(), where.c_str());
    server.listen(*rpc).wait(io.waitScope);
  }).detach();
}

// --- the rivals, from the first process --------------------------------------------------------------

class rpc_client {
public:
  explicit rpc_client(int port)
      : io_(kj::setupAsyncIo()), stream_(io_.provider->getNetwork()
                                             .parseAddress(kj::str("127.0.0.1:", port))
                                             .wait(io_.waitScope)
                                             ->connect()
                                             .wait(io_.waitScope)),
        client_(*stream_), server_(client_.bootstrap()) {}

  double call_round(int calls) {
    std::vector<double> times;
    for (int i = 0; i < calls; ++i) {
      auto start = bench::clock::now();
      server_.typelessRequest(0x1234, 0, capnp::MessageSize{4, 0}).send().wait(io_.waitScope);
      times.push_back(bench::nanoseconds(bench::clock::now() - start));
    }
    return bench::median(times);
  }

private:
  kj::AsyncIoContext io_;
  kj::Own<kj::AsyncIoStream> stream_;
  capnp::TwoPartyClient client_;
  capnp::Capability::Client server_;
};

class file_copier {
public:
  file_copier(int port, std::string folder) : file_(folder + "/rival") {
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) std::exit(1);
  }

  double copy(std::size_t bytes) {
    memory_.resize(bytes);
    touch(memory_.data(), bytes, ++value_);
    auto start = bench::clock::now();
    int file = ::open(file_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (std::size_t at = 0; at < bytes;) at += static_cast<std::size_t>(::write(file, memory_.data() + at, bytes - at));
    copy_request request{};
    std::strncpy(request.file, file_.c_str(), sizeof request.file - 1);
    request.bytes = bytes;
    char done = 0;
    if (::send(socket_, &request, sizeof request, 0) != sizeof request || ::recv(socket_, &done, 1, 0) != 1)
      std::exit(1);
    double taken = bench::nanoseconds(bench::clock::now() - start);
    ::close(file);
    ::unlink(file_.c_str());
    return taken;
  }

private:
  std::string file_;
  int socket_ = -1;
  char value_ = 0;
  std::vector<char> memory_;
};

// --- the tasks ---------------------------------------------------------------------------------------

struct there_and_back {
  double out, back, both; // nanoseconds, medians
};

there_and_back move_round(int rounds, std::uint16_t from, std::uint16_t to) {
  this_task::migrate_to(node_id{from});
  std::vector<double> out, back, both;
  for (int i = 0; i < rounds; ++i) {
    auto start = bench::clock::now();
    this_task::migrate_to(node_id{to});
    auto middle = bench::clock::now();
    this_task::migrate_to(node_id{from});
    auto end = bench::clock::now();
    out.push_back(bench::nanoseconds(middle - start));
    back.push_back(bench::nanoseconds(end - middle));
    both.push_back(out.back());
    both.push_back(back.back());
  }
  return {bench::median(out), bench::median(back), bench::median(both)};
}

double move_dirty(std::size_t bytes, int rounds) {
  // Until all of it is written again on the other node.
  std::vector<char> memory(bytes);
  std::vector<double> times;
  char value = 0;
  touch(memory.data(), bytes, value);
  for (int i = 0; i < rounds; ++i) {
    auto start = bench::clock::now();
    this_task::migrate_to(node_id{static_cast<std::uint16_t>(i % 2 == 0 ? 2 : 1)});
    touch(memory.data(), bytes, ++value);
    times.push_back(bench::nanoseconds(bench::clock::now() - start));
  }
  this_task::migrate_to(node_id{1});
  return bench::median(times);
}

double move_mostly_clean(std::size_t bytes, std::size_t dirty, int rounds) {
  std::vector<char> memory(bytes);
  touch(memory.data(), bytes, 1);
  this_task::migrate_to(node_id{2});
  this_task::migrate_to(node_id{1});
  std::vector<double> times;
  char value = 1;
  touch(memory.data(), dirty, ++value);
  for (int i = 0; i < rounds; ++i) {
    auto start = bench::clock::now();
    this_task::migrate_to(node_id{static_cast<std::uint16_t>(i % 2 == 0 ? 2 : 1)});
    touch(memory.data(), dirty, ++value);
    times.push_back(bench::nanoseconds(bench::clock::now() - start));
  }
  this_task::migrate_to(node_id{1});
  return bench::median(times);
}

double mail_round(int messages) {
  auto echo = spawn(spawn_options{.on = node_id{2}}, [] {
    mailbox<int> in;
    for (;;) {
      envelope<int> got = in.receive_envelope();
      if (got.value < 0) return;
      send(got.from, got.value);
    }
  });
  mailbox<int> in;
  std::vector<double> times;
  for (int i = 0; i < messages; ++i) {
    auto start = bench::clock::now();
    send(echo.id(), i);
    in.receive();
    if (i >= 20) times.push_back(bench::nanoseconds(bench::clock::now() - start));
  }
  send(echo.id(), -1);
  echo.join();
  return bench::median(times);
}

} // namespace

int main(int argc, char** argv) {
  node_options options = node_options::from(argc, argv);
  if (options.join.empty()) options.nodes = std::max(options.nodes, 3u);
  std::string folder;
  bool other = !options.join.empty();
  if (other) {
    folder = argc > 1 ? argv[1] : "";
  } else {
    char fresh[] = "/dev/shm/migrate-bench-XXXXXX";
    if (::mkdtemp(fresh) == nullptr) return 1;
    folder = fresh;
    options.store = folder + "/store";
    options.arguments = {folder};
  }
  node here(std::move(options));
  std::string ports = folder + "/ports";
  if (other) {
    if (number(here.id()) == 2) offer_comparisons(ports);
    here.serve();
    return 0;
  }
  int rpc_port = 0;
  int copy_port = 0;
  while (!(std::ifstream(ports) >> rpc_port >> copy_port)) std::this_thread::yield();
  rpc_client rpc(rpc_port);
  file_copier copier(copy_port, folder);

  constexpr int rounds = 15;
  constexpr int calls = 200;
  auto call = [&] { return rpc.call_round(calls); };
  auto us = [](double ns) { return ns / 1000; };

  there_and_back last{};
  auto at_home = bench::compare(
      rounds, [&] { return (last = here.run(move_round, calls, std::uint16_t{1}, std::uint16_t{2})).both; }, call);
  bench::ratio_row("move a task that has touched nothing, source or target is home, against one empty Cap'n Proto call",
                   at_home, 2, "us", 1e-3);
  bench::shown("the same, by direction", bench::text("from home %.1f us, to home %.1f us", us(last.out), us(last.back)));
  bench::ratio_row("the same, neither is home",
                   bench::compare(rounds, [&] { return here.run(move_round, calls, std::uint16_t{2}, std::uint16_t{3}).both; },
                                  call),
                   4, "us", 1e-3);
  bench::ratio_row("a message and its answer between tasks on two nodes, against one empty Cap'n Proto call",
                   bench::compare(rounds, [&] { return here.run(mail_round, calls); }, call), 1.5, "us", 1e-3);

  constexpr std::size_t mib = 1024 * 1024;
  spawn_options large{.region = region_class::large};
  auto in_task = [&](auto function, auto... arguments) {
    return here.run([large](auto f, auto... a) { return spawn(large, f, a...).join(); }, function, arguments...);
  };
  for (std::size_t size : {std::size_t{1}, std::size_t{10}, std::size_t{100}}) {
    int repeat = size >= 100 ? 5 : 9;
    bench::ratio_row(
        bench::text("move a task with %zu MiB dirty and touch it all again, against the same bytes written, mapped and touched",
                    size),
        bench::compare(repeat, [&] { return in_task(move_dirty, size * mib, 6); },
                       [&] {
                         std::vector<double> times;
                         for (int i = 0; i < 5; ++i) times.push_back(copier.copy(size * mib));
                         return bench::median(times);
                       }),
        1.5, "ms", 1e-6);
  }
  bench::ratio_row("move a task with 1 GiB allocated, 1 MiB dirty since its image, against one with 1 MiB",
                   bench::compare(5, [&] { return in_task(move_mostly_clean, 1024 * mib, mib, 10); },
                                  [&] { return in_task(move_mostly_clean, mib, mib, 10); }),
                   1.3, "ms", 1e-6);
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}
