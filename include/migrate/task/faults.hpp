// What becomes of a task that touches memory it has no right to: stack overflow, vacated regions.
#pragma once

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <migrate/error.hpp>
#include <migrate/memory/missing_pages.hpp>
#include <migrate/task/control_block.hpp>
#include <migrate/task/departed.hpp>
#include <migrate/task/scheduler.hpp>

namespace migrate::detail {

class fault_guard {
  // Takes SIGSEGV and SIGBUS while a node exists. A fault of a task at an address of the plan ends that task, with
  // an exception for whoever joins it, and the worker goes on; every other fault goes to whoever had the signal.

public:
  explicit fault_guard(departed_regions& departed) {
    departed_ = &departed;
    struct sigaction action {};
    action.sa_sigaction = &on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    ::sigemptyset(&action.sa_mask);
    ::sigaction(SIGSEGV, &action, &before_segv_);
    ::sigaction(SIGBUS, &action, &before_bus_);
  }
  ~fault_guard() {
    ::sigaction(SIGSEGV, &before_segv_, nullptr);
    ::sigaction(SIGBUS, &before_bus_, nullptr);
    departed_ = nullptr;
  }
  fault_guard(const fault_guard&) = delete;
  fault_guard& operator=(const fault_guard&) = delete;

private:
  static void on_fault(int signal, siginfo_t* info, void* interrupted) noexcept;
  static void name_of(char* text, std::size_t size, const resident& task) noexcept;
  static void report_wild(const resident& task, const void* address, const void* code) noexcept;
  static void describe(char* text, std::size_t size, resident& task, char* address, void* code, errc& why) noexcept;

  static inline departed_regions* departed_ = nullptr;
  static inline struct sigaction before_segv_ {};
  static inline struct sigaction before_bus_ {};
};

[[noreturn, gnu::noinline]] inline void end_faulted_task() noexcept {
  // On a stack that the worker keeps for this: the task's own may have no room.
  worker& here = *this_worker();
  this_scheduler->abandon(here);
}

inline void fault_guard::name_of(char* text, std::size_t size, const resident& task) noexcept {
  const char* name = task.control->name;
  std::snprintf(text, size, "task %u.%u%s%s%s", number(task.id.home()), task.id.slot(), *name != 0 ? " (" : "", name,
                *name != 0 ? ")" : "");
}

inline void fault_guard::report_wild(const resident& task, const void* address, const void* code) noexcept {
  char name[64], text[256];
  name_of(name, sizeof name, task);
  int size = std::snprintf(text, sizeof text,
                           "migrate: %s touched %p, which is no task's memory: code at %p; this ends the node\n", name,
                           address, code);
  if (size > 0 && ::write(STDERR_FILENO, text, static_cast<std::size_t>(size)) < 0) return; // nobody listens
}

inline void fault_guard::describe(char* text, std::size_t size, resident& task, char* address, void* code,
                                  errc& why) noexcept {
  const control_block& control = *task.control;
  char name[64];
  name_of(name, sizeof name, task);
  region_number region = region_of(address);
  if (node_id source = task.lost_from.load(); source != no_node && region == control.region) {
    why = errc::node_lost;
    std::snprintf(text, size, "%s touched memory that was still on node %u, which was lost", name, number(source));
    return;
  }
  if (region == control.region && address < control.stack_top()) {
    why = errc::stack_overflow;
    std::snprintf(text, size,
                  "%s ran off its stack of %zu KiB; spawn it with a larger spawn_options::stack_bytes", name,
                  (control.stack_bytes - page_size) / 1024);
    return;
  }
  why = errc::vacated_access;
  char where[160];
  Dl_info symbol{};
  if (::dladdr(code, &symbol) != 0 && symbol.dli_sname != nullptr)
    std::snprintf(where, sizeof where, "code at %p (%s+0x%zx)", code, symbol.dli_sname,
                  static_cast<std::size_t>(static_cast<char*>(code) - static_cast<char*>(symbol.dli_saddr)));
  else
    std::snprintf(where, sizeof where, "code at %p; `addr2line -e PROGRAM %p` says where", code, code);
  departed_regions::entry gone{};
  if (departed_ != nullptr && departed_->find(region, gone))
    std::snprintf(text, size, "%s touched %p, in the region of task %u.%u%s%s%s, which has left for node %u: %s", name,
                  static_cast<void*>(address), number(gone.task.home()), gone.task.slot(), gone.name[0] ? " (" : "",
                  gone.name, gone.name[0] ? ")" : "", number(gone.went_to), where);
  else
    std::snprintf(text, size, "%s touched %p, in a region that no task on this node has: %s", name,
                  static_cast<void*>(address), where);
}

inline void fault_guard::on_fault(int signal, siginfo_t* info, void* interrupted) noexcept {
  auto* address = static_cast<char*>(info->si_addr);
  if (signal == SIGSEGV && info->si_code == SEGV_ACCERR && in_plan(address)) {
    const int before = errno;
    if (missing_pages::arrives(address)) {
      errno = before;
      return; // the instruction is tried again
    }
  }
  worker* here = this_worker();
  auto* registers = &static_cast<ucontext_t*>(interrupted)->uc_mcontext;
  if (here == nullptr || here->current() == nullptr || here->describing || info->si_code <= 0 ||
      !in_plan(address)) {
    const struct sigaction& before = signal == SIGSEGV ? before_segv_ : before_bus_;
    if (here != nullptr && here->current() != nullptr && !here->describing && info->si_code > 0 &&
        (before.sa_flags & SA_SIGINFO) == 0 && before.sa_handler == SIG_DFL)
      report_wild(*here->current(), address, reinterpret_cast<void*>(registers->gregs[REG_RIP]));
    ::sigaction(signal, &before, nullptr);
    return; // the instruction faults again, and goes to them
  }
  here->describing = true; // a fault in describe() is the node's own
  describe(here->fault_text, sizeof here->fault_text, *here->current(), address,
           reinterpret_cast<void*>(registers->gregs[REG_RIP]), here->fault);
  here->describing = false;
  // Return from the handler into end_faulted_task.
  auto top = reinterpret_cast<std::uintptr_t>(here->rescue_stack.get()) + worker::rescue_bytes;
  registers->gregs[REG_RSP] = static_cast<greg_t>((top & ~std::uintptr_t{63}) - 8);
  registers->gregs[REG_RIP] = reinterpret_cast<greg_t>(&end_faulted_task);
}

} // namespace migrate::detail
