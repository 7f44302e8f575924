// The target of pages that come ahead of their task's offer. Included by engine.hpp.
#pragma once

#include <cstring>

#include <migrate/transfer/engine.hpp>
#include <migrate/transfer/pages_reader.hpp>

namespace migrate::detail {

inline void transfer_engine::on_receive(node_id source, protocol::Receive::Reader message) {
  task_id id(message.getTask());
  std::uint64_t epoch = message.getEpoch();
  fault_point("target.receiving");
  if (refuse_if_closed(source, id, epoch)) return;
  drop_reception(id);
  if (resident* there = with_.home.find_here(id)) {
    bool overdue = false; // it left, ran, and comes back before we heard of it
    {
      held guard(there->lock);
      overdue = there->id == id && there->move != nullptr && there->move->phase == move_phase::offered &&
                epoch > there->move->epoch;
    }
    if (overdue) taken(*there);
  }
  auto made = std::make_shared<reception>();
  made->source = source;
  made->epoch = epoch;
  made->region = region_number::from_bits(message.getRegion());
  if (!made->region.valid()) {
    refuse(source, id, epoch, {make_error_code(errc::protocol), "it names no region"});
    return;
  }
  with_.home.receiving(made->region); // from here on: when its task has ended, a new one may be born there
  made->busy = true;
  {
    held guard(lock_);
    receptions_[id] = made;
  }
  receivers_.push([this, id, made] { open_reception(id, made); });
}

inline void transfer_engine::open_reception(task_id id, const std::shared_ptr<reception>& into) {
  constexpr std::chrono::seconds patience{10};
  failure why;
  auto limit = std::chrono::steady_clock::now() + patience;
  // An earlier visit's memory may be about to go.
  while (with_.home.find_here(id) != nullptr || with_.home.is_held(into->region, 1)) {
    bool pointless = false;
    {
      held guard(lock_);
      pointless = into->dropped || stopping_;
    }
    if (pointless) {
      with_.home.received(into->region);
      return;
    }
    if (std::chrono::steady_clock::now() > limit) {
      why = {make_error_code(errc::move_in_progress), "an earlier visit of the task is not settled there"};
      break;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  // Its task may have ended, and this node have heard of the next one there first.
  if (!why.code && occupied(into->region, id))
    why = {make_error_code(errc::region_occupied),
           "another task has the same addresses on node " + to_string(with_.home.here())};
  if (!why.code && !with_.home.open_region(into->region))
    why = {make_error_code(errc::region_exhausted), "the kernel refuses another mapping (vm.max_map_count?)"};
  if (!why.code)
    into->end = into->region.base();
  else
    with_.home.received(into->region);
  settle_reception(id, into, !why.code, why);
}

inline void transfer_engine::settle_reception(task_id id, const std::shared_ptr<reception>& of, bool open,
                                              const failure& why) {
  // A thread of the background has done with it.
  bool dropped = false;
  {
    held guard(lock_);
    of->busy = false;
    of->open = open;
    dropped = of->dropped;
    if (!dropped && !open) receptions_.erase(id);
  }
  if (dropped || !open) {
    if (open) close_reception(*of);
    if (!dropped) refuse(of->source, id, of->epoch, why);
    return;
  }
  tell_ready(*of, id);
}

inline void transfer_engine::tell_ready(const reception& of, task_id task) {
  send_message(with_.network, of.source, [&](protocol::Message::Builder message) {
    auto ready = message.initReady();
    ready.setTask(task.bits());
    ready.setEpoch(of.epoch);
  });
}

inline std::shared_ptr<reception> transfer_engine::reception_of(task_id task, node_id source,
                                                                std::uint64_t epoch) {
  held guard(lock_);
  auto found = receptions_.find(task);
  if (found == receptions_.end()) return nullptr;
  const reception& of = *found->second;
  return of.source == source && of.epoch == epoch && of.open && !of.busy ? found->second : nullptr;
}

inline void transfer_engine::on_pages(node_id source, protocol::PagesAhead::Reader message,
                                      kj::ArrayPtr<const kj::byte> attachment) {
  task_id id(message.getTask());
  auto into = reception_of(id, source, message.getEpoch());
  if (into == nullptr) return; // its source has been told, or has been lost
  fault_point("target.pages");
  failure why;
  try {
    bool good = for_each_range_ahead(into->region, message, attachment, into->decompress,
                                     [&](char* to, const kj::byte* from, std::size_t bytes) {
                                       if (into->spare.put(to, from, bytes)) return;
                                       constexpr std::size_t worth = 16 * page_size; // one call for many faults
                                       if (bytes >= worth) populate(to, bytes);
                                       std::memcpy(to, from, bytes);
                                       into->end = std::max(into->end, to + bytes);
                                     });
    if (!good) why = {make_error_code(errc::protocol), "pages came that lie outside their region"};
  } catch (const error& reason) {
    why = {reason.code(), reason.what()};
  }
  if (why.code) {
    drop_reception(id);
    refuse(source, id, message.getEpoch(), why);
    return;
  }
  if (message.getLast()) tell_ready(*into, id);
}

inline void transfer_engine::on_lay(node_id source, protocol::ImageAhead::Reader message) {
  task_id id(message.getTask());
  auto into = reception_of(id, source, message.getEpoch());
  if (into == nullptr) return;
  {
    held guard(lock_);
    into->busy = true;
  }
  auto bytes = message.getManifest();
  std::vector<std::byte> manifest(reinterpret_cast<const std::byte*>(bytes.begin()),
                                  reinterpret_cast<const std::byte*>(bytes.end()));
  receivers_.push([this, id, into, manifest = std::move(manifest)] {
    failure why;
    fault_point("target.laying");
    try {
      const bool first = !into->laid.valid();
      lay_image(*into, id, image::parse(manifest));
      if (first) into->spare.prepare(most_ahead_of_offer);
    } catch (const error& reason) {
      why = {reason.code(), reason.what()};
    } catch (const std::exception& reason) {
      why = {make_error_code(errc::move_refused), reason.what()};
    }
    if (why.code) close_reception(*into);
    settle_reception(id, into, !why.code, why);
  });
}

inline void transfer_engine::lay_image(reception& into, task_id task, image&& newer) {
  if (with_.images == nullptr) throw error(errc::store_missing, "this node has no store to resume from");
  if (newer.task() != task || newer.region() != into.region)
    throw error(errc::image_foreign, "the image is of task " + to_string(newer.task()));
  with_.images->resume_into(newer, into.region.base(), into.laid.valid() ? &into.laid : nullptr);
  into.end = into.region.base() + into.region.size();
  into.laid = std::move(newer);
}

inline void transfer_engine::close_reception(reception& of) {
  with_.vacated.vacate(of.region, of.region.base() + of.region.size());
  with_.home.received(of.region);
}

inline void transfer_engine::drop_reception(task_id task) {
  std::shared_ptr<reception> of;
  bool now = false;
  {
    held guard(lock_);
    auto found = receptions_.find(task);
    if (found == receptions_.end()) return;
    of = found->second;
    receptions_.erase(found);
    of->dropped = true;
    now = of->open && !of->busy;
  }
  if (now) close_reception(*of); // otherwise whoever works on it
}

inline void transfer_engine::on_drop_ahead(node_id source, protocol::TaskEpoch::Reader message) {
  task_id id(message.getTask());
  {
    held guard(lock_);
    auto found = receptions_.find(id);
    if (found == receptions_.end() || found->second->source != source ||
        found->second->epoch != message.getEpoch())
      return;
  }
  drop_reception(id);
}

inline void transfer_engine::drop_receptions(node_id source) {
  std::vector<task_id> all;
  {
    held guard(lock_);
    for (const auto& [id, each] : receptions_)
      if (each->source == source) all.push_back(id);
  }
  for (task_id id : all) drop_reception(id);
}

} // namespace migrate::detail
