// What the task layer needs of an x86-64 processor under the System V ABI.
#pragma once

#include <cstdint>

namespace migrate::detail::processor {

struct thread_words {
  // The thread control block's words that compiled code and glibc use behind our back (glibc: tcbhead_t).
  std::uintptr_t stack_canary;  // the stack protector's
  std::uintptr_t pointer_guard; // what setjmp and atexit mix into pointers

  [[gnu::always_inline]] static thread_words of_this_thread() noexcept {
    thread_words words;
    asm volatile("movq %%fs:0x28, %0" : "=r"(words.stack_canary));
    asm volatile("movq %%fs:0x30, %0" : "=r"(words.pointer_guard));
    return words;
  }
  [[gnu::always_inline]] void install() const noexcept {
    // They are neighbours there, too.
    asm volatile("movups %0, %%xmm0\n\tmovups %%xmm0, %%fs:0x28" : : "m"(*this) : "xmm0", "memory");
  }
};

[[gnu::always_inline]] inline char* stack_pointer() noexcept {
  char* value;
  asm volatile("movq %%rsp, %0" : "=r"(value));
  return value;
}

[[gnu::always_inline]] inline void store_stack_pointer(char*& into) noexcept {
  asm volatile("movq %%rsp, %0" : "=m"(into));
}

// Read or write the thread-local variable with the assembler name NAME, a pointer, anew each time: the compiler can keep
// neither its value nor its address over a switch. (The local-exec model in executables, the
// initial-exec one in libraries, which are loaded with them.)
#if defined(__PIC__) && !defined(__PIE__)
#define MIGRATE_READ_THREAD_LOCAL(NAME, RESULT)                                                               \
  asm volatile("movq " NAME "@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(RESULT) : : "memory")
#define MIGRATE_WRITE_THREAD_LOCAL(NAME, VALUE)                                                              \
  asm volatile("movq " NAME "@gottpoff(%%rip), %%rax\n\tmovq %0, %%fs:(%%rax)"                               \
               :                                                                                             \
               : "r"(VALUE)                                                                                  \
               : "rax", "memory")
#else
#define MIGRATE_READ_THREAD_LOCAL(NAME, RESULT)                                                              \
  asm volatile("movq %%fs:" NAME "@tpoff, %0" : "=r"(RESULT) : : "memory")
#define MIGRATE_WRITE_THREAD_LOCAL(NAME, VALUE)                                                              \
  asm volatile("movq %0, %%fs:" NAME "@tpoff" : : "r"(VALUE) : "memory")
#endif

inline constexpr std::uintptr_t red_zone = 128; // bytes below the stack pointer that are alive

[[gnu::always_inline]] inline void pause() noexcept { __builtin_ia32_pause(); }

} // namespace migrate::detail::processor
