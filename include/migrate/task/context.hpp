// A context: what a suspended task, or a worker's own loop, needs to go on.
#pragma once

#include <cerrno>
#include <clocale>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <locale.h>
#include <utility>

#include <boost/context/fiber.hpp>
#include <boost/context/preallocated.hpp>

#include <migrate/memory/current_heap.hpp>
#include <migrate/memory/sanitizers.hpp>
#include <migrate/task/locale_slot.hpp>
#include <migrate/task/processor.hpp>

#if defined(BOOST_USE_UCONTEXT)
#error "migrate: Boost.Context must use its fcontext implementation; undefine BOOST_USE_UCONTEXT"
#endif

// For functions that replace the stack protector's canary: a check of their own would fail.
#define MIGRATE_CHANGES_THREAD_WORDS __attribute__((noinline, no_stack_protector))

// The Itanium C++ ABI's exception state of a thread (section 2.2.2), as libsupc++ lays it out.
namespace __cxxabiv1 {
struct __cxa_eh_globals;
extern "C" __cxa_eh_globals* __cxa_get_globals() noexcept;
} // namespace __cxxabiv1

namespace migrate::detail {

struct exception_state {
  void* caught = nullptr;     // the innermost exception being handled
  unsigned int uncaught = 0;  // exceptions being thrown
  unsigned int unused = 0;    // so that it is copied in one piece
};

struct thread_state {
  // Where the calling thread keeps what a context carries. Addresses of thread-locals differ between
  // threads and processes, so they are looked up once for each worker and never kept in a task.
  exception_state* exceptions;
  int* error;
  const locale_t* locale; // null where it is not known: the worker then gives it one

  [[gnu::noinline]] static thread_state of_this_thread() noexcept {
    return {reinterpret_cast<exception_state*>(__cxxabiv1::__cxa_get_globals()), &errno, find_locale_slot()};
  }
};

struct context {
  boost::context::fiber fiber;
  exception_state exceptions;
  region_heap* heap = nullptr;
  char* stack_pointer = nullptr; // at the switch away; what lies below is dead
  locale_t locale = global_locale.load(std::memory_order_relaxed);
  processor::thread_words words = processor::thread_words::of_this_thread();
  int error = 0;
#ifdef MIGRATE_ASAN
  void* fake_stack = nullptr;
  const void* stack_bottom = nullptr;
  std::size_t stack_bytes = 0;
#endif
#ifdef MIGRATE_TSAN
  void* sanitizer_fiber = nullptr;
#endif

  void enter_process() noexcept {
#ifdef MIGRATE_ASAN
    fake_stack = nullptr;
    // Frames of an earlier task there may have been left without a return.
    __asan_unpoison_memory_region(stack_bottom, stack_bytes);
#endif
#ifdef MIGRATE_TSAN
    sanitizer_fiber = __tsan_create_fiber(0);
#endif
  }
  void leave_process() noexcept {
#ifdef MIGRATE_TSAN
    __tsan_destroy_fiber(sanitizer_fiber);
#endif
  }
  // What the sanitizers hear of a task: when it starts in this process or arrives, and when it is gone.

  [[gnu::always_inline]] void save(const thread_state& thread) noexcept {
    processor::store_stack_pointer(stack_pointer);
    std::memcpy(&exceptions, thread.exceptions, sizeof exceptions);
    error = *thread.error;
    locale = *thread.locale;
  }

  [[gnu::always_inline]] void load(const thread_state& thread, locale_t installed) const noexcept {
    std::memcpy(thread.exceptions, &exceptions, sizeof exceptions);
    MIGRATE_WRITE_THREAD_LOCAL("migrate_current_heap", heap);
    if (locale != installed) [[unlikely]]
      ::uselocale(locale);
    words.install();
    *thread.error = error; // last: what stands above may change it
  }
};
// Boost saves the registers and floating-point control words; the rest lives in the thread and would
// be another task's, or another process's, after a switch. An exception in flight, a protected
// frame, a jmp_buf and errno survive a move because of these.

struct no_stack_allocator {
  void deallocate(boost::context::stack_context&) noexcept {}
};
// A task's stack belongs to its region and ends with it.

} // namespace migrate::detail
