#include <migrate/file.hpp>

#include "file_fixture.hpp"

#include <migrate/fork.hpp>
#include <migrate/posix/stat.hpp>
#include <migrate/posix/uio.hpp>

TEST_CASE("an offset moves with its task") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int fd = px::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600);
    EXPECT(fd >= 3);
    EXPECT(px::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600) == -1 && errno == EEXIST);
    EXPECT(px::write(fd, "hello ", 6) == 6);
    be_moved();
    EXPECT(px::write(fd, "world", 5) == 5);
    EXPECT(px::lseek(fd, 0, SEEK_CUR) == 11);
    EXPECT(px::lseek(fd, 3, SEEK_SET) == 3);
    be_moved();
    EXPECT(all_of(fd) == "lo world");
    EXPECT(px::close(fd) == 0);
    EXPECT(px::close(fd) == -1 && errno == EBADF);
    return "";
  });
}

TEST_CASE("what was written before a move is read after it, also through another descriptor") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    file out(path, O_CREAT | O_WRONLY);
    out.write("before");
    be_moved();
    file in(path);
    EXPECT(all_of(in.descriptor()) == "before");
    out.write(" after");
    be_moved();
    EXPECT(all_of(in.descriptor()) == " after");
    EXPECT(in.bytes() == 12);
    return "";
  });
}

TEST_CASE("every call on an open file works after a move") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int fd = px::creat(path.c_str(), 0640);
    EXPECT(fd >= 0);
    char byte = 0;
    EXPECT(px::read(fd, &byte, 1) == -1 && errno == EBADF);
    px::close(fd);
    fd = px::open(path.c_str(), O_RDWR);
    be_moved();
    char first[] = "ab", second[] = "cd";
    iovec parts[] = {{first, 2}, {second, 2}};
    EXPECT(px::writev(fd, parts, 2) == 4);
    EXPECT(px::pwrite(fd, "Z", 1, 1) == 1);
    be_moved();
    char got[8] = {};
    EXPECT(px::pread(fd, got, 8, 0) == 4);
    EXPECT(text(got) == "aZcd");
    EXPECT(px::lseek(fd, 100, SEEK_END) == 104); // past the end
    be_moved();
    EXPECT(px::write(fd, "!", 1) == 1);
    struct ::stat status;
    EXPECT(px::fstat(fd, &status) == 0 && status.st_size == 105 && (status.st_mode & 0777) == 0640);
    EXPECT(px::ftruncate(fd, 2) == 0);
    EXPECT(px::fsync(fd) == 0);
    EXPECT(px::lseek(fd, 0, SEEK_SET) == 0);
    char one[2] = {}, two[2] = {};
    iovec into[] = {{one, 1}, {two, 1}};
    be_moved();
    EXPECT(px::readv(fd, into, 2) == 2 && one[0] == 'a' && two[0] == 'Z');
    EXPECT(px::isatty(fd) == 0);
    return "";
  });
}

TEST_CASE("appending goes on at the end after a move") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int fd = px::open(path.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
    EXPECT(px::write(fd, "one", 3) == 3);
    be_moved();
    EXPECT((px::fcntl(fd, F_GETFL) & O_APPEND) != 0);
    int other = px::open(path.c_str(), O_WRONLY | O_APPEND);
    EXPECT(px::write(other, "two", 3) == 3);
    EXPECT(px::write(fd, "three", 5) == 5);
    EXPECT(px::fcntl(fd, F_SETFL, 0) == 0);
    be_moved();
    EXPECT((px::fcntl(fd, F_GETFL) & O_APPEND) == 0);
    EXPECT(px::lseek(fd, 0, SEEK_SET) == 0);
    EXPECT(px::write(fd, "O", 1) == 1);
    int in = px::open(path.c_str(), O_RDONLY);
    EXPECT(all_of(in) == "Onetwothree");
    return "";
  });
}

TEST_CASE("descriptors made by dup share an offset and outlive each other, moved or not") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int fd = px::open(path.c_str(), O_CREAT | O_RDWR, 0600);
    int copy = px::dup(fd);
    EXPECT(copy == fd + 1);
    EXPECT(px::write(fd, "abc", 3) == 3);
    be_moved();
    EXPECT(px::lseek(copy, 0, SEEK_CUR) == 3);
    EXPECT(px::dup2(fd, 40) == 40);
    EXPECT(px::close(fd) == 0);
    be_moved();
    EXPECT(px::write(40, "def", 3) == 3);
    EXPECT(px::lseek(copy, 0, SEEK_CUR) == 6);
    EXPECT(px::fcntl(copy, F_DUPFD, 41u) == 41);
    EXPECT(px::fcntl(copy, F_DUPFD_CLOEXEC, 41u) == 42);
    EXPECT(px::fcntl(41, F_GETFD) == 0);
    EXPECT(px::fcntl(42, F_GETFD) == FD_CLOEXEC);
    EXPECT(px::fcntl(41, F_SETFD, FD_CLOEXEC) == 0);
    EXPECT(px::dup3(copy, 50, O_CLOEXEC) == 50);
    EXPECT(px::dup3(copy, copy, 0) == -1 && errno == EINVAL);
    be_moved();
    EXPECT(px::fcntl(41, F_GETFD) == FD_CLOEXEC);
    EXPECT(px::fcntl(50, F_GETFD) == FD_CLOEXEC);
    EXPECT(px::open(path.c_str(), O_RDONLY) == fd); // the lowest that is free
    int onto = px::open((directory + "/b").c_str(), O_CREAT | O_RDWR, 0600);
    EXPECT(px::dup2(copy, onto) == onto); // what was there is closed
    be_moved();
    EXPECT(px::lseek(onto, 0, SEEK_CUR) == 6);
    return "";
  });
}

TEST_CASE("a file unlinked while it is open goes on working") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int fd = px::open(path.c_str(), O_CREAT | O_RDWR, 0600);
    EXPECT(px::write(fd, "still here", 10) == 10);
    EXPECT(px::unlink(path.c_str()) == 0);
    be_moved();
    EXPECT(px::access(path.c_str(), F_OK) == -1 && errno == ENOENT);
    EXPECT(px::write(fd, "!", 1) == 1);
    EXPECT(px::lseek(fd, 0, SEEK_SET) == 0);
    be_moved();
    EXPECT(all_of(fd) == "still here!");
    struct ::stat status;
    EXPECT(px::fstat(fd, &status) == 0 && status.st_nlink == 0);
    return "";
  });
}

TEST_CASE("the name space is one for all nodes") {
  each_way([](const text& directory) -> text {
    text a = directory + "/a", b = directory + "/b", sub = directory + "/sub";
    px::close(px::creat(a.c_str(), 0600));
    be_moved();
    struct ::stat one, two;
    EXPECT(px::stat(a.c_str(), &one) == 0);
    EXPECT(px::link(a.c_str(), b.c_str()) == 0);
    be_moved();
    EXPECT(px::stat(b.c_str(), &two) == 0 && one.st_ino == two.st_ino && two.st_nlink == 2);
    EXPECT(px::unlink(a.c_str()) == 0);
    EXPECT(px::symlink("b", a.c_str()) == 0);
    be_moved();
    char target[8] = {};
    EXPECT(px::readlink(a.c_str(), target, sizeof target) == 1 && target[0] == 'b');
    EXPECT(px::lstat(a.c_str(), &one) == 0 && S_ISLNK(one.st_mode));
    EXPECT(px::mkdir(sub.c_str(), 0700) == 0);
    EXPECT(px::rename(b.c_str(), (sub + "/c").c_str()) == 0);
    be_moved();
    EXPECT(px::access((sub + "/c").c_str(), R_OK) == 0);
    EXPECT(px::rmdir(sub.c_str()) == -1 && errno == ENOTEMPTY);
    EXPECT(px::chmod((sub + "/c").c_str(), 0400) == 0);
    EXPECT(px::truncate((sub + "/c").c_str(), 7) == 0 || errno == EACCES);
    timespec times[2] = {{1000, 0}, {2000, 0}};
    EXPECT(px::utimensat(AT_FDCWD, (sub + "/c").c_str(), times, 0) == 0);
    be_moved();
    EXPECT(px::stat((sub + "/c").c_str(), &one) == 0 && one.st_mtim.tv_sec == 2000 && (one.st_mode & 0777) == 0400);
    EXPECT(px::unlink((sub + "/c").c_str()) == 0);
    EXPECT(px::rmdir(sub.c_str()) == 0);
    return "";
  });
}

TEST_CASE("a child inherits what is not to be closed at exec, with the offset in common") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int fd = px::open(path.c_str(), O_CREAT | O_RDWR, 0600);
    int own = px::open(path.c_str(), O_RDWR | O_CLOEXEC);
    EXPECT(px::write(fd, "parent ", 7) == 7);
    auto child = spawn([fd, own]() -> text {
      EXPECT(px::fcntl(own, F_GETFD) == -1 && errno == EBADF);
      EXPECT(px::write(fd, "child ", 6) == 6);
      be_moved();
      EXPECT(px::write(fd, "again ", 6) == 6);
      return "";
    });
    text wrong = child.join();
    EXPECT(wrong == "");
    be_moved();
    EXPECT(px::write(fd, "parent", 6) == 6);
    EXPECT(px::lseek(fd, 0, SEEK_SET) == 0);
    EXPECT(all_of(own) == "parent child again parent");
    return "";
  });
}

TEST_CASE("a descriptor that belongs to this machine refuses the move by its name, until it is closed") {
  text what = migrate_test::run([]() -> text {
    node_id here = this_task::node();
    node_id there = here == nodes().back() ? nodes().front() : nodes().back();
    pin_scope stay;
    int kernel = ::epoll_create1(EPOLL_CLOEXEC);
    int fd = adopt(kernel, "the licence server's connection");
    text said;
    {
      // Not pinned: the refusal must be the carrier's.
      struct unpin {
        unpin() { detail::self().pins.fetch_sub(1); }
        ~unpin() { detail::self().pins.fetch_add(1); }
      } moving;
      try {
        this_task::migrate_to(there);
      } catch (const error& refused) {
        if (refused.code() != errc::not_movable) return "another code";
        said = refused.what();
      }
    }
    if (said.find("the licence server's connection") == text::npos) return "it says: " + said;
    if (this_task::node() != here) return "it moved";
    px::close(fd);
    return "";
  });
  CHECK(what == "");
}

TEST_CASE("a thousand files move at once") {
  folder where;
  text wrong = migrate_test::run([](text directory) -> text {
    constexpr int many = 1000;
    for (int i = 0; i < many; ++i) {
      int fd = px::open((directory + "/" + std::to_string(i)).c_str(), O_CREAT | O_RDWR, 0600);
      EXPECT(fd == i + 3);
      EXPECT(px::write(fd, &i, sizeof i) == sizeof i);
    }
    be_moved();
    for (int i = 0; i < many; ++i) {
      int number = -1;
      EXPECT(px::lseek(i + 3, 0, SEEK_CUR) == sizeof number);
      EXPECT(px::pread(i + 3, &number, sizeof number, 0) == sizeof number && number == i);
    }
    return "";
  }, where.path);
  CHECK(wrong == "");
}

TEST_CASE("nothing stays open where the task was") {
  text wrong = migrate_test::run([]() -> text {
    folder where;
    auto open_here = [](const text& path) {
      int count = 0;
      for (const auto& each : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code gone;
        if (std::filesystem::read_symlink(each.path(), gone).native().starts_with(path)) ++count;
      }
      return count;
    };
    int fd = px::open((where.path.string() + "/a").c_str(), O_CREAT | O_RDWR, 0600);
    be_moved();
    EXPECT(open_here(where.path) == 1);
    px::close(fd);
    EXPECT(open_here(where.path) == 0);
    return "";
  });
  CHECK(wrong == "");
}

TEST_CASE("a thread that runs no task is told so") {
  errno = 0;
  CHECK(px::open("/dev/null", O_RDONLY) == -1);
  CHECK(errno == ENOSYS);
  std::error_code code;
  file none("/dev/null", O_RDONLY, code);
  CHECK(code == errc::not_in_task);
  CHECK(!none);
  CHECK_THROWS_AS(file("/dev/null"), error);
}

TEST_CASE("after fork() both have every file, with the offset in common, and no record lock of the parent's") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int fd = px::open(path.c_str(), O_CREAT | O_RDWR, 0600);
    int ends[2];
    EXPECT(px::pipe(ends) == 0);
    EXPECT(px::write(fd, "parent ", 7) == 7);
    struct flock whole {};
    whole.l_type = F_WRLCK;
    EXPECT(px::fcntl(fd, F_SETLK, &whole) == 0);
    task_id child = migrate::fork();
    if (!child) {
      bool right = px::fcntl(fd, F_SETLK, &whole) == -1 && px::lseek(fd, 0, SEEK_CUR) == 7;
      right = right && px::write(fd, "child ", 6) == 6;
      px::close(ends[0]);
      px::write(ends[1], right ? "y" : "n", 1);
      px::close(ends[1]);
      return "";
    }
    px::close(ends[1]);
    char got = 0;
    EXPECT(px::read(ends[0], &got, 1) == 1 && got == 'y');
    EXPECT(px::read(ends[0], &got, 1) == 0); // the child's end is closed too
    whole.l_type = F_UNLCK;
    EXPECT(px::fcntl(fd, F_SETLK, &whole) == 0);
    for (node_id each : nodes()) {
      std::error_code occupied; // while the child's memory is there
      this_task::migrate_to(each, occupied);
    }
    EXPECT(px::write(fd, "parent", 6) == 6);
    EXPECT(px::lseek(fd, 0, SEEK_SET) == 0);
    EXPECT(all_of(fd) == "parent child parent");
    return "";
  });
}

TEST_CASE("what is written to descriptor 1 goes where dup2 has put it, and out of the child that inherits it") {
  each_way([](const text& directory) -> text {
    int fd = px::open((directory + "/out").c_str(), O_CREAT | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
    int old = px::fcntl(1, F_DUPFD_CLOEXEC, 10);
    EXPECT(old == 10);
    EXPECT(px::dup2(fd, 1) == 1);
    be_moved();
    EXPECT(px::write(1, "mine ", 5) == 5);
    spawn([] { px::write(1, "my child's", 10); }).join();
    EXPECT(px::dup2(old, 1) == 1);
    be_moved();
    EXPECT(px::lseek(fd, 0, SEEK_SET) == 0);
    EXPECT(all_of(fd) == "mine my child's");
    EXPECT(px::lseek(1, 0, SEEK_SET) == -1 && errno == ESPIPE);
    EXPECT(px::write(0, "x", 1) == -1 && errno == EBADF);
    return "";
  });
}
