#include <migrate/store.hpp>

#include <atomic>
#include <csignal>
#include <ctime>

#include <sys/wait.h>

#include "store_fixture.hpp"

using namespace store_test;
using migrate::image;
using migrate::page_range;
using migrate::store;

namespace {

constexpr std::size_t count = 400; // pages of the task

void apply(const region& mine, std::uint64_t seed, std::uint64_t step, std::vector<page_range>* dirty) {
  // What the task does in one step, the same in every process.
  std::mt19937_64 random(seed * 1000 + step);
  std::size_t writes = step == 0 ? 0 : 1 + random() % 6;
  if (step == 0) mine.fill(0, count, seed);
  if (step == 0 && dirty != nullptr) dirty->push_back(mine.pages(0, count));
  for (std::size_t i = 0; i < writes; ++i) {
    std::size_t length = 1 + random() % 60, first = random() % (count - length);
    mine.fill(first, length, random());
    if (dirty != nullptr) dirty->push_back(mine.pages(first, length));
  }
}

struct shared_words {
  std::atomic<std::uint64_t> committed; // steps
};

[[noreturn]] void commit_until_killed(const directory& dir, const region& mine, std::uint64_t seed,
                                      shared_words& shared) {
  store here = store::open(dir.store());
  std::vector<page_range> all{mine.pages(0, count)};
  image current;
  for (std::uint64_t step = 0;; ++step) {
    std::vector<page_range> dirty;
    apply(mine, seed, step, &dirty);
    std::byte metadata[8];
    std::memcpy(metadata, &step, sizeof metadata);
    current = here.commit(task, mine.number(), step == 0 ? nullptr : &current, dirty, all, metadata);
    shared.committed.store(step + 1);
    if (step % 3 == 2) here.collect(task, current);
  }
}

} // namespace

TEST_CASE("a process killed at any instant of its commits loses no committed generation") {
  const std::uint64_t seed = new_seed();
  std::printf("kill_test: MIGRATE_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  INFO("MIGRATE_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  auto shared = static_cast<shared_words*>(
      ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  REQUIRE(shared != MAP_FAILED);
  std::uint64_t newest = 0, unfinished = 0;
  for (int round = 0; round < 40; ++round) {
    directory dir;
    migrate::store_options options;
    options.create = true;
    store here = store::open(dir.store(), options);
    region mine;
    shared->committed.store(0);
    const std::uint64_t work = random();
    std::fflush(nullptr);
    pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      try {
        commit_until_killed(dir, mine, work, *shared);
      } catch (const std::exception& problem) {
        std::fprintf(stderr, "in the child: %s\n", problem.what());
      }
      std::_Exit(1);
    }
    // The instant is drawn: so many commits, and so many microseconds of the next.
    const std::uint64_t steps = 1 + random() % 12;
    while (shared->committed.load() < steps) {
      int status = 0;
      if (::waitpid(child, &status, WNOHANG) == child) FAIL("the child ended by itself");
      ::sched_yield();
    }
    timespec pause{0, static_cast<long>(random() % 1'500'000)};
    ::nanosleep(&pause, nullptr);
    REQUIRE(::kill(child, SIGKILL) == 0);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));

    const std::uint64_t promised = shared->committed.load();
    image of = here.load(task);
    std::uint64_t step = 0;
    REQUIRE(of.metadata().size() == sizeof step);
    std::memcpy(&step, of.metadata().data(), sizeof step);
    CHECK(step + 1 >= promised);
    CHECK(step + 1 <= promised + 1); // one may be committed and not yet noted

    here.resume_into(of, mine.base());
    std::vector<char> resumed(mine.base(), mine.at(count));
    mine.clear();
    for (std::uint64_t done = 0; done <= step; ++done) apply(mine, work, done, nullptr);
    REQUIRE(std::memcmp(mine.base(), resumed.data(), resumed.size()) == 0);
    newest = std::max(newest, step);
    if (here.list()[0].files > here.list()[0].generations.size()) ++unfinished;

    // The next owner goes on from there, in spite of what the dead one left half done.
    std::vector<page_range> all{mine.pages(0, count)}, one{mine.pages(0, 1)};
    mine.fill(0, 1, 1);
    image next = here.commit(task, mine.number(), &of, one, all, {});
    CHECK(next.generation() > of.generation());
    here.collect(task, next);
    store::open(dir.store()).verify(here.load(task));
  }
  ::munmap(shared, page);
  std::printf("kill_test: up to %llu commits, %llu of 40 kills left a half-written file\n",
              static_cast<unsigned long long>(newest + 1), static_cast<unsigned long long>(unfinished));
  CHECK(newest > 0);
}
