// The source of pages that go ahead of their task's offer: rounds while it runs, and what is sent while it is frozen. Included by engine.hpp.
#pragma once

#include <algorithm>
#include <cstring>

#include <migrate/transfer/engine.hpp>

namespace migrate::detail {

//   source                             target
//   receive -------------------------> opens the region
//           <------------------------- ready
//   pages, or lay with an image -----> puts them in their places
//           <------------------------- ready
//   ... until the rest is small; freeze, then the offer as ever, with that rest
//
// Nothing here decides who runs the task: without an offer the target closes what it has opened, and the task goes on.

inline const strategy* transfer_engine::strategy_of(transfer which) noexcept {
  static constexpr strategy table[] = {
      {transfer::flush, false, nullptr, true},
      {transfer::full_copy, false, &transfer_engine::carry_straight, false},
      {transfer::pre_copy, true, &transfer_engine::carry_straight, false},
      {transfer::on_reference, false, nullptr, false}, // see on_reference.hpp
      {transfer::pre_flush, true, &transfer_engine::carry_by_image, true},
  };
  for (const strategy& each : table)
    if (each.name == which) return &each;
  return &table[0];
}

inline transfer transfer_engine::wanted(const resident& task, transfer asked) const noexcept {
  // With its memory here.
  transfer how = asked;
  if (how == transfer::by_default) how = task.control->moves_by;
  if (how == transfer::by_default) how = with_.moves_by;
  if (how == transfer::random) {
    std::uint64_t x = (task.id.bits() ^ task.epoch * 0x9e37'79b9'7f4a'7c15u) * 0xbf58'476d'1ce4'e5b9u;
    constexpr transfer all[] = {transfer::flush,        transfer::full_copy, transfer::pre_copy,
                                transfer::on_reference, transfer::pre_flush, transfer::automatic};
    how = all[(x >> 32) % std::size(all)];
  }
  // A checkpoint is of no use to a task that depends on a second node.
  if (how == transfer::on_reference && task.control->recoverable) how = transfer::flush;
  // A region that others have on other nodes is not laid out before it is known to be free there.
  if (task.control->shares_region) how = transfer::flush;
  if (with_.images == nullptr && how != transfer::pre_copy && how != transfer::on_reference) how = transfer::full_copy;
  return how;
}

class held_memory {
public:
  explicit held_memory(carriage& of) : of_(of), held_(of.hold()) {}
  ~held_memory() {
    if (held_) of_.release();
  }
  held_memory(const held_memory&) = delete;
  held_memory& operator=(const held_memory&) = delete;
  explicit operator bool() const noexcept { return held_; }

private:
  carriage& of_;
  bool held_;
};

inline bool transfer_engine::begin_rounds(resident& task, transfer how) {
  move_order& order = *task.move;
  std::vector<page_range> live = live_memory(*task.control);
  if (!more_dirty_than(with_.most_inline, live, with_.scanner) || !tracker_.watch(task.control->region)) return false;
  auto made = std::make_shared<carriage>(
      task, order.target, *strategy_of(how == transfer::automatic ? transfer::pre_flush : how), task.epoch);
  made->compress = compressor(compression_to(order.target));
  made->watched = std::move(live);
  char* high = page_floor(const_cast<char*>(task.control->heap.high_water()) + page_size - 1);
  char* end = task.control->region.base() + task.control->region.size();
  made->watched.push_back({high, static_cast<std::size_t>(end - high)}); // where it grows
  made->base = image_of(task.id);
  made->runs = true;
  made->stays = order.checkpoint;
  bool undecided = how == transfer::automatic;
  {
    held guard(lock_);
    carriages_[task.id] = made;
  }
  {
    held guard(task.lock);
    order.how = made->how->name;
    order.carried = made;
    order.phase = move_phase::ahead;
  }
  scheduler::answered(task, want_move);
  this_scheduler->thaw(task); // from here on the order may go, with the task
  (made->stays ? keepers_ : rounds_).push([this, made, undecided] { run_rounds(made, undecided); });
  return true;
}
// False: the task is to be frozen at once, as it stands.

inline void transfer_engine::run_rounds(const std::shared_ptr<carriage>& from, bool undecided) noexcept {
  constexpr std::size_t enough =
      256 * 1024; // bytes; what is sent with the freeze costs as much as another round
  constexpr unsigned most = 16;
  carriage& c = *from;
  std::string why_so;
  try {
    std::size_t before = ~std::size_t{0}, last = 0;
    if (c.stays || begin(c)) {
      if (undecided) why_so = decide(c);
      // At least the first, since the freeze looks only for what was written after it. What a checkpoint is based on has
      // the rest.
      while (!c.hurry.load() || !(c.looked || c.stays)) {
        fault_point("source.round");
        std::vector<page_range> pages = take_written(c);
        const std::size_t bytes = last = size_of(pages);
        if (bytes == 0 || !(this->*c.how->carry)(c, pages)) break;
        if (++c.rounds == most || bytes <= enough || bytes > before / 4 * 3) break;
        before = bytes;
      }
      constexpr std::size_t most_prepared = std::size_t{16} << 20;
      if (c.stays) c.rest.prepare(std::clamp(2 * last, 2 * enough, most_prepared));
    }
  } catch (const error& reason) {
    c.fail({reason.code(), reason.what()});
  } catch (const std::exception& reason) {
    c.fail({make_error_code(errc::move_refused), reason.what()});
  }
  bool freeze = false;
  c.unless_ended([&] {
    held guard(c.task.lock);
    if (c.task.id != c.id || c.task.move == nullptr || c.task.move->carried != from) return;
    c.task.move->phase = move_phase::asked;
    c.task.move->how = c.how->name;
    c.task.move->why_so = std::move(why_so);
    freeze = true;
  });
  if (freeze)
    this_scheduler->ask(c.task, want_move);
  else
    drop_images(c);
}

inline bool transfer_engine::begin(carriage& c) {
  bool sent = false;
  {
    held_memory held(c); // the task ends, and the target and home hear of that, after this
    if (!held) return false;
    c.begun = true;
    sent = send_message(with_.network, c.target, [&](protocol::Message::Builder message) {
      auto receive = message.initReceive();
      receive.setTask(c.id.bits());
      receive.setEpoch(c.epoch);
      receive.setRegion(c.region.bits());
    });
  }
  if (!sent) c.fail({make_error_code(errc::node_unreachable), "the target cannot be reached"});
  return c.wait_for_answer();
}

inline std::size_t transfer_engine::size_of(const std::vector<page_range>& pages) noexcept {
  std::size_t bytes = 0;
  for (const page_range& range : pages) bytes += range.bytes;
  return bytes;
}

inline std::vector<page_range> transfer_engine::take_written(carriage& c) {
  std::vector<page_range> pages;
  bool first = !std::exchange(c.looked, true);
  for (const page_range& range : c.watched) {
    held_memory held(c);
    if (!held) return {};
    with_.scanner.take_written(range.address, range.bytes, !first, true,
                               [&](char* address, std::size_t bytes) { add_range(pages, address, bytes); });
  }
  if (first && !c.how->by_image && c.base.valid()) pages = with_image(pages, c.base, c.watched, c.region);
  return pages;
}

inline bool transfer_engine::carry_straight(carriage& c, const std::vector<page_range>& pages) {
  constexpr std::size_t most_bytes = std::size_t{1} << 20;
  constexpr std::size_t most_ranges = 1000;
  constexpr std::size_t worth = std::size_t{4} << 20; // to know the link's speed, for whether to compress the rest
  bool measures = c.compress.wants_link() && size_of(pages) >= worth;
  auto begun = std::chrono::steady_clock::now();
  std::size_t sent = 0;
  bool fresh = c.bytes == 0 && !c.newest.valid(); // the target has zeros still
  auto range = pages.begin();
  std::size_t done = 0; // of *range
  for (bool last = false; !last;) {
    std::vector<page_range> part;
    std::size_t bytes = 0;
    auto part_begun = std::chrono::steady_clock::now();
    {
      held_memory held(c);
      if (!held) return false;
      for (; range != pages.end() && bytes < most_bytes && part.size() < most_ranges;) {
        std::size_t now = std::min(range->bytes - done, fresh ? page_size : most_bytes - bytes);
        char* from = range->address + done;
        if (!fresh || !all_zero(from)) {
          add_range(part, from, now);
          bytes += now;
        }
        done += now;
        if (done == range->bytes) {
          ++range;
          done = 0;
        }
      }
      last = range == pages.end();
      if (!send_pages(c, part, last || measures)) return false;
      sent += bytes;
    }
    fault_point("source.streaming");
    if (!last && std::exchange(measures, false) && !measure_link(c, bytes, part_begun)) return false;
    while (with_.network.queued_bytes(c.target) > most_bytes) {
      if (c.why().code || c.ended()) return false;
      c.wait(std::chrono::microseconds(100));
    }
  }
  c.bytes += sent;
  if (!c.wait_for_answer()) return false;
  note_speed(links_, c.target, sent, begun);
  return true;
}

inline bool transfer_engine::measure_link(carriage& c, std::size_t bytes, std::chrono::steady_clock::time_point begun) {
  // By the first pages, which went as they are: until the target has them.
  if (!c.wait_for_answer()) return false;
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  c.compress.set_link(static_cast<double>(bytes) / seconds);
  return true;
}

inline compression transfer_engine::compression_to(node_id target) const {
  // Between two processes of a machine bytes are copied faster than LZ4 makes fewer of them.
  if (with_.compress != compression::automatic) return with_.compress;
  std::string address = with_.network.address_of(target);
  if (address.empty()) return compression::never; // a checkpoint goes to nobody
  std::string host = split_address(address).host;
  bool here = host.starts_with("127.") || host == "::1" || host == "localhost";
  return here ? compression::never : compression::automatic;
}

inline bool transfer_engine::carry_by_image(carriage& c, const std::vector<page_range>& pages) {
  auto begun = std::chrono::steady_clock::now();
  auto read = [&](std::byte* to, const char* from, std::size_t bytes) {
    held_memory held(c);
    if (!held) throw error(errc::cancelled, "the task is not to be moved any more");
    std::memcpy(to, from, bytes);
  };
  const image* base = c.newest.valid() ? &c.newest : c.base.valid() ? &c.base : nullptr;
  const page_range all{c.region.base(), c.region.size()};
  fault_point("source.flushing");
  c.newest = with_.images->commit_running(c.id, c.region, base, pages, {&all, 1}, read);
  fault_point("source.flushed");
  c.bytes += c.newest.bytes_written();
  if (c.stays) return true;
  std::vector<std::byte> manifest = c.newest.encode();
  bool sent = send_message(with_.network, c.target, [&](protocol::Message::Builder message) {
    auto lay = message.initLay();
    lay.setTask(c.id.bits());
    lay.setEpoch(c.epoch);
    lay.setManifest(kj::arrayPtr(reinterpret_cast<const kj::byte*>(manifest.data()), manifest.size()));
  });
  if (!sent) c.fail({make_error_code(errc::node_unreachable), "the target cannot be reached"});
  if (!c.wait_for_answer()) return false;
  note_speed(stores_, c.target, size_of(pages), begun);
  return true;
}

inline bool transfer_engine::send_pages(carriage& c, const std::vector<page_range>& pages, bool last) {
  std::vector<iovec> attachment;
  for (const page_range& range : pages) attachment.push_back({range.address, range.bytes});
  std::span<const std::byte> block = c.compress.compress(attachment);
  if (!block.empty()) attachment.assign(1, {const_cast<std::byte*>(block.data()), block.size()});
  bool sent = send_message(
      with_.network, c.target,
      [&](protocol::Message::Builder message) {
        auto ahead = message.initPages();
        ahead.setTask(c.id.bits());
        ahead.setEpoch(c.epoch);
        ahead.setLast(last);
        ahead.setCompressed(!block.empty());
        auto list = ahead.initPages(static_cast<unsigned>(pages.size()));
        for (unsigned i = 0; i < list.size(); ++i) {
          list[i].setAddress(reinterpret_cast<std::uint64_t>(pages[i].address));
          list[i].setCount(static_cast<std::uint32_t>(pages[i].bytes / page_size));
        }
      },
      attachment);
  if (!sent) c.fail({make_error_code(errc::node_unreachable), "the target cannot be reached"});
  return sent;
}

inline memory_survey transfer_engine::send_rest(resident& task, carriage& c) {
  // Looks for what the rounds have left. What is found goes at once, so that the target lays it while the next is looked
  // for; the last of it goes with the offer. Should it be too much for that, little has gone in vain.
  constexpr std::size_t piece = 512 * 1024;
  std::size_t sent = 0;
  return survey_written(*task.control, with_.scanner, [&](memory_survey& found) {
    while (found.dirty_bytes > piece && sent < most_ahead_of_offer && !c.why().code) {
      std::vector<page_range> part;
      std::size_t bytes = 0;
      auto range = found.dirty.begin();
      for (; bytes < piece; ++range) {
        std::size_t now = std::min(range->bytes, piece - bytes);
        part.push_back({range->address, now});
        bytes += now;
        if (now < range->bytes) {
          range->address += now;
          range->bytes -= now;
          break;
        }
      }
      found.dirty.erase(found.dirty.begin(), range);
      found.dirty_bytes -= bytes;
      if (!send_pages(c, part, false)) return;
      c.gone.insert(c.gone.end(), part.begin(), part.end());
      c.bytes += bytes;
      sent += bytes;
    }
  });
}
// Of what it returns `dirty` has not gone.

inline void transfer_engine::send_frozen(resident& task, memory_survey&& memory, byte_writer&& bundle) {
  // Too much for one message: the offer follows when the target has it all.
  move_order& order = *task.move;
  if (order.carried == nullptr) {
    order.carried =
        std::make_shared<carriage>(task, order.target, *strategy_of(transfer::full_copy), task.epoch);
    order.carried->compress = compressor(compression_to(order.target));
    held guard(lock_);
    carriages_[task.id] = order.carried;
  }
  order.carried->memory = std::move(memory);
  order.carried->bundle = std::move(bundle);
  {
    held guard(task.lock);
    order.phase = move_phase::ahead;
    order.bytes = 0; // see carriage::bytes
  }
  movers_.push([this, from = order.carried] {
    carriage& c = *from;
    bool sent = (c.begun || begin(c)) && carry_straight(c, c.memory.dirty);
    if (c.ended()) return; // the node stops
    if (sent) {
      c.memory.dirty.clear();
      offer(c.task, c.memory, c.bundle, image_manifest(c.id), true, true);
    } else {
      give_up(c.task, c.why());
    }
  });
}

inline std::string transfer_engine::decide(carriage& c) {
  // Pre-flush needs nobody afterwards and sends the least; when the task writes faster than that goes, what is faster.
  std::vector<page_range> first = take_written(c);
  constexpr std::chrono::milliseconds looked_for{10};
  auto begun = std::chrono::steady_clock::now();
  c.wait(looked_for);
  std::vector<page_range> then = take_written(c);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  double writes = static_cast<double>(size_of(then)) / seconds;
  for (const page_range& each : then) first.push_back(each);
  if (first.empty()) return {}; // the task has ended
  first = merged(first, c.region);
  std::vector<page_range> probe{{first.front().address, std::min<std::size_t>(first.front().bytes, 1 << 20)}};
  std::string full; // why the store takes nothing
  try {
    if (!carry_by_image(c, probe)) return {};
  } catch (const error& reason) {
    if (reason.code() != errc::store_full && reason.code() != errc::store_read_only) throw;
    full = reason.code().message();
  }
  if (!carry_straight(c, probe)) return {};
  double link = 0, store = 0;
  {
    held guard(lock_);
    link = links_[c.target];
    store = stores_[c.target];
  }
  constexpr double converges = 0.7; // the next round is so much smaller at most
  // What lies on the target of an earlier image is not sent again, so that image has to stay the memory's base.
  bool straight = !full.empty() || (!c.base.valid() && store * converges < writes && link > store);
  if (!full.empty()) {
    store = 0;
    if (c.base.valid()) first = with_image(first, c.base, c.watched, c.region);
  }
  bool rounds = std::max(store, link) * converges >= writes;
  c.how = strategy_of(straight ? transfer::pre_copy : transfer::pre_flush);
  if (straight && c.newest.valid())
    with_.images->discard(std::exchange(c.newest, image())); // all of it has gone straight, too
  bool sent = (this->*c.how->carry)(c, first);
  if (!rounds) c.hurry = true;
  char text[200];
  std::snprintf(text, sizeof text,
                "%s%s: it has %zu KiB and writes %.0f MB/s; the image takes %.0f MB/s%s%s, the link %.0f",
                std::string(name_of(c.how->name)).c_str(), rounds ? "" : " in one round",
                size_of(first) / 1024, writes / 1e6, store / 1e6, full.empty() ? "" : ": ", full.c_str(),
                link / 1e6);
  return sent ? text : std::string();
}

inline void transfer_engine::note_speed(std::unordered_map<node_id, double>& of, node_id target,
                                        std::size_t bytes, std::chrono::steady_clock::time_point begun) {
  constexpr std::size_t tells = 256 * 1024;
  if (bytes < tells) return;
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  held guard(lock_);
  double& known = of[target];
  double now = static_cast<double>(bytes) / seconds;
  known = known == 0 ? now : (known + now) / 2;
}

inline std::shared_ptr<carriage> transfer_engine::carriage_to(node_id target, task_id task,
                                                              std::uint64_t epoch) {
  held guard(lock_);
  auto found = carriages_.find(task);
  if (found == carriages_.end() || found->second->target != target || found->second->epoch != epoch)
    return nullptr;
  return found->second;
}

inline void transfer_engine::on_ready(node_id target, protocol::TaskEpoch::Reader message) {
  if (auto of = carriage_to(target, task_id(message.getTask()), message.getEpoch())) of->answered();
}

inline void transfer_engine::fail_carriages(node_id target, const std::string& why) {
  std::vector<std::shared_ptr<carriage>> all;
  {
    held guard(lock_);
    for (auto& [id, each] : carriages_)
      if (each->target == target) all.push_back(each);
  }
  for (auto& each : all) each->fail({make_error_code(errc::node_unreachable), "the target was lost: " + why});
}

inline void transfer_engine::put_away(carriage& c, bool moved) noexcept {
  // The move has been made or given up, and no thread works on it.
  forget_carriage(c, moved);
  if (!moved) drop_images(c);
}

inline void transfer_engine::forget_carriage(carriage& c, bool moved) noexcept {
  {
    held guard(lock_);
    auto found = carriages_.find(c.id);
    if (found != carriages_.end() && found->second.get() == &c) carriages_.erase(found);
  }
  if (c.runs && !c.closes) tracker_.forget(c.region, static_cast<std::size_t>(c.watched.back().address - c.region.base()));
  if (!moved && c.begun)
    send_message(with_.network, c.target, [&](protocol::Message::Builder message) {
      auto drop = message.initDropAhead();
      drop.setTask(c.id.bits());
      drop.setEpoch(c.epoch);
    });
}

inline void transfer_engine::drop_images(carriage& c) noexcept {
  // By whoever works on it last.
  if (!c.newest.valid()) return;
  if (c.task_ended) {
    remove_images(c.id);
    return;
  }
  try {
    with_.images->discard(c.newest);
  } catch (const std::exception&) {
    // What stays in the store is garbage that the task's next image replaces.
  }
}

inline void transfer_engine::remove_images(task_id task) noexcept {
  try {
    with_.images->remove(task);
  } catch (const std::exception&) {
    // `migrate-store remove` is left for what cannot be removed now.
  }
}

inline void transfer_engine::stop() noexcept {
  stopping_ = true;
  with_.pages.stop();
  std::vector<std::shared_ptr<carriage>> all;
  {
    held guard(lock_);
    for (auto& [id, each] : carriages_) all.push_back(each);
  }
  for (auto& each : all) each->end();
  rounds_.stop();
  movers_.stop();
  keepers_.stop();
  finishers_.stop();
  receivers_.stop();
  closers_.stop();
}

} // namespace migrate::detail
