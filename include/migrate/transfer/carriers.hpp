// The kinds of state that travel beside a task's memory.
#pragma once

#include <migrate/file/post_office.hpp>
#include <migrate/home/signals.hpp>
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
    }};
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
                                      file_carrying::restore_copy, file_carrying::refused};
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
    }};
// What is pending, and the number of the last that came. Handlers, mask and timers lie in the region.

} // namespace migrate::detail
