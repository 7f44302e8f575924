// Copies of a task, made by fork(): offered as a move is, while the task stays. Included by engine.hpp.
#pragma once

#include <migrate/transfer/engine.hpp>

namespace migrate::detail {

inline void transfer_engine::offer_copy(resident& task) {
  // The task goes on when its copy has been sent; whoever forks waits for the answer to the order's call.
  move_order& order = *task.move;
  task_id copy = order.copy;
  {
    held guard(lock_);
    copies_[copy] = {order.target, order.asker.call};
  }
  failure refused = check_movable(task);
  if (!refused.code) refused = with_.carriers.prepare(task);
  if (!refused.code) {
    try {
      task.control->shares_region = true;
      byte_writer bundle;
      with_.carriers.copy(task, copy, bundle);
      memory_survey memory = survey_memory(*task.control, with_.scanner);
      image base = image_of(task.id);
      bool with_pages = !base.valid() && (memory.dirty_bytes <= with_.most_inline || with_.images == nullptr);
      std::vector<std::byte> manifest;
      if (!with_pages) {
        image shared;
        if (base.valid()) shared = with_.images->share(base, copy);
        // Without the shared files every page has to be written anew, dirty or not.
        auto& written = base.valid() && !shared.valid() ? memory.live : memory.dirty;
        manifest = with_.images->commit(copy, task.control->region, shared.valid() ? &shared : nullptr, written,
                                        memory.live, {})
                       .encode();
      }
      if (!send_offer(task, copy, 1, memory, bundle, manifest, with_pages))
        refused = {make_error_code(errc::node_unreachable), "the copy cannot be sent"};
    } catch (const error& problem) {
      refused = {problem.code(), problem.what()};
    } catch (const std::exception& problem) {
      refused = {make_error_code(errc::move_refused), problem.what()};
    }
  }
  {
    held guard(task.lock);
    task.move = nullptr;
  }
  delete &order;
  scheduler::answered(task, want_move);
  task.pins.fetch_add(1); // until it has heard: the answer comes to this node
  this_scheduler->thaw(task);
  with_.carriers.release(task, false); // not before: mail that comes to a frozen task is held back until then
  if (refused.code) copy_settled(copy, refused);
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
    if (each.move != nullptr && each.move->phase == move_phase::vacating) return; // its control block may be gone
    if (each.control != nullptr && each.control->region == region) found = true;
  });
  return found;
}

inline void transfer_engine::take_back_copies(node_id target) {
  // The claim decides whether they had begun to run there.
  std::vector<task_id> copies;
  {
    held guard(lock_);
    for (auto& [copy, offered] : copies_)
      if (offered.target == target && !std::exchange(offered.claimed, true)) copies.push_back(copy);
  }
  for (task_id copy : copies) {
    if (copy.home() == with_.home.here())
      on_claim_answer(copy, {errc::ok, "", with_.home.claim(copy, 1, with_.home.here(), target), 0, {}});
    else
      claim(copy, 1, target);
  }
}

} // namespace migrate::detail
