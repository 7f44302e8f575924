#include <migrate/mapping.hpp>

#include "file_fixture.hpp"

#include <cstring>

#include <migrate/fork.hpp>
#include <migrate/posix/mman.hpp>
#include <migrate/process.hpp>

namespace {

constexpr std::size_t page = 4096;

} // namespace

TEST_CASE("a private mapping moves with its task, and what is written to it stays its own") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int fd = px::open(path.c_str(), O_CREAT | O_RDWR, 0600);
    text whole(2 * page + 100, 'x');
    whole[page] = 'y';
    EXPECT(px::write(fd, whole.data(), whole.size()) == static_cast<ssize_t>(whole.size()));
    auto* all = static_cast<char*>(px::mmap(nullptr, whole.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    EXPECT(all != MAP_FAILED);
    EXPECT(reinterpret_cast<std::uintptr_t>(all) % page == 0);
    auto* second = static_cast<char*>(px::mmap(nullptr, page, PROT_READ, MAP_PRIVATE, fd, page));
    EXPECT(second != MAP_FAILED);
    px::close(fd);
    be_moved();
    EXPECT(std::memcmp(all, whole.data(), whole.size()) == 0);
    EXPECT(all[whole.size()] == 0); // of the last page behind the file's end
    EXPECT(second[0] == 'y' && second[1] == 'x');
    all[0] = 'z';
    be_moved();
    EXPECT(all[0] == 'z');
    file again(path);
    EXPECT(all_of(again.descriptor()) == whole);
    EXPECT(px::msync(all, whole.size(), MS_SYNC) == 0);
    EXPECT(px::munmap(all, page) == -1 && errno == EINVAL);
    EXPECT(px::munmap(all, whole.size()) == 0);
    EXPECT(px::munmap(all, whole.size()) == -1 && errno == EINVAL);
    EXPECT(second[0] == 'y');

    mapping third(again, 10, 2 * page);
    be_moved();
    EXPECT(third.bytes().size() == 10 && third.bytes()[0] == std::byte{'x'});
    EXPECT(mapping(again).bytes().size() == whole.size());
    return "";
  });
}

TEST_CASE("memory without a file is zero, is a child's own after fork, and ends with the region") {
  each_way([](const text&) -> text {
    auto* all = static_cast<char*>(px::mmap(nullptr, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT(all != MAP_FAILED);
    be_moved();
    EXPECT(std::all_of(all, all + 3 * page, [](char c) { return c == 0; }));
    all[0] = 1;
    task_id child = migrate::fork();
    if (!child) {
      all[0] += 1;
      this_task::quick_exit(all[0]);
    }
    EXPECT(wait_child(child).exit_code() == 2);
    EXPECT(all[0] == 1);
    EXPECT(px::mmap(nullptr, std::size_t{1} << 40, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM);
    return "";
  });
}

TEST_CASE("shared memory is refused, and never a private copy instead") {
  each_way([](const text& directory) -> text {
    text path = directory + "/a";
    int fd = px::open(path.c_str(), O_CREAT | O_RDWR, 0600);
    px::ftruncate(fd, page);
    auto refused = [&](int protection, int flags, int of) {
      errno = 0;
      return px::mmap(nullptr, page, protection, flags, of, 0) == MAP_FAILED ? errno : 0;
    };
    constexpr int read_write = PROT_READ | PROT_WRITE;
    EXPECT(refused(read_write, MAP_SHARED, fd) == ENOTSUP);
    EXPECT(refused(PROT_READ, MAP_SHARED, fd) == ENOTSUP);
    EXPECT(refused(read_write, MAP_SHARED | MAP_ANONYMOUS, -1) == ENOTSUP);
    EXPECT(refused(read_write, MAP_PRIVATE | MAP_FIXED, fd) == ENOTSUP);
    EXPECT(refused(PROT_READ | PROT_EXEC, MAP_PRIVATE, fd) == ENOTSUP);
    EXPECT(px::shm_open("/memory", O_RDWR, 0) == -1 && errno == ENOTSUP);
    EXPECT(px::mprotect(nullptr, page, PROT_READ) == -1 && errno == ENOTSUP);
    int ends[2];
    EXPECT(px::pipe(ends) == 0);
    EXPECT(refused(PROT_READ, MAP_PRIVATE, ends[0]) == ENODEV);
    EXPECT(refused(PROT_READ, MAP_PRIVATE, 77) == EBADF);
    int out = px::open(path.c_str(), O_WRONLY);
    EXPECT(refused(PROT_READ, MAP_PRIVATE, out) == EACCES);
    std::error_code code;
    mapping none(file(out), page, code);
    EXPECT(code == std::errc::permission_denied && none.bytes().empty());
    return "";
  });
}
