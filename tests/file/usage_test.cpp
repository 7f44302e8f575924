#include <migrate/posix/usage.hpp>

#include "../support/cluster.hpp"
#include "../support/program.hpp"

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <time.h>

#include <migrate/nodes.hpp>

namespace posix = migrate::posix;
using migrate::node_id;
using migrate_test::run;

namespace {

constexpr std::int64_t ms = 1'000'000;

void burn(std::int64_t nanoseconds) {
  // Of the thread's processor time, without a call into the library.
  auto used = [] {
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  };
  for (std::int64_t end = used() + nanoseconds; used() < end;) {
  }
}

std::int64_t used() {
  auto usage = migrate::this_task::usage();
  return usage.user + usage.system;
}

const migrate_test::scenario_entry from_the_start{"from the start", [] {
  std::printf("%lld\n", static_cast<long long>(run([] {
    migrate::this_task::migrate_to(node_id(2));
    burn(30 * ms);
    return used();
  })));
  return 0;
}};

std::int64_t first_answer(const char* wanted) {
  migrate_test::program other({migrate_test::own_path()}, {{"MIGRATE_SCENARIO", "from the start"},
                                                           {"MIGRATE_NODES", "2"},
                                                           {"MIGRATE_QUIET", "1"},
                                                           {"MIGRATE_USAGE", wanted}});
  return std::stoll("0" + other.line());
}

} // namespace

TEST_CASE("usage is counted from when it is first asked for, or from the start where the nodes are told to") {
  CHECK(first_answer("1") >= 28 * ms);
  CHECK(first_answer("0") <= 10 * ms);
}

TEST_CASE("what a task uses adds up over all nodes") {
  auto seen = run([] {
    std::vector<std::int64_t> found{used()};
    for (node_id node : migrate::nodes()) {
      migrate::this_task::migrate_to(node);
      burn(50 * ms);
      found.push_back(used());
    }
    migrate::this_task::migrate_to(migrate::this_task::home());
    found.push_back(used());
    return found;
  });
  for (std::size_t i = 1; i < seen.size(); ++i) {
    std::int64_t expected = i + 1 < seen.size() ? 50 * ms : 0;
    CAPTURE(i, seen[i - 1], seen[i]);
    CHECK(seen[i] - seen[i - 1] >= expected - 2 * ms);
    CHECK(seen[i] - seen[i - 1] <= expected + 40 * ms);
  }
}

TEST_CASE("a task is not charged for what others use") {
  auto seen = run([] {
    std::vector<migrate::task<std::int64_t>> busy;
    std::int64_t before = used();
    for (int i = 0; i < 4; ++i)
      busy.push_back(migrate::spawn([] {
        for (int k = 0; k < 20; ++k) {
          burn(2 * ms);
          migrate::this_task::yield();
        }
        return used();
      }));
    std::vector<std::int64_t> found;
    for (auto& each : busy) found.push_back(each.join());
    found.push_back(used() - before);
    return found;
  });
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(seen[i] >= 38 * ms); // counted from its start, as its parent had asked
    CHECK(seen[i] <= 75 * ms);
  }
  CHECK(seen[4] <= 35 * ms);
}

TEST_CASE("what a child has used is its parent's to ask when it has waited for it") {
  auto seen = run([] {
    used();
    auto before = migrate::this_task::children_usage();
    migrate::start_child([] {
      burn(20 * ms);
      migrate::this_task::migrate_to(node_id(2));
      burn(20 * ms);
      return 0;
    });
    rusage of_child{};
    posix::wait4(-1, nullptr, 0, &of_child);
    rusage all{};
    posix::getrusage(RUSAGE_CHILDREN, &all);
    auto sum = [](const rusage& usage) {
      return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000 + usage.ru_utime.tv_usec +
             usage.ru_stime.tv_usec;
    };
    return std::vector<std::int64_t>{before.user + before.system, sum(of_child) * 1000, sum(all) * 1000};
  });
  CHECK(seen[0] == 0);
  CHECK(seen[1] >= 38 * ms);
  CHECK(seen[1] <= 90 * ms);
  CHECK(seen[2] == seen[1]);
}

TEST_CASE("the calls of POSIX tell the same usage") {
  auto seen = run([] {
    static_cast<void>(posix::clock());
    migrate::this_task::migrate_to(node_id(2));
    burn(40 * ms);
    std::vector<std::int64_t> found;
    found.push_back(std::int64_t{posix::clock()} * (1'000'000'000 / CLOCKS_PER_SEC));
    rusage own{};
    posix::getrusage(RUSAGE_SELF, &own);
    found.push_back((own.ru_utime.tv_usec + own.ru_stime.tv_usec) * 1000);
    timespec time{};
    posix::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    found.push_back(time.tv_nsec);
    tms ticks{};
    posix::times(&ticks);
    found.push_back((ticks.tms_utime + ticks.tms_stime + 1) * (1'000'000'000 / ::sysconf(_SC_CLK_TCK)));
    return found;
  });
  for (std::int64_t each : seen) {
    CHECK(each >= 38 * ms);
    CHECK(each <= 150 * ms);
  }
  errno = 0;
  CHECK(posix::clock() == -1);
  CHECK(errno == ENOSYS);
}

TEST_CASE("a priority is carried and inherited") {
  auto seen = run([] {
    std::vector<int> found{posix::setpriority(PRIO_PROCESS, 0, 7)};
    for (node_id node : migrate::nodes()) {
      migrate::this_task::migrate_to(node);
      found.push_back(posix::getpriority(PRIO_PROCESS, posix::getpid()));
    }
    found.push_back(migrate::spawn([] { return posix::nice(3); }).join());
    found.push_back(posix::getpriority(PRIO_PROCESS, 0));
    found.push_back(posix::getpriority(PRIO_PROCESS, 12345));
    found.push_back(posix::setpriority(PRIO_PROCESS, 0, 5) == 0 ? 0 : EACCES);
    return found;
  });
  CHECK(seen == std::vector<int>{0, 7, 7, 7, 10, 7, -1, ::geteuid() == 0 ? 0 : EACCES});
}
