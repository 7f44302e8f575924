// The transfer engine: freezes a task, offers it, and hands it over once home has granted the claim.
#pragma once

#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <migrate/home/office.hpp>
#include <migrate/memory/dirty_pages.hpp>
#include <migrate/rpc/send.hpp>
#include <migrate/store/store.hpp>
#include <migrate/task/scheduler.hpp>
#include <migrate/transfer/carrier.hpp>
#include <migrate/task/departed.hpp>
#include <migrate/transfer/fault_point.hpp>
#include <migrate/transfer/memory.hpp>
#include <migrate/transfer/move_order.hpp>
#include <migrate/transfer/statistics.hpp>

namespace migrate::detail {

class transfer_engine {
  // The way of one task from source to target, with home as the arbiter:
  //
  //   source                         target                          home
  //   freeze, flush, offer --------> lay out, claim ---------------> epoch + 1 if it is still epoch
  //                                  <------------------------------ granted
  //   vacate <------------- taken -- run
  //
  // A source that loses its target claims the task back at home in the same way; whichever claim comes
  // first decides. A target that is refused drops what it laid out. When the target dies between the
  // grant and `taken`, home asks the source, which still has the task frozen, and grants it again there.

public:
  struct parts {
    home_office& home;
    peers& network;
    call_table& calls;
    vacated_regions& vacated;
    page_scanner& scanner;
    store* images;
    const carrier_table& carriers;
    departed_regions& departed;
    id128 boot;
    std::size_t most_inline; // bytes of dirty pages that travel inside the offer
  };

  explicit transfer_engine(parts with) : with_(with) {}

  bool order(resident& task, task_id id, node_id target, move_asker asker, failure& refused, task_id copy = {});
  // Has the task moved at its next safe point. `refused` says why not, if at once. False: it has left this
  // node, or ended. With `copy`, it stays and that copy of it goes; the answer comes when the copy runs.

  void serve(resident& task) noexcept;
  // On a worker's loop, with the task frozen.

  void ended(resident& task) noexcept;
  // The task has run its last instruction here.

  void on_move(node_id asker, protocol::Move::Reader message);
  void on_offer(node_id source, protocol::Offer::Reader message, kj::ArrayPtr<const kj::byte> attachment);
  void on_claim(node_id claimant, protocol::Claim::Reader message);
  void on_claim_answer(task_id task, const answer& verdict);
  void on_refusal(node_id target, protocol::OfferRefusal::Reader message);
  void on_taken(node_id target, protocol::TaskEpoch::Reader message);
  void on_running(node_id holder, protocol::TaskEpoch::Reader message);
  void on_still_held(node_id home, protocol::TaskEpoch::Reader message);
  void on_not_held(node_id source, protocol::TaskEpoch::Reader message);
  void on_disown(node_id home, protocol::TaskEpoch::Reader message);
  void on_connection_broken(node_id node, const std::string& why);
  // What was on its way is lost, but the process is there, and on_node_back() follows.
  void on_node_lost(node_id node, bool process_is_gone, const std::string& why);
  void on_node_back(node_id node);
  // On the I/O thread.

  static constexpr std::uint64_t claim_mark = std::uint64_t{1} << 63;
  // Call numbers with this bit are claims: the rest is the task. Node numbers are below 32,768.

  move_recorder& recorder() noexcept { return recorder_; }

private:
  void depart(resident& task);
  failure offer_copy(resident& task);
  void copy_settled(task_id copy, const failure& how);
  bool occupied(region_number region, task_id by);
  void vacate(resident& task);
  void lay_out(resident& task);
  void give_up(resident& task, failure why) noexcept;
  void answer_asker(const move_asker& asker, const failure& how) noexcept;
  failure check_movable(resident& task) const;
  bool send_offer(resident& task, task_id id, std::uint64_t epoch, const memory_survey& memory,
                  const byte_writer& bundle, const std::vector<std::byte>& manifest, bool with_pages);
  void claim(task_id task, std::uint64_t epoch, node_id source);
  void accept_offer(task_id id, std::unique_ptr<arrival> incoming);
  void granted(resident& task);
  void tell_taken(node_id source, task_id task, std::uint64_t epoch);
  void drop_arrival(resident& task) noexcept;
  void refuse(node_id source, task_id task, std::uint64_t epoch, const failure& why);
  void taken(resident& task);
  enum class target_loss { broken, unreachable, gone };
  void take_back(resident& task, target_loss how, const std::string& why);
  void run_without_home(resident& task);
  void run_unasked(resident& task);
  bool disowned(task_id task) noexcept;
  void discard(resident& task) noexcept;
  void gone(task_id task) noexcept;
  void tell_not_held(node_id home, task_id task);
  resident* departing(task_id id) noexcept;
  image image_of(task_id task);

  parts with_;
  move_recorder recorder_;
  spin_lock lock_;
  std::unordered_map<task_id, image> images_;     // the newest image of tasks that are here
  std::unordered_map<task_id, node_id> sources_;  // where foreign tasks that are here came from
  std::unordered_map<task_id, resident*> moving_; // departures and arrivals under way
  std::set<task_id> unsure_;                      // tasks whose home may believe them elsewhere
  struct copy_offered {
    node_id target;
    std::uint64_t call;
  };
  std::unordered_map<task_id, copy_offered> copies_; // that no target has taken yet, of tasks that are here
  std::set<task_id> disowned_;                    // tasks that are here and that home has given up as lost
  std::set<node_id> dead_;                        // on the I/O thread only
};

inline constinit transfer_engine* this_engine = nullptr;

// --- asking ------------------------------------------------------------------------------------------

inline bool transfer_engine::order(resident& task, task_id id, node_id target, move_asker asker, failure& refused,
                                   task_id copy) {
  {
    held guard(task.lock);
    if (task.id != id || task.state.load() == run_state::none) return false;
    if (task.move != nullptr) {
      refused = {make_error_code(errc::move_in_progress), "task " + to_string(task.id) + " is being moved to node " +
                                                              to_string(task.move->target) + " already"};
      return true;
    }
    task.move = new move_order;
    task.move->target = target;
    task.move->asker = asker;
    task.move->copy = copy;
  }
  this_scheduler->ask(task, want_move);
  return true;
}

inline void transfer_engine::answer_asker(const move_asker& asker, const failure& how) noexcept {
  if (asker.node == no_node) return;
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
  resident* task = with_.home.find_here(id);
  if (task == nullptr || !order(*task, id, node_id(message.getTarget()), {asker, message.getCall()}, refused)) {
    // `first`: not here; the asker looks for it again.
    send_answer(with_.network, asker, message.getCall(), answer{errc::ok, "", 1, 0, {}});
    return;
  }
  if (refused.code) answer_asker({asker, message.getCall()}, refused);
}

// --- the source --------------------------------------------------------------------------------------

inline void transfer_engine::serve(resident& task) noexcept {
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
  }
  if ((phase == move_phase::failed || phase == move_phase::asked) && disowned(task.id)) {
    discard(task);
    return;
  }
  try {
    switch (phase) {
    case move_phase::asked:
      if (task.move->copy) {
        task_id copy = task.move->copy;
        failure refused = offer_copy(task);
        if (refused.code) copy_settled(copy, refused);
      } else {
        depart(task);
      }
      return;
    case move_phase::vacating: vacate(task); return;
    case move_phase::arriving:
      if (with_.home.is_leaving(task.move->incoming->region)) {
        ::sched_yield(); // an earlier task of that region runs elsewhere by now: its departure is about to end
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

inline image transfer_engine::image_of(task_id task) {
  held guard(lock_);
  auto found = images_.find(task);
  return found == images_.end() ? image{} : found->second;
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
  if (!refused.code) refused = with_.carriers.prepare(task);
  if (refused.code) {
    give_up(task, std::move(refused));
    return;
  }
  byte_writer bundle;
  with_.carriers.encapsulate(task, bundle);
  memory_survey memory = survey_memory(*task.control, with_.scanner);
  image base = image_of(task.id);
  bool with_pages = memory.dirty_bytes <= with_.most_inline || with_.images == nullptr;
  if (!with_pages) {
    fault_point("source.flushing");
    order.offered = with_.images->commit(task.id, task.control->region, base.valid() ? &base : nullptr,
                                         memory.dirty, memory.live, {});
    fault_point("source.flushed");
  }
  const image& from = with_pages ? base : order.offered;
  std::vector<std::byte> manifest;
  if (from.valid()) manifest = from.encode();
  {
    held guard(lock_);
    moving_[task.id] = &task;
  }
  {
    held guard(task.lock);
    order.phase = move_phase::offered;
    order.bytes = memory.dirty_bytes;
  }
  with_.home.leaving(task.control->region);
  if (!send_offer(task, task.id, task.epoch, memory, bundle, manifest, with_pages))
    give_up(task, {make_error_code(errc::node_unreachable), "the offer cannot be sent"});
  fault_point("source.offered");
}

inline failure transfer_engine::offer_copy(resident& task) {
  // The task goes on when its copy has been sent; whoever forks waits for the answer to the order's call.
  failure refused = check_movable(task);
  if (!refused.code) refused = with_.carriers.prepare(task);
  std::unique_ptr<move_order> order;
  {
    held guard(task.lock);
    if (refused.code) {
      held mine(lock_);
      copies_[task.move->copy] = {no_node, task.move->asker.call};
    } else {
      task.control->shares_region = true;
    }
    order.reset(task.move);
  }
  try {
    if (!refused.code) {
      byte_writer bundle;
      with_.carriers.copy(task, order->copy, bundle);
      memory_survey memory = survey_memory(*task.control, with_.scanner);
      image base = image_of(task.id);
      bool with_pages = !base.valid() && (memory.dirty_bytes <= with_.most_inline || with_.images == nullptr);
      std::vector<std::byte> manifest;
      if (!with_pages) {
        image shared;
        if (base.valid()) shared = with_.images->share(base, order->copy);
        // Without the shared files every page has to be written anew, dirty or not.
        auto& written = base.valid() && !shared.valid() ? memory.live : memory.dirty;
        manifest = with_.images->commit(order->copy, task.control->region, shared.valid() ? &shared : nullptr, written,
                                        memory.live, {})
                       .encode();
      }
      {
        held guard(lock_);
        copies_[order->copy] = {order->target, order->asker.call};
      }
      if (!send_offer(task, order->copy, 1, memory, bundle, manifest, with_pages))
        refused = {make_error_code(errc::node_unreachable), "the copy cannot be sent"};
    }
  } catch (const error& problem) {
    held guard(lock_);
    copies_[order->copy] = {no_node, order->asker.call};
    refused = {problem.code(), problem.what()};
  }
  {
    held guard(task.lock);
    task.move = nullptr;
  }
  with_.carriers.release(task, false);
  scheduler::answered(task, want_move);
  task.pins.fetch_add(1); // until it has heard: the answer comes to this node
  this_scheduler->thaw(task);
  return refused;
}

inline void transfer_engine::copy_settled(task_id copy, const failure& how) {
  std::uint64_t call = 0;
  {
    held guard(lock_);
    auto found = copies_.find(copy);
    if (found == copies_.end()) return;
    call = found->second.call;
    copies_.erase(found);
  }
  if (how.code && with_.images != nullptr) {
    try {
      with_.images->remove(copy);
    } catch (const std::exception&) {
      // `migrate-store remove` is left for what cannot be removed now.
    }
  }
  answer_asker({with_.home.here(), call}, how);
}

inline bool transfer_engine::occupied(region_number region, task_id by) {
  bool found = false;
  with_.home.residents().for_each([&](resident& each) {
    if (each.id == by) return;
    held guard(each.lock);
    if (each.move != nullptr && each.move->incoming != nullptr && each.move->incoming->region == region) found = true;
    if (each.control != nullptr && each.control->region == region &&
        (each.move == nullptr || each.move->phase != move_phase::vacating))
      found = true;
  });
  return found;
}

inline bool transfer_engine::send_offer(resident& task, task_id id, std::uint64_t epoch, const memory_survey& memory,
                                        const byte_writer& bundle, const std::vector<std::byte>& manifest,
                                        bool with_pages) {
  std::vector<iovec> attachment;
  attachment.push_back({const_cast<std::byte*>(bundle.bytes().data()), bundle.bytes().size()});
  if (with_pages)
    for (const page_range& range : memory.dirty) attachment.push_back({range.address, range.bytes});
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
        offer.setShared(control.shares_region);
        if (id != task.id) offer.setOriginal(task.id.bits());
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
  move_order* order = nullptr;
  bool asked_itself = false;
  std::string complaint;
  {
    held guard(task.lock);
    order = task.move;
    asked_itself = order->asker.node == no_node && !order->spawning;
    if (why.code) {
      node_id target = order->target;
      why.what = "moving task " + to_string(task.id) + " to node " + to_string(target) + ": " + why.what;
      recorder_.failed();
    }
    if (order->spawning && why.code) complaint = why.what + "; it begins here";
    order->why = why;
    order->phase = move_phase::failed;
    if (!asked_itself) task.move = nullptr;
  }
  if (order->offered.valid()) {
    try {
      with_.images->discard(order->offered);
    } catch (const std::exception&) {
      // What stays in the store is garbage that the task's next image replaces.
    }
  }
  scheduler::answered(task, want_move);
  if (!asked_itself) {
    answer_asker(order->asker, why);
    delete order;
  }
  if (!complaint.empty()) the_services->report(complaint.c_str());
  this_scheduler->thaw(task);
  with_.carriers.release(task, false);
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
  resident* task = departing(task_id(message.getTask()));
  if (task == nullptr || task->move->target != target || task->move->epoch != message.getEpoch()) return;
  auto code = static_cast<errc>(message.getCode());
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
  auto freeze = std::chrono::steady_clock::now() - task.move->frozen_at;
  recorder_.moved(static_cast<std::uint64_t>(
                      std::chrono::duration_cast<std::chrono::nanoseconds>(freeze).count()),
                  task.move->bytes);
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
  if (task.open_call != 0) with_.calls.close(task.open_call);
  with_.departed.note(region, id, task.control->name, order->target);
  scheduler::answered(task, want_move);
  scheduler::answered(task, want_end);
  with_.vacated.vacate(region, touched_end);
  with_.home.left(region);
  if (order->offered.valid()) {
    try {
      with_.images->collect(id, order->offered);
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

inline bool transfer_engine::disowned(task_id task) noexcept {
  held guard(lock_);
  return disowned_.contains(task);
}

inline void transfer_engine::discard(resident& task) noexcept {
  // On a worker's loop, with the task frozen: it runs its next instruction nowhere.
  task_id id = task.id;
  region_number region = task.control->region;
  char* touched_end = end_of_touched(*task.control);
  ended(task);
  if (task.open_call != 0) with_.calls.close(task.open_call);
  with_.vacated.vacate(region, touched_end);
  with_.home.residents().retire(task, id, nullptr);
  gone(id);
}

inline void transfer_engine::gone(task_id task) noexcept {
  {
    held guard(lock_);
    if (disowned_.erase(task) == 0) return;
  }
  tell_not_held(task.home(), task);
}

inline void transfer_engine::tell_not_held(node_id home, task_id task) {
  send_message(with_.network, home, [&](protocol::Message::Builder message) {
    auto not_held = message.initNotHeld();
    not_held.setTask(task.bits());
  });
}

inline void transfer_engine::on_disown(node_id home, protocol::TaskEpoch::Reader message) {
  task_id id(message.getTask());
  resident* task = id.home() == home ? with_.home.find_here(id) : nullptr;
  if (task == nullptr) {
    tell_not_held(home, id);
    return;
  }
  bool settled = false; // a move under way ends by home's refusal: see vacate(), drop_arrival() and give_up()
  {
    held guard(lock_);
    disowned_.insert(id);
  }
  {
    held guard(task->lock);
    if (task->id != id) settled = true;
  }
  if (settled) gone(id);
  else this_scheduler->ask(*task, want_end);
}

inline void transfer_engine::ended(resident& task) noexcept {
  bool had_image = false;
  task_id id = task.id;
  move_order* order = nullptr;
  {
    held guard(lock_);
    had_image = images_.erase(id) > 0;
    sources_.erase(id);
    unsure_.erase(id);
  }
  {
    held guard(task.lock);
    order = std::exchange(task.move, nullptr);
    task.state.store(run_state::none); // from here on nobody can ask it to move
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

// --- the target --------------------------------------------------------------------------------------

inline void transfer_engine::on_offer(node_id source, protocol::Offer::Reader message,
                                      kj::ArrayPtr<const kj::byte> attachment) {
  task_id id(message.getTask());
  std::uint64_t epoch = message.getEpoch();
  fault_point("target.offered");
  auto incoming = std::make_unique<arrival>();
  incoming->source = source;
  incoming->epoch = epoch;
  incoming->region = region_number::from_bits(message.getRegion());
  incoming->control = message.getControl();
  incoming->clock = message.getClock();
  incoming->original = task_id(message.getOriginal());
  incoming->boot = {message.getBoot().getHigh(), message.getBoot().getLow()};
  auto manifest = message.getManifest();
  incoming->manifest.assign(reinterpret_cast<const std::byte*>(manifest.begin()),
                            reinterpret_cast<const std::byte*>(manifest.end()));
  for (auto range : message.getPages())
    incoming->pages.push_back({reinterpret_cast<char*>(range.getAddress()), std::size_t{range.getCount()} * page_size});
  incoming->bundle = message.getBundle();
  incoming->bytes.assign(reinterpret_cast<const std::byte*>(attachment.begin()),
                         reinterpret_cast<const std::byte*>(attachment.end()));
  if (resident* there = with_.home.find_here(id)) {
    bool gone = false; // between our look and now
    bool runs = false;
    bool overdue = false;
    bool busy = false;
    {
      held guard(there->lock);
      gone = there->id != id;
      move_order* order = gone ? nullptr : there->move;
      if (order != nullptr && epoch > order->epoch &&
          (order->phase == move_phase::vacating || order->phase == move_phase::offered)) {
        // It left, ran, and comes back before its last memory here is gone.
        overdue = order->phase == move_phase::offered;
        order->incoming = std::move(incoming);
      } else if (order != nullptr && epoch > order->epoch &&
                 (order->phase == move_phase::arriving || order->phase == move_phase::claiming)) {
        busy = true;
      } else {
        runs = !gone && there->epoch == epoch + 1;
      }
    }
    if (overdue) taken(*there);
    if (busy)
      refuse(source, id, epoch, {make_error_code(errc::move_in_progress), "an earlier offer of the task is not settled there"});
    if (runs) tell_taken(source, id, epoch); // the offer came twice
    if (!gone) return;
  }
  if (message.getShared() && occupied(incoming->region, id)) {
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
  bool small = incoming->manifest.empty() && !with_.home.is_leaving(incoming->region);
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
}

inline void transfer_engine::lay_out(resident& task) {
  // Any failure here is the source's to hear: the task goes on there.
  arrival& from = *task.move->incoming;
  task_id id = task.id;
  std::uint64_t epoch = task.move->epoch;
  bool opened = false;
  try {
    std::size_t pages = 0;
    for (const page_range& range : from.pages) pages += range.bytes;
    if (!from.region.valid() || from.bundle > from.bytes.size() || pages != from.bytes.size() - from.bundle)
      throw error(errc::protocol, "the offer's lengths do not agree");
    char* base = from.region.base();
    std::size_t size = from.region.size();
    auto inside = [&](const char* address, std::size_t bytes) {
      return address >= base && bytes <= size && static_cast<std::size_t>(address - base) <= size - bytes;
    };
    if (!inside(reinterpret_cast<char*>(from.control), sizeof(control_block)) || from.control % 64 != 0)
      throw error(errc::protocol, "the offer's control block lies outside its region");
    if (std::optional<char*> garbage = with_.vacated.reopen(from.region))
      from.garbage_end = *garbage;
    else if (!with_.home.open_region(from.region))
      throw error(errc::region_exhausted, "the kernel refuses another mapping (vm.max_map_count?)");
    opened = true;
    image newest;
    if (!from.manifest.empty()) {
      if (with_.images == nullptr) throw error(errc::store_missing, "this node has no store to resume from");
      newest = image::parse(from.manifest);
      if (newest.task() != id || newest.region() != from.region)
        throw error(errc::image_foreign, "the offer's image is of task " + to_string(newest.task()));
      with_.images->resume_into(newest, base);
    }
    const std::byte* next = from.bytes.data() + from.bundle;
    for (const page_range& range : from.pages) {
      if (!inside(range.address, range.bytes) || reinterpret_cast<std::uintptr_t>(range.address) % page_size != 0 ||
          range.address == base)
        throw error(errc::protocol, "the offer has pages outside its region");
      std::memcpy(range.address, next, range.bytes);
      next += range.bytes;
    }
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
    }
    if (newest.valid()) {
      held guard(lock_);
      images_[id] = newest;
    }
  } catch (const std::exception& reason) {
    const auto* known = dynamic_cast<const error*>(&reason);
    failure why{known != nullptr ? known->code() : make_error_code(errc::move_refused), reason.what()};
    node_id source = from.source;
    if (!opened) from.region = {};
    drop_arrival(task);
    refuse(source, id, epoch, why); // last: the source may offer the task again at once
    return;
  }
  node_id source = from.source;
  std::vector<std::byte>().swap(from.bytes);
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
    granted(task);
  } else {
    drop_arrival(task);
  }
}

inline void transfer_engine::refuse(node_id source, task_id task, std::uint64_t epoch, const failure& why) {
  with_.carriers.refused(task, epoch);
  errc code = why.code.category() == error_category() ? static_cast<errc>(why.code.value()) : errc::move_refused;
  send_message(with_.network, source, [&](protocol::Message::Builder message) {
    auto refusal = message.initRefusal();
    refusal.setTask(task.bits());
    refusal.setEpoch(epoch);
    refusal.setCode(static_cast<std::int32_t>(code));
    refusal.setWhat(why.what.c_str());
  });
}

inline void transfer_engine::drop_arrival(resident& task) noexcept {
  task_id id = task.id;
  region_number region = task.move->incoming->region;
  move_order* order = nullptr;
  {
    held guard(lock_);
    moving_.erase(id);
    images_.erase(id);
  }
  with_.carriers.release(task, true);
  {
    held guard(task.lock);
    order = std::exchange(task.move, nullptr);
  }
  delete order;
  scheduler::answered(task, want_move);
  scheduler::answered(task, want_end);
  if (region) with_.vacated.vacate(region, region.base() + region.size()); // before it can be offered again
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
  control_block& control = *task.control;
  ++control.moves;
  if (from.boot != with_.boot) control.clock_offset = from.clock - node_steady();
  control.heap.set_zeroed_from(std::max(control.heap.high_water(), static_cast<const char*>(from.garbage_end)));
  control.suspended.enter_process();
  // The source hears of it before the task's first instruction can be seen by anybody.
  tell_taken(from.source, task.id, order->epoch);
  fault_point("target.taken");
  with_.departed.forget(control.region);
  delete order;
  this_scheduler->start_task(task);
  with_.carriers.release(task, false);
}

// --- claims, at home and their answers ---------------------------------------------------------------

inline void transfer_engine::on_claim(node_id claimant, protocol::Claim::Reader message) {
  task_id id(message.getTask());
  fault_point("home.claimed");
  bool yes = with_.home.claim(id, message.getEpoch(), claimant, node_id(message.getSource()));
  // A claimant that offered the task to this node, and lost what it was told.
  if (!yes && with_.home.locate(id) == with_.home.here()) tell_taken(claimant, id, message.getEpoch());
  answer reply;
  reply.first = yes;
  bool ended = !yes && with_.home.locate(id) == no_node; // nothing is left to claim
  reply.second = message.getEpoch() << 1 | (ended ? 1 : 0);
  send_answer(with_.network, claimant, message.getCall(), reply);
  fault_point("home.answered");
}

inline void transfer_engine::on_claim_answer(task_id id, const answer& verdict) {
  {
    bool asked_for_copy = false;
    {
      held guard(lock_);
      asked_for_copy = copies_.contains(id);
    }
    if (asked_for_copy) {
      // Its target was lost: whoever forks hears whether it had begun to run there.
      bool runs = verdict.code == errc::ok && verdict.first == 0;
      copy_settled(id, runs ? failure{} : failure{make_error_code(errc::node_lost), "the copy's node was lost"});
      return;
    }
  }
  resident* task = with_.home.find_here(id);
  if (task == nullptr) return;
  move_phase phase = move_phase::asked;
  {
    held guard(task->lock);
    if (task->id != id || task->move == nullptr) return;
    if (verdict.code == errc::ok && verdict.second >> 1 != task->move->claimed) return; // of an earlier claim
    phase = task->move->phase;
  }
  if (phase == move_phase::claiming) {
    if (verdict.code != errc::ok) {
      node_id source = task->move->incoming->source;
      std::uint64_t epoch = task->move->epoch;
      drop_arrival(*task);
      refuse(source, id, epoch,
             {make_error_code(errc::home_unreachable),
              "home " + to_string(id.home()) + " did not answer the target's claim: " + verdict.what});
    } else if (verdict.first == 1) {
      granted(*task);
    } else {
      drop_arrival(*task);
    }
  } else if (phase == move_phase::offered) {
    if (verdict.code != errc::ok) {
      run_without_home(*task);
    } else if (verdict.first == 1) {
      task->epoch = task->move->claimed + 1;
      give_up(*task, task->move->why);
    } else if ((verdict.second & 1) != 0) {
      taken(*task);
    }
    // Otherwise the target has it: it will say so, or home will ask us when it is dead.
  }
}

inline void transfer_engine::run_without_home(resident& task) {
  // Neither the target nor home can be heard.
  if (!task.move->target_gone) {
    // The target may run it, with home's word. Whoever of the two is back first says so.
    the_services->report(("task " + to_string(task.id) + " stands still: neither node " + to_string(task.move->target) +
                          ", which it was offered to, nor its home can be asked where it runs")
                             .c_str());
    return;
  }
  // Nobody else has the task's memory: it goes on here.
  run_unasked(task);
  give_up(task, {make_error_code(errc::home_unreachable), "neither the target nor the task's home can be reached"});
}

inline void transfer_engine::run_unasked(resident& task) {
  task.epoch += 2; // home may have granted the target's claim, or may do so yet: then its record has one more
  held guard(lock_);
  unsure_.insert(task.id);
}

inline void transfer_engine::on_running(node_id holder, protocol::TaskEpoch::Reader message) {
  with_.home.runs_at(task_id(message.getTask()), message.getEpoch(), holder);
}

inline void transfer_engine::on_still_held(node_id home, protocol::TaskEpoch::Reader message) {
  task_id id(message.getTask());
  resident* task = departing(id);
  if (task != nullptr && task->move->epoch + 1 == message.getEpoch()) {
    task->move->claimed = message.getEpoch();
    task->move->why = {make_error_code(errc::node_lost), "the target died"};
    claim(id, message.getEpoch(), task->move->target);
    return;
  }
  send_message(with_.network, home, [&](protocol::Message::Builder reply) {
    auto not_held = reply.initNotHeld();
    not_held.setTask(id.bits());
    not_held.setEpoch(message.getEpoch());
  });
}

inline void transfer_engine::on_not_held(node_id, protocol::TaskEpoch::Reader message) {
  task_id id(message.getTask());
  if (with_.home.no_longer_held(id)) return;
  with_.home.lose(id, message.getEpoch(), no_node,
                  "task " + to_string(id) + " was on a node that has died");
}

// --- nodes that die ----------------------------------------------------------------------------------

inline void transfer_engine::take_back(resident& task, target_loss how, const std::string& why) {
  // The offer, or what the target had to say to it, may be lost.
  move_order& order = *task.move;
  task_id id = task.id;
  order.target_lost = true;
  order.target_gone = how == target_loss::gone;
  if (order.claimed > order.epoch) return; // home knew before us, and has asked: see on_still_held()
  order.why = {make_error_code(errc::node_unreachable), "the target was lost: " + why};
  order.claimed = order.epoch;
  if (id.home() == with_.home.here()) {
    if (with_.home.claim(id, order.epoch, with_.home.here(), order.target)) {
      task.epoch = order.epoch + 1;
      give_up(task, order.why);
    } else if (order.target_gone && with_.home.claim(id, order.epoch + 1, with_.home.here(), order.target)) {
      // It was granted the task and died before it could say that it runs.
      task.epoch = order.epoch + 2;
      give_up(task, order.why);
    }
  } else if (dead_.contains(id.home())) {
    run_without_home(task);
  } else if (id.home() != order.target) {
    claim(id, order.epoch, order.target);
  } // Otherwise on_node_back() claims.
}

inline void transfer_engine::on_connection_broken(node_id node, const std::string& why) {
  std::vector<resident*> offered;
  {
    held guard(lock_);
    for (auto& [id, task] : moving_)
      if (task->move != nullptr && task->move->phase == move_phase::offered && task->move->target == node)
        offered.push_back(task);
  }
  for (resident* task : offered) take_back(*task, target_loss::broken, why);
}

inline void transfer_engine::on_node_lost(node_id node, bool process_is_gone, const std::string& why) {
  dead_.insert(node);
  if (process_is_gone) with_.home.died(node);
  std::vector<resident*> mine;
  std::vector<task_id> copies;
  {
    held guard(lock_);
    for (const auto& [copy, offered] : copies_)
      if (offered.target == node) copies.push_back(copy);
    for (auto& [id, task] : moving_)
      if (task->move != nullptr) mine.push_back(task);
  }
  for (resident* task : mine) {
    move_order& order = *task->move;
    task_id id = task->id;
    if (order.phase == move_phase::claiming && id.home() == node)
      on_claim_answer(id, {errc::home_unreachable, why, 0, 0, {}});
    else if (order.phase == move_phase::offered && order.target == node)
      take_back(*task, process_is_gone ? target_loss::gone : target_loss::unreachable, why);
    else if (order.phase == move_phase::offered && order.target_lost && id.home() == node)
      run_without_home(*task);
  }
  for (task_id copy : copies) {
    if (copy.home() == with_.home.here())
      on_claim_answer(copy, {errc::ok, "", with_.home.claim(copy, 1, with_.home.here(), node), 0, {}});
    else
      claim(copy, 1, node);
  }
  struct casualty {
    task_id task;
    std::uint64_t epoch;
    node_id place, source;
  };
  std::vector<casualty> casualties;
  with_.home.records().for_each([&](task_id id, home_record& record) {
    if (!record.ended && dead_.contains(record.place) && (record.place == node || record.claimed_from == node))
      casualties.push_back({id, record.epoch, record.place, record.claimed_from});
  });
  for (const casualty& each : casualties) {
    if (process_is_gone && each.source != no_node && each.source != with_.home.here() &&
        !dead_.contains(each.source)) {
      bool asked = send_message(with_.network, each.source, [&](protocol::Message::Builder message) {
        auto question = message.initStillHeld();
        question.setTask(each.task.bits());
        question.setEpoch(each.epoch);
      });
      if (asked) continue;
    }
    with_.home.lose(each.task, each.epoch, process_is_gone ? no_node : node,
                    "task " + to_string(each.task) + " was on node " + to_string(each.place) +
                        ", which was lost: " + why);
  }
}

inline void transfer_engine::on_node_back(node_id node) {
  dead_.erase(node);
  for (task_id id : with_.home.lost_on(node))
    send_message(with_.network, node, [&](protocol::Message::Builder message) {
      message.initDisown().setTask(id.bits());
    });
  std::vector<task_id> came_from, unsure;
  std::vector<std::pair<task_id, std::uint64_t>> claimed;
  {
    held guard(lock_);
    for (const auto& [id, source] : sources_)
      if (source == node) came_from.push_back(id);
    for (task_id id : unsure_)
      if (id.home() == node) unsure.push_back(id);
    for (auto& [id, task] : moving_)
      if (task->move != nullptr && id.home() == node &&
          (task->move->phase == move_phase::claiming ||
           (task->move->phase == move_phase::offered && task->move->target_lost)))
        claimed.emplace_back(id, task->move->claimed);
  }
  for (task_id id : came_from) {
    resident* task = with_.home.find_here(id);
    if (task != nullptr) tell_taken(node, id, task->epoch - 1);
  }
  for (task_id id : unsure) {
    resident* task = with_.home.find_here(id);
    if (task == nullptr) continue;
    send_message(with_.network, node, [&](protocol::Message::Builder message) {
      auto running = message.initRunning();
      running.setTask(id.bits());
      running.setEpoch(task->epoch);
    });
  }
  for (const auto& [id, epoch] : claimed) claim(id, epoch, no_node);
}

} // namespace migrate::detail
