// What benchmarks of forwarded calls share: another node, and an empty Cap'n Proto call between two nodes' processes.
#pragma once

#include <cstdint>
#include <future>
#include <thread>
#include <vector>

#include <capnp/capability.h>
#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

#include <migrate/memory/current_heap.hpp>
#include <migrate/nodes.hpp>
#include <migrate/task/this_task.hpp>

#include "harness.hpp"

namespace bench {

inline migrate::node_id other_node() {
  for (migrate::node_id each : migrate::nodes())
    if (each != migrate::this_task::home()) return each;
  throw migrate::error(migrate::errc::no_such_node, "the cluster has one node only");
}
// Than the calling task's home.

class empty_call_server {
public:
  empty_call_server() {
    std::promise<unsigned> listens;
    auto ready = listens.get_future();
    thread_ = std::thread([this, &listens] {
      auto io = kj::setupAsyncIo();
      auto stop = kj::newPromiseAndCrossThreadFulfiller<void>();
      stop_ = kj::mv(stop.fulfiller);
      auto listener = io.provider->getNetwork().parseAddress("127.0.0.1").wait(io.waitScope)->listen();
      capnp::TwoPartyServer server(kj::heap<answers_nothing>());
      listens.set_value(listener->getPort());
      server.listen(*listener).exclusiveJoin(kj::mv(stop.promise)).wait(io.waitScope);
    });
    port_ = ready.get();
  }
  ~empty_call_server() {
    stop_->fulfill();
    thread_.join();
  }
  unsigned port() const noexcept { return port_; }

private:
  struct answers_nothing final : capnp::Capability::Server {
    DispatchCallResult dispatchCall(std::uint64_t, std::uint16_t,
                                    capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer>) override {
      return {kj::READY_NOW, false};
    }
  };

  kj::Own<kj::CrossThreadPromiseFulfiller<void>> stop_;
  std::thread thread_;
  unsigned port_ = 0;
};
// On a thread of its own, in the process of the node that is called.

inline std::vector<double> empty_calls(unsigned port, int rounds, int calls) {
  // Nanoseconds for a call, each the median of a round; from a thread of the calling node's process, which waits for it.
  migrate::node_heap_scope process_heap;
  std::vector<double> medians;
  std::thread([&] {
    auto io = kj::setupAsyncIo();
    auto stream = io.provider->getNetwork()
                      .parseAddress("127.0.0.1", port)
                      .wait(io.waitScope)
                      ->connect()
                      .wait(io.waitScope);
    capnp::TwoPartyClient client(*stream);
    capnp::Capability::Client server = client.bootstrap();
    for (int round = -1; round < rounds; ++round) {
      std::vector<double> times;
      for (int i = 0; i < calls; ++i) {
        auto start = clock::now();
        server.typelessRequest(0x1234, 0, capnp::MessageSize{4, 0}).send().wait(io.waitScope);
        times.push_back(nanoseconds(clock::now() - start));
      }
      if (round >= 0) medians.push_back(median(times));
    }
  }).join();
  return medians;
}

} // namespace bench
