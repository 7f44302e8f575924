// fork(): a copy of the running task's memory, at the same addresses, under a new id, on a node where they are free.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <migrate/home/family.hpp>
#include <migrate/home/request.hpp>
#include <migrate/transfer/engine.hpp>

namespace migrate::detail::forking {

// As in family.hpp: nothing of the node's memory is kept across a wait. Here one of those who come out of a wait may be
// the copy.

enum class wish : std::uint8_t { conceive, cancel };

inline void serve(const request& asked, byte_reader& in) {
  if (in.get<wish>() == wish::cancel) {
    task_id copy = in.get<task_id>();
    this_home->record_end(copy, ~std::uint64_t{0}, {}, nullptr);
    this_home->release(copy);
    reply(asked, {});
    return;
  }
  auto serial = in.get<std::uint64_t>();
  auto candidates = in.get<std::vector<node_id>>();
  home_office::copy made = this_home->conceive_copy(asked.task, serial, candidates);
  answer result{static_cast<errc>(made.why.code.value()), made.why.what, made.id.bits(), number(made.target), {}};
  reply(asked, std::move(result));
}
// The home's side.

inline called ask(task_id me, std::uint64_t serial, const std::vector<node_id>& refused) {
  return ask_home(me.home(), service::fork, [&](byte_writer& out) {
    std::vector<node_id> candidates(64);
    std::size_t count = the_services->nodes(candidates.data(), candidates.size());
    candidates.resize(std::min(count, candidates.size()));
    std::erase_if(candidates, [&](node_id each) {
      return each == this_home->here() || std::find(refused.begin(), refused.end(), each) != refused.end();
    });
    // Not all copies to the same node.
    if (!candidates.empty())
      std::rotate(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(serial % candidates.size()),
                  candidates.end());
    out.put(wish::conceive);
    out.put(serial);
    out.put(candidates);
  });
}

inline constexpr std::size_t most_losses = 4; // nodes that die of it one after the other

inline void cancel(task_id copy) {
  static_cast<void>(ask_home(copy.home(), service::fork, [&](byte_writer& out) {
    out.put(wish::cancel);
    out.put(copy);
  }));
}

inline forked fork_me() {
  if (current_task()->pins.load(std::memory_order_relaxed) != 0)
    return {{}, {make_error_code(errc::not_movable), "fork: the task holds a pin_scope"}};
  const task_id me = current_task()->id;
  std::uint64_t serial = ++current_task()->control->forks;
  std::vector<node_id> refused; // in the task's heap
  for (;;) {
    task_id copy;
    node_id target = no_node;
    failure why;
    {
      called made = ask(me, serial, refused);
      if (made.how == waited::moved) continue;
      why = family::to_failure(made.got);
      copy = task_id(made.got.first);
      target = node_id(static_cast<std::uint16_t>(made.got.second));
    }
    if (why.code) return {{}, {why.code, "fork: " + why.what}};
    if (target == no_node) {
      auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
      limit += std::chrono::nanoseconds(current_task()->control->clock_offset);
      called started = call_and_wait(no_node, [](std::uint64_t call) { the_services->start_node(call); }, &limit);
      if (started.how == waited::moved) continue;
      if (started.how == waited::late)
        why = {make_error_code(errc::no_such_node), "no node has these addresses free, and another one did not come up"};
      else
        why = family::to_failure(started.got);
      if (why.code == errc::node_leaving) this_task::sleep_for(std::chrono::milliseconds(1)); // it is about to go itself
      if (!why.code || why.code == errc::node_leaving) continue;
      if (copy) cancel(copy);
      return {{}, {why.code, "fork: " + why.what}};
    }
    bool ordered = true;
    {
      called sent = call_here([&](std::uint64_t call) {
        failure busy;
        this_engine->order(*current_task(), me, target, {this_home->here(), call, me}, busy, copy);
        ordered = !busy.code;
        if (!ordered) this_calling.calls->complete(call, answer{errc::move_in_progress, "", 0, 0, {}});
      });
      if (current_task()->id != me) return {{}, {}}; // the copy
      why = family::to_failure(sent.got);
    }
    if (!ordered) {
      this_task::yield(); // somebody has it moved first
      continue;
    }
    current_task()->pins.fetch_sub(1, std::memory_order_relaxed); // see offer_copy()
    if (!why.code) return {copy, {}};
    refused.push_back(target);
    if (why.code == errc::region_occupied || why.code == errc::node_unreachable || why.code == errc::node_leaving) continue;
    cancel(copy);
    if (why.code != errc::node_lost || refused.size() >= most_losses) return {{}, {why.code, "fork: " + why.what}};
    serial = ++current_task()->control->forks; // a copy that was claimed, and lost, cannot be offered again
  }
}

} // namespace migrate::detail::forking
