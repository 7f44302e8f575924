// The target of a move: an offer is laid out, claimed for, and runs or is dropped. Included by engine.hpp.
#pragma once

#include <migrate/transfer/engine.hpp>
#include <migrate/transfer/offer_reader.hpp>

namespace migrate::detail {

inline void transfer_engine::on_offer(node_id source, protocol::Offer::Reader message,
                                      kj::ArrayPtr<const kj::byte> attachment) {
  task_id id(message.getTask());
  std::uint64_t epoch = message.getEpoch();
  fault_point("target.offered");
  std::unique_ptr<arrival> incoming;
  try {
    incoming = read_offer(source, message, attachment);
  } catch (const error& reason) {
    drop_reception(id);
    refuse(source, id, epoch, {reason.code(), reason.what()});
    return;
  }
  if (resident* there = with_.home.find_here(id)) {
    bool gone = false; // between our look and now
    bool runs = false;
    bool overdue = false;
    bool busy = false;
    bool comes_back = false;
    {
      held guard(there->lock);
      gone = there->id != id;
      move_order* order = gone ? nullptr : there->move;
      if (order != nullptr && epoch > order->epoch &&
          (order->phase == move_phase::vacating || order->phase == move_phase::offered)) {
        // It left, ran, and comes back before its last memory here is gone.
        overdue = order->phase == move_phase::offered;
        comes_back = !closed();
        if (comes_back) {
          incoming->keep();
          order->incoming = std::move(incoming);
        }
      } else if (order != nullptr && epoch > order->epoch &&
                 (order->phase == move_phase::arriving || order->phase == move_phase::claiming)) {
        busy = true;
      } else {
        runs = !gone && there->epoch == epoch + 1;
      }
    }
    if (overdue) taken(*there);
    if (!gone && !busy && !runs && !comes_back && refuse_if_closed(source, id, epoch)) return;
    if (busy)
      refuse(source, id, epoch, {make_error_code(errc::move_in_progress), "an earlier offer of the task is not settled there"});
    if (runs) tell_taken(source, id, epoch); // the offer came twice
    if (!gone) return;
  }
  if (refuse_if_closed(source, id, epoch)) return;
  if (message.getAhead()) {
    incoming->ahead = reception_of(id, source, epoch);
    if (incoming->ahead == nullptr || incoming->ahead->region != incoming->region) {
      refuse(source, id, epoch, {make_error_code(errc::move_refused), "the pages that go with the offer have not come"});
      return;
    }
    {
      held guard(lock_);
      receptions_.erase(id);
    }
  } else {
    drop_reception(id); // of an earlier try, whose end has not been heard of yet
  }
  if (message.getShared() && occupied(incoming->region, id)) {
    if (incoming->ahead) close_reception(*incoming->ahead);
    refuse(source, id, epoch, {make_error_code(errc::region_occupied),
                               "a copy of the task has the same addresses on node " + to_string(with_.home.here())});
    return;
  }
  accept_offer(id, std::move(incoming));
}

inline void transfer_engine::tell_taken(node_id source, task_id task, std::uint64_t epoch) {
  send_message(with_.network, source, [&](protocol::Message::Builder message) {
    auto taken = message.initTaken();
    taken.setTask(task.bits());
    taken.setEpoch(epoch);
  });
}

inline void transfer_engine::accept_offer(task_id id, std::unique_ptr<arrival> incoming) {
  std::uint64_t epoch = incoming->epoch;
  const bool received = incoming->ahead != nullptr;
  with_.home.arriving(incoming->region, id, received);
  bool small = (incoming->manifest.empty() || incoming->unlaid) && incoming->office_port == 0 &&
               with_.home.may_lay_out(incoming->region, id, received);
  if (!small) incoming->keep();
  resident& task = with_.home.residents().enter(id, epoch, nullptr, with_.home.records().find(id), run_state::frozen);
  {
    held guard(task.lock);
    task.move = new move_order;
    task.move->target = with_.home.here();
    task.move->epoch = epoch;
    task.move->phase = move_phase::arriving;
    task.move->incoming = std::move(incoming);
  }
  {
    held guard(lock_);
    moving_[id] = &task;
  }
  if (small)
    lay_out(task);
  else
    this_scheduler->serve_later(task);
}

inline void become_copy(control_block& control, task_id copy) noexcept {
  control.parent = control.id;
  control.id = copy;
  control.moves = 0;
  control.library_calls = 0;
  control.forks = 0;
  control.recoverable = false;
  control.checkpoint = 0;
  control.restarts = 0;
}

inline void transfer_engine::lay_out(resident& task) {
  // Any failure here is the source's to hear: the task goes on there.
  arrival& from = *task.move->incoming;
  task_id id = task.id;
  std::uint64_t epoch = task.move->epoch;
  if (id.home() == with_.home.here() && with_.home.locate(id) == no_node) {
    drop_arrival(task); // its addresses may be another's already
    return;
  }
  try {
    check_offer(from);
    char* base = from.region.base();
    if (from.ahead)
      from.garbage_end = from.ahead->end;
    else if (std::optional<char*> garbage =
                 from.office_port == 0 ? with_.vacated.reopen(from.region) : std::nullopt)
      from.garbage_end = *garbage;
    else if (!with_.home.open_region(from.region))
      throw error(errc::region_exhausted, "the kernel refuses another mapping (vm.max_map_count?)");
    from.opened = true;
    image newest;
    if (from.ahead && !from.unlaid) {
      if (!from.manifest.empty()) lay_image(*from.ahead, id, image::parse(from.manifest));
      from.garbage_end = from.ahead->end;
      newest = from.ahead->laid;
    } else if (!from.manifest.empty() && from.unlaid) {
      newest = image::parse(from.manifest);
    } else if (!from.manifest.empty()) {
      if (with_.images == nullptr) throw error(errc::store_missing, "this node has no store to resume from");
      newest = image::parse(from.manifest);
      if (newest.task() != id || newest.region() != from.region)
        throw error(errc::image_foreign, "the offer's image is of task " + to_string(newest.task()));
      with_.images->resume_into(newest, base);
    }
    for_each_range(from, [&](const page_range& range, const std::byte* bytes) {
      if (from.ahead && from.ahead->spare.put(range.address, bytes, range.bytes)) return;
      constexpr std::size_t worth = 16 * page_size; // one call for many faults
      if (range.bytes >= worth) populate(range.address, range.bytes);
      std::memcpy(range.address, bytes, range.bytes);
    });
    if (from.office_port != 0) lay_out_by_reference(from, id);
    task.control = reinterpret_cast<control_block*>(from.control);
    bool copied = static_cast<bool>(from.original);
    if (copied && task.control->id == from.original) become_copy(*task.control, id);
    if (task.control->id != id || task.control->region != from.region)
      throw error(errc::image_foreign, "the task's control block is another task's");
    byte_reader bundle(from.bytes.data(), from.bundle);
    if (copied) {
      with_.carriers.restore_copy(task, bundle);
      the_process_parts.copied(*task.control, from.original);
    } else {
      with_.carriers.restore(task, bundle);
      if (from.restarted) go_on_from_checkpoint(task, epoch + 1, newest.generation());
    }
    if (newest.valid()) {
      held guard(lock_);
      images_[id] = {newest, !from.unlaid};
    }
  } catch (const std::exception& reason) {
    const auto* known = dynamic_cast<const error*>(&reason);
    failure why{known != nullptr ? known->code() : make_error_code(errc::move_refused), reason.what()};
    node_id source = from.source;
    drop_arrival(task);
    refuse(source, id, epoch, why); // last: the source may offer the task again at once
    return;
  }
  node_id source = from.source;
  from.bytes = {};
  std::vector<std::byte>().swap(from.kept);
  {
    held guard(task.lock);
    task.move->phase = move_phase::claiming;
    task.move->claimed = epoch;
  }
  scheduler::answered(task, want_move);
  fault_point("target.laid_out");
  if (id.home() != with_.home.here()) {
    claim(id, epoch, source);
  } else if (with_.home.claim(id, epoch, with_.home.here(), source)) {
    claim_granted(id, epoch, with_.home.here(), source);
    granted(task);
  } else {
    drop_arrival(task);
  }
}

inline void transfer_engine::refuse(node_id source, task_id task, std::uint64_t epoch, const failure& why) {
  with_.carriers.refused(task, epoch);
  if (source == with_.home.here()) { // home restarts it
    restart_refused(task, source, epoch, why);
    return;
  }
  errc code = why.code.category() == error_category() ? static_cast<errc>(why.code.value()) : errc::move_refused;
  send_message(with_.network, source, [&](protocol::Message::Builder message) {
    auto refusal = message.initRefusal();
    refusal.setTask(task.bits());
    refusal.setEpoch(epoch);
    refusal.setCode(static_cast<std::int32_t>(code));
    refusal.setWhat(why.what.c_str());
  });
}

inline bool transfer_engine::refuse_if_closed(node_id source, task_id task, std::uint64_t epoch) {
  if (!closed()) return false;
  std::string why;
  {
    held guard(lock_);
    why = why_closed_;
  }
  refuse(source, task, epoch, {make_error_code(errc::node_leaving), why});
  return true;
}

inline void transfer_engine::drop_arrival(resident& task) noexcept {
  task_id id = task.id;
  const region_number region = task.move->incoming->region;
  // What came ahead lies there even when the offer is not good.
  const bool opened = task.move->incoming->opened || task.move->incoming->ahead != nullptr;
  move_order* order = nullptr;
  {
    held guard(lock_);
    moving_.erase(id);
    images_.erase(id);
  }
  with_.carriers.release(task, true);
  with_.pages.drop(id);
  {
    held guard(task.lock);
    order = std::exchange(task.move, nullptr);
  }
  delete order;
  scheduler::answered(task, want_move);
  scheduler::answered(task, want_end);
  if (opened) with_.vacated.vacate(region, region.base() + region.size()); // before it can be offered again
  with_.home.arrived(region, id);
  with_.home.residents().retire(task, id, with_.home.records().find(id));
  gone(id);
}

inline void transfer_engine::claim(task_id task, std::uint64_t epoch, node_id source) {
  bool sent = send_message(with_.network, task.home(), [&](protocol::Message::Builder message) {
    auto claim = message.initClaim();
    claim.setCall(claim_mark | task.bits());
    claim.setTask(task.bits());
    claim.setEpoch(epoch);
    claim.setSource(number(source));
  });
  if (!sent) on_claim_answer(task, {errc::home_unreachable, "its home cannot be reached", 0, 0, {}});
  else fault_point("target.claimed");
}

inline void transfer_engine::granted(resident& task) {
  fault_point("target.granted");
  move_order* order = nullptr;
  {
    held guard(lock_);
    moving_.erase(task.id);
    if (task.id.home() != with_.home.here()) sources_[task.id] = task.move->incoming->source;
  }
  {
    held guard(task.lock);
    order = std::exchange(task.move, nullptr);
    task.epoch = order->claimed + 1;
  }
  const arrival& from = *order->incoming;
  const task_id id = task.id;
  control_block& control = *task.control;
  ++control.moves;
  if (from.boot != with_.boot) control.clock_offset = from.clock - node_steady();
  control.heap.set_zeroed_from(std::max(control.heap.high_water(), static_cast<const char*>(from.garbage_end)));
  control.suspended.enter_process();
  // The source hears of it before the task's first instruction can be seen by anybody.
  tell_taken(from.source, task.id, order->epoch);
  fault_point("target.taken");
  with_.departed.forget(control.region);
  with_.home.arrived(control.region, id);
  std::shared_ptr<reception> ahead = std::move(order->incoming->ahead);
  delete order;
  task.hides_pages = with_.pages.hides_from_kernel(id);
  const bool has_memory = with_.pages.begin(id);
  this_scheduler->start_task(task);
  if (!has_memory) this_scheduler->ask(task, want_end);
  if (ahead) closers_.push([ahead = std::move(ahead)] {}); // what it keeps takes a while to go
  with_.carriers.release(task, false);
  may_have_to_go(task, id);
}

} // namespace migrate::detail
