// Tasks of one node: switching, spawning, messages and safe points. All of it happens on the node's one worker.
#include <migrate/mailbox.hpp>
#include <migrate/node.hpp>

#include <atomic>

#include <boost/context/fiber.hpp>
#include <boost/fiber/fiber.hpp>

#include "harness.hpp"

using namespace migrate;
using bench::nanoseconds;

namespace {

double boost_pair() {
  // Two switches: there and back.
  constexpr int count = 400'000;
  bool stop = false;
  boost::context::fiber other{[&](boost::context::fiber&& caller) {
    while (!stop) caller = std::move(caller).resume();
    return std::move(caller);
  }};
  auto start = bench::thread_clock::now();
  for (int i = 0; i < count; ++i) other = std::move(other).resume();
  double taken = nanoseconds(bench::thread_clock::now() - start) / count;
  stop = true;
  other = std::move(other).resume();
  return taken;
}

double task_pair() {
  // Two tasks yield to each other: there and back.
  constexpr int count = 400'000;
  auto body = [](int yields) {
    auto start = bench::thread_clock::now();
    for (int i = 0; i < yields; ++i) this_task::yield();
    return nanoseconds(bench::thread_clock::now() - start) / yields;
  };
  auto first = spawn(body, count);
  auto second = spawn(body, count);
  double one = first.join();
  double two = second.join();
  return std::max(one, two);
}

double spawn_and_join() {
  constexpr int count = 20'000;
  auto start = bench::thread_clock::now();
  for (int i = 0; i < count; ++i) spawn([] {}).join();
  return nanoseconds(bench::thread_clock::now() - start) / count;
}

double boost_spawn_and_join() {
  constexpr int count = 20'000;
  auto start = bench::thread_clock::now();
  for (int i = 0; i < count; ++i) boost::fibers::fiber([] {}).join();
  return nanoseconds(bench::thread_clock::now() - start) / count;
}

double message_and_answer() {
  constexpr int count = 100'000;
  auto echo = spawn([] {
    mailbox<int> in;
    for (;;) {
      envelope<int> got = in.receive_envelope();
      if (got.value < 0) return;
      send(got.from, got.value);
    }
  });
  mailbox<int> in;
  auto start = bench::thread_clock::now();
  for (int i = 0; i < count; ++i) {
    send(echo.id(), i);
    in.receive();
  }
  double taken = nanoseconds(bench::thread_clock::now() - start) / count;
  send(echo.id(), -1);
  echo.join();
  return taken;
}

std::atomic<std::uint32_t> one_atomic{0};

inline void read_one_atomic() {
  if (one_atomic.load(std::memory_order_relaxed) != 0) [[unlikely]]
    std::abort();
}

constexpr int polls = 20'000'000;

double poll_loop() {
  auto start = bench::thread_clock::now();
  for (int i = 0; i < polls; ++i) {
    this_task::poll();
    asm volatile("" : : : "memory");
  }
  return nanoseconds(bench::thread_clock::now() - start) / polls;
}

double atomic_loop() {
  auto start = bench::thread_clock::now();
  for (int i = 0; i < polls; ++i) {
    read_one_atomic();
    asm volatile("" : : : "memory");
  }
  return nanoseconds(bench::thread_clock::now() - start) / polls;
}

} // namespace

int main(int argc, char** argv) {
  node_options options = node_options::from(argc, argv);
  options.workers = 1;
  node here(std::move(options));

  bench::ratio_row("switch between two tasks, there and back, against a bare Boost.Context pair",
                   bench::compare(15, [&] { return here.run(task_pair); }, boost_pair), 1.6, "ns");
  bench::ratio_row("spawn and join an empty task, against Boost.Fiber's",
                   bench::compare(15, [&] { return here.run(spawn_and_join); }, boost_spawn_and_join), 1.5, "ns");
  bench::ratio_row("a message and its answer between two tasks of one node, against two switches between tasks",
                   bench::compare(15, [&] { return here.run(message_and_answer); }, [&] { return here.run(task_pair); }),
                   4, "ns");
  bench::ratio_row("poll() when nothing is asked, against an inlined function that reads one atomic",
                   bench::compare(15, [&] { return here.run(poll_loop); }, [&] { return here.run(atomic_loop); }), 1.5,
                   "ns");
}
