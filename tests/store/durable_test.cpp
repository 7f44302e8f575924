// What a durable store asks of the kernel, and when. The library is compiled into this program, so the functions
// below are the ones that it calls.
#include <migrate/store.hpp>

#include <cerrno>
#include <cstdio>

#include <sys/stat.h>
#include <sys/syscall.h>

#include "store_fixture.hpp"

using namespace store_test;
using migrate::image;
using migrate::page_range;
using migrate::store;

namespace {

using names = std::vector<std::string>;

names calls;
std::string failing; // the call that is to fail, as it stands in `calls`

bool fails(std::string call) {
  calls.push_back(std::move(call));
  errno = EIO;
  return calls.back() == failing;
}

std::string name_of(int fd) {
  return std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd)).filename().string();
}

} // namespace

extern "C" int fsync(int fd) {
  std::string call = "sync " + name_of(fd);
  struct stat status;
  if (::fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) call += " of " + std::to_string(status.st_size);
  return fails(std::move(call)) ? -1 : static_cast<int>(::syscall(SYS_fsync, fd));
}

extern "C" int syncfs(int fd) noexcept {
  return fails("sync the file system of " + name_of(fd)) ? -1 : static_cast<int>(::syscall(SYS_syncfs, fd));
}

extern "C" int renameat(int from_folder, const char* from, int to_folder, const char* to) noexcept {
  if (fails(std::string("rename ") + from + " to " + to)) return -1;
  return static_cast<int>(::syscall(SYS_renameat, from_folder, from, to_folder, to));
}

namespace {

store open_store(const directory& dir, bool durable) {
  migrate::store_options options;
  options.create = true;
  options.durable = durable;
  return store::open(dir.store(), options);
}

struct committing {
  directory dir;
  region mine;
  store here;
  std::vector<page_range> all{mine.pages(0, 50)}, some{mine.pages(3, 9)};

  explicit committing(bool durable) : here(open_store(dir, durable)) {
    failing.clear();
    calls.clear();
  }
  image first() {
    mine.fill(0, 50, 1);
    return here.commit(task, mine.number(), nullptr, all, all, {});
  }
  image second(const image& base) {
    mine.fill(3, 9, 2);
    return here.commit(task, mine.number(), &base, some, all, {});
  }
  std::string size(std::uint64_t generation) const {
    return std::to_string(std::filesystem::file_size(dir.image(task, generation)));
  }
};

} // namespace

TEST_CASE("a durable commit has synced its whole file, the name of it and that of a new task's folder") {
  committing of(true);
  image base = of.first();
  // The file is all there when it is synced, and gets its name only afterwards; then that is synced.
  CHECK(calls == names{"sync 1.new of " + of.size(1), "rename 3.42/1.new to 3.42/1.image", "sync 3.42", "sync images"});
  calls.clear();
  of.second(base);
  CHECK(calls == names{"sync 2.new of " + of.size(2), "rename 3.42/2.new to 3.42/2.image", "sync 3.42"});
}

TEST_CASE("a folder that somebody else has made, who may have died before a sync, is synced too") {
  committing of(true);
  REQUIRE(std::filesystem::create_directory(of.dir.store() + "/images/" + to_string(task)));
  of.first();
  CHECK(calls.back() == "sync images");
}

TEST_CASE("a commit that need not be durable waits for no disk") {
  committing of(false);
  of.second(of.first());
  CHECK(calls == names{"rename 3.42/1.new to 3.42/1.image", "rename 3.42/2.new to 3.42/2.image"});
}

TEST_CASE("a durable commit of which a step fails is none") {
  std::string step = GENERATE(as<std::string>(), "sync 2.new of ", "rename 3.42/2.new to 3.42/2.image", "sync 3.42");
  committing of(true);
  image base = of.first();
  image then = of.second(base);
  failing = step.ends_with(' ') ? step + of.size(2) : step;
  of.here.discard(then);
  CAPTURE(failing);
  CHECK(caught([&] { of.second(base); }).code() == migrate::errc::store_io);
  CHECK(calls.back() == failing);
  CHECK(of.here.examine(task).files == 1);
  failing.clear();
  CHECK(of.here.load(task) == base);
  of.here.verify(base);
}

TEST_CASE("a durable store is on the disk with the folders that it lies in once it is open") {
  directory dir;
  calls.clear();
  open_store(dir, true);
  CHECK(calls.back() == "sync the file system of store");
  calls.clear();
  open_store(dir, true); // another may have made it, and died
  CHECK(calls == names{"sync the file system of store"});
  failing = calls.back();
  CHECK(caught([&] { open_store(dir, true); }).code() == migrate::errc::store_io);
  calls.clear();
  open_store(dir, false);
  CHECK(calls.empty());
}
