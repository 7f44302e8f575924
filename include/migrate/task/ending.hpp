// How a task ends: by returning, by exit(), by a signal.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <signal.h>

#include <migrate/task/outcome.hpp>
#include <migrate/task/process_block.hpp>
#include <migrate/task/services.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate::detail {

struct exit_list {
  std::vector<std::function<void()>> handlers;
};
// In the task's heap: what exit() calls, the last one first.

constexpr int exited_with(int code) noexcept { return (code & 0xff) << 8; }
constexpr int killed_by(int signal) noexcept { return signal; }
constexpr int stopped_by(int signal) noexcept { return (signal << 8) | 0x7f; }
inline constexpr int continued_status = 0xffff;
// A task's status in the form of wait(2), which <sys/wait.h> takes apart.

constexpr bool ended_by_exception(outcome_kind outcome, int status) noexcept {
  return outcome == outcome_kind::exception && status == killed_by(SIGABRT);
}
// And not by exit() or a signal, which whoever joins it hears of as an exception too.

inline void run_exit_handlers(control_block& control) noexcept {
  // As the task. A handler may add handlers, or call exit(): the rest run then.
  try {
    while (control.process.at_exit != nullptr && !control.process.at_exit->handlers.empty()) {
      std::function<void()> last = std::move(control.process.at_exit->handlers.back());
      control.process.at_exit->handlers.pop_back();
      last();
    }
  } catch (...) {
    control.process.status = killed_by(SIGABRT);
  }
}

inline void store_outcome(control_block& control, outcome_kind kind, const byte_writer& bytes) {
  if (bytes.bytes().size() > outcome_limit)
    throw error(errc::message_too_large, "what task " + to_string(control.id) + " returns takes " +
                                             std::to_string(bytes.bytes().size()) +
                                             " bytes; the limit is 64 MiB: send it in parts, or leave it in a file");
  control.outcome = kind;
  control.outcome_size = bytes.bytes().size();
  if (control.outcome_size == 0) return;
  control.outcome_bytes = static_cast<std::byte*>(control.heap.allocate(control.outcome_size));
  if (control.outcome_bytes == nullptr)
    throw region_exhausted(control.outcome_size, control.heap.reserved_bytes(), control.heap.capacity());
  std::memcpy(control.outcome_bytes, bytes.bytes().data(), control.outcome_size);
}

inline void store_exception(control_block& control) noexcept {
  // In a handler. When even this finds no memory, the joiner is told so.
  control.process.status = killed_by(SIGABRT);
  try {
    byte_writer bytes;
    encode_current_exception(bytes);
    store_outcome(control, outcome_kind::exception, bytes);
  } catch (...) {
    control.outcome = outcome_kind::exception;
    control.outcome_size = 0;
  }
}

inline void last_calls() noexcept {
  the_process_parts.ending();
  the_services->settle();
}
// As the task, which may be on another node afterwards.

enum class exit_handlers : bool { skip, run };

[[noreturn, gnu::noinline]] inline void end_task(int status, exit_handlers handlers) {
  // As the running task, which runs no other instruction: automatic objects of its functions are not destroyed, as with
  // std::exit; its memory goes as a whole. `status` is in the form of wait(2). Who joins the task gets an exception.
  control_block& control = *self().control;
  {
    heap_scope own(&control.heap);
    control.process.status = status;
    if (handlers == exit_handlers::run) run_exit_handlers(control);
    try {
      int last = control.process.status;
      bool exited = (last & 0x7f) == 0;
      throw error(exited ? errc::task_exited : errc::task_failed,
                  "task " + to_string(control.id) +
                      (exited ? " called exit(" + std::to_string(last >> 8) + ")"
                              : " was ended by signal " + std::to_string(last & 0x7f)));
    } catch (...) {
      int last = control.process.status;
      store_exception(control);
      control.process.status = last;
    }
    last_calls();
  }
  this_scheduler->abandon(*this_worker());
}

} // namespace migrate::detail
