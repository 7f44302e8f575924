#include <migrate/task.hpp>

#include "../support/cluster.hpp"
#include "../support/random.hpp"

#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include <unistd.h>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using namespace migrate;
using namespace std::chrono_literals;

namespace {

bool torture() { return std::getenv("MIGRATE_TORTURE") != nullptr; }

struct record {
  int number = 0;
  std::string text;
  auto migrate_fields() { return std::tie(number, text); }
  bool operator==(const record&) const = default;
};

struct carried {
  int number = 0;
  std::string text;
  auto migrate_fields() { return std::tie(number, text); }
};

const bool carries = [] {
  carry_exception<carried>();
  return true;
}();

struct unknown : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class E> std::string thrown_by_a_task(std::string text) {
  try {
    spawn([text] { throw E(text); }).join();
  } catch (const E& thrown) {
    if (typeid(thrown) != typeid(E)) return std::string("a ") + typeid(thrown).name();
    return thrown.what();
  } catch (const std::exception& thrown) {
    return std::string("another: ") + typeid(thrown).name();
  }
  return "nothing";
}

int overflow(int depth) {
  volatile char frame[512];
  frame[0] = static_cast<char>(depth);
  return depth > 100'000'000 ? 0 : overflow(depth + 1) + frame[0];
}

int code_of(auto&& act) {
  try {
    act();
  } catch (const error& thrown) {
    return thrown.code().value();
  }
  return 0;
}

} // namespace

std::size_t too_much() {
  std::vector<char> block(std::size_t{1} << 30);
  asm volatile("" : : "r"(block.data()) : "memory"); // or a compiler may leave the allocation out
  return block.size();
}

TEST_CASE("a value of every kind comes back from a task") {
  CHECK(spawn([] { return 42; }).join() == 42);
  CHECK(spawn([](int a, std::string b) { return std::to_string(a) + b; }, 4, "2").join() == "42");
  CHECK(spawn([] { return std::vector<std::string>{"a", "", "ccc"}; }).join() ==
        std::vector<std::string>{"a", "", "ccc"});
  CHECK(spawn([] { return std::vector<bool>{true, false}; }).join() == std::vector<bool>{true, false});
  CHECK(spawn([] { return std::array<std::string, 2>{"x", "y"}; }).join() == std::array<std::string, 2>{"x", "y"});
  CHECK(spawn([] { return std::optional<std::string>("there"); }).join() == "there");
  CHECK(spawn([] { return std::optional<std::string>(); }).join() == std::nullopt);
  CHECK(spawn([] { return std::pair<std::string, int>("one", 1); }).join() == std::pair<std::string, int>("one", 1));
  CHECK(spawn([] { return std::tuple<int, std::string, double>(1, "two", 3.0); }).join() ==
        std::tuple<int, std::string, double>(1, "two", 3.0));
  CHECK(spawn([] { return std::variant<int, std::string>("text"); }).join() == std::variant<int, std::string>("text"));
  CHECK(spawn([] { return std::map<std::string, std::vector<int>>{{"a", {1}}, {"b", {}}}; }).join() ==
        std::map<std::string, std::vector<int>>{{"a", {1}}, {"b", {}}});
  CHECK(spawn([] { return std::set<std::string>{"a", "b"}; }).join() == std::set<std::string>{"a", "b"});
  CHECK(spawn([] { return record{3, "three"}; }).join() == record{3, "three"});
  CHECK(spawn([] { return this_task::id(); }).join().home() == node_id(1));
  spawn([] {}).join();
}

TEST_CASE("exceptions of the standard types come back as what they were") {
  CHECK(thrown_by_a_task<std::logic_error>("a") == "a");
  CHECK(thrown_by_a_task<std::invalid_argument>("b") == "b");
  CHECK(thrown_by_a_task<std::domain_error>("c") == "c");
  CHECK(thrown_by_a_task<std::length_error>("d") == "d");
  CHECK(thrown_by_a_task<std::out_of_range>("e") == "e");
  CHECK(thrown_by_a_task<std::runtime_error>("f") == "f");
  CHECK(thrown_by_a_task<std::range_error>("g") == "g");
  CHECK(thrown_by_a_task<std::overflow_error>("h") == "h");
  CHECK(thrown_by_a_task<std::underflow_error>("i") == "i");
  CHECK_THROWS_AS(spawn([] { throw std::bad_alloc(); }).join(), std::bad_alloc);
  try {
    spawn([] { throw error(errc::store_full, "no room"); }).join();
    FAIL("nothing was thrown");
  } catch (const error& thrown) {
    CHECK(thrown.code() == errc::store_full);
    CHECK(std::string(thrown.what()) == "no room");
  }
  try {
    spawn([] { throw std::system_error(std::make_error_code(std::errc::no_such_device), "opening"); }).join();
    FAIL("nothing was thrown");
  } catch (const std::system_error& thrown) {
    CHECK(thrown.code() == std::errc::no_such_device);
    CHECK_THAT(thrown.what(), Catch::StartsWith("opening"));
  }
}

TEST_CASE("a carried exception comes back as itself and an unknown one by name") {
  REQUIRE(carries);
  try {
    spawn([] { throw carried{7, "seven"}; }).join();
    FAIL("nothing was thrown");
  } catch (const carried& thrown) {
    CHECK(thrown.number == 7);
    CHECK(thrown.text == "seven");
  }
  try {
    spawn([] { throw unknown("strange"); }).join();
    FAIL("nothing was thrown");
  } catch (const task_error& thrown) {
    CHECK(thrown.code() == errc::task_failed);
    CHECK_THAT(thrown.type(), Catch::Contains("unknown"));
    CHECK(std::string(thrown.what()) == "strange");
  }
  try {
    spawn([] { throw 42; }).join();
    FAIL("nothing was thrown");
  } catch (const task_error& thrown) {
    CHECK(thrown.type() == "int");
  }
}

TEST_CASE("the closure and the arguments lie in the child's region") {
  auto [apart, unchanged, again] = migrate_test::run([] {
    std::string mine(1000, 'm');
    std::vector<int> numbers(100, 7);
    auto inside = [](const void* address, const void* mark) {
      constexpr std::uintptr_t region = std::uintptr_t{64} << 20;
      return reinterpret_cast<std::uintptr_t>(address) / region == reinterpret_cast<std::uintptr_t>(mark) / region;
    };
    auto child = spawn(
        [mine, inside](std::vector<int> argument) {
          int local = 0;
          bool all = inside(mine.data(), &local) && inside(argument.data(), &local) && inside(&mine, &local) &&
                     inside(new int, &local);
          argument.assign(100, 8);
          return std::pair(all, reinterpret_cast<std::uintptr_t>(mine.data()));
        },
        numbers);
    auto [all, address] = child.join();
    return std::tuple(all && address != reinterpret_cast<std::uintptr_t>(mine.data()), numbers == std::vector<int>(100, 7),
                      inside(mine.data(), &mine));
  });
  CHECK(apart);
  CHECK(unchanged);
  CHECK(again);
}

TEST_CASE("a plain thread can spawn and join and so can many") {
  std::vector<std::thread> threads;
  std::atomic<int> sum{0};
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&sum, i] {
      for (int k = 0; k < 200; ++k) sum += spawn([i, k] { return i + k; }).join();
    });
  for (auto& each : threads) each.join();
  CHECK(sum == 8 * 199 * 100 + 200 * 28);
}

TEST_CASE("waiting for a task with a limit") {
  auto slow = spawn([] { mailbox<int>().receive(); });
  CHECK_FALSE(slow.wait_for(10ms));
  CHECK_FALSE(slow.wait_until(std::chrono::steady_clock::now() + 5ms));
  task_id id = slow.id();
  spawn([id] { send(id, 1); }).join();
  CHECK(slow.wait_for(60s));
  CHECK(slow.where() == no_node);
  slow.join();
  CHECK_FALSE(slow.joinable());
  CHECK_THROWS_AS(slow.join(), error);
  bool inside = migrate_test::run([] {
    auto waits = spawn([] { return mailbox<int>().receive(); });
    bool early = waits.wait_for(5ms);
    send(waits.id(), 3);
    bool late = waits.wait_for(60s);
    return !early && late && waits.join() == 3;
  });
  CHECK(inside);
}

TEST_CASE("a detached task runs to its end") {
  int got = migrate_test::run([] {
    task_id me = this_task::id();
    spawn([me] { send(me, 17); }).detach();
    { auto dropped = spawn([me] { send(me, 18); }); }
    mailbox<int> in;
    return in.receive() + in.receive();
  });
  CHECK(got == 35);
}

TEST_CASE("a task's name is kept to 23 bytes") {
  CHECK(spawn({.name = "short"}, [] { return this_task::name(); }).join() == "short");
  CHECK(spawn({.name = "a name that is much too long to be kept"}, [] { return this_task::name(); }).join() ==
        "a name that is much too");
}

TEST_CASE("outside tasks this_task says so") {
  CHECK(code_of([] { this_task::id(); }) == static_cast<int>(errc::not_in_task));
  CHECK(code_of([] { this_task::migrate_to(node_id(2)); }) == static_cast<int>(errc::not_in_task));
  this_task::poll();
  this_task::yield();
}

TEST_CASE("a handle that holds no task says so") {
  constexpr int none = static_cast<int>(errc::no_such_task);
  task<int> empty;
  CHECK(code_of([&] { empty.join(); }) == none);
  CHECK(code_of([&] { empty.wait_for(1ms); }) == none);
  CHECK(code_of([&] { empty.where(); }) == none);
  CHECK(code_of([&] { empty.migrate_to(node_id(1)); }) == none);
  std::error_code code;
  empty.migrate_to(node_id(1), code);
  CHECK(code == errc::no_such_task);
  CHECK_THROWS_WITH(empty.where(), Catch::Contains("holds no task"));
}

TEST_CASE("very many small tasks") {
#ifdef MIGRATE_TSAN
  const int many = 2'000; // each is a thread to it, of which there can be 8,128
#else
  const int many = std::getenv("MIGRATE_TORTURE") != nullptr ? 10'000 : 100'000; // which moves all of them
#endif
  std::uint64_t sum = migrate_test::run([many] {
    std::vector<task<int>> all;
    all.reserve(many);
    for (int i = 0; i < many; ++i)
      all.push_back(spawn({.region = region_class::small, .stack_bytes = 32 * 1024}, [i] { return i; }));
    std::uint64_t total = 0;
    for (auto& each : all) total += static_cast<std::uint64_t>(each.join());
    return total;
  });
  CHECK(sum == static_cast<std::uint64_t>(many) * static_cast<std::uint64_t>(many - 1) / 2);
}

TEST_CASE("a task that runs off its stack ends by name and the others go on") {
  auto witness = spawn([] { return mailbox<int>().receive(); });
  for (int i = 0; i < 3; ++i)
    try {
      spawn({.name = "deep", .stack_bytes = 64 * 1024}, [] { return overflow(0); }).join();
      FAIL("it did not end");
    } catch (const error& thrown) {
      CHECK(thrown.code() == errc::stack_overflow);
      CHECK_THAT(thrown.what(), Catch::Contains("deep") && Catch::Contains("60 KiB"));
    }
  task_id id = witness.id();
  spawn([id] { send(id, 5); }).join();
  CHECK(witness.join() == 5);
}

TEST_CASE("a task that runs off its stack on another node tells its joiner") {
  int code = migrate_test::run([] {
    return code_of([] { spawn({.name = "deep", .on = nodes().back()}, [] { return overflow(0); }).join(); });
  });
  CHECK(code == static_cast<int>(errc::stack_overflow));
  CHECK(migrate_test::run([] { return spawn({.on = nodes().back()}, [] { return 1; }).join(); }) == 1);
}

TEST_CASE("a task that uses up its region can go on") {
  auto [caught, after] = spawn({.region = region_class::medium}, [] {
                           std::vector<std::vector<char>> all;
                           bool refused = false;
                           try {
                             for (;;) all.emplace_back(1 << 20, 'x');
                           } catch (const std::bad_alloc&) {
                             refused = true;
                           }
                           std::size_t held = all.size();
                           all.clear();
                           std::vector<char> again(held / 2 << 20, 'y');
                           return std::pair(refused && held > 32, again.back() == 'y');
                         }).join();
  CHECK(caught);
  CHECK(after);
  CHECK_THROWS_AS(spawn(too_much).join(), std::bad_alloc);
}

TEST_CASE("a result that no message can carry is refused by its size, at home and away") {
  for (node_id where : {node_id(1), nodes().back()}) {
    auto giant = spawn({.region = region_class::large, .on = where}, [] { return std::string(65 << 20, 'x'); });
    try {
      giant.join();
      FAIL("it came");
    } catch (const error& refused) {
      CHECK(refused.code() == errc::message_too_large);
      CHECK_THAT(refused.what(), Catch::Contains("returns takes 68157448 bytes; the limit is 64 MiB"));
    }
    CHECK(spawn({.region = region_class::large, .on = where}, [] { return std::string(60 << 20, 'x'); }).join().size() ==
          std::size_t{60} << 20);
  }
}

TEST_CASE("touching a task that has left names it and where it went") {
  if (torture()) return; // the reader could follow it
  try {
    migrate_test::run([] {
      task_id me = this_task::id();
      auto owner = spawn({.name = "owner"}, [me] {
        std::vector<int> data(200'000, 3);
        send(me, reinterpret_cast<std::uintptr_t>(data.data()));
        mailbox<bool>().receive();
      });
      auto address = mailbox<std::uintptr_t>().receive();
      owner.migrate_to(nodes().back());
      this_task::sleep_for(500ms); // a region stays open for a while after its task
      auto reader = spawn({.name = "reader"}, [address] { return *reinterpret_cast<volatile int*>(address); });
      try {
        reader.join();
      } catch (...) {
        send(owner.id(), true);
        throw;
      }
      send(owner.id(), true);
      return 0;
    });
    FAIL("it could be read");
  } catch (const error& thrown) {
    CHECK(thrown.code() == errc::vacated_access);
    CHECK_THAT(thrown.what(), Catch::Contains("reader") && Catch::Contains("owner") && Catch::Contains("node 3"));
  }
}

TEST_CASE("a blocked task blocks no worker") {
  // More tasks wait than there are workers, for one that can only run if they do not hold them.
  int sum = migrate_test::run([] {
    std::vector<task<int>> waiting;
    std::vector<task_id> ids;
    for (int i = 0; i < 100; ++i) {
      waiting.push_back(spawn([] { return mailbox<int>().receive(); }));
      ids.push_back(waiting.back().id());
    }
    auto sleeper = spawn([] { this_task::sleep_for(1h); });
    sleeper.detach();
    auto sender = spawn([ids] {
      for (task_id each : ids) send(each, 2);
    });
    int total = 0;
    for (auto& each : waiting) total += each.join();
    sender.join();
    return total;
  });
  CHECK(sum == 200);
}

TEST_CASE("idle workers take tasks from busy ones") {
  if (std::thread::hardware_concurrency() < 2 || torture()) return;
  // All are spawned by one task, so on one worker; each waits, without leaving its worker, for one on another.
  auto threads = migrate_test::run([] {
    std::vector<task<std::uint64_t>> all;
    for (int i = 0; i < 64; ++i)
      all.push_back(spawn([] {
        pin_scope here;
        auto end = std::chrono::steady_clock::now() + 5ms;
        while (std::chrono::steady_clock::now() < end) {}
        return static_cast<std::uint64_t>(::gettid());
      }));
    std::set<std::uint64_t> found;
    for (auto& each : all) found.insert(each.join());
    return found.size();
  });
  CHECK(threads >= 2);
}

TEST_CASE("a task that blocks its worker in a system call holds up no other") {
  if (torture()) return;
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(round % 4)); // all workers are idle by then, or not yet
    int got = spawn([] {
      pin_scope here;
      int ends[2];
      if (::pipe(ends) != 0) return 0;
      auto writes = spawn([out = ends[1]] { return ::write(out, "x", 1) == 1; });
      writes.detach();
      char byte = 0;
      int done = static_cast<int>(::read(ends[0], &byte, 1)); // the writer is in the queue of this worker
      ::close(ends[0]);
      ::close(ends[1]);
      return done;
    }).join();
    CHECK(got == 1);
  }
}

TEST_CASE("a sleep lasts at least as long as it was to") {
  CHECK(spawn([] {
          auto begun = std::chrono::steady_clock::now();
          this_task::sleep_for(30ms);
          auto between = std::chrono::steady_clock::now();
          this_task::sleep_until(between + 20ms);
          auto wall = std::chrono::system_clock::now();
          this_task::sleep_until(wall + 10ms);
          return between - begun >= 30ms && std::chrono::steady_clock::now() - between >= 30ms &&
                 std::chrono::system_clock::now() - wall >= 10ms;
        }).join());
}
