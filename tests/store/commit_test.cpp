#include <migrate/store.hpp>

#include <map>

#include "store_fixture.hpp"

using namespace store_test;
using migrate::image;
using migrate::page_range;
using migrate::store;

namespace {

store open_store(const directory& dir, migrate::store_options options = {}) {
  options.create = true;
  return store::open(dir.store(), options);
}

std::size_t pages_of(const image& of) { return of.bytes() / page; }

} // namespace

TEST_CASE("what was committed comes back at its addresses") {
  directory dir;
  region mine;
  store here = open_store(dir), there = open_store(dir);
  mine.fill(3, 1, 1);
  mine.fill(10, 100, 2);
  mine.fill(500, 31, 3);
  std::vector<page_range> dirty{mine.pages(500, 31), mine.pages(3, 1), mine.pages(10, 60),
                                mine.pages(70, 40)};
  image of = here.commit(task, mine.number(), nullptr, dirty, dirty, bytes("control block"));
  CHECK(of.generation() == 1);
  CHECK(pages_of(of) == 132);
  CHECK(of.bytes_written() == 132 * page);

  std::vector<char> expected(mine.base(), mine.at(600));
  for (bool loaded : {false, true}) {
    mine.clear();
    image arrived = loaded ? there.load(task) : image::parse(of.encode());
    CHECK(arrived == of);
    there.resume_into(arrived, mine.base());
    CHECK(std::memcmp(mine.base(), expected.data(), expected.size()) == 0);
    CHECK(std::string(reinterpret_cast<const char*>(arrived.metadata().data()), arrived.metadata().size()) ==
          "control block");
  }
}

TEST_CASE("a resumed region is private: writing it changes no image") {
  directory dir;
  region mine;
  store here = open_store(dir);
  mine.fill(0, 80, 1);
  std::vector<page_range> all{mine.pages(0, 80)};
  image of = here.commit(task, mine.number(), nullptr, all, all, {});
  std::vector<char> expected(mine.base(), mine.at(80));
  here.resume_into(of, mine.base());
  std::memset(mine.base(), 0x55, 80 * page);
  mine.clear();
  store there = open_store(dir);
  there.resume_into(of, mine.base());
  CHECK(std::memcmp(mine.base(), expected.data(), expected.size()) == 0);
}

TEST_CASE("an image may have no pages at all") {
  directory dir;
  region mine;
  store here = open_store(dir);
  image of = here.commit(task, mine.number(), nullptr, {}, {}, bytes("x"));
  image read = open_store(dir).load(task);
  CHECK(read == of);
  CHECK(read.files().empty());
  here.resume_into(read, mine.base());
  mine.fill(1, 1, 9);
  std::vector<page_range> one{mine.pages(1, 1)};
  image next = here.commit(task, mine.number(), &of, one, one, {});
  CHECK(next.generation() == 2);
  CHECK(pages_of(next) == 1);
}

TEST_CASE("a commit costs its dirty pages, not the image") {
  directory dir;
  region mine;
  store here = open_store(dir);
  mine.fill(0, 4096, 1);
  std::vector<page_range> all{mine.pages(0, 4096)};
  image first = here.commit(task, mine.number(), nullptr, all, all, {});
  mine.fill(1000, 16, 77);
  std::vector<page_range> dirty{mine.pages(1000, 16)};
  image second = here.commit(task, mine.number(), &first, dirty, all, {});
  CHECK(second.bytes_written() == 16 * page);
  CHECK(std::filesystem::file_size(dir.image(task, 2)) < 17 * page);
  CHECK(second.extents().size() == 3);
  CHECK(pages_of(second) == 4096);
}

TEST_CASE("pages that are no longer live leave the image") {
  directory dir;
  region mine;
  store here = open_store(dir);
  mine.fill(0, 100, 1);
  std::vector<page_range> all{mine.pages(0, 100)}, live{mine.pages(0, 40), mine.pages(60, 40)};
  image first = here.commit(task, mine.number(), nullptr, all, all, {});
  image second = here.commit(task, mine.number(), &first, {}, live, {});
  CHECK(pages_of(second) == 80);
  mine.clear();
  here.resume_into(second, mine.base());
  CHECK(std::count(mine.at(40), mine.at(60), '\0') == static_cast<std::ptrdiff_t>(20 * page));
}

TEST_CASE("dirty pages that hold what the base holds are not written again") {
  directory dir;
  region mine;
  store here = open_store(dir);
  mine.fill(0, 300, 1);
  std::vector<page_range> all{mine.pages(0, 300)};
  image first = here.commit(task, mine.number(), nullptr, all, all, {});
  mine.at(17)[0] ^= 1;
  mine.at(299)[page - 1] ^= 1;
  image second = here.commit(task, mine.number(), &first, all, all, {});
  CHECK(second.bytes_written() == 2 * page);
  std::vector<char> expected(mine.base(), mine.at(300));
  mine.clear();
  open_store(dir).resume_into(second, mine.base());
  CHECK(std::memcmp(mine.base(), expected.data(), expected.size()) == 0);

  migrate::store_options plain;
  plain.skip_unchanged = false;
  store other = open_store(dir, plain);
  CHECK(other.commit(task, mine.number(), &second, all, all, {}).bytes_written() == 300 * page);
}

TEST_CASE("a base whose file is gone or damaged does not keep dirty pages from being written") {
  directory dir;
  region mine;
  store here = open_store(dir);
  mine.fill(0, 64, 1);
  std::vector<page_range> all{mine.pages(0, 64)};
  image first = here.commit(task, mine.number(), nullptr, all, all, {});
  SECTION("gone") { std::filesystem::remove(dir.image(task, 1)); }
  SECTION("a page of it damaged") { change_byte(dir.image(task, 1), 5 * page + 100); }
  image second = here.commit(task, mine.number(), &first, all, all, {});
  std::vector<char> expected(mine.base(), mine.at(64));
  mine.clear();
  if (!std::filesystem::exists(dir.image(task, 1))) CHECK(second.bytes_written() == 64 * page);
  open_store(dir).resume_into(second, mine.base());
  CHECK(std::memcmp(mine.base(), expected.data(), expected.size()) == 0);
}

TEST_CASE("generations never take a number that is in use") {
  directory dir;
  region mine;
  store here = open_store(dir), there = open_store(dir);
  mine.fill(0, 4, 1);
  std::vector<page_range> all{mine.pages(0, 4)};
  image first = here.commit(task, mine.number(), nullptr, all, all, {});
  mine.fill(0, 1, 2);
  image mine_next = here.commit(task, mine.number(), &first, all, all, {});
  mine.fill(0, 1, 3);
  image their_next = there.commit(task, mine.number(), &first, all, all, {});
  CHECK(mine_next.generation() == 2);
  CHECK(their_next.generation() == 3);
  std::filesystem::copy_file(dir.image(task, 1), dir.store() + "/images/" + to_string(task) + "/4.new");
  CHECK(here.commit(task, mine.number(), &their_next, all, all, {}).generation() == 5);
  CHECK(here.commit(task, mine.number(), nullptr, all, all, {}).generation() == 6);
  CHECK(here.load(task).generation() == 6);
}

TEST_CASE("wrong ranges and wrong bases are refused before anything is written") {
  directory dir;
  region mine, other(8);
  store here = open_store(dir);
  mine.fill(0, 4, 1);
  std::vector<page_range> all{mine.pages(0, 4)};
  std::vector<page_range> foreign{other.pages(0, 1)}, uneven{{mine.at(0) + 8, page}}, odd{{mine.at(0), 100}},
      beyond{{mine.base(), mine.number().size() + page}};
  for (const auto& bad : {foreign, uneven, odd, beyond}) {
    CHECK_THROWS_AS(here.commit(task, mine.number(), nullptr, bad, all, {}), std::invalid_argument);
    CHECK_THROWS_AS(here.commit(task, mine.number(), nullptr, all, bad, {}), std::invalid_argument);
  }
  CHECK(here.list().empty());
  image first = here.commit(task, mine.number(), nullptr, all, all, {});
  migrate::task_id stranger(migrate::node_id(9), 1, 0);
  CHECK(caught([&] { here.commit(stranger, mine.number(), &first, all, all, {}); }).code() ==
        migrate::errc::image_foreign);
  CHECK(caught([&] { here.commit(task, other.number(), &first, {}, {}, {}); }).code() ==
        migrate::errc::image_foreign);
}

namespace {

struct model {
  std::map<std::size_t, std::vector<char>> pages; // what the image must hold

  void check(const region& mine, std::size_t count) const {
    static const std::vector<char> zeros(page, '\0');
    for (std::size_t i = 0; i < count; ++i) {
      auto found = pages.find(i);
      const std::vector<char>& expected = found == pages.end() ? zeros : found->second;
      if (std::memcmp(mine.at(i), expected.data(), page) != 0) FAIL("page " << i << " differs");
    }
  }
};

} // namespace

TEST_CASE("random generations come back exactly, whatever is merged, skipped, mapped or read") {
  const std::uint64_t seed = new_seed();
  std::printf("commit_test: MIGRATE_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  INFO("MIGRATE_TEST_SEED=" << seed);
  constexpr std::size_t count = 700;
  auto variant = GENERATE(0, 1, 2, 3);
  std::mt19937_64 random(seed + static_cast<unsigned>(variant));
  migrate::store_options options;
  options.map_from = variant == 1 ? 1 : variant == 2 ? 8 : 32;
  options.most_mappings = variant == 2 ? 5 : 1024;
  options.prefault = variant == 3 ? 0 : 128u << 20;
  options.skip_unchanged = variant != 3;
  options.most_files = variant == 1 ? 3 : 8;

  directory dir;
  region mine;
  store nodes[2] = {open_store(dir, options), open_store(dir, options)};
  model expected;
  image current;
  for (int generation = 0; generation < 60; ++generation) {
    store& node = nodes[random() % 2];
    std::vector<page_range> dirty, live;
    std::vector<bool> is_dirty(count, false), is_live(count, true);
    std::size_t writes = random() % 12;
    for (std::size_t i = 0; i < writes; ++i) {
      std::size_t length = random() % 4 == 0 ? 1 + random() % 150 : 1 + random() % 5;
      std::size_t first = random() % (count - length);
      if (random() % 3 != 0) mine.fill(first, length, random());
      dirty.push_back(mine.pages(first, length));
      for (std::size_t p = first; p < first + length; ++p) is_dirty[p] = true;
    }
    std::size_t frees = random() % 4;
    for (std::size_t i = 0; i < frees; ++i) {
      std::size_t length = 1 + random() % 60, first = random() % (count - length);
      for (std::size_t p = first; p < first + length; ++p) is_live[p] = false;
    }
    for (std::size_t p = 0; p < count; ++p)
      if (is_live[p]) live.push_back(mine.pages(p, 1));
    std::shuffle(live.begin(), live.end(), random);

    image next = node.commit(task, mine.number(), current.valid() ? &current : nullptr, dirty, live, {});
    for (std::size_t p = 0; p < count; ++p)
      if (is_dirty[p])
        expected.pages[p].assign(mine.at(p), mine.at(p + 1));
      else if (!is_live[p])
        expected.pages.erase(p);

    std::size_t held = 0;
    for (const auto& file : next.files()) held += file.pages;
    INFO("generation " << generation);
    CHECK(next.files().size() <= options.most_files);
    CHECK(held <= 2 * pages_of(next));
    CHECK(pages_of(next) == expected.pages.size());

    store& target = nodes[random() % 2];
    if (random() % 2 == 0) target.collect(task, next);
    mine.clear();
    image arrived = random() % 2 == 0 ? image::parse(next.encode()) : target.load(task);
    REQUIRE(arrived == next);
    if (random() % 2 == 0)
      target.resume_into(arrived, mine.base());
    else {
      target.verify(arrived);
      target.map(arrived, mine.base());
    }
    expected.check(mine, count);
    current = arrived;
  }
}

TEST_CASE("a region of scattered pages costs a bounded number of mappings and few extents") {
  directory dir;
  region mine;
  migrate::store_options options;
  options.map_from = 1;
  options.most_mappings = 10;
  store here = open_store(dir, options);
  constexpr std::size_t count = 16000; // every second page, so nothing can be coalesced
  std::vector<page_range> all{mine.pages(0, count)}, odd;
  mine.fill(0, count, 1);
  image first = here.commit(task, mine.number(), nullptr, all, all, {});
  for (std::size_t p = 1; p < count; p += 2) {
    mine.fill(p, 1, 1000);
    odd.push_back(mine.pages(p, 1));
  }
  std::reverse(odd.begin(), odd.end());
  image second = here.commit(task, mine.number(), &first, odd, all, {});
  CHECK(second.extents().size() == count);
  CHECK(second.bytes_written() == odd.size() * page);
  std::vector<char> expected(mine.base(), mine.at(count));
  mine.clear();
  store there = open_store(dir, options);
  there.resume_into(second, mine.base());
  CHECK(std::memcmp(mine.base(), expected.data(), expected.size()) == 0);

  std::size_t mappings = 0;
  std::FILE* maps = std::fopen("/proc/self/maps", "r");
  char line[512];
  while (std::fgets(line, sizeof line, maps) != nullptr)
    if (std::strstr(line, ".image") != nullptr) ++mappings;
  std::fclose(maps);
  CHECK(mappings <= 10);
}
