// The source of a move: orders, the freeze, the offer, and leaving. Included by engine.hpp.
#pragma once

#include <migrate/transfer/engine.hpp>

namespace migrate::detail {

inline bool transfer_engine::may_move(const resident& task, const move_asker& asker) noexcept {
  // With the task's lock held, and its memory here.
  if (asker.node == no_node || asker.told != nullptr) return true; // itself, or this node, which need not keep it
  if (asker.reason == move_reason::command) return true;           // whoever may speak to the cluster's control socket
  return asker.by ? asker.by == task.id || asker.by == task.control->parent : asker.node == task.id.home();
}

inline bool transfer_engine::order(resident& task, task_id id, node_id target, move_asker asker, failure& refused,
                                   task_id copy, transfer how, bool checkpoint) {
  const bool by_itself = asker.node == no_node && asker.told == nullptr && asker.reason == move_reason::asked;
  if (!by_itself && !checkpoint) stop_checkpoint_rounds(task, id);
  {
    held guard(task.lock);
    if (task.id != id || task.state.load() == run_state::none) return false;
    if (task.move != nullptr && task.move->checkpoint) {
      move_order& before = *task.move;
      const bool in_rounds = before.carried != nullptr;
      if (task.state.load() == run_state::frozen) return false; // it is there again in a moment
      if (in_rounds && !by_itself && (before.carried->captured || !checkpoint)) return false; // as soon
      if (checkpoint && before.asker.node == no_node && may_move(task, asker)) {
        before.asker = asker; // the checkpoint that is about to be made
        if (in_rounds && asker.by == id) before.carried->hurry = true;
        return true;
      }
      if (before.asker.node == no_node && !in_rounds) delete std::exchange(task.move, nullptr); // what is asked now goes first
    }
    if (task.move != nullptr) {
      refused = {make_error_code(errc::move_in_progress), "task " + to_string(task.id) + " is being moved to node " +
                                                              to_string(task.move->target) + " already"};
      return true;
    }
    if (!may_move(task, asker)) {
      refused = {make_error_code(errc::not_permitted),
                 "moving task " + to_string(task.id) + " to node " + to_string(target) + " was asked for by " +
                     (asker.by ? "task " + to_string(asker.by) : "node " + to_string(asker.node)) +
                     ", but only the task itself, its parent and who runs its home may"};
      return true;
    }
    task.move = new move_order;
    task.move->target = target;
    task.move->asker = asker;
    task.move->copy = copy;
    task.move->how = how;
    task.move->checkpoint = checkpoint;
  }
  this_scheduler->ask(task, want_move);
  return true;
}

inline void transfer_engine::answer_asker(const move_asker& asker, const failure& how) noexcept {
  if (asker.node == no_node) return;
  if (asker.told != nullptr) {
    asker.told(asker.call, how);
    return;
  }
  answer reply{static_cast<errc>(how.code.value()), how.what, 0, 0, {}};
  if (how.code && how.code.category() != error_category()) reply.code = errc::move_refused;
  if (asker.node == with_.home.here())
    with_.calls.complete(asker.call, std::move(reply));
  else
    send_answer(with_.network, asker.node, asker.call, reply);
}

inline void transfer_engine::on_move(node_id asker, protocol::Move::Reader message) {
  task_id id(message.getTask());
  failure refused;
  if (message.getReason() == static_cast<std::uint8_t>(move_reason::checkpoint)) {
    // A checkpoint: of the one who asks, not of the clock.
    resident* here = with_.home.find_here(id);
    move_asker who{asker, message.getCall(), task_id(message.getBy())};
    if (here == nullptr || !order(*here, id, with_.home.here(), who, refused, {}, transfer::by_default, true))
      send_answer(with_.network, asker, message.getCall(), answer{errc::ok, "", 1, 0, {}});
    else if (refused.code)
      answer_asker(who, refused);
    return;
  }
  bool command = message.getReason() == static_cast<std::uint8_t>(move_reason::command);
  move_reason reason = command ? move_reason::command : move_reason::asked;
  resident* task = with_.home.find_here(id);
  move_asker by{asker, message.getCall(), task_id(message.getBy()), reason};
  auto how = message.getTransfer() < std::size(transfer_names) ? static_cast<transfer>(message.getTransfer())
                                                               : transfer::by_default;
  if (task == nullptr || !order(*task, id, node_id(message.getTarget()), by, refused, {}, how)) {
    // `first`: not here; the asker looks for it again.
    send_answer(with_.network, asker, message.getCall(), answer{errc::ok, "", 1, 0, {}});
    return;
  }
  if (refused.code) answer_asker(by, refused);
}

inline void transfer_engine::serve(resident& task) noexcept {
  if (task.lost_from.load() != no_node) {
    end_without_memory(task);
    return;
  }
  move_phase phase;
  {
    held guard(task.lock);
    if (task.move == nullptr) {
      scheduler::answered(task, want_move);
      if (!disowned(task.id)) {
        scheduler::answered(task, want_end);
        this_scheduler->thaw(task);
        return;
      }
    }
    phase = task.move == nullptr ? move_phase::failed : task.move->phase;
    if (phase == move_phase::ahead) task.move->carried->hurry = true;
  }
  if ((phase == move_phase::failed || phase == move_phase::asked || phase == move_phase::ahead) && disowned(task.id)) {
    discard(task);
    return;
  }
  try {
    switch (phase) {
    case move_phase::asked:
      if (waits_for_memory(task)) return;
      if (task.move->checkpoint)
        checkpoint(task);
      else if (task.move->copy)
        offer_copy(task);
      else
        depart(task);
      return;
    case move_phase::ahead: // it asks to be moved itself
      ::sched_yield();
      this_scheduler->thaw(task);
      return;
    case move_phase::vacating: vacate(task); return;
    case move_phase::arriving:
      if (!with_.home.may_lay_out(task.move->incoming->region, task.id,
                                  task.move->incoming->ahead != nullptr)) {
        ::sched_yield(); // of an earlier task of that region: its departure, or arrival, is about to end
        this_scheduler->serve_later(task);
      } else {
        lay_out(task);
      }
      return;
    default: return;
    }
  } catch (const error& reason) {
    give_up(task, {reason.code(), reason.what()});
  } catch (const std::exception& reason) {
    give_up(task, {make_error_code(errc::move_refused), reason.what()});
  }
}

inline failure transfer_engine::check_movable(resident& task) const {
  const context& suspended = task.control->suspended;
  if (suspended.locale != LC_GLOBAL_LOCALE && suspended.locale != global_locale.load(std::memory_order_relaxed))
    return {make_error_code(errc::not_movable),
            "the task has set a locale of its own (uselocale), which belongs to this process"};
  if (suspended.exceptions.uncaught != 0)
    return {make_error_code(errc::not_movable), "an exception is being thrown through the task's frames"};
  if (suspended.exceptions.caught != nullptr && !in_plan(suspended.exceptions.caught))
    return {make_error_code(errc::not_movable),
            "the task handles an exception whose object lies outside its region; include "
            "migrate/malloc.hpp in one source file to have exceptions allocated in regions"};
  return {};
}

inline void transfer_engine::close(std::string why) {
  held guard(lock_);
  why_closed_ = std::move(why);
  closed_ = true;
}

inline void transfer_engine::reopen() noexcept { closed_ = false; }

inline image transfer_engine::image_of(task_id task) {
  held guard(lock_);
  auto found = images_.find(task);
  return found == images_.end() || !found->second.laid ? image{} : found->second.of;
}
// What the task's memory is based on.

inline std::vector<std::byte> transfer_engine::image_manifest(task_id task) {
  image known;
  {
    held guard(lock_);
    if (auto found = images_.find(task); found != images_.end()) known = found->second.of;
  }
  return known.valid() ? known.encode() : std::vector<std::byte>();
}

inline void transfer_engine::depart(resident& task) {
  move_order& order = *task.move;
  order.frozen_at = std::chrono::steady_clock::now();
  order.epoch = task.epoch;
  fault_point("source.frozen");
  if (order.target == with_.home.here()) {
    give_up(task, {});
    return;
  }
  if (with_.network.address_of(order.target).empty()) {
    give_up(task, {make_error_code(errc::no_such_node),
                   "there is no node " + to_string(order.target) + " in this cluster"});
    return;
  }
  failure refused = check_movable(task);
  const std::shared_ptr<carriage> carried = order.carried; // rounds have been made
  if (!refused.code && carried != nullptr) refused = carried->why();
  if (!refused.code && carried == nullptr && !order.asked_itself() && order.asker.reason != move_reason::spawned &&
      order.asker.reason != move_reason::evicted) {
    transfer how = wanted(task, order.how);
    if ((how == transfer::automatic || strategy_of(how)->in_rounds) && begin_rounds(task, how)) return;
  }
  if (!refused.code) refused = with_.carriers.prepare(task);
  if (refused.code) {
    give_up(task, std::move(refused));
    return;
  }
  byte_writer bundle;
  with_.carriers.encapsulate(task, bundle);
  if (departs_by_reference(task)) {
    depart_by_reference(task, std::move(bundle));
    return;
  }
  memory_survey memory =
      carried != nullptr ? send_rest(task, *carried) : survey_memory(*task.control, with_.scanner);
  if (carried != nullptr && (refused = carried->why()).code) {
    give_up(task, std::move(refused));
    return;
  }
  {
    held guard(task.lock);
    order.bytes = memory.dirty_bytes;
  }
  constexpr std::size_t most_of_rest = std::size_t{16} << 20; // what rounds have left goes into one message
  const std::size_t most = carried != nullptr ? std::max(most_of_rest, with_.most_inline) : with_.most_inline;
  const bool with_pages = memory.dirty_bytes <= most || with_.images == nullptr;
  const bool straight = carried != nullptr ? !carried->how->by_image
                                           : !with_pages && !strategy_of(wanted(task, order.how))->by_image;
  if (carried == nullptr) order.how = straight ? transfer::full_copy : transfer::flush;
  if (straight && memory.dirty_bytes > most) {
    if (image base = image_of(task.id); carried == nullptr && base.valid())
      memory.dirty = with_image(memory.dirty, base, memory.live, task.control->region);
    send_frozen(task, std::move(memory), std::move(bundle));
    return;
  }
  if (straight) {
    offer(task, memory, bundle, image_manifest(task.id), true, true);
    return;
  }
  image base = carried != nullptr && carried->newest.valid() ? carried->newest : image_of(task.id);
  if (carried != nullptr) order.offered = carried->newest;
  if (!with_pages) {
    fault_point("source.flushing");
    if (carried != nullptr) memory.dirty.insert(memory.dirty.end(), carried->gone.begin(), carried->gone.end());
    order.offered = with_.images->commit(task.id, task.control->region, base.valid() ? &base : nullptr,
                                         memory.dirty, memory.live, {});
    fault_point("source.flushed");
  }
  const image& from = with_pages ? base : order.offered;
  std::vector<std::byte> manifest;
  if (from.valid() && (carried == nullptr || !with_pages)) manifest = from.encode(); // else the target has laid it
  offer(task, memory, bundle, manifest, with_pages, false);
}

inline void transfer_engine::offer(resident& task, const memory_survey& memory, const byte_writer& bundle,
                                   const std::vector<std::byte>& manifest, bool with_pages, bool unlaid) {
  {
    held guard(lock_);
    moving_[task.id] = &task;
  }
  {
    held guard(task.lock);
    task.move->phase = move_phase::offered;
  }
  with_.home.leaving(task.control->region);
  if (!send_offer(task, task.id, task.epoch, memory, bundle, manifest, with_pages, unlaid))
    give_up(task, {make_error_code(errc::node_unreachable), "the offer cannot be sent"});
  fault_point("source.offered");
}

inline bool transfer_engine::send_offer(resident& task, task_id id, std::uint64_t epoch, const memory_survey& memory,
                                        const byte_writer& bundle, const std::vector<std::byte>& manifest,
                                        bool with_pages, bool unlaid) {
  std::vector<iovec> attachment;
  attachment.push_back({const_cast<std::byte*>(bundle.bytes().data()), bundle.bytes().size()});
  if (with_pages)
    for (const page_range& range : memory.dirty) attachment.push_back({range.address, range.bytes});
  compressor own(with_.compress == compression::always ? compression::always : compression::never);
  const bool has_carriage = id == task.id && task.move->carried != nullptr;
  compressor& compress = has_carriage ? task.move->carried->compress : own;
  std::span<const std::byte> block = compress.compress(std::span(attachment).subspan(1));
  if (!block.empty()) {
    attachment.resize(1);
    attachment.push_back({const_cast<std::byte*>(block.data()), block.size()});
  }
  control_block& control = *task.control;
  return send_message(
      with_.network, task.move->target,
      [&](protocol::Message::Builder message) {
        auto offer = message.initOffer();
        offer.setTask(id.bits());
        offer.setEpoch(epoch);
        offer.setRegion(control.region.bits());
        offer.setControl(reinterpret_cast<std::uint64_t>(&control));
        offer.setClock(node_steady() + control.clock_offset);
        offer.initBoot().setHigh(with_.boot.high);
        offer.getBoot().setLow(with_.boot.low);
        if (!manifest.empty())
          offer.setManifest(kj::arrayPtr(reinterpret_cast<const kj::byte*>(manifest.data()), manifest.size()));
        if (with_pages) {
          auto pages = offer.initPages(static_cast<unsigned>(memory.dirty.size()));
          for (unsigned i = 0; i < pages.size(); ++i) {
            pages[i].setAddress(reinterpret_cast<std::uint64_t>(memory.dirty[i].address));
            pages[i].setCount(static_cast<std::uint32_t>(memory.dirty[i].bytes / page_size));
          }
        }
        offer.setBundle(static_cast<std::uint32_t>(bundle.bytes().size()));
        offer.setCompressed(!block.empty());
        offer.setShared(control.shares_region);
        if (id != task.id) offer.setOriginal(task.id.bits());
        offer.setAhead(id == task.id && task.move->carried != nullptr);
        offer.setUnlaid(unlaid);
        if (id == task.id && task.move->office_port != 0) {
          offer.setOfficePort(task.move->office_port);
          offer.setOfficeNumber(task.move->office_number);
          offer.setMissingFrom(reinterpret_cast<std::uint64_t>(task.move->missing_from));
          offer.setMissingTo(reinterpret_cast<std::uint64_t>(task.move->missing_to));
        }
      },
      attachment);
}

inline void transfer_engine::give_up(resident& task, failure why) noexcept {
  // The task goes on on this node.
  {
    held guard(lock_);
    moving_.erase(task.id);
  }
  with_.home.left(task.control->region);
  const task_id id = task.id;
  move_order* order = nullptr;
  node_id target = no_node;
  bool asked_itself = false;
  std::string complaint;
  {
    held guard(task.lock);
    order = task.move;
    target = order->target;
    asked_itself = order->asked_itself();
    if (why.code) {
      why.what = "moving task " + to_string(id) + " to node " + to_string(target) + ": " + why.what;
      recorder_.failed();
    }
    if (order->asker.reason == move_reason::spawned && why.code) complaint = why.what + "; it begins here";
    order->why = why;
    order->phase = move_phase::failed;
    if (!asked_itself) task.move = nullptr;
  }
  if (why.code && with_.listener.failed != nullptr) with_.listener.failed(id, task.control->name, *order);
  if (order->offered.valid()) {
    try {
      with_.images->discard(order->offered);
    } catch (const std::exception&) {
      // What stays in the store is garbage that the task's next image replaces.
    }
  }
  if (order->carried) put_away(*order->carried, false);
  if (order->office_port != 0) with_.pages.forget(id, order->office_number);
  scheduler::answered(task, want_move);
  if (!asked_itself) {
    answer_asker(order->asker, why);
    delete order;
  }
  if (!complaint.empty()) the_services->report(complaint.c_str());
  this_scheduler->thaw(task);
  with_.carriers.release(task, false);
  if (closed() && !asked_itself) not_gone(task, id, target, why); // otherwise when it has read what came of it
}

inline resident* transfer_engine::departing(task_id id) noexcept {
  resident* task = nullptr;
  {
    held guard(lock_);
    auto found = moving_.find(id);
    if (found == moving_.end()) return nullptr;
    task = found->second;
  }
  held guard(task->lock);
  bool offered = task->id == id && task->move != nullptr && task->move->phase == move_phase::offered;
  return offered ? task : nullptr;
}

inline void transfer_engine::on_refusal(node_id target, protocol::OfferRefusal::Reader message) {
  copy_settled(task_id(message.getTask()),
               {make_error_code(static_cast<errc>(message.getCode())), std::string(message.getWhat().cStr())});
  auto code = static_cast<errc>(message.getCode());
  if (auto of = carriage_to(target, task_id(message.getTask()), message.getEpoch()))
    of->fail({make_error_code(code), std::string(message.getWhat().cStr())});
  restart_refused(task_id(message.getTask()), target, message.getEpoch(),
                  {make_error_code(code), std::string(message.getWhat().cStr())});
  resident* task = departing(task_id(message.getTask()));
  if (task == nullptr || task->move->target != target || task->move->epoch != message.getEpoch()) return;
  if (code == errc::home_unreachable) {
    // The target had asked home and gave up its claim to us.
    run_unasked(*task);
  }
  give_up(*task, {make_error_code(code), std::string(message.getWhat().cStr())});
}

inline void transfer_engine::on_taken(node_id target, protocol::TaskEpoch::Reader message) {
  copy_settled(task_id(message.getTask()), {});
  resident* task = departing(task_id(message.getTask()));
  if (task == nullptr || task->move->target != target || task->move->epoch != message.getEpoch()) return;
  fault_point("source.taken");
  taken(*task);
}

inline void transfer_engine::taken(resident& task) {
  if (with_.listener.moved != nullptr) with_.listener.moved(task.id, task.control->name, *task.move);
  auto freeze = std::chrono::steady_clock::now() - task.move->frozen_at;
  if (task.move->carried) {
    const compressor& compress = task.move->carried->compress;
    recorder_.compressed(compress.before(), compress.after(), compress.outcome());
  }
  recorder_.moved(static_cast<std::uint64_t>(
                      std::chrono::duration_cast<std::chrono::nanoseconds>(freeze).count()),
                  task.move->bytes + (task.move->carried ? task.move->carried->bytes : 0), task.move->how, task.move->why_so);
  {
    held guard(lock_);
    moving_.erase(task.id);
  }
  {
    held guard(task.lock);
    task.move->phase = move_phase::vacating;
  }
  this_scheduler->serve_later(task);
}

inline void transfer_engine::vacate(resident& task) {
  task_id id = task.id;
  region_number region = task.control->region;
  const std::uint64_t kept_from = task.control->checkpoint;
  char* touched_end = end_of_touched(*task.control);
  move_order* order = task.move;
  task.control->suspended.leave_process();
  with_.carriers.release(task, true);
  {
    held guard(lock_);
    images_.erase(id);
    sources_.erase(id);
    unsure_.erase(id);
  }
  if (order->carried) {
    order->carried->closes = static_cast<std::size_t>(touched_end - region.base()) > vacated_regions::largest;
    put_away(*order->carried, true);
  }
  if (task.open_call != 0) with_.calls.close(task.open_call);
  with_.departed.note(region, id, task.control->name, order->target);
  scheduler::answered(task, want_move);
  scheduler::answered(task, want_end);
  constexpr std::size_t most_closed_at_once = std::size_t{4} << 20;
  auto let_go = [this, region, touched_end] {
    with_.vacated.vacate(region, touched_end);
    with_.home.left(region);
  };
  if (order->office_port != 0)
    with_.pages.hand_over(id, order->office_number, let_go);
  else if (static_cast<std::size_t>(touched_end - region.base()) > most_closed_at_once)
    closers_.push([let_go] {
      fault_point("source.closing");
      let_go();
    });
  else
    let_go();
  if (order->offered.valid()) {
    try {
      with_.images->collect(id, order->offered, kept_from);
    } catch (const std::exception&) {
      // The next move's source collects again.
    }
  }
  answer_asker(order->asker, order->why);
  std::unique_ptr<arrival> comes_back;
  {
    held guard(task.lock);
    comes_back = std::move(order->incoming);
    task.move = nullptr;
    task.id = {}; // from here on an offer finds that the task is not here
  }
  with_.home.residents().retire(task, id, with_.home.records().find(id));
  delete order;
  fault_point("source.vacated");
  if (comes_back)
    accept_offer(id, std::move(comes_back));
  else
    gone(id);
}

inline void transfer_engine::ended(resident& task) noexcept {
  bool had_image = task.control->checkpoint != 0;
  task_id id = task.id;
  with_.pages.drop(id);
  move_order* order = nullptr;
  {
    held guard(task.lock);
    order = std::exchange(task.move, nullptr);
    task.state.store(run_state::none); // from here on nobody can ask it to move
  }
  {
    held guard(lock_);
    had_image |= images_.erase(id) > 0;
    sources_.erase(id);
    unsure_.erase(id);
  }
  if (order != nullptr && order->carried) {
    carriage& ahead = *order->carried;
    ahead.task_ended = true;
    ahead.end();
    if (order->phase == move_phase::ahead)
      forget_carriage(ahead, false); // whoever works on it removes its images
    else
      put_away(ahead, false);
  }
  scheduler::answered(task, want_move);
  scheduler::answered(task, want_end);
  task.control->suspended.leave_process();
  with_.carriers.release(task, true);
  if (order != nullptr) {
    answer_asker(order->asker, {make_error_code(errc::no_such_task), "task " + to_string(id) + " has ended"});
    delete order;
  }
  if (had_image) {
    try {
      with_.images->remove(id);
    } catch (const std::exception&) {
      // `migrate-store remove` is left for what cannot be removed now.
    }
  }
}

} // namespace migrate::detail
