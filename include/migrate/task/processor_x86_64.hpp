// What the task layer needs of an x86-64 processor under the System V ABI.
#pragma once

#include <cstdint>

namespace migrate::detail::processor {

// The thread control block's words that compiled code and glibc use behind our back: the stack
// protector's canary and the guard that setjmp and atexit mix into pointers (glibc: tcbhead_t).

[[gnu::always_inline]] inline std::uintptr_t stack_canary() noexcept {
  std::uintptr_t value;
  asm volatile("movq %%fs:0x28, %0" : "=r"(value));
  return value;
}
[[gnu::always_inline]] inline void set_stack_canary(std::uintptr_t value) noexcept {
  asm volatile("movq %0, %%fs:0x28" : : "r"(value) : "memory");
}
[[gnu::always_inline]] inline std::uintptr_t pointer_guard() noexcept {
  std::uintptr_t value;
  asm volatile("movq %%fs:0x30, %0" : "=r"(value));
  return value;
}
[[gnu::always_inline]] inline void set_pointer_guard(std::uintptr_t value) noexcept {
  asm volatile("movq %0, %%fs:0x30" : : "r"(value) : "memory");
}

[[gnu::always_inline]] inline char* stack_pointer() noexcept {
  char* value;
  asm volatile("movq %%rsp, %0" : "=r"(value));
  return value;
}

// Reads the thread-local variable with the assembler name NAME, a pointer, anew each time: the compiler can keep
// neither its value nor its address over a switch. (The initial-exec model: for executables, and
// for libraries that are loaded with them.)
#define MIGRATE_READ_THREAD_LOCAL(NAME, RESULT)                                                               \
  asm volatile("movq " NAME "@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(RESULT) : : "memory")

inline constexpr std::uintptr_t red_zone = 128; // bytes below the stack pointer that are alive

[[gnu::always_inline]] inline void pause() noexcept { __builtin_ia32_pause(); }

} // namespace migrate::detail::processor
