// Asking for a checkpoint, as a task of itself or anybody of a task.
#pragma once

#include <optional>
#include <string>

#include <migrate/home/family.hpp>
#include <migrate/transfer/engine.hpp>

namespace migrate::detail::checkpointing {

// As in family.hpp: nothing of the node's memory is kept across a wait. Who comes out of this one may be restarted.

inline called order_here(task_id id, task_id by) {
  return call_here([&](std::uint64_t call) {
    failure refused;
    resident* task = this_home->find_here(id);
    if (task == nullptr || !this_engine->order(*task, id, this_home->here(), {this_home->here(), call, by},
                                               refused, {}, transfer::by_default, true))
      this_calling.calls->complete(call, answer{errc::ok, "", 1, 0, {}});
    else if (refused.code)
      this_calling.calls->complete(call,
                                   answer{static_cast<errc>(refused.code.value()), refused.what, 0, 0, {}});
  });
}

inline failure checkpoint_me(bool& restarted) {
  const task_id me = current_task()->id;
  restarted = false;
  if (current_task()->pins.load(std::memory_order_relaxed) != 0)
    return {make_error_code(errc::not_movable),
            "the checkpoint of task " + to_string(me) + ": it holds a pin_scope"};
  const std::uint64_t before = current_task()->control->restarts;
  for (;;) {
    failure why;
    {
      called made = order_here(me, me);
      restarted = current_task()->control->restarts != before;
      if (restarted) return {};
      if (made.how == waited::moved) continue;
      why = family::to_failure(made.got);
      if (!why.code && made.got.first != 0) why.code = make_error_code(errc::move_in_progress);
    }
    if (why.code != errc::move_in_progress) return why;
    this_task::yield(); // what somebody else asked of it goes first
  }
}

inline failure checkpoint(task_id id) {
  task_id by = current_task() != nullptr ? current_task()->id : task_id{};
  for (;;) {
    if (by == id && by) {
      bool restarted = false;
      return checkpoint_me(restarted);
    }
    failure why;
    node_id place = family::locate(id, why);
    if (why.code) return why;
    if (place == no_node)
      return {make_error_code(errc::no_such_task), "task " + to_string(id) + " has ended"};
    std::optional<called> asked; // of this node's memory: it must not be there when the task waits
    if (place == this_home->here())
      asked = order_here(id, by);
    else
      asked = call_node(place, [&](protocol::Message::Builder message, std::uint64_t call) {
        auto request = message.initMove();
        request.setCall(call);
        request.setTask(id.bits());
        request.setBy(by.bits());
        request.setReason(static_cast<std::uint8_t>(move_reason::checkpoint));
      });
    if (asked->how == waited::moved) continue;
    why = family::to_failure(asked->got);
    if (why.code != errc::move_in_progress && (why.code || asked->got.first == 0)) return why;
    asked.reset();
    // It is not there any more, or on its way: home knows its new place by now.
    this_task::yield();
  }
}

} // namespace migrate::detail::checkpointing
