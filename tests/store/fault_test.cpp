#include <migrate/store.hpp>

#include <csignal>

#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "store_fixture.hpp"

using namespace store_test;
using migrate::errc;
using migrate::image;
using migrate::page_range;
using migrate::store;

namespace {

store open_store(const directory& dir, migrate::store_options options = {}) {
  options.create = true;
  return store::open(dir.store(), options);
}

struct two_generations {
  directory dir;
  region mine;
  store writer = open_store(dir);
  image first, second;

  two_generations() {
    mine.fill(0, 100, 1);
    std::vector<page_range> all{mine.pages(0, 100)}, some{mine.pages(40, 30)};
    first = writer.commit(task, mine.number(), nullptr, all, all, bytes("one"));
    mine.fill(40, 30, 2);
    second = writer.commit(task, mine.number(), &first, some, all, bytes("two"));
  }
  std::string path(std::uint64_t generation) const { return dir.image(task, generation); }

  migrate::error refusal() {
    // A node that has seen nothing of it yet, so that nothing counts as verified.
    store reader = open_store(dir);
    auto verified = caught([&] { reader.verify(second); });
    mine.fill(0, 100, 3);
    auto resumed = caught([&] { reader.resume_into(second, mine.base()); });
    CHECK(resumed.code() == verified.code());
    CHECK(std::string(resumed.what()) == verified.what());
    if (resumed.code() != errc::image_foreign)
      CHECK(std::count(mine.at(0), mine.at(100), '\0') == static_cast<std::ptrdiff_t>(100 * page));
    return verified;
  }
};

template <class F> bool in_child(F&& work) {
  std::fflush(nullptr);
  pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    bool good = false;
    try {
      good = work();
    } catch (const std::exception& problem) {
      std::fprintf(stderr, "in the child: %s\n", problem.what());
    }
    std::_Exit(good ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
// What changes the process's limits, user or mounts happens in a process of its own.

} // namespace

TEST_CASE("a flipped bit in any page is found and named with the generation that is whole") {
  two_generations of;
  change_byte(of.path(2), 8 * page + 1234, 5);
  auto problem = of.refusal();
  CHECK(problem.code() == errc::image_damaged);
  CHECK(says(problem, "image 2 of task 3.42: block 9 of 30 of data file 2 has checksum "));
  CHECK(says(problem, ", its table says "));
  CHECK(says(problem, "; generation 1 is intact"));
}

TEST_CASE("every page that an image uses is checked, and no page that it does not") {
  two_generations of;
  for (std::uint32_t used : {0u, 39u, 70u, 99u}) {
    change_byte(of.path(1), static_cast<std::int64_t>(used * page));
    auto problem = of.refusal();
    CHECK(problem.code() == errc::image_damaged);
    CHECK(says(problem, "data file 1"));
    CHECK(says(problem, "; no older generation is intact"));
    change_byte(of.path(1), static_cast<std::int64_t>(used * page));
  }
  change_byte(of.path(1), 50 * page);
  open_store(of.dir).verify(of.second);
  CHECK_THROWS(open_store(of.dir).verify(of.first));
}

TEST_CASE("a flipped bit in a table of checksums is found") {
  two_generations of;
  change_byte(of.path(2), 30 * page + 8 * 7);
  auto problem = of.refusal();
  CHECK(problem.code() == errc::image_damaged);
  CHECK(says(problem, "the table of checksums of data file 2"));
  CHECK(says(problem, "; generation 1 is intact"));
}

TEST_CASE("a flipped bit in a manifest or behind it is found at load") {
  two_generations of;
  auto size = static_cast<std::int64_t>(std::filesystem::file_size(of.path(2)));
  std::int64_t manifest = 30 * static_cast<std::int64_t>(page + 8);
  for (std::int64_t at = manifest; at < size; ++at) {
    change_byte(of.path(2), at, static_cast<unsigned>(at % 8));
    auto problem = caught([&] { of.writer.load(task); });
    bool magic = at >= size - 32 && at < size - 24;
    CHECK(problem.code() == (magic ? errc::image_truncated : errc::image_damaged));
    CHECK(says(problem, "image 2 of task 3.42"));
    CHECK(says(problem, "; generation 1 is intact"));
    change_byte(of.path(2), at, static_cast<unsigned>(at % 8));
  }
  CHECK(of.writer.load(task) == of.second);
}

TEST_CASE("a file cut short anywhere is refused") {
  two_generations of;
  auto size = std::filesystem::file_size(of.path(2));
  for (std::uintmax_t length :
       {size - 1, size - 33, 30 * page + 4, 17 * page, page - 1, std::uintmax_t{1}, std::uintmax_t{0}}) {
    std::filesystem::resize_file(of.path(2), length);
    auto problem = of.refusal();
    CHECK(problem.code() == errc::image_truncated);
    CHECK(says(problem, "data file 2 has " + std::to_string(length) + " bytes, its manifest says " +
                            std::to_string(size)));
    auto load = caught([&] { of.writer.load(task); });
    CHECK(load.code() == errc::image_truncated);
    CHECK(says(load, "; generation 1 is intact"));
  }
}

TEST_CASE("a file that has grown is refused") {
  two_generations of;
  std::filesystem::resize_file(of.path(2), std::filesystem::file_size(of.path(2)) + 1);
  CHECK(of.refusal().code() == errc::image_damaged);
}

TEST_CASE("what was verified before is read again once it has changed") {
  two_generations of;
  store reader = open_store(of.dir);
  reader.verify(of.second);
  reader.verify(of.second);
  change_byte(of.path(1), 10);
  CHECK(caught([&] { reader.verify(of.second); }).code() == errc::image_damaged);
  CHECK(caught([&] { of.writer.verify(of.second); }).code() == errc::image_damaged);
}

TEST_CASE("an image whose files a peer has removed is reported as missing") {
  two_generations of;
  SECTION("one file") {
    std::filesystem::remove(of.path(1));
    auto problem = of.refusal();
    CHECK(problem.code() == errc::image_missing);
    CHECK(says(problem, "another node has removed it"));
  }
  SECTION("all") {
    open_store(of.dir).remove(task);
    CHECK(of.refusal().code() == errc::image_missing);
    auto problem = caught([&] { of.writer.load(task); });
    CHECK(problem.code() == errc::image_missing);
    CHECK(says(problem, "task 3.42 has no image"));
  }
}

TEST_CASE("images of another store, task or generation are foreign") {
  two_generations of;
  directory elsewhere;
  store other = open_store(elsewhere);
  CHECK(caught([&] { other.verify(of.second); }).code() == errc::image_foreign);
  CHECK(caught([&] { other.map(of.second, of.mine.base()); }).code() == errc::image_foreign);
  CHECK(caught([&] { other.resume_into(of.second, of.mine.base()); }).code() == errc::image_foreign);
  CHECK(caught([&] { other.commit(task, of.mine.number(), &of.second, {}, {}, {}); }).code() ==
        errc::image_foreign);

  std::filesystem::create_directories(elsewhere.store() + "/images/3.42");
  std::filesystem::permissions(elsewhere.store() + "/images/3.42", std::filesystem::perms::owner_all);
  std::filesystem::copy_file(of.path(1), elsewhere.image(task, 1));
  auto copied = caught([&] { other.load(task); });
  CHECK(copied.code() == errc::image_foreign);
  CHECK(says(copied, to_string(of.writer.id())));

  migrate::task_id stranger(migrate::node_id(4), 4, 4);
  std::filesystem::create_directory(of.dir.store() + "/images/4.4.4");
  std::filesystem::copy_file(of.path(1), of.dir.image(stranger, 1));
  CHECK(caught([&] { of.writer.load(stranger); }).code() == errc::image_foreign);
  std::filesystem::copy_file(of.path(1), of.dir.image(task, 7));
  CHECK(caught([&] { of.writer.load(task); }).code() == errc::image_foreign);
}

TEST_CASE("an image file that others may touch, or that is no file, is refused") {
  two_generations of;
  SECTION("writable by the group") {
    std::filesystem::permissions(of.path(2), std::filesystem::perms::group_write,
                                 std::filesystem::perm_options::add);
    CHECK(of.refusal().code() == errc::store_owner);
    CHECK(caught([&] { of.writer.load(task); }).code() == errc::store_owner);
  }
  SECTION("a link to somewhere else") {
    std::filesystem::rename(of.path(2), of.dir.path() + "/moved");
    std::filesystem::create_symlink(of.dir.path() + "/moved", of.path(2));
    CHECK_THROWS_AS(of.writer.verify(of.second), migrate::error);
    CHECK_THROWS_AS(of.writer.load(task), migrate::error);
  }
  SECTION("a directory") {
    std::filesystem::remove(of.path(2));
    std::filesystem::create_directory(of.path(2));
    CHECK(caught([&] { of.writer.load(task); }).code() == errc::image_damaged);
  }
}

TEST_CASE("a full store fails the commit, and nothing but the earlier generations is left") {
  two_generations of;
  of.mine.fill(0, 2000, 9);
  std::vector<page_range> all{of.mine.pages(0, 2000)};
  REQUIRE(in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    for (rlim_t most : {rlim_t{0}, rlim_t{10 * page + 100}, rlim_t{1500 * page}, rlim_t{2000 * page + 100},
                        rlim_t{2000 * (page + 8) + 50}}) {
      rlimit limit{most, RLIM_INFINITY};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      try {
        of.writer.commit(task, of.mine.number(), &of.second, all, all, {});
        return false;
      } catch (const migrate::error& problem) {
        if (problem.code() != errc::store_full || !says(problem, "cannot write image 3 of task 3.42") ||
            !says(problem, "file size limit"))
          return false;
      }
      if (of.writer.list()[0].files != 2) return false;
    }
    rlimit none{RLIM_INFINITY, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &none);
    of.writer.verify(of.second);
    return of.writer.commit(task, of.mine.number(), &of.second, all, all, {}).generation() == 3;
  }));
  CHECK(open_store(of.dir).load(task).generation() == 3);
}

TEST_CASE("a file system that is full or read-only fails the commit by name") {
  if (::geteuid() != 0) {
    WARN("not root: no file system can be mounted for this test");
    return;
  }
  directory dir;
  region mine;
  mine.fill(0, 1000, 1);
  std::vector<page_range> all{mine.pages(0, 1000)}, few{mine.pages(0, 10)};
  std::string where = dir.path() + "/mounted";
  std::filesystem::create_directory(where);
  if (::mount("none", where.c_str(), "tmpfs", 0, "size=1m,mode=0700") != 0) {
    WARN("this container mounts nothing: " << std::strerror(errno));
    return;
  }
  {
    migrate::store_options options;
    options.create = true;
    store here = store::open(where, options);
    image first = here.commit(task, mine.number(), nullptr, few, few, {});
    auto full = caught([&] { here.commit(task, mine.number(), &first, all, all, {}); });
    CHECK(full.code() == errc::store_full);
    CHECK(says(full, "free space"));
    CHECK(here.list()[0].files == 1);
    CHECK(here.load(task) == first);

    REQUIRE(::mount("none", where.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0);
    mine.fill(0, 10, 2);
    auto refused = caught([&] { here.commit(task, mine.number(), &first, few, few, {}); });
    CHECK(refused.code() == errc::store_read_only);
    CHECK(says(refused, "mount it writable"));
    CHECK(caught([&] { here.remove(task); }).code() == errc::store_read_only);
    CHECK(caught([&] { store::open(where, options); }).code() == errc::store_read_only);
    migrate::store_options reading;
    reading.read_only = true;
    store reader = store::open(where, reading);
    reader.verify(reader.load(task));
    mine.clear();
    reader.resume_into(first, mine.base());
  }
  mine.clear();
  CHECK(::umount2(where.c_str(), MNT_DETACH) == 0);
}

TEST_CASE("a store that has gone away while it is open fails the commit") {
  two_generations of;
  std::filesystem::remove_all(of.dir.store());
  std::vector<page_range> all{of.mine.pages(0, 10)};
  auto problem = caught([&] { of.writer.commit(task, of.mine.number(), &of.second, all, all, {}); });
  CHECK(problem.code() == errc::store_missing);
  CHECK(says(problem, of.dir.store()));
}

TEST_CASE("a commit that has to merge a damaged file is refused, and the image before stands") {
  two_generations of;
  migrate::store_options options;
  options.most_files = 1;
  store merging = open_store(of.dir, options);
  change_byte(of.path(1), 5);
  std::vector<page_range> all{of.mine.pages(0, 100)}, one{of.mine.pages(99, 1)};
  auto problem = caught([&] { merging.commit(task, of.mine.number(), &of.second, one, all, {}); });
  CHECK(problem.code() == errc::image_damaged);
  CHECK(says(problem, "block 1 of 100 of data file 1"));
  CHECK(of.writer.list()[0].files == 2);
  CHECK(of.writer.load(task) == of.second);
}
