// The address plan: which addresses belong to which region, on every node alike.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <migrate/id.hpp>
#include <migrate/memory/sanitizers.hpp>

namespace migrate {

enum class region_class : std::uint8_t { small, medium, large, huge };
// How large a region is: 1 MiB, 64 MiB, 4 GiB or 64 GiB of addresses. Only what a task touches costs
// memory; the class bounds what it may ever touch.

namespace detail {

inline constexpr std::size_t page_size = 4096;
inline constexpr std::size_t span_size = 64 * 1024;

#ifdef MIGRATE_PLAN_BASE
inline constexpr std::uintptr_t plan_base = MIGRATE_PLAN_BASE;
#elif defined(MIGRATE_TSAN)
inline constexpr std::uintptr_t plan_base = 0x7e80'0000'0000; // ThreadSanitizer's high range, below all libraries
#else
inline constexpr std::uintptr_t plan_base = 0x1100'0000'0000; // above AddressSanitizer's shadow, below PIEs
#endif

struct class_layout {
  std::uintptr_t first;     // address of the class's region 0
  unsigned size_bits;       // a region has 2^size_bits bytes
  std::uint32_t regions;    // how many regions the class has in the whole cluster
  std::uint32_t grant;      // regions in one range given to a node

  constexpr std::size_t region_size() const noexcept { return std::size_t{1} << size_bits; }
  constexpr std::size_t total() const noexcept { return std::size_t{regions} << size_bits; }
};

inline constexpr std::size_t region_classes = 4;

inline constexpr std::size_t tebibyte = std::size_t{1} << 40;

#ifdef MIGRATE_TSAN
inline constexpr std::array<class_layout, region_classes> plan = {{
    {plan_base, 20, 64 * 1024, 4096},
    {plan_base + tebibyte / 16, 26, 1024, 64},
    {plan_base + 2 * tebibyte / 16, 32, 16, 2},
    {plan_base + 3 * tebibyte / 16, 36, 1, 1},
}};
inline constexpr std::size_t plan_size = tebibyte / 4;
#else
inline constexpr std::array<class_layout, region_classes> plan = {{
    {plan_base, 20, 8 * 1024 * 1024, 64 * 1024},
    {plan_base + 8 * tebibyte, 26, 256 * 1024, 1024},
    {plan_base + 24 * tebibyte, 32, 4096, 32},
    {plan_base + 40 * tebibyte, 36, 384, 4},
}};
inline constexpr std::size_t plan_size = 64 * tebibyte;
#endif
// Ranges of region numbers are granted to nodes by the cluster's first node, so no two tasks of a
// cluster share one by accident.

class region_number {
public:
  constexpr region_number() noexcept = default;
  constexpr region_number(region_class kind, std::uint32_t index) noexcept
      : bits_((static_cast<std::uint32_t>(kind) << 28) | (index + 1)) {}

  static constexpr region_number from_bits(std::uint32_t bits) noexcept {
    region_number number;
    number.bits_ = bits;
    return number;
  }

  constexpr std::uint32_t bits() const noexcept { return bits_; }
  constexpr explicit operator bool() const noexcept { return bits_ != 0; }
  constexpr region_class kind() const noexcept { return static_cast<region_class>((bits_ >> 28) & 3); }
  constexpr std::uint32_t index() const noexcept { return (bits_ & 0x0fff'ffff) - 1; }
  constexpr const class_layout& layout() const noexcept { return plan[static_cast<std::size_t>(kind())]; }
  constexpr bool valid() const noexcept {
    return bits_ != 0 && (bits_ >> 30) == 0 && (bits_ & 0x0fff'ffff) != 0 && index() < layout().regions;
  }

  constexpr std::uintptr_t address() const noexcept {
    return layout().first + (std::uintptr_t{index()} << layout().size_bits);
  }
  char* base() const noexcept { return reinterpret_cast<char*>(address()); }
  constexpr std::size_t size() const noexcept { return layout().region_size(); }

  friend constexpr bool operator==(region_number, region_number) noexcept = default;

private:
  std::uint32_t bits_ = 0;
};
// Names a region of the plan: its class and its place in the class. Not a task id: two tasks may one
// day own the same region number in different address spaces.

inline bool in_plan(const void* address) noexcept {
  return reinterpret_cast<std::uintptr_t>(address) - plan_base < plan_size;
}

inline region_number region_of(const void* address) noexcept {
  auto value = reinterpret_cast<std::uintptr_t>(address);
  for (std::size_t kind = 0; kind < region_classes; ++kind)
    if (value - plan[kind].first < plan[kind].total())
      return region_number(static_cast<region_class>(kind),
                           static_cast<std::uint32_t>((value - plan[kind].first) >> plan[kind].size_bits));
  return {};
}
// The region an address lies in; none when it lies outside the plan.

} // namespace detail
} // namespace migrate
