// One page of a task that was moved by reference, fetched when it is touched.
#include <migrate/node.hpp>

#include "../tests/support/program.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include <capnp/any.h>
#include <capnp/capability.h>
#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

#include "harness.hpp"

using namespace migrate;

namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t calls = 500;

struct page_server final : capnp::Capability::Server {
  DispatchCallResult dispatchCall(std::uint64_t, std::uint16_t,
                                  capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer> context) override {
    static const std::vector<kj::byte> bytes(page, 7);
    context.getResults(capnp::MessageSize{page / 8 + 8, 0})
        .setAs<capnp::Data>(capnp::Data::Reader(bytes.data(), bytes.size()));
    return {kj::READY_NOW, false};
  }
};

[[noreturn]] void serve() {
  auto io = kj::setupAsyncIo();
  auto listener = io.provider->getNetwork().parseAddress("127.0.0.1").wait(io.waitScope)->listen();
  capnp::TwoPartyServer server(kj::heap<page_server>());
  std::printf("%u\n", listener->getPort());
  std::fflush(stdout);
  server.listen(*listener).wait(io.waitScope);
  std::exit(1);
}

double fetch_pages() {
  // Nanoseconds for one, at places that do not follow each other.
  return spawn({.region = region_class::large}, [] {
           std::vector<char> memory(calls * 8 * page, 1);
           this_task::migrate_to(node_id{2}, transfer::on_reference);
           std::vector<double> times(calls);
           for (double& each : times) each = 0; // they are there
           for (std::size_t i = 0; i < calls; ++i) {
             volatile char* touched = memory.data() + i * 167 % calls * 8 * page + page;
             auto start = bench::clock::now();
             static_cast<void>(*touched);
             times[i] = bench::nanoseconds(bench::clock::now() - start);
           }
           return bench::median(times);
         })
      .join();
}

} // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "serve") == 0) serve();
  node_options options = node_options::from(argc, argv);
  options.nodes = 2;
  options.push_rest = false;
  node here(std::move(options));
  if (!here.first()) {
    here.serve();
    return 0;
  }
  std::string self = std::filesystem::read_symlink("/proc/self/exe");
  migrate_test::program server({self, "serve"}, {});
  unsigned port = static_cast<unsigned>(std::stoul(server.line()));
  auto io = kj::setupAsyncIo();
  auto stream =
      io.provider->getNetwork().parseAddress("127.0.0.1", port).wait(io.waitScope)->connect().wait(io.waitScope);
  capnp::TwoPartyClient client(*stream);
  capnp::Capability::Client whole = client.bootstrap();
  auto call = [&] {
    std::vector<double> times;
    for (std::size_t i = 0; i < calls; ++i) {
      auto start = bench::clock::now();
      auto got = whole.typelessRequest(0x1234, 0, capnp::MessageSize{4, 0}).send().wait(io.waitScope);
      if (got.getAs<capnp::Data>().size() != page) return 0.0;
      times.push_back(bench::nanoseconds(bench::clock::now() - start));
    }
    return bench::median(times);
  };
  auto result = bench::compare(15, [&] { return here.run(fetch_pages); }, call);
  bool reached = bench::ratio_row(
      "one missing page fetched on reference, against a Cap'n Proto call that answers with 4 KiB", result, 1.5, "us", 1e-3);
  return reached ? 0 : 1;
}
