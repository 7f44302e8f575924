#include <migrate/transfer/memory.hpp>

#include "../support/cluster.hpp"
#include "../support/random.hpp"

#include <map>
#include <numeric>
#include <string>
#include <vector>

#include <migrate/nodes.hpp>
#include <migrate/store.hpp>

using namespace migrate;
using migrate_test::new_seed;
using migrate_test::random_choices;

namespace {

struct graph {
  // Maps, strings and vectors that point all over the heap, with a checksum kept beside them.
  std::map<std::uint64_t, std::vector<std::string>> parts;
  std::uint64_t sum = 0;

  static std::uint64_t weigh(std::uint64_t key, const std::vector<std::string>& part) {
    std::uint64_t total = key;
    for (const std::string& each : part)
      for (char c : each) total = total * 31 + static_cast<unsigned char>(c);
    return total;
  }
  std::uint64_t weigh_all() const {
    std::uint64_t total = 0;
    for (const auto& [key, part] : parts) total += weigh(key, part);
    return total;
  }
  void grow(random_choices& random) {
    std::uint64_t key = random.next();
    std::vector<std::string> part(random.below(40));
    for (auto& each : part) each.assign(random.below(random.one_in(50) ? 60'000 : 200), static_cast<char>('a' + random.below(26)));
    sum += weigh(key, part);
    parts.emplace(key, std::move(part));
  }
  void shrink(random_choices& random) {
    if (parts.empty()) return;
    auto at = parts.lower_bound(random.next());
    if (at == parts.end()) at = parts.begin();
    sum -= weigh(at->first, at->second);
    parts.erase(at);
  }
};

} // namespace

TEST_CASE("a heap that grows and shrinks is the same after each of hundreds of moves") {
  std::uint64_t seed = new_seed("heap");
  auto [wrong, moves] = migrate_test::run([seed] {
    std::vector<task<std::pair<int, std::uint64_t>>> all;
    random_choices random(seed);
    for (int i = 0; i < 4; ++i)
      all.push_back(spawn([r = random.branch()]() mutable {
        graph mine;
        int bad = 0;
        for (int round = 0; round < 150; ++round) {
          bool growing = (round / 30) % 2 == 0;
          for (std::size_t k = r.below(30); k > 0; --k)
            if (r.one_in(4) != growing)
              mine.grow(r);
            else
              mine.shrink(r);
          this_task::migrate_to(r.node());
          if (mine.weigh_all() != mine.sum) ++bad;
        }
        return std::pair(bad, this_task::moves());
      }));
    int bad = 0;
    std::uint64_t moved = 0;
    for (auto& each : all) {
      auto [b, m] = each.join();
      bad += b;
      moved += m;
    }
    return std::pair(bad, moved);
  });
  CHECK(wrong == 0);
  CHECK(moves > 250);
}

TEST_CASE("200 MiB go through the store and a small change does not send them again") {
  constexpr std::size_t words = (std::size_t{200} << 20) / 8;
  auto before = migrate_test::statistics();
  auto [first, second, moved] = migrate_test::run([] {
    return spawn({.region = region_class::large}, [] {
             std::vector<std::uint64_t> data(words);
             std::iota(data.begin(), data.end(), std::uint64_t{1});
             this_task::migrate_to(nodes()[1]);
             std::uint64_t sum = std::accumulate(data.begin(), data.end(), std::uint64_t{0});
             for (std::size_t i = 0; i < data.size(); i += data.size() / 100) data[i] += 1;
             this_task::migrate_to(nodes()[2]);
             return std::tuple(sum, std::accumulate(data.begin(), data.end(), std::uint64_t{0}), this_task::moves());
           }).join();
  });
  auto after = migrate_test::statistics();
  std::uint64_t right = std::uint64_t{words} * (words + 1) / 2;
  CHECK(first == right);
  CHECK(second == right + 101 - (words % 100 == 0));
  CHECK(moved >= 2);
  if (std::getenv("MIGRATE_TORTURE") == nullptr) {
    CHECK(after.bytes_flushed - before.bytes_flushed > words * 8);
    CHECK(after.bytes_flushed - before.bytes_flushed < words * 8 + (32 << 20));
  }
}

TEST_CASE("a task that has ended leaves no image in the store") {
  std::string place = migrate_test::cluster_store();
  std::size_t during = migrate_test::run([place] {
    auto keeper = spawn([place] {
      std::vector<char> data(8 << 20, 'd');
      for (node_id each : nodes()) this_task::migrate_to(each);
      pin_scope here;
      std::size_t listed = 0;
      {
        node_heap_scope scope;
        listed = store::open(place).list().size();
      }
      return listed + (data[12345] == 'd' ? 0 : 1000);
    });
    return keeper.join();
  });
  CHECK(during <= 1);
  if (std::getenv("MIGRATE_TRANSFER") == nullptr) CHECK(during == 1); // not every way leaves one
  std::size_t left = 1;
  for (int i = 0; i < 2000 && left > 0; ++i) {
    left = store::open(place).list().size();
    migrate_test::run([] { this_task::sleep_for(std::chrono::milliseconds(1)); });
  }
  CHECK(left == 0);
}
