#include <migrate/store.hpp>

#include <fstream>
#include <thread>

#include "store_fixture.hpp"

using namespace store_test;
using migrate::errc;
using migrate::store;
using migrate::store_options;

namespace {

store_options creating() {
  store_options options;
  options.create = true;
  return options;
}

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

} // namespace

TEST_CASE("a store is made once, and keeps its id") {
  directory dir;
  store first = store::open(dir.store(), creating());
  CHECK(first.id());
  CHECK(first.path() == dir.store());
  CHECK(store::open(dir.store()).id() == first.id());
  CHECK(store::open(dir.store(), creating()).id() == first.id());
  CHECK(migrate::parse_store_id(to_string(first.id())) == first.id());
  CHECK(std::filesystem::status(dir.store()).permissions() == std::filesystem::perms::owner_all);
  directory other;
  CHECK(store::open(other.store(), creating()).id() != first.id());
}

TEST_CASE("an empty directory becomes a store when that is asked") {
  directory dir;
  CHECK(caught([&] { store::open(dir.path()); }).code() == errc::store_mismatch);
  CHECK(store::open(dir.path(), creating()).id());
}

TEST_CASE("nodes that make the same store at once agree on it") {
  for (int round = 0; round < 20; ++round) {
    directory dir;
    migrate::store_id ids[4];
    std::vector<std::thread> threads;
    for (auto& id : ids)
      threads.emplace_back([&dir, &id] { id = store::open(dir.store(), creating()).id(); });
    for (auto& thread : threads) thread.join();
    for (auto& id : ids) CHECK(id == store::open(dir.store()).id());
  }
}

TEST_CASE("a store that is missing is reported, and its parents are not made") {
  directory dir;
  auto problem = caught([&] { store::open(dir.path() + "/no"); });
  CHECK(problem.code() == errc::store_missing);
  CHECK(says(problem, dir.path() + "/no"));
  CHECK(says(problem, "make the store"));
  CHECK(caught([&] { store::open(dir.path() + "/no/such", creating()); }).code() == errc::store_missing);
  CHECK(!std::filesystem::exists(dir.path() + "/no"));
}

TEST_CASE("what is no store is left alone") {
  directory dir;
  std::ofstream(dir.path() + "/thesis.txt") << "important";
  auto problem = caught([&] { store::open(dir.path(), creating()); });
  CHECK(problem.code() == errc::store_mismatch);
  CHECK(says(problem, "thesis.txt"));
  CHECK(!std::filesystem::exists(dir.path() + "/store"));
  CHECK(!std::filesystem::exists(dir.path() + "/images"));
  CHECK(caught([&] { store::open(dir.path() + "/thesis.txt", creating()); }).code() == errc::store_mismatch);
}

TEST_CASE("a store of another format, or a damaged one, is not opened") {
  directory dir;
  store::open(dir.store(), creating());
  const std::string name = dir.store() + "/store", whole = text_of(name);
  auto with = [&](const std::string& text) {
    std::ofstream(name, std::ios::trunc) << text;
    return caught([&] { store::open(dir.store(), creating()); });
  };
  std::string newer = whole;
  newer.replace(newer.find("format 1"), 8, "format 2");
  auto problem = with(newer);
  CHECK(problem.code() == errc::store_mismatch);
  CHECK(says(problem, "format 2"));
  for (std::size_t length = 0; length < whole.size(); ++length)
    CHECK(with(whole.substr(0, length)).code() == errc::store_mismatch);
  CHECK(with(std::string(100'000, 'x')).code() == errc::store_mismatch);
  std::ofstream(name, std::ios::trunc) << whole;
  CHECK(store::open(dir.store()).id());
}

TEST_CASE("a store that others may write or read is refused") {
  directory dir;
  store::open(dir.store(), creating());
  using std::filesystem::perms;
  for (perms open_to : {perms::group_write, perms::others_write, perms::group_read, perms::others_exec}) {
    for (const char* part : {"", "/images", "/store"}) {
      auto before = std::filesystem::status(dir.store() + part).permissions();
      std::filesystem::permissions(dir.store() + part, before | open_to);
      auto problem = caught([&] { store::open(dir.store()); });
      CHECK(problem.code() == errc::store_owner);
      CHECK(says(problem, dir.store() + part));
      std::filesystem::permissions(dir.store() + part, before);
    }
  }
  CHECK(store::open(dir.store()).id());
}

TEST_CASE("a store that belongs to somebody else is refused") {
  if (::geteuid() != 0) {
    // Any directory of the system's will do: it belongs to root.
    CHECK(caught([] { store::open("/usr"); }).code() == errc::store_owner);
    return;
  }
  directory dir;
  store::open(dir.store(), creating());
  for (const char* part : {"", "/images", "/store"}) {
    REQUIRE(::chown((dir.store() + part).c_str(), 12345, static_cast<gid_t>(-1)) == 0);
    auto problem = caught([&] { store::open(dir.store()); });
    CHECK(problem.code() == errc::store_owner);
    CHECK(says(problem, "belongs to user 12345"));
    REQUIRE(::chown((dir.store() + part).c_str(), 0, static_cast<gid_t>(-1)) == 0);
  }
}
