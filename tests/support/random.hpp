// Random choices that can be repeated: MIGRATE_TEST_SEED=N runs a test program with the seed that it printed.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

#include <migrate/nodes.hpp>

namespace migrate_test {

class random_choices {
public:
  explicit random_choices(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() { // splitmix64
    std::uint64_t x = state_ += 0x9e37'79b9'7f4a'7c15u;
    x = (x ^ (x >> 30)) * 0xbf58'476d'1ce4'e5b9u;
    x = (x ^ (x >> 27)) * 0x94d0'49bb'1331'11ebu;
    return x ^ (x >> 31);
  }
  std::size_t below(std::size_t end) { return static_cast<std::size_t>(next() % end); }
  bool one_in(std::size_t many) { return below(many) == 0; }
  migrate::node_id node() {
    auto all = migrate::nodes();
    return all[below(all.size())];
  }
  random_choices branch() { return random_choices(next()); }

private:
  std::uint64_t state_;
};
// Plain data: a task's copy moves with it.

inline std::uint64_t new_seed(const char* what) {
  const char* given = std::getenv("MIGRATE_TEST_SEED");
  std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::fprintf(stderr, "%s: MIGRATE_TEST_SEED=%llu\n", what, static_cast<unsigned long long>(seed));
  return seed;
}

} // namespace migrate_test
