// A task's control block: the part of the task that the library owns and that moves with it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <migrate/id.hpp>
#include <migrate/memory/address_plan.hpp>
#include <migrate/memory/heap.hpp>
#include <migrate/task/context.hpp>
#include <migrate/task/process_block.hpp>
#include <migrate/task/transfer.hpp>

namespace migrate::detail {

enum class outcome_kind : std::uint8_t { none, value, exception, lost };

struct control_block {
  control_block(task_id task, region_number where, std::size_t stack, char* heap_begin, std::size_t heap_size,
                bool zeroed) noexcept;

  context suspended;
  char* stack_reserve; // below it is only what the library may use
  task_id id;
  task_id parent;
  region_number region;
  std::size_t stack_bytes; // guard page included
  char name[24] = {};

  void (*body)(control_block&) = nullptr; // runs the task's function and stores its outcome
  void* closure = nullptr;                // in the heap

  outcome_kind outcome = outcome_kind::none;
  std::byte* outcome_bytes = nullptr; // in the heap
  std::size_t outcome_size = 0;

  std::uint64_t library_calls = 0; // counted under torture only
  std::uint64_t moves = 0;
  std::uint64_t forks = 0; // asked for so far
  bool shares_region = false; // with copies of it on other nodes (fork)
  bool by_policy = true;      // a placement policy may move it
  transfer moves_by = transfer::by_default; // unless a move asks for another way
  bool recoverable = false;   // its home restarts it from its last checkpoint when its node dies
  std::uint64_t checkpoint = 0; // the generation that its home restarts it from; 0: none
  std::uint64_t restarts = 0;   // so far
  std::int64_t clock_offset = 0; // nanoseconds from this machine's steady clock to the task's
  std::uint32_t mailbox_capacity = 0; // of lanes made by a message that came first; 0: the default

  process_block process;
  region_heap heap;

  static constexpr std::size_t reserve_bytes = 8 * 1024;

  char* stack_limit() const noexcept { return region.base() + page_size; }
  char* stack_top() const noexcept { return region.base() + stack_bytes; }
};
// Lies near the top of its stack, whose first page it shares, so an idle task has one page for both:
//
//   base            +4 KiB                                   +stack_bytes      +size
//   | guard page    | stack, growing down | control block    | heap ...        |

inline char* end_of_touched(control_block& control) noexcept {
  return std::max(const_cast<char*>(control.heap.high_water()), control.stack_top());
}
// Nothing of the region at or above this address was ever touched.

inline std::size_t control_block_bytes() noexcept { return (sizeof(control_block) + 63) / 64 * 64; }

inline char* control_block_place(region_number region, std::size_t stack_bytes) noexcept {
  // Regions are alike in all low bits of their addresses, and a processor's cache tells lines apart by those: with every
  // task's control block and stack in the same few sets, a switch among eight tasks took twice as long as between two.
  return region.base() + stack_bytes - control_block_bytes() - region.index() % 16 * 64;
}

inline control_block::control_block(task_id task, region_number where, std::size_t stack, char* heap_begin,
                                    std::size_t heap_size, bool zeroed) noexcept
    : stack_reserve(where.base() + page_size + reserve_bytes), id(task), region(where), stack_bytes(stack),
      heap(heap_begin, heap_size, zeroed ? heap_begin : nullptr) {
  suspended.heap = &heap;
}

} // namespace migrate::detail
