// What is left where the kernel lacks asynchronous write protection, or userfaultfd is forbidden.
#include <migrate/memory/missing_pages.hpp>
#include <migrate/memory/write_tracker.hpp>

#include <migrate/memory/dirty_pages.hpp>
#include <migrate/memory/region_space.hpp>

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <thread>
#include <vector>

#include <poll.h>
#include <signal.h>
#include <unistd.h>

using namespace migrate;
using namespace migrate::detail;

namespace {

const region_number its_region(region_class::small, 5);

struct lacking {
  explicit lacking(const char* what) { ::setenv("MIGRATE_KERNEL_LACKS", what, 1); }
  ~lacking() { ::unsetenv("MIGRATE_KERNEL_LACKS"); }
};

struct opened_region {
  region_space space;
  opened_region() { REQUIRE(space.open(its_region)); }
  static char* page(std::size_t at) { return its_region.base() + at * page_size; }
};

std::vector<std::size_t> taken(page_scanner& by, bool protect) {
  std::vector<std::size_t> pages;
  by.take_written(its_region.base(), its_region.size(), true, protect, [&](char* from, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; i += page_size)
      pages.push_back(static_cast<std::size_t>(from + i - its_region.base()) / page_size);
  });
  return pages;
}
using pages = std::vector<std::size_t>;

} // namespace

TEST_CASE("without asynchronous protection a served one lists what was written, once, also by the kernel") {
  std::optional<write_tracker> tracker;
  {
    lacking it("async-wp");
    tracker.emplace();
  }
  if (!tracker->available()) { // who is not root has neither
    CHECK(::geteuid() != 0);
    return;
  }
  REQUIRE(tracker->served());
  opened_region region;
  page_scanner scanner;
  scanner.protect_by(tracker->descriptor());
  for (std::size_t i : {1, 2, 5}) *region.page(i) = 'a';
  REQUIRE(tracker->watch(its_region));
  CHECK(taken(scanner, true) == pages{1, 2, 5});
  CHECK(taken(scanner, true).empty());
  *region.page(2) = 'b';
  *region.page(9) = 'b'; // for the first time
  CHECK(taken(scanner, false) == pages{2, 9});
  CHECK(taken(scanner, true) == pages{2, 9});
  CHECK(taken(scanner, true).empty());
  int both[2];
  REQUIRE(::pipe(both) == 0);
  REQUIRE(::write(both[1], "xyz", 3) == 3);
  CHECK(::read(both[0], region.page(5), 3) == 3);
  ::close(both[0]);
  ::close(both[1]);
  CHECK(std::memcmp(region.page(5), "xyz", 3) == 0);
  CHECK(taken(scanner, true) == pages{5});

  std::thread writer([&] { // while it is looked through
    for (int turn = 0; turn < 200; ++turn)
      for (std::size_t i = 16; i < 32; ++i) ++*region.page(i);
  });
  std::vector<bool> seen(256);
  for (int i = 0; i < 50; ++i)
    for (std::size_t page : taken(scanner, true)) seen[page] = true;
  writer.join();
  for (std::size_t page : taken(scanner, true)) seen[page] = true;
  for (std::size_t i = 16; i < 32; ++i) CHECK(seen[i]);
  tracker->forget(its_region, its_region.size());
  *region.page(1) = 'c'; // nobody is told, and nobody waits
  REQUIRE(tracker->watch(its_region));
  pages again = taken(scanner, true);
  CHECK(std::count(again.begin(), again.end(), 2) == 1); // what was protected before counts as never taken
  tracker->forget(its_region, its_region.size());
}

namespace {

void on_fault(int signal, siginfo_t* info, void*) {
  int before = errno;
  if (!missing_pages::arrives(static_cast<char*>(info->si_addr))) ::signal(signal, SIG_DFL);
  errno = before;
}

} // namespace

TEST_CASE("without userfaultfd who touches a page that is not there waits in a handler until all of it is") {
  std::optional<missing_pages> missing;
  {
    lacking it("missing-pages");
    missing.emplace();
  }
  if (!missing->available()) {
    WARN("skipped: /proc/self/mem does not write where the program may not");
    return;
  }
  REQUIRE(missing->by_faults());
  CHECK(missing->programs_only());
  opened_region region;
  struct sigaction action {}, before {};
  action.sa_sigaction = &on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  ::sigaction(SIGSEGV, &action, &before);

  constexpr std::size_t count = 64;
  char* const from = region.page(8);
  REQUIRE(missing->watch(from, count * page_size));
  missing->hide(from, count * page_size);
  std::vector<char*> asked;
  std::thread server([&] {
    std::array<char, page_size> page;
    std::vector<bool> there(count);
    std::size_t left = count - 1;
    while (left > 0) {
      pollfd told{missing->descriptor(), POLLIN, 0};
      if (::poll(&told, 1, 10'000) <= 0) return;
      while (missing->read(
          [&](char* touched) {
            auto at = static_cast<std::size_t>(touched - from) / page_size;
            if (there[at]) {
              missing->wake(touched, page_size);
              return;
            }
            there[at] = true;
            --left;
            asked.push_back(touched);
            page.fill(static_cast<char>('A' + at % 26));
            std::size_t bytes = page_size;
            missing->copy(touched, page.data(), bytes);
          },
          [](char*, std::size_t) {})) {
      }
    }
  });
  std::vector<std::thread> readers;
  std::array<int, 3> wrong{};
  for (std::size_t which = 0; which < wrong.size(); ++which)
    readers.emplace_back([&, which] {
      for (std::size_t i = 0; i < count - 1; ++i) {
        std::size_t at = (i * 17 + which * 5) % (count - 1);
        const volatile char* page = from + at * page_size;
        auto expected = static_cast<char>('A' + at % 26);
        wrong[which] += page[0] != expected || page[page_size - 1] != expected;
      }
    });
  for (auto& each : readers) each.join();
  server.join();
  CHECK(wrong == std::array<int, 3>{});
  CHECK(asked.size() == count - 1);
  char unread = 0; // a system call is told that the last one is not there
  CHECK((::write(STDOUT_FILENO, from + (count - 1) * page_size, 1) < 0 && errno == EFAULT));
  missing->forget(from, count * page_size); // what has not come reads as zero
  unread = *static_cast<volatile char*>(from + (count - 1) * page_size);
  CHECK(unread == 0);
  *from = 'w';
  CHECK(*from == 'w');
  ::sigaction(SIGSEGV, &before, nullptr);
}
