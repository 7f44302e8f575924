// Nodes that die, fall silent or come back, and the tasks that were on them or on their way. Included by engine.hpp.
#pragma once

#include <migrate/transfer/engine.hpp>

namespace migrate::detail {

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
    } else if (with_.home.is_past(id, order.epoch)) {
      taken(task);
    }
  } else if (dead_.contains(id.home())) {
    run_without_home(task);
  } else if (id.home() != order.target) {
    claim(id, order.epoch, order.target);
  } // Otherwise on_node_back() claims.
}

inline void transfer_engine::on_connection_broken(node_id node, const std::string& why) {
  fail_carriages(node, why);
  drop_receptions(node);
  std::vector<resident*> offered;
  {
    held guard(lock_);
    for (auto& [id, task] : moving_)
      if (task->move != nullptr && task->move->phase == move_phase::offered && task->move->target == node)
        offered.push_back(task);
  }
  for (resident* task : offered) take_back(*task, target_loss::broken, why);
  take_back_copies(node);
  restarts_lost_on(node, why);
}

inline void transfer_engine::on_node_lost(node_id node, bool process_is_gone, const std::string& why) {
  dead_.insert(node);
  if (process_is_gone) {
    gone_.insert(node);
    doubts_.erase(node);
    with_.home.died(node);
  }
  checkpoint_untold(node, {make_error_code(errc::home_unreachable), "its home was lost: " + why});
  with_.pages.node_lost(node);
  restarts_lost_on(node, why);
  fail_carriages(node, why);
  drop_receptions(node);
  std::vector<resident*> mine;
  {
    held guard(lock_);
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
  take_back_copies(node);
  std::vector<task_id> undecided;
  {
    held guard(lock_);
    for (const auto& [copy, offered] : copies_)
      if (offered.claimed && copy.home() == node) undecided.push_back(copy);
  }
  for (task_id copy : undecided) on_claim_answer(copy, {errc::home_unreachable, why, 0, 0, {}});
  lose_all_on(node, process_is_gone, why);
}

inline void transfer_engine::lose_all_on(node_id node, bool process_is_gone, const std::string& why,
                                         bool out_of_patience) {
  struct casualty {
    task_id task;
    std::uint64_t epoch;
    node_id place, source;
    bool restarts;
  };
  std::vector<casualty> casualties;
  with_.home.records().for_each([&](task_id id, home_record& record) {
    if (!record.ended && dead_.contains(record.place) && (record.place == node || record.claimed_from == node))
      casualties.push_back({id, record.epoch, record.place, record.claimed_from, record.checkpoint != 0});
  });
  for (const casualty& each : casualties) {
    if (each.restarts && !gone_.contains(each.place) && !out_of_patience) {
      doubt(each.place, why);
      continue;
    }
    if (process_is_gone && each.source != no_node && each.source != with_.home.here() &&
        !dead_.contains(each.source)) {
      bool asked = send_message(with_.network, each.source, [&](protocol::Message::Builder message) {
        auto question = message.initStillHeld();
        question.setTask(each.task.bits());
        question.setEpoch(each.epoch);
      });
      if (asked) continue;
    }
    bool gone = process_is_gone || gone_.contains(each.place);
    lose(each.task, each.epoch, gone ? no_node : node,
         "task " + to_string(each.task) + " was on node " + to_string(each.place) + ", which was lost: " + why);
  }
}

inline void transfer_engine::on_node_back(node_id node) {
  dead_.erase(node);
  gone_.erase(node);
  doubts_.erase(node);
  tell_checkpoints_again(node);
  for (task_id id : with_.home.lost_on(node))
    send_message(with_.network, node, [&](protocol::Message::Builder message) {
      message.initDisown().setTask(id.bits());
    });
  std::vector<task_id> came_from, unsure, settled_here;
  std::vector<std::pair<task_id, std::uint64_t>> claimed;
  {
    held guard(lock_);
    for (const auto& [id, source] : sources_)
      if (source == node) came_from.push_back(id);
    for (task_id id : unsure_)
      if (id.home() == node) unsure.push_back(id);
    for (const auto& [copy, offered] : copies_)
      if (offered.claimed && copy.home() == node) claimed.emplace_back(copy, 1);
    for (auto& [id, task] : moving_) {
      if (task->move == nullptr) continue;
      bool lost = task->move->phase == move_phase::offered && task->move->target_lost;
      if (lost && task->move->target == node && id.home() == with_.home.here())
        settled_here.push_back(id);
      else if ((lost && (id.home() == node || task->move->target == node)) ||
               (task->move->phase == move_phase::claiming && id.home() == node))
        claimed.emplace_back(id, task->move->claimed);
    }
  }
  for (task_id id : settled_here) {
    resident* task = departing(id);
    if (task != nullptr && with_.home.is_past(id, task->move->epoch)) taken(*task);
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

} // namespace migrate::detail
