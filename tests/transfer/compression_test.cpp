#include <migrate/task/compression.hpp>

#include "../support/cluster.hpp"
#include "../support/program.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <migrate/nodes.hpp>
#include <migrate/process.hpp>

using namespace migrate;
using namespace std::chrono_literals;

namespace {

const migrate_test::no_cluster_of_its_own here;

constexpr std::size_t words = (std::size_t{8} << 20) / 8;

std::uint64_t word(std::size_t at, bool noise, std::uint64_t& state) {
  if (!noise) return at / 64;
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

bool moves(transfer how, bool noise) {
  std::vector<std::uint64_t> mine(words);
  std::uint64_t state = 88172645463325252u;
  for (std::size_t i = 0; i < words; ++i) mine[i] = word(i, noise, state);
  std::vector<node_id> all = nodes();
  this_task::migrate_to(all.at(1), how);
  if (this_task::node() != all.at(1)) return false;
  state = 88172645463325252u;
  for (std::size_t i = 0; i < words; ++i)
    if (mine[i] != word(i, noise, state)) return false;
  while (this_task::residual()) this_task::yield();
  return true;
}

int play() {
  // Prints, for each way and kind of memory, whether it is what it was, what was compressed and what travelled instead.
  for (transfer how : {transfer::full_copy, transfer::on_reference})
    for (bool noise : {false, true}) {
      move_statistics before = migrate_test::statistics();
      bool right = migrate_test::run(
          [how, noise] { return spawn([how, noise] { return moves(how, noise); }).join(); });
      move_statistics after = migrate_test::statistics();
      for (int i = 0; how == transfer::on_reference && !noise && i < 1000 &&
                      after.bytes_compressed == before.bytes_compressed;
           ++i)
        after = migrate_test::statistics(); // the source counts when it hears that all has come
      std::printf("%s %llu %llu\n", right ? "right" : "wrong",
                  static_cast<unsigned long long>(after.bytes_compressed - before.bytes_compressed),
                  static_cast<unsigned long long>(after.bytes_instead - before.bytes_instead));
    }
  std::printf("%s\n", migrate_test::statistics().last_compression.c_str());
  std::fflush(stdout);
  return 0;
}
const migrate_test::scenario_entry the_scene{"moves of memory that can be compressed, and that cannot", play};

struct result {
  bool right = false;
  std::size_t before = 0, after = 0;
};
struct results {
  std::vector<result> moves;
  std::string said;
};

results play_with(const char* compress) {
  migrate_test::program cluster(
      {migrate_test::own_path()},
      {{"MIGRATE_SCENARIO", "moves of memory that can be compressed, and that cannot"},
       {"MIGRATE_QUIET", "1"},
       {"MIGRATE_PUSH", "1"},
       {"MIGRATE_COMPRESS", compress}});
  results all;
  for (int i = 0; i < 4; ++i) {
    std::istringstream line(cluster.line(30s));
    std::string word;
    result one;
    line >> word >> one.before >> one.after;
    one.right = word == "right";
    all.moves.push_back(one);
  }
  all.said = cluster.line(10s);
  CHECK(cluster.wait(10s) == 0);
  return all;
}

} // namespace

TEST_CASE("memory that can be compressed travels as fewer bytes, other memory as it is, and both are what "
          "they were") {
  results all = play_with("always");
  CAPTURE(all.said);
  for (std::size_t i = 0; i < all.moves.size(); ++i) {
    CAPTURE(i);
    const result& one = all.moves[i];
    CHECK(one.right);
    if (i % 2 == 0) {
      CHECK(one.before >= words * 8);
      CHECK(one.after < one.before / 4);
    } else {
      CHECK(one.before < words * 8 / 4); // the stack, and what else the task has
    }
  }
  CHECK(all.said.find("compressed to") != std::string::npos);
}

TEST_CASE("within one machine nothing is compressed, nor where it is switched off") {
  for (const char* how : {"auto", "never"}) {
    results all = play_with(how);
    for (const result& one : all.moves) {
      CHECK(one.right);
      CHECK(one.before == 0);
    }
    CHECK(all.said == "");
  }
}
