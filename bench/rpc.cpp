// A message and its answer between two processes, against an empty Cap'n Proto call between the same two.
#include <migrate/rpc/peers.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <capnp/capability.h>
#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

#include <signal.h>
#include <sys/wait.h>

using namespace migrate;
using bench_clock = std::chrono::steady_clock;

namespace {

double microseconds(bench_clock::duration time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

struct empty_server final : capnp::Capability::Server {
  DispatchCallResult dispatchCall(std::uint64_t, std::uint16_t,
                                  capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer>) override {
    return {kj::READY_NOW, false};
  }
};

struct echo final : peer_listener {
  void on_message(connection& from, node_id, protocol::Message::Reader message,
                  kj::ArrayPtr<const kj::byte>) override {
    capnp::MallocMessageBuilder answer;
    answer.initRoot<protocol::Message>().setTest(message.getTest());
    from.send(answer);
  }
};

struct caller final : peer_listener {
  void on_message(connection&, node_id, protocol::Message::Reader, kj::ArrayPtr<const kj::byte>) override {
    auto now = bench_clock::now();
    std::lock_guard lock(mutex);
    arrived = now;
    ++answers;
    changed.notify_one();
  }
  bench_clock::time_point wait(int number) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return answers == number; });
    return arrived;
  }
  std::mutex mutex;
  std::condition_variable changed;
  int answers = 0;
  bench_clock::time_point arrived;
};

peer_options as_this_process() {
  peer_options options;
  options.self = identity::of_this_process({1, 2});
  return options;
}

[[noreturn]] void serve(int out) {
  event_loop loop;
  loop.start();
  echo answers;
  peers links(loop, as_this_process(), answers);
  links.set_own_id(node_id(2), {1, 1});
  links.start();
  auto io = kj::setupAsyncIo();
  auto listener = io.provider->getNetwork().parseAddress("127.0.0.1").wait(io.waitScope)->listen();
  capnp::TwoPartyServer server(kj::heap<empty_server>());
  std::string line = links.address() + " 127.0.0.1:" + std::to_string(listener->getPort()) + "\n";
  if (::write(out, line.data(), line.size()) < 0) ::_exit(1);
  server.listen(*listener).wait(io.waitScope);
  ::_exit(0);
}

} // namespace

int main(int argc, char** argv) {
  int rounds = argc > 1 ? std::atoi(argv[1]) : 41;
  constexpr int calls = 200;
  int pipes[2];
  if (::pipe(pipes) != 0) return 1;
  pid_t child = ::fork();
  if (child == 0) serve(pipes[1]);
  char line[128] = {};
  if (::read(pipes[0], line, sizeof line - 1) <= 0) return 1;
  std::string addresses(line);
  std::string node_address = addresses.substr(0, addresses.find(' '));
  std::string rpc_address = addresses.substr(addresses.find(' ') + 1);
  rpc_address.pop_back();

  std::vector<double> ours, ours_woken, theirs, ratios;
  {
    event_loop loop;
    loop.start();
    caller events;
    peers links(loop, as_this_process(), events);
    links.set_own_id(node_id(1), {1, 1});
    links.start();
    links.set_address(node_id(2), node_address);

    auto io = kj::setupAsyncIo();
    auto stream =
        io.provider->getNetwork().parseAddress(rpc_address).wait(io.waitScope)->connect().wait(io.waitScope);
    capnp::TwoPartyClient client(*stream);
    capnp::Capability::Client server = client.bootstrap();

    int expected = 0;
    auto message_round = [&](std::vector<double>& to_io_thread, std::vector<double>& to_worker) {
      for (int i = 0; i < calls; ++i) {
        auto start = bench_clock::now();
        capnp::MallocMessageBuilder message;
        message.initRoot<protocol::Message>().initTest(8);
        links.send(node_id(2), message);
        to_io_thread.push_back(microseconds(events.wait(++expected) - start));
        to_worker.push_back(microseconds(bench_clock::now() - start));
      }
    };
    auto call_round = [&](std::vector<double>& times) {
      for (int i = 0; i < calls; ++i) {
        auto start = bench_clock::now();
        server.typelessRequest(0x1234, 0, capnp::MessageSize{4, 0}).send().wait(io.waitScope);
        times.push_back(microseconds(bench_clock::now() - start));
      }
    };
    std::vector<double> warm;
    message_round(warm, warm);
    call_round(warm);
    for (int round = 0; round < rounds; ++round) {
      std::vector<double> a, w, b;
      message_round(a, w);
      call_round(b);
      ours.push_back(median(a));
      ours_woken.push_back(median(w));
      theirs.push_back(median(b));
      ratios.push_back(ours.back() / theirs.back());
    }

    // Bulk: attachments of 1 MiB, as a move of many pages sends them.
    constexpr std::size_t bulk_messages = 200;
    std::vector<std::byte> page(1u << 20);
    auto start = bench_clock::now();
    for (std::size_t i = 0; i < bulk_messages; ++i) {
      capnp::MallocMessageBuilder message;
      message.initRoot<protocol::Message>().initTest(8);
      iovec part{page.data(), page.size()};
      while (links.queued_bytes(node_id(2)) > (4u << 20)) std::this_thread::yield();
      links.send(node_id(2), message, {&part, 1});
      ++expected;
    }
    events.wait(expected);
    double seconds = microseconds(bench_clock::now() - start) / 1e6;
    std::printf("200 messages with 1 MiB attached: %.0f MiB/s\n",
                static_cast<double>(bulk_messages) / seconds);
    links.stop();
    loop.stop();
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);

  std::printf("message and answer, worker to I/O thread: %.1f us; with waking the worker: %.1f us; "
              "empty Cap'n Proto call: %.1f us (medians of %d rounds of %d)\n",
              median(ours), median(ours_woken), median(theirs), rounds, calls);
  double ratio = median(ratios);
  std::printf("ratio: median %.2f, min %.2f, max %.2f\n", ratio,
              *std::min_element(ratios.begin(), ratios.end()),
              *std::max_element(ratios.begin(), ratios.end()));
  std::printf("message and answer vs empty Cap'n Proto call | %.2f x | <= 0.70 x | %s\n", ratio,
              ratio <= 0.7 ? "ok" : "short");
}
