#include <migrate/file.hpp>

#include "file_fixture.hpp"

#include <atomic>

#include <migrate/posix/file.hpp>

namespace {

struct flock range(short kind, off_t first, off_t bytes) {
  struct flock lock {};
  lock.l_type = kind;
  lock.l_whence = SEEK_SET;
  lock.l_start = first;
  lock.l_len = bytes;
  return lock;
}

bool lock(int fd, short kind, off_t first, off_t bytes, int command = F_SETLK) {
  struct flock what = range(kind, first, bytes);
  return px::fcntl(fd, command, &what) == 0;
}

bool others_may(const text& path, short kind, off_t first, off_t bytes) {
  // Whether another task could take such a lock now.
  auto other = spawn([path, kind, first, bytes] {
    int fd = px::open(path.c_str(), O_RDWR);
    return lock(fd, kind, first, bytes);
  });
  return other.join();
}

} // namespace

TEST_CASE("record locks move with their task, and nobody else gets them meanwhile") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int fd = px::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    EXPECT(lock(fd, F_WRLCK, 0, 10));
    EXPECT(lock(fd, F_RDLCK, 20, 10));
    be_moved();
    EXPECT(!others_may(path, F_RDLCK, 9, 1));
    EXPECT(others_may(path, F_WRLCK, 10, 10));
    EXPECT(others_may(path, F_RDLCK, 20, 10));
    EXPECT(!others_may(path, F_WRLCK, 29, 5));
    EXPECT(lock(fd, F_UNLCK, 5, 5));
    be_moved();
    EXPECT(others_may(path, F_WRLCK, 5, 5));
    EXPECT(!others_may(path, F_WRLCK, 4, 1));
    struct flock asked = range(F_WRLCK, 0, 100);
    EXPECT(px::fcntl(fd, F_GETLK, &asked) == 0 && asked.l_type == F_UNLCK); // its own are no obstacle
    return "";
  });
}

TEST_CASE("record locks are the task's: on all its descriptors of the file, and gone with the first that it closes") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int one = px::open(path.c_str(), O_CREAT | O_RDWR, 0600);
    int two = px::open(path.c_str(), O_RDWR);
    EXPECT(lock(one, F_WRLCK, 0, 10));
    be_moved();
    EXPECT(lock(two, F_WRLCK, 0, 10));
    EXPECT(!others_may(path, F_WRLCK, 0, 1));
    px::close(two);
    be_moved();
    EXPECT(others_may(path, F_WRLCK, 0, 1));
    EXPECT(px::fcntl(one, F_GETFD) == 0);
    return "";
  });
}

TEST_CASE("a child has none of its parent's record locks") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int fd = px::open(path.c_str(), O_CREAT | O_RDWR, 0600);
    EXPECT(lock(fd, F_WRLCK, 0, 0));
    auto child = spawn([fd]() -> text {
      be_moved();
      EXPECT(!lock(fd, F_WRLCK, 0, 1) && (errno == EAGAIN || errno == EACCES));
      struct flock asked = range(F_RDLCK, 0, 1);
      EXPECT(px::fcntl(fd, F_GETLK, &asked) == 0 && asked.l_type == F_WRLCK);
      px::close(fd);
      return "";
    });
    text wrong = child.join();
    EXPECT(wrong == "");
    be_moved();
    EXPECT(!others_may(path, F_WRLCK, 0, 1));
    return "";
  });
}

TEST_CASE("a task that waits for a lock gets it when the holder, moved meanwhile, gives it up") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int fd = px::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    EXPECT(lock(fd, F_WRLCK, 0, 1));
    auto other = spawn([path]() -> text {
      int mine = px::open(path.c_str(), O_RDWR);
      EXPECT(lock(mine, F_WRLCK, 0, 1, F_SETLKW));
      be_moved();
      EXPECT(px::write(mine, "2", 1) == 1);
      return "";
    });
    be_moved();
    EXPECT(px::write(fd, "1", 1) == 1);
    EXPECT(lock(fd, F_UNLCK, 0, 1));
    text wrong = other.join();
    EXPECT(wrong == "");
    char got = 0;
    EXPECT(px::pread(fd, &got, 1, 0) == 1 && got == '2');
    return "";
  });
}

TEST_CASE("locks end with their task") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    auto holder = spawn([path]() -> text {
      int fd = px::open(path.c_str(), O_CREAT | O_RDWR, 0600);
      EXPECT(lock(fd, F_WRLCK, 0, 1));
      be_moved();
      return "";
    });
    text wrong = holder.join();
    EXPECT(wrong == "");
    // Its last descriptor may be closed a moment after its end is known.
    int fd = px::open(path.c_str(), O_RDWR);
    EXPECT(lock(fd, F_WRLCK, 0, 1, F_SETLKW));
    return "";
  });
}

TEST_CASE("flock belongs to the open file and moves with it") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int fd = px::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    int copy = px::dup(fd);
    int other = px::open(path.c_str(), O_RDWR);
    EXPECT(px::flock(fd, LOCK_EX) == 0);
    be_moved();
    EXPECT(px::flock(other, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK);
    EXPECT(px::flock(copy, LOCK_UN) == 0);
    be_moved();
    EXPECT(px::flock(other, LOCK_SH | LOCK_NB) == 0);
    EXPECT(px::flock(fd, LOCK_SH | LOCK_NB) == 0);
    return "";
  });
}

TEST_CASE("no two tasks are ever in what a lock protects, while all of them move") {
  std::uint64_t seed = new_seed("locks");
  folder where;
  text wrong = migrate_test::run(
      [](text directory, std::uint64_t from) -> text {
        text path = directory + "/counter";
        int fd = px::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
        std::uint64_t zero = 0;
        EXPECT(px::write(fd, &zero, sizeof zero) == sizeof zero);
        constexpr unsigned tasks = 4, rounds = 100;
        std::vector<task<text>> all;
        random_choices random(from);
        for (unsigned i = 0; i < tasks; ++i)
          all.push_back(spawn([path, mine = random.branch()]() mutable -> text {
            int counter = px::open(path.c_str(), O_RDWR);
            for (unsigned round = 0; round < rounds; ++round) {
              EXPECT(lock(counter, F_WRLCK, 0, 8, F_SETLKW));
              std::uint64_t value = 0;
              EXPECT(px::pread(counter, &value, sizeof value, 0) == sizeof value);
              if (mine.one_in(4)) this_task::migrate_to(mine.node());
              ++value;
              EXPECT(px::pwrite(counter, &value, sizeof value, 0) == sizeof value);
              EXPECT(lock(counter, F_UNLCK, 0, 8));
            }
            return "";
          }));
        for (auto& each : all) {
          text failed = each.join();
          EXPECT(failed == "");
        }
        std::uint64_t value = 0;
        EXPECT(px::pread(fd, &value, sizeof value, 0) == sizeof value && value == tasks * rounds);
        return "";
      },
      where.path, seed);
  CHECK(wrong == "");
}
