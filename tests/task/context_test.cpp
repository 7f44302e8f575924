#include <migrate/task/context.hpp>

#include <migrate/malloc.hpp>

#include "../support/cluster.hpp"

#include <algorithm>
#include <cerrno>
#include <cfenv>
#include <csetjmp>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include <migrate/nodes.hpp>

using namespace migrate;

// Everything that lives in a thread and must be the task's own after a move. malloc.hpp is here, so that
// exceptions lie in regions. The functions have stack protectors: their word differs between processes.

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("stack-protector-all")
#endif

namespace {

void tour() {
  for (node_id each : nodes()) this_task::migrate_to(each);
  this_task::migrate_to(nodes().front());
}

[[gnu::noinline]] std::string protected_frame(int depth) {
  char text[64];
  std::memset(text, 'a' + depth, sizeof text - 1);
  text[sizeof text - 1] = 0;
  if (depth < 5)
    protected_frame(depth + 1);
  else
    tour();
  return text;
}

// The C library promises compilers that errno's address never changes, so within one function they may keep that
// of the thread that a task has left.
[[gnu::noinline]] int read_errno() {
  asm volatile("" : : : "memory");
  return errno;
}
[[gnu::noinline]] void write_errno(int value) {
  asm volatile("" : : : "memory");
  errno = value;
}

struct moves_when_destroyed {
  std::vector<int>* seen;
  ~moves_when_destroyed() {
    std::error_code code;
    this_task::migrate_to(nodes().back(), code);
    seen->push_back(code.value());
    seen->push_back(std::uncaught_exceptions());
  }
};

} // namespace

TEST_CASE("an exception that is being handled goes along") {
  auto seen = migrate_test::run([] {
    std::vector<std::string> log;
    try {
      throw std::out_of_range("the outer one");
    } catch (const std::out_of_range& outer) {
      tour();
      log.push_back(outer.what());
      try {
        throw std::runtime_error("the inner one");
      } catch (const std::runtime_error& inner) {
        tour();
        log.push_back(inner.what());
        log.push_back(outer.what());
      }
      tour();
      try {
        throw;
      } catch (const std::exception& again) {
        log.push_back(again.what());
      }
    }
    tour();
    log.push_back(std::current_exception() == nullptr ? "none" : "one");
    return log;
  });
  CHECK(seen == std::vector<std::string>{"the outer one", "the inner one", "the outer one", "the outer one", "none"});
}

TEST_CASE("while an exception is thrown through its frames a task stays") {
  auto seen = migrate_test::run([] {
    std::vector<int> log;
    try {
      moves_when_destroyed moves{&log};
      throw std::runtime_error("through");
    } catch (const std::runtime_error&) {
    }
    log.push_back(std::uncaught_exceptions());
    tour();
    return log;
  });
  CHECK(seen == std::vector<int>{static_cast<int>(errc::not_movable), 1, 0});
}

TEST_CASE("errno is the task's own") {
  auto seen = migrate_test::run([] {
    std::vector<int> log;
    write_errno(ERANGE);
    for (node_id each : nodes()) {
      this_task::migrate_to(each);
      log.push_back(read_errno());
    }
    auto other = spawn([] { write_errno(EPIPE); });
    write_errno(EDOM);
    other.join();
    log.push_back(read_errno());
    return log;
  });
  CHECK(seen == std::vector<int>{ERANGE, ERANGE, ERANGE, EDOM});
}

TEST_CASE("the rounding mode is the task's own") {
  auto [went, other, back] = migrate_test::run([] {
    std::fesetround(FE_UPWARD);
    tour();
    int moved = std::fegetround();
    int child = spawn([] { // a new task has the default
                  int mine = std::fegetround();
                  std::fesetround(FE_DOWNWARD);
                  this_task::yield();
                  return mine;
                }).join();
    int after = std::fegetround();
    std::fesetround(FE_TONEAREST);
    return std::tuple(moved, child, after);
  });
  CHECK(went == FE_UPWARD);
  CHECK(back == FE_UPWARD);
  CHECK((other == FE_TONEAREST || other == FE_UPWARD));
}

TEST_CASE("frames with stack protectors return after a move") {
  CHECK(migrate_test::run([] { return protected_frame(0); }) == std::string(63, 'a'));
}

TEST_CASE("longjmp goes back to a setjmp from before a move") {
  int got = migrate_test::run([] {
    std::jmp_buf place;
    volatile int rounds = 0;
    int value = setjmp(place);
    if (value < 3) {
      rounds = rounds + 1;
      tour();
      std::longjmp(place, value + 1);
    }
    return value * 10 + rounds;
  });
  CHECK(got == 33);
}

TEST_CASE("a task moves inside a comparison of qsort") {
  auto sorted = migrate_test::run([] {
    std::vector<int> numbers;
    for (int i = 0; i < 500; ++i) numbers.push_back(i * 7919 % 1009);
    std::qsort(numbers.data(), numbers.size(), sizeof(int), [](const void* a, const void* b) {
      static thread_local int unused = 0;
      (void)unused;
      int left = *static_cast<const int*>(a), right = *static_cast<const int*>(b);
      if ((left + right) % 5 == 0) {
        auto all = nodes();
        this_task::migrate_to(all[static_cast<std::size_t>(left) % all.size()]);
      }
      return (left > right) - (left < right);
    });
    return std::pair(std::is_sorted(numbers.begin(), numbers.end()), this_task::moves());
  });
  CHECK(sorted.first);
  CHECK(sorted.second > 50);
}

TEST_CASE("what C allocates moves along") {
  bool same = migrate_test::run([] {
    char* text = ::strdup("from the C library");
    tour();
    text = static_cast<char*>(std::realloc(text, 100'000));
    tour();
    bool equal = std::strcmp(text, "from the C library") == 0;
    std::free(text);
    return equal;
  });
  CHECK(same);
}
