// The kinds of state that travel beside a task's memory.
#pragma once

#include <migrate/file/post_office.hpp>
#include <migrate/home/signals.hpp>
#include <migrate/program/office.hpp>
#include <migrate/program/running.hpp>
#include <migrate/transfer/carrier.hpp>
#include <migrate/transfer/file_carrier.hpp>

namespace migrate::detail {

inline constexpr carrier mail_carrier{
    "mail", 1,
    [](resident&) { return failure{}; },
    [](resident& task, byte_writer& out) { this_post->encapsulate(task, out); },
    [](resident& task, byte_reader& in) { this_post->restore(task, in); },
    [](resident& task, bool moved) noexcept {
      if (moved)
        this_post->forget(task);
      else
        this_post->go_on(task);
    },
    nullptr, nullptr, nullptr, nullptr, [](resident& task, std::uint64_t from) { this_post->restarted(task, from); }};
// What has come and was not read, what was sent and is not confirmed, and the counters of both.

inline constexpr carrier usage_carrier{
    "usage", 1,
    [](resident&) { return failure{}; },
    [](resident&, byte_writer&) {},
    [](resident& task, byte_reader&) {
      if (task.control->process.accounted) this_scheduler->account_usage();
    },
    [](resident&, bool) noexcept {}};
// What a task has used lies in its memory; that it is to be counted on is the node's to know.

inline constexpr carrier file_carrier{"files", 1, file_carrying::prepare, file_carrying::encapsulate,
                                      file_carrying::restore, file_carrying::release, file_carrying::copy,
                                      file_carrying::restore_copy, file_carrying::refused,
                                      file_carrying::checkpoint, file_carrying::restarted, file_carrying::look};
// What the task has open.

inline constexpr carrier signal_carrier{
    "signals", 1,
    [](resident&) { return failure{}; },
    [](resident& task, byte_writer& out) { this_signals->encapsulate(task, out); },
    [](resident& task, byte_reader& in) { this_signals->restore(task, in); },
    [](resident& task, bool moved) noexcept {
      if (moved)
        this_signals->forget(task);
      else
        this_signals->go_on(task);
    },
    nullptr, nullptr, nullptr, nullptr, [](resident& task, std::uint64_t) { this_signals->restarted(task); },
    [](resident& task, memory_visitor visit) {
      if (const signal_state* state = task.control->process.signals) visit(state, sizeof *state);
    }};
// What is pending, and the number of the last that came. Handlers, mask and timers lie in the region.

inline failure let_programs_go(resident& task) {
  // A program belongs to its machine. One that has ended leaves all that it was to the task; one that was given up is
  // run again where the task comes to.
  program_list* mine = task.control->process.programs;
  if (mine == nullptr || task.move->copy) return {};
  for (running_program* each : mine->all) {
    program_view seen;
    if (each->serial == 0 || each->incarnation != node_services().incarnation()) continue;
    if (!this_programs->look(each->serial, seen) || seen.state == program_state::given_up) continue;
    if (seen.state != program_state::ended) return this_programs->refusal(each->serial);
    heap_scope own(&task.control->heap);
    running::take_end(*each, seen);
  }
  return {};
}

inline constexpr carrier program_carrier{
    "programs", 1, let_programs_go, [](resident&, byte_writer&) {}, [](resident&, byte_reader&) {},
    [](resident& task, bool moved) noexcept {
      if (moved && task.control != nullptr && task.control->process.programs != nullptr) this_programs->task_gone(task.id);
    },
    nullptr, nullptr, nullptr, nullptr, nullptr, [](resident& task, memory_visitor visit) {
      if (const program_list* mine = task.control->process.programs) visit(mine, sizeof *mine);
    }};
// What the task runs. See above.

} // namespace migrate::detail
