// Restarts: a task's home has it go on from its last checkpoint when its node has died. Included by engine.hpp.
#pragma once

#include <migrate/transfer/checkpoint_note.hpp>
#include <migrate/transfer/engine.hpp>

namespace migrate::detail {

// --- at home -----------------------------------------------------------------------------------------

inline void transfer_engine::lose(task_id id, std::uint64_t epoch, node_id may_hold, const std::string& why) {
  if (may_hold == no_node) {
    std::uint64_t generation = with_.home.checkpoint_of(id, epoch);
    if (generation != 0 && with_.images != nullptr && !ending_) {
      const node_id place = with_.home.locate(id);
      {
        held guard(lock_);
        if (auto [at, fresh] = restarts_.try_emplace(id, restart{epoch, generation, {}, why, place});
            !fresh) {
          if (at->second.epoch == epoch) return; // it is being restarted
          at->second = {epoch, generation, {}, why, place};
        }
      }
      try_restart(id);
      return;
    }
  }
  with_.home.lose(id, epoch, may_hold, why);
}

inline void transfer_engine::try_restart(task_id id) {
  // Home stands in for the source of an offer. The claim decides whether the task runs there, or where the node that has
  // died had offered it.
  for (;;) {
    restart now;
    node_id target = no_node;
    {
      std::vector<node_id> candidates(256);
      candidates.resize(
          std::min(candidates.size(), the_services->nodes(candidates.data(), candidates.size())));
      std::erase(candidates, with_.home.here());
      std::sort(candidates.begin(), candidates.end());
      if (!candidates.empty())
        std::rotate(candidates.begin(),
                    candidates.begin() + id.slot() % static_cast<std::ptrdiff_t>(candidates.size()),
                    candidates.end());
      if (!closed()) candidates.push_back(with_.home.here());
      held guard(lock_);
      auto found = restarts_.find(id);
      if (found == restarts_.end()) return;
      for (node_id each : candidates)
        if (std::find(found->second.tried.begin(), found->second.tried.end(), each) ==
            found->second.tried.end()) {
          target = each;
          break;
        }
      if (target == no_node) {
        now = std::move(found->second);
        restarts_.erase(found);
      } else {
        found->second.tried.push_back(target);
        now = found->second;
      }
    }
    if (target == no_node) {
      with_.home.lose(id, now.epoch, no_node, now.why + "; no node could restart it");
      return;
    }
    try {
      if (offer_restart(id, now, target)) return;
    } catch (const std::exception& problem) {
      held guard(lock_);
      if (auto found = restarts_.find(id); found != restarts_.end())
        found->second.why += std::string("; it cannot be restarted: ") + problem.what();
    }
  }
}

inline bool transfer_engine::offer_restart(task_id id, const restart& from, node_id target) {
  image saved = with_.images->load(id, from.generation);
  auto [note, bundle] = read_checkpoint(saved.metadata());
  std::vector<std::byte> manifest = saved.encode();
  fault_point("home.restarting");
  if (target == with_.home.here()) {
    auto incoming = std::make_unique<arrival>();
    incoming->source = target;
    incoming->epoch = from.epoch;
    incoming->region = saved.region();
    incoming->control = note.control;
    incoming->clock = note.clock;
    incoming->boot = note.boot;
    incoming->manifest = std::move(manifest);
    incoming->bundle = bundle.size();
    incoming->bytes = bundle;
    incoming->keep();
    incoming->restarted = true;
    accept_offer(id, std::move(incoming));
    return true;
  }
  iovec attachment{const_cast<std::byte*>(bundle.data()), bundle.size()};
  const checkpoint_note& saved_note = note;
  return send_message(
      with_.network, target,
      [&, bytes = bundle.size()](protocol::Message::Builder message) {
        auto offer = message.initOffer();
        offer.setTask(id.bits());
        offer.setEpoch(from.epoch);
        offer.setRegion(saved.region().bits());
        offer.setControl(saved_note.control);
        offer.setClock(saved_note.clock);
        offer.initBoot().setHigh(saved_note.boot.high);
        offer.getBoot().setLow(saved_note.boot.low);
        offer.setManifest(kj::arrayPtr(reinterpret_cast<const kj::byte*>(manifest.data()), manifest.size()));
        offer.setBundle(static_cast<std::uint32_t>(bytes));
        offer.setRestarted(true);
      },
      std::span<const iovec>(&attachment, 1));
}

inline void transfer_engine::restart_refused(task_id id, node_id target, std::uint64_t epoch,
                                             const failure& why) {
  {
    held guard(lock_);
    auto found = restarts_.find(id);
    if (found == restarts_.end() || found->second.epoch != epoch || found->second.tried.back() != target)
      return;
    found->second.why += "; node " + to_string(target) + " does not restart it: " + why.what;
  }
  try_restart(id);
}

inline void transfer_engine::restarts_lost_on(node_id node, const std::string& why) {
  std::vector<std::pair<task_id, std::uint64_t>> all;
  {
    held guard(lock_);
    for (const auto& [id, each] : restarts_)
      if (each.tried.back() == node) all.emplace_back(id, each.epoch);
  }
  for (auto& [id, epoch] : all) restart_refused(id, node, epoch, {make_error_code(errc::node_lost), why});
}

inline void transfer_engine::claim_granted(task_id id, std::uint64_t epoch, node_id claimant,
                                           node_id source) {
  // Before the claimant hears of it.
  bool restarted = false;
  node_id from = no_node;
  {
    held guard(lock_);
    auto found = restarts_.find(id);
    if (found == restarts_.end() || found->second.epoch != epoch) return;
    const std::vector<node_id>& tried = found->second.tried;
    restarted = (source == with_.home.here() || source == no_node) &&
                std::find(tried.begin(), tried.end(), claimant) != tried.end();
    from = found->second.from;
    restarts_.erase(found); // otherwise it runs where the node that died had offered it
  }
  if (!restarted) return;
  with_.home.processes().restarted(id);
  if (with_.listener.restarted != nullptr) with_.listener.restarted(id, from, claimant);
}

// --- on the node that restarts it --------------------------------------------------------------------

inline void transfer_engine::go_on_from_checkpoint(resident& task, std::uint64_t epoch,
                                                   std::uint64_t generation) {
  // What the task says from here on is new to everybody, also what it has said before its node died.
  control_block& control = *task.control;
  const std::uint64_t first = epoch << 32;
  control.process.requests = control.process.first_number = control.forks = first;
  ++control.restarts;
  control.checkpoint = generation;
  with_.carriers.restarted(task, first);
}

// --- nodes that cannot be reached --------------------------------------------------------------------

inline void transfer_engine::doubt(node_id node, const std::string& why) {
  // Its tasks may run there still. They are restarted when it is known to have died, and lost when that does not show.
  if (ending_) return;
  auto [at, fresh] =
      doubts_.try_emplace(node, doubted{std::chrono::steady_clock::now() + with_.patience, why});
  if (fresh) ask_whether_it_lives(node);
}

inline void transfer_engine::ask_whether_it_lives(node_id node) {
  with_.loop.after(
      std::min<std::chrono::milliseconds>(with_.patience / 8, std::chrono::seconds(1)), [this, node] {
        auto found = doubts_.find(node);
        if (found == doubts_.end() || ending_) return;
        if (std::chrono::steady_clock::now() < found->second.until) {
          // What it says to that does not matter, only whether it can be said.
          send_message(with_.network, node, [](protocol::Message::Builder message) { message.initTest(0); });
          ask_whether_it_lives(node);
          return;
        }
        std::string why =
            found->second.why + "; whether it has died is not known, so it was not restarted elsewhere";
        doubts_.erase(found);
        lose_all_on(node, false, why, true);
      });
}

} // namespace migrate::detail
