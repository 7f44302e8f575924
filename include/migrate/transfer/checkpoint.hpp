// Checkpoints: a task's image is committed while the task stays, so that its home can restart it from there. Included by engine.hpp.
#pragma once

#include <migrate/transfer/checkpoint_note.hpp>
#include <migrate/transfer/engine.hpp>

namespace migrate::detail {

//   the task runs                   frozen                       it runs again
//   rounds of commits ------------> what they have left is ----> that is committed, with the carriers' state;
//   (see ahead.hpp)                 copied                       home hears of it

inline void transfer_engine::checkpoint(resident& task) {
  // With the task frozen. Whoever asked hears of it when home has it, too.
  move_order& order = *task.move;
  order.epoch = task.epoch;
  control_block& control = *task.control;
  std::shared_ptr<carriage> made = order.carried; // rounds have been made
  fault_point("checkpoint.frozen");
  failure refused = check_movable(task);
  if (!refused.code && control.shares_region)
    refused = {make_error_code(errc::not_movable), "it shares its addresses with a copy of it, made by fork"};
  if (!refused.code && with_.images == nullptr)
    refused = {make_error_code(errc::store_missing), "this node has no store"};
  if (!refused.code && made != nullptr) refused = made->why();
  try {
    // A task that asks for its own waits for it as long either way.
    if (!refused.code && made == nullptr && order.asker.by != task.id &&
        begin_rounds(task, transfer::pre_flush))
      return;
    if (!refused.code) refused = with_.carriers.prepare(task);
    if (!refused.code) {
      if (made == nullptr)
        made = order.carried =
            std::make_shared<carriage>(task, order.target, *strategy_of(transfer::pre_flush), task.epoch);
      made->bundle.put(checkpoint_note{reinterpret_cast<std::uint64_t>(&control),
                                       node_steady() + control.clock_offset, with_.boot});
      with_.carriers.checkpoint(task, made->bundle);
      made->memory =
          made->runs ? survey_written(control, with_.scanner, [](memory_survey&) {}) : survey_memory(control, with_.scanner);
      made->memory.dirty = merged(made->memory.dirty, made->region);
      constexpr std::size_t most_copied = std::size_t{16} << 20;
      if (made->memory.dirty_bytes <= most_copied)
        made->rest.copy(made->memory.dirty);
      else
        commit_checkpoint(*made, nullptr);
    }
  } catch (const error& problem) {
    refused = {problem.code(), problem.what()};
  } catch (const std::exception& problem) {
    refused = {make_error_code(errc::move_refused), problem.what()};
  }
  if (!refused.code) {
    {
      held guard(task.lock);
      made->restarts = control.recoverable;
      made->kept_from = control.checkpoint;
      made->captured = true;
      order.phase = move_phase::ahead;
    }
    scheduler::answered(task, want_move);
    this_scheduler->thaw(task);
    with_.carriers.release(task, false);
    finishers_.push([this, made] { finish_checkpoint(made); });
    return;
  }
  {
    held guard(task.lock);
    task.move = nullptr;
  }
  const task_id id = task.id;
  if (order.carried) put_away(*order.carried, false);
  scheduler::answered(task, want_move);
  this_scheduler->thaw(task);
  with_.carriers.release(task, false);
  checkpoint_failed(id, order.asker, std::move(refused));
  delete &order;
  may_have_to_go(task, id);
}

inline void transfer_engine::commit_checkpoint(carriage& c, const page_reader* copied) {
  const image* base = c.newest.valid() ? &c.newest : c.base.valid() ? &c.base : nullptr;
  image made = copied != nullptr ? with_.images->commit_running(c.id, c.region, base, c.memory.dirty,
                                                                c.memory.live, *copied, c.bundle.bytes())
                                 : with_.images->commit(c.id, c.region, base, c.memory.dirty, c.memory.live,
                                                        c.bundle.bytes());
  c.newest = std::move(made);
  c.rest = {};
  c.whole = true;
  fault_point("checkpoint.committed");
}

inline void transfer_engine::finish_checkpoint(const std::shared_ptr<carriage>& of) noexcept {
  // On a thread of the background, while the task runs. Nobody takes the order from it but the task's end.
  carriage& c = *of;
  failure refused;
  fault_point("checkpoint.copied");
  if (!c.whole) {
    try {
      const page_reader copied = [&](std::byte* to, const char* from, std::size_t bytes) {
        c.rest.read(to, from, bytes);
      };
      commit_checkpoint(c, &copied);
    } catch (const error& problem) {
      refused = {problem.code(), problem.what()};
    } catch (const std::exception& problem) {
      refused = {make_error_code(errc::move_refused), problem.what()};
    }
  }
  move_order* order = nullptr;
  const std::uint64_t generation = c.restarts ? c.newest.generation() : 0;
  c.unless_ended([&] {
    held guard(c.task.lock);
    if (c.task.id != c.id || c.task.move == nullptr || c.task.move->carried != of) return;
    order = std::exchange(c.task.move, nullptr);
    if (refused.code) return;
    if (c.restarts && c.task.control->checkpoint == 0)
      c.task.control->checkpoint = generation; // keeps it, and all later ones
    held also(lock_);
    images_[c.id] = {c.newest, true};
    untold_checkpoints_.push_back({c.id, c.epoch, generation, order->asker});
  });
  if (order == nullptr) {
    drop_images(c);
    return;
  }
  put_away(c, !refused.code);
  if (refused.code) {
    checkpoint_failed(c.id, order->asker, std::move(refused));
  } else {
    tell_checkpoint(c.id, c.epoch, generation);
    try {
      with_.images->collect(c.id, c.newest, c.kept_from);
    } catch (const std::exception&) {
      // The next checkpoint collects again.
    }
  }
  delete order;
  if (resident* task = with_.home.find_here(c.id)) may_have_to_go(*task, c.id);
}

inline void transfer_engine::checkpoint_failed(task_id task, const move_asker& asker, failure why) noexcept {
  why.what = "the checkpoint of task " + to_string(task) + ": " + why.what;
  if (asker.node == no_node) the_services->report(why.what.c_str());
  answer_asker(asker, why);
}

inline bool transfer_engine::stop_checkpoint_rounds(resident& task, task_id id) {
  // What was asked of the task since goes first: the rounds hold it up for no longer than it takes to read a megabyte.
  move_order* order = nullptr;
  {
    held guard(task.lock);
    if (task.id != id || task.move == nullptr || !task.move->checkpoint ||
        task.move->phase != move_phase::ahead || task.move->carried->captured)
      return false;
    order = std::exchange(task.move, nullptr);
  }
  order->carried->end();
  forget_carriage(*order->carried, false);
  answer_asker(order->asker,
               {make_error_code(errc::move_in_progress), "task " + to_string(id) + " is to be moved"});
  delete order;
  return true;
}

inline void transfer_engine::tell_checkpoint(task_id task, std::uint64_t epoch, std::uint64_t generation) {
  if (task.home() == with_.home.here()) {
    checkpoint_seen(task, epoch, generation,
                    with_.home.checkpointed(task, epoch, with_.home.here(), generation));
    return;
  }
  bool sent = send_message(with_.network, task.home(), [&](protocol::Message::Builder message) {
    auto done = message.initCheckpointed();
    done.setTask(task.bits());
    done.setEpoch(epoch);
    done.setGeneration(generation);
  });
  if (!sent)
    checkpoint_untold(task.home(), {make_error_code(errc::home_unreachable), "home cannot be reached"});
}

inline void transfer_engine::checkpoint_seen(task_id id, std::uint64_t epoch, std::uint64_t generation,
                                             bool accepted) {
  std::vector<move_asker> askers;
  {
    held guard(lock_);
    std::erase_if(untold_checkpoints_, [&](const untold_checkpoint& each) {
      if (each.task != id || each.epoch != epoch || each.generation != generation) return false;
      askers.push_back(each.asker);
      return true;
    });
  }
  if (accepted)
    if (resident* task = with_.home.find_here(id)) {
      // Earlier generations may go from now on. A task that is on its way keeps them for longer.
      held guard(task->lock);
      if (task->id == id && task->epoch == epoch && task->move == nullptr &&
          task->state.load() != run_state::none)
        task->control->checkpoint = generation;
    }
  failure how;
  if (!accepted)
    how = {make_error_code(errc::move_in_progress),
           "task " + to_string(id) + " has moved or ended meanwhile"};
  for (const move_asker& each : askers) answer_asker(each, how);
}

inline void transfer_engine::checkpoint_untold(node_id home, const failure& why) {
  std::vector<move_asker> askers;
  {
    held guard(lock_);
    std::erase_if(untold_checkpoints_, [&](const untold_checkpoint& each) {
      if (each.task.home() != home) return false;
      askers.push_back(each.asker);
      return true;
    });
  }
  for (const move_asker& each : askers) answer_asker(each, why);
}

inline void transfer_engine::tell_checkpoints_again(node_id home) {
  std::vector<untold_checkpoint> all;
  {
    held guard(lock_);
    for (const untold_checkpoint& each : untold_checkpoints_)
      if (each.task.home() == home) all.push_back(each);
  }
  for (const untold_checkpoint& each : all) tell_checkpoint(each.task, each.epoch, each.generation);
}

inline void transfer_engine::on_checkpoint_seen(protocol::Checkpoint::Reader message) {
  checkpoint_seen(task_id(message.getTask()), message.getEpoch(), message.getGeneration(),
                  message.getAccepted());
}

inline void transfer_engine::checkpoint_all() {
  std::vector<std::pair<resident*, task_id>> all;
  with_.home.residents().for_each([&](resident& task) {
    held guard(task.lock);
    if (task.id && task.move == nullptr && task.control != nullptr && task.state.load() != run_state::none &&
        task.control->recoverable)
      all.emplace_back(&task, task.id);
  });
  for (auto& [task, id] : all) {
    failure busy; // it moves, and comes to its turn again
    order(*task, id, with_.home.here(), {no_node, 0, {}, move_reason::checkpoint}, busy, {},
          transfer::by_default, true);
  }
}

inline void transfer_engine::on_checkpointed(node_id place, protocol::Checkpoint::Reader message) {
  task_id id(message.getTask());
  bool accepted = with_.home.checkpointed(id, message.getEpoch(), place, message.getGeneration());
  send_message(with_.network, place, [&](protocol::Message::Builder reply) {
    auto seen = reply.initCheckpointSeen();
    seen.setTask(id.bits());
    seen.setEpoch(message.getEpoch());
    seen.setGeneration(message.getGeneration());
    seen.setAccepted(accepted);
  });
}

} // namespace migrate::detail
