#include "../../examples/store/command.hpp"

#include <sstream>

#include "store_fixture.hpp"

using namespace store_test;
using migrate::image;
using migrate::page_range;
using migrate::store;

namespace {

struct result {
  int status;
  std::string out, err;
};

result run(const std::vector<std::string>& arguments) {
  std::ostringstream out, err;
  int status = migrate_store::run(arguments, out, err);
  return {status, out.str(), err.str()};
}

bool has(const std::string& text, const std::string& part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
  return true;
}

} // namespace

TEST_CASE("migrate-store lists, verifies and removes") {
  directory dir;
  region mine;
  migrate::store_options options;
  options.create = true;
  store here = store::open(dir.store(), options);
  migrate::task_id other(migrate::node_id(1), 7, 3);
  mine.fill(0, 300, 1);
  std::vector<page_range> all{mine.pages(0, 300)}, few{mine.pages(0, 5)};
  image first = here.commit(task, mine.number(), nullptr, all, all, {});
  mine.fill(0, 5, 2);
  here.commit(task, mine.number(), &first, few, all, {});
  here.commit(other, mine.number(), nullptr, few, few, {});

  for (const char* verb : {"list", "verify"}) {
    result got = run({verb, dir.store()});
    CHECK(got.status == 0);
    CHECK(got.err.empty());
    has(got.out, "1.7.3       1            1      1");
    has(got.out, "3.42        2            2      2");
    has(got.out, "1.2 MiB  good");
    has(got.out, "2 tasks");
    has(got.out, "0 damaged");
    has(got.out, to_string(here.id()));
  }
  result one = run({"verify", dir.store(), "3.42"});
  CHECK(one.status == 0);
  has(one.out, "1 task,");

  change_byte(dir.image(task, 2), 3 * page);
  CHECK(run({"list", dir.store()}).status == 0);
  result damaged = run({"verify", dir.store()});
  CHECK(damaged.status == 1);
  has(damaged.out, "1 damaged");
  has(damaged.err, "image 2 of task 3.42: block 4 of 5 of data file 2");
  has(damaged.err, "generation 1 is intact");
  CHECK(run({"verify", dir.store(), "1.7.3"}).status == 0);

  result removed = run({"remove", dir.store(), "3.42"});
  CHECK(removed.status == 0);
  has(removed.out, "removed task 3.42: 2 files");
  CHECK(run({"verify", dir.store()}).status == 0);
  result again = run({"remove", dir.store(), "3.42"});
  CHECK(again.status == 1);
  has(again.err, "task 3.42 has no image");
  CHECK(run({"list", dir.store(), "3.42"}).status == 1);
}

TEST_CASE("migrate-store tells wrong usage from failure") {
  directory dir;
  CHECK(run({}).status == 2);
  CHECK(run({"list"}).status == 2);
  CHECK(run({"prune", dir.path()}).status == 2);
  CHECK(run({"remove", dir.path()}).status == 2);
  result wrong = run({"list", dir.path(), "forty-two"});
  CHECK(wrong.status == 2);
  has(wrong.err, "is no task id");
  CHECK(run({"--help"}).status == 0);
  result missing = run({"list", dir.path() + "/no"});
  CHECK(missing.status == 1);
  has(missing.err, dir.path() + "/no");
  CHECK(!std::filesystem::exists(dir.path() + "/no"));
}
