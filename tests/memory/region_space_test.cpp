#include <migrate/memory/region_pool.hpp>
#include <migrate/memory/region_space.hpp>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

#include <unistd.h>

#include <catch2/catch.hpp>

using namespace migrate;
using migrate::detail::region_number;
using migrate::detail::region_pool;
using migrate::detail::region_space;

namespace {

std::string flags_of(const char* address) {
  // The VmFlags of the kernel's mapping there; proc(5).
  std::ifstream maps("/proc/self/smaps");
  bool there = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long from = 0, to = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2)
      there = from <= reinterpret_cast<std::uintptr_t>(address) && reinterpret_cast<std::uintptr_t>(address) < to;
    else if (there && line.starts_with("VmFlags:"))
      return line + " ";
  }
  return {};
}

bool may_be_huge(const char* address) { return flags_of(address).find(" hg ") != std::string::npos; }

constexpr std::size_t mebibyte = std::size_t{1} << 20;

} // namespace

TEST_CASE("a large region may have huge pages, but not where a small heap lies, and no other region may") {
  if (::access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK) != 0) return;
  region_space space;
  const region_number small(region_class::small, 1), medium(region_class::medium, 1), large(region_class::large, 1),
      next(region_class::large, 2);
  REQUIRE(space.open(small));
  REQUIRE(space.open(medium));
  REQUIRE(space.open(large, 2));
  for (region_number each : {small, medium, large, next}) {
    CHECK_FALSE(may_be_huge(each.base() + each.size() - 4096));
    space.allow_huge_pages(each);
  }
  CHECK_FALSE(may_be_huge(small.base()));
  CHECK_FALSE(may_be_huge(medium.base() + 40 * mebibyte));
  for (region_number each : {large, next}) {
    CHECK_FALSE(may_be_huge(each.base() + mebibyte));
    CHECK(may_be_huge(each.base() + 40 * mebibyte));
    CHECK(may_be_huge(each.base() + each.size() - mebibyte));
  }
  space.close(large);
  CHECK_FALSE(may_be_huge(large.base() + 40 * mebibyte));
}

TEST_CASE("a task is born with huge pages in a large region, also in one that was closed, and arrives without") {
  if (::access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK) != 0) return;
  region_space space;
  region_pool pool(space);
  pool.grant({region_class::large, 1, 1});
  const region_number born = pool.take(region_class::large)->region;
  const char* far = born.base() + 40 * mebibyte;
  CHECK(may_be_huge(far));
  space.close(born); // its task has left
  REQUIRE(space.open(born));
  CHECK_FALSE(may_be_huge(far));
  space.close(born);
  pool.put_back_closed(born);
  CHECK(pool.take(region_class::large)->region == born);
  CHECK(may_be_huge(far));
}
