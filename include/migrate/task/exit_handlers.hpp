// Exit handlers that are registered while a task runs.
#pragma once

#include <dlfcn.h>

#include <migrate/memory/current_heap.hpp>
#include <migrate/task/processor.hpp>
#include <migrate/task/scheduler.hpp>

// The first use of a function's static object registers its destructor for the process's exit. glibc mixes the
// thread's pointer guard into the address, and a foreign task runs with the guard of the process it was born in: exit()
// would call an address that is nobody's. So the process's own guard, and its own heap, are put in place meanwhile.
// In a static executable glibc's own definition stands, and such statics must be used first outside tasks.
extern "C" [[gnu::weak, gnu::noinline]] int __cxa_atexit(void (*function)(void*), void* argument, void* object) noexcept {
  using registrar = int (*)(void (*)(void*), void*, void*);
  static constinit registrar next = nullptr;
  if (next == nullptr) next = reinterpret_cast<registrar>(::dlsym(RTLD_NEXT, "__cxa_atexit"));
  migrate::node_heap_scope scope;
  migrate::detail::worker* here = migrate::detail::this_worker();
  if (here == nullptr || here->current() == nullptr) return next(function, argument, object);
  auto before = migrate::detail::processor::thread_words::of_this_thread();
  auto during = before;
  during.pointer_guard = here->loop.words.pointer_guard;
  during.install();
  int result = next(function, argument, object);
  before.install();
  return result;
}
