// The plan's addresses in this process: reserving them, opening and closing regions, guards.
#pragma once

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include <sys/mman.h>

#include <migrate/error.hpp>
#include <migrate/memory/address_plan.hpp>

namespace migrate::detail {

#ifndef MADV_GUARD_INSTALL
inline constexpr int madv_guard_install = 102; // Linux 6.13; missing from Debian 12's headers
#else
inline constexpr int madv_guard_install = MADV_GUARD_INSTALL;
#endif

class region_space {
public:
  region_space();
  // Reserves the whole plan without access. Throws migrate::error with errc::address_space, naming
  // what lies in the way, when the addresses are taken or the process may not have so many.

  ~region_space() { ::munmap(reinterpret_cast<void*>(plan_base), plan_size); }
  region_space(const region_space&) = delete;
  region_space& operator=(const region_space&) = delete;

  bool open(region_number first, std::uint32_t count = 1) noexcept;
  // Makes the regions readable and writable, full of zeros; they cost no memory until touched.
  // Neighbours share one kernel mapping, of which a process may have only 65,530. False when the
  // kernel refuses.

  static void allow_huge_pages(region_number region) noexcept;
  // In a large or huge region that is open, but for its first 32 MiB. They are filled faster, and those that are not written
  // during a move's rounds are looked through by one entry of the page tables instead of 512.

  void close(region_number region) noexcept;
  // Drops the region's pages and all access: touching it is a fault again.

  static bool guard(char* address, std::size_t bytes) noexcept;
  // Makes pages fault without a kernel mapping of their own where the kernel can (Linux 6.13).

  static void give_back(char* address, std::size_t bytes) noexcept {
    if (bytes > 0) ::madvise(address, bytes, MADV_DONTNEED);
  }

private:
  static void without_huge_pages(void* address, std::size_t bytes) noexcept;
};

inline region_space::region_space() {
  void* got = ::mmap(reinterpret_cast<void*>(plan_base), plan_size, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got == reinterpret_cast<void*>(plan_base)) return;
  int reason = got == MAP_FAILED ? errno : EEXIST;
  if (got != MAP_FAILED) ::munmap(got, plan_size);
  char range[64];
  std::snprintf(range, sizeof range, "0x%zx-0x%zx", static_cast<std::size_t>(plan_base),
                static_cast<std::size_t>(plan_base) + plan_size);
  std::string what = std::string("reserving addresses ") + range + " for regions: ";
  if (reason == EEXIST)
    what += "something else is mapped there; see /proc/self/maps, or move the plan with MIGRATE_PLAN_BASE";
  else if (reason == ENOMEM)
    what += "the process may not have so many addresses; raise `ulimit -v` (RLIMIT_AS)";
  else
    what += std::strerror(reason);
  throw error(errc::address_space, what);
}

inline bool region_space::open(region_number first, std::uint32_t count) noexcept {
  std::size_t bytes = first.size() * count;
  void* got = ::mmap(first.base(), bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  if (got == MAP_FAILED) return false;
  without_huge_pages(got, bytes);
  return true;
}

inline void region_space::close(region_number region) noexcept {
  ::mmap(region.base(), region.size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
         0);
}

inline bool region_space::guard(char* address, std::size_t bytes) noexcept {
  if (::madvise(address, bytes, madv_guard_install) == 0) return true;
  return ::mprotect(address, bytes, PROT_NONE) == 0;
}

inline void region_space::without_huge_pages(void* address, std::size_t bytes) noexcept {
  // A huge page would make a task of two pages resident with 512, and dirty with as many.
  static const bool always = [] {
    bool found = false;
    if (std::FILE* file = std::fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re")) {
      char text[64] = {};
      found = std::fgets(text, sizeof text, file) != nullptr && std::strstr(text, "[always]") != nullptr;
      std::fclose(file);
    }
    return found;
  }();
  if (always) ::madvise(address, bytes, MADV_NOHUGEPAGE);
}

inline void region_space::allow_huge_pages(region_number region) noexcept {
  constexpr std::size_t small_heap = std::size_t{32} << 20;
  if (region.kind() == region_class::large || region.kind() == region_class::huge)
    ::madvise(region.base() + small_heap, region.size() - small_heap, MADV_HUGEPAGE);
}

} // namespace migrate::detail
