#include <migrate/filesystem.hpp>

#include "file_fixture.hpp"

#include <algorithm>
#include <mutex>

#include <sys/sysmacros.h>

#include <migrate/directory.hpp>
#include <migrate/posix/dirent.hpp>
#include <migrate/posix/mount.hpp>
#include <migrate/posix/stat.hpp>

namespace fs = migrate::filesystem;

TEST_CASE("files are made, looked at and removed by paths, wherever the task is") {
  each_way([](const text& directory) -> text {
    change_directory(directory);
    file_mask(fs::perms(0027));
    file("a", O_CREAT | O_WRONLY, 0666).write("twelve bytes");
    be_moved();
    EXPECT(fs::exists("a") && fs::file_size("a") == 12);
    EXPECT(fs::status("a").permissions() == fs::perms(0640));
    EXPECT(fs::create_directory("sub") && !fs::create_directory("sub"));
    EXPECT(fs::status("sub").permissions() == fs::perms(0750));
    EXPECT(fs::create_directories("sub/x/y"));
    fs::create_hard_link("a", "b");
    fs::create_symlink("../a", "sub/link");
    be_moved();
    EXPECT(fs::read_symlink("sub/link") == "../a" && fs::file_size("sub/link") == 12);
    EXPECT(fs::symlink_status("sub/link").type() == fs::file_type::symlink);
    fs::rename("b", "sub/b");
    fs::resize_file("sub/b", 6);
    fs::permissions("a", fs::perms(0600));
    auto long_ago = std::filesystem::file_time_type::clock::now() - std::chrono::hours(10);
    fs::last_write_time("a", long_ago);
    be_moved();
    EXPECT(fs::last_write_time("a") - long_ago < std::chrono::seconds(1));
    EXPECT(fs::file_size("a") == 6 && (fs::status("sub/b").permissions() == fs::perms(0600)));
    std::vector<text> found;
    for (const auto& each : fs::list_directory("sub")) found.push_back(each.path().filename());
    std::sort(found.begin(), found.end());
    EXPECT((found == std::vector<text>{"b", "link", "x"}));
    EXPECT(fs::remove("sub/b") && !fs::remove("sub/b"));
    std::error_code code;
    fs::rename("nothing", "other", code);
    EXPECT(code == std::errc::no_such_file_or_directory);
    fs::list_directory("nothing", code);
    EXPECT(code == std::errc::no_such_file_or_directory);
    EXPECT(fs::exists("a", code) && !code);
    try {
      static_cast<void>(fs::file_size("nothing"));
      return "nothing has a size";
    } catch (const fs::filesystem_error& why) {
      EXPECT(why.path1() == directory + "/nothing");
    }
    return "";
  });
}

TEST_CASE("a directory is read on across moves") {
  each_way([](const text& directory) -> text {
    for (int i = 0; i < 100; ++i) px::close(px::creat((directory + "/" + std::to_string(i)).c_str(), 0600));
    px::DIR* open = px::opendir(directory.c_str());
    EXPECT(open != nullptr);
    std::vector<text> found;
    while (dirent* each = px::readdir(open)) {
      found.push_back(each->d_name);
      if (found.size() % 40 == 0) be_moved();
    }
    EXPECT(found.size() == 102); // with . and ..
    std::sort(found.begin(), found.end());
    EXPECT(std::unique(found.begin(), found.end()) == found.end());
    px::unlink((directory + "/7").c_str());
    px::rewinddir(open);
    long start = px::telldir(open);
    int left = 0;
    while (px::readdir(open) != nullptr) ++left;
    EXPECT(left == 101);
    px::seekdir(open, start);
    EXPECT(px::readdir(open) != nullptr);
    EXPECT(px::closedir(open) == 0);
    EXPECT(px::opendir((directory + "/7").c_str()) == nullptr && errno == ENOENT);
    return "";
  });
}

TEST_CASE("what is one machine's own is not made or mounted") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    EXPECT(px::mknod(path.c_str(), S_IFCHR | 0600, makedev(1, 3)) == -1 && errno == ENOTSUP);
    EXPECT(px::mknod(path.c_str(), S_IFSOCK | 0600, 0) == -1 && errno == ENOTSUP);
    EXPECT(px::mknod(path.c_str(), S_IFREG | 0600, 0) == 0);
    EXPECT(px::mknod((path + "fifo").c_str(), S_IFIFO | 0600, 0) == 0);
    be_moved();
    struct ::stat status;
    EXPECT(px::stat((path + "fifo").c_str(), &status) == 0 && S_ISFIFO(status.st_mode));
    EXPECT(px::chown(path.c_str(), ::getuid(), ::getgid()) == 0);
    EXPECT(px::mount("none", directory.c_str(), "tmpfs", 0, nullptr) == -1 && errno == ENOTSUP);
    EXPECT(px::umount(directory.c_str()) == -1 && errno == ENOTSUP);
    return "";
  });
}

TEST_CASE("a file is a lock, as for std::unique_lock, and its errors are told in both ways") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    file mine(path, O_CREAT | O_RDWR);
    file other(path, O_RDWR);
    {
      std::unique_lock held(mine);
      EXPECT(!other.try_lock());
      std::error_code code;
      EXPECT(!other.try_lock(code) && !code);
    }
    other.lock_shared();
    mine.lock_shared();
    mine.unlock_shared();
    other.unlock_shared();
    EXPECT(mine.try_lock());
    mine.unlock();
    be_moved();
    std::error_code code;
    EXPECT(mine.write("hello", code) == 5 && !code);
    file again = mine.duplicate();
    be_moved();
    EXPECT(again.tell() == 5 && again.seek(1) == 1 && mine.tell(code) == 1);
    std::byte bytes[8];
    EXPECT(mine.read_at(0, bytes, code) == 5 && !code);
    EXPECT(mine.write_at(5, std::as_bytes(std::span("!", 1)), code) == 1 && mine.bytes(code) == 6);
    mine.resize(2, code);
    EXPECT(!code && mine.bytes() == 2);
    mine.sync(code);
    EXPECT(!code);
    mine.seek(-1, SEEK_SET, code);
    EXPECT(code == std::errc::invalid_argument);
    file none;
    EXPECT(none.read(bytes, code) == 0 && code == std::errc::bad_file_descriptor);
    none.lock(code);
    EXPECT(code == std::errc::bad_file_descriptor);
    EXPECT(!none.duplicate(code) && code == std::errc::bad_file_descriptor);
    try {
      none.resize(1);
      return "nothing was resized";
    } catch (const error& why) {
      EXPECT(why.code() == std::errc::bad_file_descriptor);
    }
    return "";
  });
}

TEST_CASE("on a thread that runs no task paths are refused") {
  std::error_code code;
  CHECK(!fs::exists("/", code));
  CHECK(code == errc::not_in_task);
  CHECK_THROWS_AS(fs::exists("/"), error);
  CHECK_THROWS_AS(fs::list_directory("/"), error);
}
