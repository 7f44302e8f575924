#include <migrate/store.hpp>

#include <atomic>
#include <thread>

#include "store_fixture.hpp"

using namespace store_test;
using migrate::errc;
using migrate::image;
using migrate::page_range;
using migrate::store;
using migrate::task_id;

namespace {

store open_store(const directory& dir) {
  migrate::store_options options;
  options.create = true;
  return store::open(dir.store(), options);
}

} // namespace

TEST_CASE("collecting removes what the current image does not need") {
  directory dir;
  region mine;
  store here = open_store(dir);
  mine.fill(0, 100, 1);
  std::vector<page_range> all{mine.pages(0, 100)}, some{mine.pages(0, 5)};
  image first = here.commit(task, mine.number(), nullptr, all, all, {});
  mine.fill(0, 5, 2);
  image second = here.commit(task, mine.number(), &first, some, all, {});
  mine.fill(0, 5, 3);
  image third = here.commit(task, mine.number(), &second, some, all, {});
  std::filesystem::copy_file(dir.image(task, 1), dir.store() + "/images/3.42/2.new");
  std::filesystem::copy_file(dir.image(task, 1), dir.store() + "/images/3.42/9.new");
  here.collect(task, third);
  CHECK(std::filesystem::exists(dir.image(task, 1)));
  CHECK(!std::filesystem::exists(dir.image(task, 2)));
  CHECK(std::filesystem::exists(dir.image(task, 3)));
  CHECK(!std::filesystem::exists(dir.store() + "/images/3.42/2.new"));
  CHECK(std::filesystem::exists(dir.store() + "/images/3.42/9.new")); // another node may be writing it
  open_store(dir).verify(third);
  CHECK(caught([&] { here.verify(second); }).code() == errc::image_missing);
}

TEST_CASE("collecting by an older image leaves newer ones alone") {
  directory dir;
  region mine;
  store here = open_store(dir);
  mine.fill(0, 10, 1);
  std::vector<page_range> all{mine.pages(0, 10)};
  image first = here.commit(task, mine.number(), nullptr, all, all, {});
  mine.fill(0, 10, 2);
  image second = here.commit(task, mine.number(), &first, all, all, {});
  here.collect(task, first);
  open_store(dir).verify(first);
  open_store(dir).verify(second);
}

TEST_CASE("discarding takes back the newest generation only") {
  directory dir;
  region mine;
  store here = open_store(dir);
  mine.fill(0, 10, 1);
  std::vector<page_range> all{mine.pages(0, 10)};
  image first = here.commit(task, mine.number(), nullptr, all, all, {});
  mine.fill(0, 1, 2);
  image second = here.commit(task, mine.number(), &first, all, all, {});
  here.discard(first); // the second may need its file
  open_store(dir).verify(second);
  here.discard(second);
  CHECK(here.load(task) == first);
  here.discard(second);
  open_store(dir).verify(first);

  mine.fill(0, 10, 3);
  image again = here.commit(task, mine.number(), &first, all, all, {});
  CHECK(caught([&] { open_store(dir).verify(second); }).code() == errc::image_damaged);
  store reader = open_store(dir);
  mine.clear();
  reader.resume_into(again, mine.base());
}

TEST_CASE("a removed task leaves nothing, and removing it twice is fine") {
  directory dir;
  region mine;
  store here = open_store(dir);
  mine.fill(0, 10, 1);
  std::vector<page_range> all{mine.pages(0, 10)};
  image of = here.commit(task, mine.number(), nullptr, all, all, {});
  here.commit(task, mine.number(), &of, all, all, {});
  here.remove(task);
  here.remove(task);
  CHECK(std::filesystem::is_empty(dir.store() + "/images"));
  CHECK(here.list().empty());
}

TEST_CASE("the list tells what each task has and whether it can be used") {
  directory dir;
  region mine;
  store here = open_store(dir);
  task_id other(migrate::node_id(1), 7, 3);
  mine.fill(0, 50, 1);
  std::vector<page_range> all{mine.pages(0, 50)}, few{mine.pages(0, 5)};
  image first = here.commit(task, mine.number(), nullptr, all, all, {});
  mine.fill(0, 5, 2);
  here.commit(task, mine.number(), &first, few, all, {});
  here.commit(other, mine.number(), nullptr, few, few, {});
  std::filesystem::create_directory(dir.store() + "/images/not-a-task");

  auto found = here.list(true);
  REQUIRE(found.size() == 2);
  CHECK(found[0].task == other);
  CHECK(found[1].task == task);
  CHECK(found[1].generations == std::vector<std::uint64_t>{1, 2});
  CHECK(found[1].files == 2);
  CHECK(found[1].image_bytes == 50 * page);
  CHECK(found[1].file_bytes ==
        std::filesystem::file_size(dir.image(task, 1)) + std::filesystem::file_size(dir.image(task, 2)));
  CHECK(found[0].problem.empty());
  CHECK(found[1].problem.empty());

  change_byte(dir.image(task, 1), 20 * page);
  CHECK(open_store(dir).list()[1].problem.empty());
  auto deep = open_store(dir).list(true);
  CHECK(deep[1].problem.find("block 21 of 50") != std::string::npos);
  CHECK(deep[0].problem.empty());
  std::filesystem::remove(dir.image(task, 1));
  CHECK(!open_store(dir).list()[1].problem.empty());
}

TEST_CASE("threads commit, verify and collect different tasks in one store at once") {
  directory dir;
  store here = open_store(dir);
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (std::uint32_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      region mine(20 + t);
      task_id me(migrate::node_id(1), t, 0);
      std::vector<page_range> all{mine.pages(0, 80)};
      mine.fill(0, 80, t);
      image current = here.commit(me, mine.number(), nullptr, all, all, {});
      for (std::uint32_t round = 0; round < 50; ++round) {
        mine.fill(round, 3, round * 100 + t);
        std::vector<page_range> dirty{mine.pages(round, 3)};
        image next = here.commit(me, mine.number(), &current, dirty, all, {});
        here.collect(me, next);
        std::vector<char> expected(mine.at(0), mine.at(80));
        mine.clear();
        here.resume_into(next, mine.base());
        if (std::memcmp(expected.data(), mine.base(), expected.size()) == 0) ++good;
        current = next;
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(good == 200);
}
