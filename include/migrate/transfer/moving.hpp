// Asking for a move, as a task of itself or anybody of a task.
#pragma once

#include <optional>
#include <string>

#include <migrate/home/family.hpp>
#include <migrate/transfer/engine.hpp>

namespace migrate::detail::moving {

// As in family.hpp: nothing of the node's memory is kept across a wait.

inline failure move_me(node_id target, transfer how) {
  for (bool ordered = false; !ordered;) {
    resident& me = *current_task();
    if (target == this_home->here()) return {};
    if (me.pins.load(std::memory_order_relaxed) != 0)
      return {make_error_code(errc::not_movable), "moving task " + to_string(me.id) + " to node " +
                                                      to_string(target) + ": it holds a pin_scope"};
    {
      node_heap_scope scope;
      failure under_way;
      this_engine->order(me, me.id, target, {}, under_way, {}, how);
      ordered = !under_way.code;
    }
    this_scheduler->serve_me(*this_worker()); // what somebody else asked of it goes first
  }
  // Here again, or on the target, where no order waits.
  resident& now = *current_task();
  move_order* order = nullptr;
  {
    held guard(now.lock);
    if (now.move != nullptr && now.move->phase == move_phase::failed) order = std::exchange(now.move, nullptr);
  }
  if (order == nullptr) return {};
  failure why{order->why.code, std::string(order->why.what.c_str())};
  {
    node_heap_scope scope;
    delete order;
    this_engine->may_have_to_go(now, now.id);
  }
  return why;
}

inline void move_soon(node_id target) noexcept {
  node_heap_scope scope;
  failure under_way;
  resident& me = *current_task();
  this_engine->order(me, me.id, target, {no_node, 0, {}, move_reason::asked, [](std::uint64_t, const failure&) noexcept {}},
                     under_way);
}

inline failure move(task_id id, node_id target, transfer how) {
  task_id by = current_task() != nullptr ? current_task()->id : task_id{};
  for (;;) {
    if (resident* me = current_task(); me != nullptr && me->id == id) return move_me(target, how);
    failure why;
    node_id place = family::locate(id, why);
    if (why.code) return why;
    if (place == no_node)
      return {make_error_code(errc::no_such_task), "task " + to_string(id) + " has ended"};
    if (place == target) return {};
    std::optional<called> asked; // of this node's memory: it must not be there when the task waits
    if (place == this_home->here()) {
      asked = call_here([&](std::uint64_t call) {
        failure refused;
        resident* task = this_home->find_here(id);
        if (task == nullptr || !this_engine->order(*task, id, target, {this_home->here(), call, by}, refused, {}, how))
          this_calling.calls->complete(call, answer{errc::ok, "", 1, 0, {}});
        else if (refused.code)
          this_calling.calls->complete(call, answer{static_cast<errc>(refused.code.value()), refused.what, 0, 0, {}});
      });
    } else {
      asked = call_node(place, [&](protocol::Message::Builder message, std::uint64_t call) {
        auto request = message.initMove();
        request.setCall(call);
        request.setTask(id.bits());
        request.setTarget(number(target));
        request.setBy(by.bits());
        request.setTransfer(static_cast<std::uint8_t>(how));
      });
    }
    if (asked->how == waited::moved) continue;
    why = family::to_failure(asked->got);
    if (why.code || asked->got.first == 0) return why;
    asked.reset();
    // It was not there any more: home knows its new place by now.
    this_task::yield();
  }
}

} // namespace migrate::detail::moving
