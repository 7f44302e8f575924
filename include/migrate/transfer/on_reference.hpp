// Copy on reference: a move after which the rest of the memory follows. Included by engine.hpp.
#pragma once

#include <algorithm>
#include <cstdio>

#include <migrate/transfer/engine.hpp>

namespace migrate::detail {

// The freeze does not depend on how much memory there is, so nothing looks through it: the offer has what the task and this
// library need to begin, and says between which addresses the rest lies. What of that is alive the source's page office
// finds out when the task runs already.

inline bool transfer_engine::departs_by_reference(resident& task) {
  move_order& order = *task.move;
  if (order.carried != nullptr || wanted(task, order.how) != transfer::on_reference) return false;
  if (order.asker.reason == move_reason::evicted) return false; // its source is about to leave
  if (task.control->outcome != outcome_kind::none) return false; // it touches nothing any more; its outcome is read soon
  constexpr std::size_t quickly_seen = std::size_t{1} << 20;
  auto touched = static_cast<std::size_t>(end_of_touched(*task.control) - task.control->suspended.stack_pointer);
  return touched > quickly_seen || survey_memory(*task.control, with_.scanner).dirty_bytes > with_.most_inline;
}

inline void transfer_engine::depart_by_reference(resident& task, byte_writer&& bundle) {
  constexpr std::size_t most_stack = 64 * 1024; // from its pointer up
  constexpr std::size_t below_pointer = 1024;   // see live_memory()
  move_order& order = *task.move;
  control_block& control = *task.control;
  auto page_end = [](const char* address) { return page_floor(const_cast<char*>(address) + page_size - 1); };
  char* low = page_floor(std::max(control.suspended.stack_pointer - below_pointer, control.stack_limit()));
  char* top = control.stack_top();
  char* high = std::max(page_end(control.heap.high_water()), top);
  std::vector<page_range> first{{low, std::min(static_cast<std::size_t>(top - low), most_stack)}};
  char* block = page_floor(reinterpret_cast<char*>(&control));
  first.push_back({block, static_cast<std::size_t>(top - block)});
  with_.carriers.look(task, [&](const void* address, std::size_t bytes) {
    const char* from = static_cast<const char*>(address);
    if (bytes == 0 || from < low || from >= high) return;
    char* begin = page_floor(const_cast<char*>(from));
    first.push_back({begin, static_cast<std::size_t>(page_end(from + bytes) - begin)});
  });
  memory_survey memory;
  memory.dirty = merged(first, control.region);
  memory.dirty_bytes = size_of(memory.dirty);
  page_office::place kept =
      with_.pages.keep({task.id, order.target, &control, low, high, memory.dirty, image_of(task.id),
                        compression_to(order.target)});
  {
    held guard(task.lock);
    order.office_port = kept.port;
    order.office_number = kept.number;
    order.how = transfer::on_reference;
    order.bytes = memory.dirty_bytes;
    order.missing_from = low;
    order.missing_to = high;
  }
  offer(task, memory, bundle, image_manifest(task.id), true, true);
}

inline void transfer_engine::lay_out_by_reference(arrival& from, task_id id) {
  // With the offer's pages in their places.
  host_and_port source = split_address(with_.network.address_of(from.source));
  std::string host = source.host.find(':') != std::string::npos ? "[" + source.host + "]" : source.host;
  bool waits = with_.pages.await({id, from.office_number, from.source, host + ":" + std::to_string(from.office_port), from.region,
                                  reinterpret_cast<char*>(from.missing_from), reinterpret_cast<char*>(from.missing_to),
                                  from.pages});
  if (!waits)
    the_services->report(("all of task " + to_string(id) +
                          "'s memory was fetched before it ran: this kernel lets nobody wait for single pages "
                          "(userfaultfd)")
                             .c_str());
}

inline bool transfer_engine::waits_for_memory(resident& task) {
  // A task leaves, and is copied or written down, only with all of its memory. Whoever is asked for by others runs meanwhile.
  move_order& order = *task.move;
  const bool stands_still = order.asked_itself();
  {
    held guard(task.lock);
    order.gathers = true;
  }
  if (!stands_still) scheduler::answered(task, want_move); // memory_whole() asks again
  auto how = with_.pages.gather(task.id);
  bool at_once = false;
  if (how != page_office::presence::waited_for) {
    held guard(task.lock);
    at_once = task.move == &order && std::exchange(order.gathers, false); // or the office's word of it has the task served
  }
  if (at_once && how == page_office::presence::whole) return false;
  if (at_once)
    end_without_memory(task);
  else if (!stands_still)
    this_scheduler->thaw(task);
  return true;
}

inline void transfer_engine::memory_whole(task_id id) noexcept {
  resident* task = with_.home.find_here(id);
  if (task == nullptr) return;
  bool stands_still = false;
  {
    held guard(task->lock);
    if (task->id != id) return;
    task->hides_pages = false;
    if (task->move == nullptr || !std::exchange(task->move->gathers, false)) return;
    stands_still = task->move->asked_itself();
  }
  if (stands_still)
    this_scheduler->serve_later(*task);
  else
    this_scheduler->ask(*task, want_move);
}

inline void transfer_engine::memory_losing(task_id id, node_id source) noexcept {
  if (resident* task = with_.home.find_here(id)) task->lost_from = source;
}

inline void transfer_engine::memory_lost(task_id id) noexcept {
  resident* task = with_.home.find_here(id);
  if (task == nullptr) return;
  bool stands_still = false;
  {
    held guard(task->lock);
    if (task->id != id) return;
    if (task->move != nullptr && std::exchange(task->move->gathers, false)) stands_still = task->move->asked_itself();
  }
  this_scheduler->ask(*task, want_end);
  if (stands_still) this_scheduler->serve_later(*task);
}

inline std::string transfer_engine::why_lost(const resident& task) const {
  return "task " + to_string(task.id) + " had memory on node " + to_string(task.lost_from.load()) +
         ", which it had left by reference, and that node was lost";
}

inline void transfer_engine::end_without_memory(resident& task) noexcept {
  // With the task frozen.
  if (task.open_call != 0) with_.calls.close(task.open_call);
  with_.listener.memory_lost(task, why_lost(task).c_str());
}

inline move_statistics transfer_engine::statistics() {
  move_statistics read = recorder_.read();
  read.residual = with_.pages.residuals();
  with_.pages.add_followed(read);
  return read;
}

} // namespace migrate::detail
