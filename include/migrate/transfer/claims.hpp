// Claims: home's verdict, and what source and target make of it. Included by engine.hpp.
#pragma once

#include <migrate/transfer/engine.hpp>

namespace migrate::detail {

inline void transfer_engine::on_claim(node_id claimant, protocol::Claim::Reader message) {
  task_id id(message.getTask());
  fault_point("home.claimed");
  bool yes = with_.home.claim(id, message.getEpoch(), claimant, node_id(message.getSource()));
  if (yes) claim_granted(id, message.getEpoch(), claimant, node_id(message.getSource()));
  // It has run where this node offered it, whatever became of the word that it does.
  if (resident* offered = yes ? departing(id) : nullptr; offered != nullptr && offered->move->epoch < message.getEpoch())
    taken(*offered);
  // A claimant that offered the task to this node, and lost what it was told.
  if (!yes && with_.home.locate(id) == with_.home.here()) tell_taken(claimant, id, message.getEpoch());
  answer reply;
  reply.first = yes;
  bool past = !yes && with_.home.is_past(id, message.getEpoch()); // nothing is left to claim
  reply.second = message.getEpoch() << 1 | (past ? 1 : 0);
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
      if (verdict.code != errc::ok)
        copy_settled(id, {make_error_code(errc::home_unreachable), verdict.what});
      else if (verdict.first == 1)
        copy_settled(id, {make_error_code(errc::node_lost), "the copy's node was lost"});
      else
        copy_settled(id, {});
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
    // Otherwise the target has it: it will say so, or home will ask us when it is dead. If it gives the task away, or ends
    // it, before it can be heard again, on_node_back() claims once more.
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
  lose(id, message.getEpoch(), no_node,
       "task " + to_string(id) + " was on node " + to_string(with_.home.locate(id)) + ", which has died");
}

} // namespace migrate::detail
