// The home's side of its tasks: giving them out, saying where they are, keeping how they ended.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <migrate/home/ledger.hpp>
#include <migrate/home/processes.hpp>
#include <migrate/home/records.hpp>
#include <migrate/home/residents.hpp>
#include <migrate/memory/region_pool.hpp>
#include <migrate/memory/vacated_regions.hpp>
#include <migrate/rpc/calls.hpp>
#include <migrate/rpc/send.hpp>

namespace migrate::detail {

class home_office {
public:
  home_office(node_id here, peers& network, region_space& space, vacated_regions& vacated)
      : here_(here), network_(network), space_(space), vacated_(vacated), records_(here), processes_(here, records_),
        pool_(space) {}

  node_id here() const noexcept { return here_; }
  home_records& records() noexcept { return records_; }
  process_table& processes() noexcept { return processes_; }
  class residents& residents() noexcept { return residents_; }
  bool open_region(region_number region) noexcept {
    vacated_.reopen(region); // or it would be closed when its time is over
    return space_.open(region) && region_space::guard(region.base(), page_size);
  }

  // A task that has been offered to another node may run, end, and have its region given to a new task before this
  // node hears of any of it: until `left` the region is not opened again here. So may one whose pages come here ahead of
  // its offer: until `received` nobody but the reception opens the region, or it would be closed under who did.
  void leaving(region_number region);
  void left(region_number region) noexcept;
  void receiving(region_number region);
  void received(region_number region) noexcept;
  bool is_held(region_number region, unsigned receptions = 0) noexcept;
  // Whether a task that has been offered holds it, or more than so many receptions do, or a task that arrives.
  void arriving(region_number region, task_id task, bool received);
  void arrived(region_number region, task_id task) noexcept;
  // From a task's offer until it runs here, or will not and its memory is gone: home may take it for lost meanwhile, and
  // have the next one born here. `received`: what came ahead of it lies there, and its reception ends.
  bool may_lay_out(region_number region, task_id task, bool received) noexcept;
  // Whether nobody else holds it who came first.

  // --- births

  struct conceived {
    std::optional<birth> born; // none: the pool is empty
    failure why;
  };
  conceived conceive(task_id parent, region_class kind, node_id place, std::uint64_t awaited_as);
  // `awaited_as`: see services. Asked again with the same number, it is the same task.
  void grant(const region_range& range);
  bool grant_own(region_class kind);
  // On the cluster's first node, from its ledger; false when the class is used up.
  void keep_ledger(ledger& book) noexcept { ledger_ = &book; }
  bool wants_more(region_class kind) noexcept;
  // Whether it is time to ask for another range; true once until grant() is called.
  void cancel(const birth& unborn) noexcept;

  struct copy {
    task_id id;
    node_id target = no_node; // none: each candidate has a task at those addresses
    failure why;
  };
  copy conceive_copy(task_id original, std::uint64_t serial, std::span<const node_id> candidates);
  // A task with the region of another one, for a node that has none with it. Asked again with the same serial number,
  // it is the same one.

  // --- who runs

  bool claim(task_id task, std::uint64_t epoch, node_id claimant, node_id source) noexcept;
  // Makes `claimant` the task's place with epoch + 1 unless its epoch is larger than `epoch`; true as well
  // when that was done before, so that a doubled claim is answered alike. A holder that home could not
  // be told of has a larger epoch than home's record.

  bool is_past(task_id task, std::uint64_t epoch) noexcept;
  // Whether whoever was granted the claim that followed `epoch` has ended the task, or has lost it to another.

  void runs_at(task_id task, std::uint64_t epoch, node_id holder) noexcept;
  // The word of a holder that home could not be asked about.

  bool checkpointed(task_id task, std::uint64_t epoch, node_id place, std::uint64_t generation) noexcept;
  // Restarts go from that generation from now on; from none: 0. False: the task is not there any more with that epoch.
  std::uint64_t checkpoint_of(task_id task, std::uint64_t epoch) noexcept;
  // 0 when it is not to be restarted, or whoever has that epoch does not run it any more.

  void when_place_changes(void (*tell)(task_id task) noexcept) noexcept { place_changed_ = tell; }
  // Told of tasks with signals that their nodes have not confirmed.

  node_id locate(task_id task) noexcept;
  // no_node when it has ended or was never.

  resident* find_here(task_id task) noexcept;
  resident* look_here(task_id task) noexcept;
  // The same for a caller that compares the id under the resident's lock: it may be another task's.
  // The task's record if it is on this node, its home or not.

  // --- ends

  void end_here(resident& task) noexcept;
  // A task that ran its last instruction on this node: its memory goes, and home is told.

  void record_end(task_id task, std::uint64_t epoch, outcome&& how, char* touched_end,
                  node_id may_hold = no_node) noexcept;
  // touched_end: null when the task's region is not open here. may_hold: see lose().

  enum class joined { unknown, waiting, ended };
  joined join(task_id task, const end_waiter& who, bool take, outcome* into) noexcept;
  // `take`: the record goes with the outcome.
  joined peek(task_id task, const end_waiter& who, outcome& into) noexcept;
  // The same with a copy of the outcome.
  void release(task_id task) noexcept;
  bool detached(task_id task) noexcept;
  void lose(task_id task, std::uint64_t epoch, node_id may_hold, const std::string& why) noexcept;
  // The task was on a node that has died. A node that is only silent may hold it still: its region is given to nobody
  // else until that node has said that it does not, or has died.

  std::vector<task_id> lost_on(node_id node);
  bool no_longer_held(task_id task) noexcept;
  // False when the task was not lost on a node that might hold it.
  void died(node_id node) noexcept;

  void end_seen(task_id task) noexcept;
  bool all_ends_seen() noexcept;
  // Whether every home has confirmed the ends of its tasks here.
  void tell_ends_again(node_id home);
  void forget_ends(node_id home) noexcept;

private:
  void tell_waiter(const end_waiter& who, task_id task) noexcept;
  void tell_end(task_id task, std::uint64_t epoch, const outcome& how);

  struct untold_end {
    std::uint64_t epoch;
    outcome how;
  };

  node_id here_;
  peers& network_;
  region_space& space_;
  vacated_regions& vacated_;
  home_records records_;
  process_table processes_;
  class residents residents_;
  void put_back_closed(region_number region) noexcept;
  void free_region(region_number region, task_id task, char* touched_end) noexcept;

  void (*place_changed_)(task_id task) noexcept = nullptr;
  spin_lock pool_lock_;
  region_pool pool_;
  struct hold {
    bool leaves = false;
    bool ended = false; // to be put back when nobody holds it any more
    unsigned receptions = 0;
    std::vector<task_id> arrivals; // who came first is laid out first

    bool free() const noexcept { return !leaves && receptions == 0 && arrivals.empty(); }
  };
  std::unordered_map<std::uint32_t, hold> held_regions_;
  template <class F> void let_go(region_number region, F&& change) noexcept;
  struct lost_task {
    region_number region;
    node_id may_hold;
  };
  std::unordered_map<task_id, lost_task> lost_;
  std::unordered_map<std::uint32_t, std::vector<task_id>> shared_; // regions that a task and its copies have
  std::unordered_map<task_id, std::pair<std::uint64_t, task_id>> last_copy_; // serial number and copy, by original
  std::array<bool, region_classes> asked_{}; // a range of the class is on its way
  ledger* ledger_ = nullptr;
  spin_lock untold_lock_;
  std::unordered_map<task_id, untold_end> untold_; // ends that their homes have not confirmed
};
// Thread safety: any thread, inside a node_heap_scope where a task runs. Lock order: a record's, then the
// pool's or a free list's.

inline constinit home_office* this_home = nullptr;

using end_listener = void (*)(task_id task) noexcept;
inline constinit end_listener when_task_ended = nullptr;
// Told of each of this home's tasks that has ended, by whatever.

inline home_office::conceived home_office::conceive(task_id parent, region_class kind, node_id place,
                                                    std::uint64_t awaited_as) {
  if (awaited_as != 0)
    if (std::optional<birth> before = processes_.born_as(parent, awaited_as)) return {before, {}};
  std::optional<region_pool::taken> taken;
  try {
    held guard(pool_lock_);
    taken = pool_.take(kind, place == here_);
  } catch (const error& refused) {
    return {std::nullopt, {refused.code(), refused.what()}};
  }
  if (!taken) return {};
  std::optional<task_id> id = records_.create(parent, taken->region, place);
  if (!id) {
    held guard(pool_lock_);
    pool_.put_back(taken->region, taken->region.base() + page_size);
    return {std::nullopt,
            {make_error_code(errc::region_exhausted),
             "this home has 16,777,216 tasks already; join or detach some, or spawn from another node"}};
  }
  birth born{*id, taken->region, 1, taken->zeroed};
  processes_.born(born.id, parent, awaited_as != 0);
  if (awaited_as != 0) {
    release(born.id); // its outcome is for wait(), not for a join
    processes_.remember(parent, awaited_as, born);
  }
  return {born, {}};
}

inline void home_office::put_back_closed(region_number region) noexcept {
  // With the pool's lock held.
  if (auto found = held_regions_.find(region.bits()); found != held_regions_.end())
    found->second.ended = true;
  else if (std::optional<char*> kept = vacated_.reopen(region))
    pool_.put_back(region, *kept);
  else
    pool_.put_back_closed(region);
}

inline void home_office::free_region(region_number region, task_id task, char* touched_end) noexcept {
  // With the pool's lock held.
  last_copy_.erase(task);
  if (auto found = shared_.find(region.bits()); found != shared_.end()) {
    std::erase(found->second, task);
    if (!found->second.empty()) {
      if (touched_end != nullptr) vacated_.vacate(region, touched_end);
      return;
    }
    shared_.erase(found);
  }
  if (touched_end != nullptr)
    pool_.put_back(region, touched_end);
  else
    put_back_closed(region);
}

inline home_office::copy home_office::conceive_copy(task_id original, std::uint64_t serial,
                                                    std::span<const node_id> candidates) {
  home_record* record = records_.find(original);
  region_number region;
  node_id place = no_node;
  if (record != nullptr) {
    held guard(record->lock);
    if (home_records::holds(*record, original) && !record->ended) {
      region = record->region;
      place = record->place;
    }
  }
  if (place == no_node)
    return {{}, no_node, {make_error_code(errc::no_such_task), "task " + to_string(original) + " has ended"}};
  std::vector<task_id> holders;
  task_id before;
  {
    held guard(pool_lock_);
    if (auto found = shared_.find(region.bits()); found != shared_.end()) holders = found->second;
    if (auto found = last_copy_.find(original); found != last_copy_.end() && found->second.first == serial)
      before = found->second.second;
  }
  holders.push_back(original);
  std::vector<node_id> taken;
  for (task_id each : holders)
    if (each != before) taken.push_back(locate(each));
  auto free = std::find_if(candidates.begin(), candidates.end(), [&](node_id each) {
    return std::find(taken.begin(), taken.end(), each) == taken.end();
  });
  if (free == candidates.end()) return {before, no_node, {}};
  if (before) return {before, *free, {}};
  std::optional<task_id> id = records_.create(original, region, place);
  if (!id)
    return {{}, no_node, {make_error_code(errc::region_exhausted), "this home has 16,777,216 tasks already"}};
  processes_.born(*id, original, true);
  release(*id); // its outcome is for wait(), not for a join
  held guard(pool_lock_);
  auto& sharing = shared_[region.bits()];
  if (sharing.empty()) sharing.push_back(original);
  sharing.push_back(*id);
  last_copy_.insert_or_assign(original, std::pair(serial, *id));
  return {*id, *free, {}};
}

inline void home_office::leaving(region_number region) {
  held guard(pool_lock_);
  held_regions_[region.bits()].leaves = true;
}

inline void home_office::receiving(region_number region) {
  held guard(pool_lock_);
  ++held_regions_[region.bits()].receptions;
}

template <class F> void home_office::let_go(region_number region, F&& change) noexcept {
  held guard(pool_lock_);
  auto found = held_regions_.find(region.bits());
  if (found == held_regions_.end()) return;
  change(found->second);
  if (!found->second.free()) return;
  bool ended = found->second.ended;
  held_regions_.erase(found);
  if (ended) put_back_closed(region);
}

inline void home_office::left(region_number region) noexcept {
  let_go(region, [](hold& of) { of.leaves = false; });
}

inline void home_office::received(region_number region) noexcept {
  let_go(region, [](hold& of) { --of.receptions; });
}

inline bool home_office::is_held(region_number region, unsigned receptions) noexcept {
  held guard(pool_lock_);
  auto found = held_regions_.find(region.bits());
  if (found == held_regions_.end()) return false;
  return found->second.leaves || found->second.receptions > receptions || !found->second.arrivals.empty();
}

inline void home_office::arriving(region_number region, task_id task, bool received) {
  held guard(pool_lock_);
  hold& of = held_regions_[region.bits()];
  if (received) --of.receptions; // it has the region already
  of.arrivals.insert(received ? of.arrivals.begin() : of.arrivals.end(), task);
}

inline void home_office::arrived(region_number region, task_id task) noexcept {
  let_go(region, [task](hold& of) {
    if (auto found = std::find(of.arrivals.begin(), of.arrivals.end(), task); found != of.arrivals.end())
      of.arrivals.erase(found);
  });
}

inline bool home_office::may_lay_out(region_number region, task_id task, bool received) noexcept {
  held guard(pool_lock_);
  auto found = held_regions_.find(region.bits());
  if (found == held_regions_.end()) return true;
  const hold& of = found->second;
  return !of.leaves && (received || of.receptions == 0) &&
         (of.arrivals.empty() || of.arrivals.front() == task);
}

inline void home_office::grant(const region_range& range) {
  held guard(pool_lock_);
  pool_.grant(range);
  asked_[static_cast<std::size_t>(range.kind)] = false;
}

inline bool home_office::grant_own(region_class kind) {
  if (ledger_ == nullptr) return false;
  region_range range = ledger_->next_range(kind);
  if (range.count > 0) grant(range);
  return range.count > 0;
}

inline bool home_office::wants_more(region_class kind) noexcept {
  held guard(pool_lock_);
  bool& asked = asked_[static_cast<std::size_t>(kind)];
  if (asked || pool_.left(kind) > plan[static_cast<std::size_t>(kind)].grant / 4) return false;
  asked = true;
  return true;
}

inline void home_office::cancel(const birth& unborn) noexcept {
  if (unborn.id.home() != here_) {
    space_.close(unborn.region);
    send_message(network_, unborn.id.home(), [&](protocol::Message::Builder message) {
      auto ended = message.initEnded();
      ended.setTask(unborn.id.bits());
      ended.setEpoch(unborn.epoch);
      ended.setKind(static_cast<std::uint8_t>(outcome_kind::none));
    });
    return;
  }
  record_end(unborn.id, unborn.epoch, {}, unborn.region.base() + unborn.region.size());
  release(unborn.id);
}

inline bool home_office::claim(task_id task, std::uint64_t epoch, node_id claimant, node_id source) noexcept {
  home_record* record = records_.find(task);
  if (record == nullptr) return false;
  bool unseen_signals = false;
  {
    held guard(record->lock);
    if (!home_records::holds(*record, task) || record->ended) return false;
    if (record->epoch > epoch) return record->epoch == epoch + 1 && record->place == claimant;
    record->epoch = epoch + 1;
    record->place = claimant;
    record->claimed_from = source;
    unseen_signals = record->signals != nullptr && !record->signals->unseen.empty();
  }
  if (unseen_signals && place_changed_ != nullptr) place_changed_(task);
  return true;
}

inline bool home_office::is_past(task_id task, std::uint64_t epoch) noexcept {
  home_record* record = records_.find(task);
  if (record == nullptr) return true;
  held guard(record->lock);
  return !home_records::holds(*record, task) || record->ended || record->epoch > epoch + 1;
}

inline void home_office::runs_at(task_id task, std::uint64_t epoch, node_id holder) noexcept {
  home_record* record = records_.find(task);
  if (record == nullptr) return;
  held guard(record->lock);
  if (!home_records::holds(*record, task) || record->ended || record->epoch >= epoch) return;
  record->epoch = epoch;
  record->place = holder;
  record->claimed_from = no_node;
}

inline bool home_office::checkpointed(task_id task, std::uint64_t epoch, node_id place,
                                      std::uint64_t generation) noexcept {
  home_record* record = records_.find(task);
  if (record == nullptr) return false;
  held guard(record->lock);
  if (!home_records::holds(*record, task) || record->ended || record->epoch != epoch || record->place != place)
    return false;
  record->checkpoint = generation;
  return true;
}

inline std::uint64_t home_office::checkpoint_of(task_id task, std::uint64_t epoch) noexcept {
  home_record* record = records_.find(task);
  if (record == nullptr) return 0;
  held guard(record->lock);
  bool current = home_records::holds(*record, task) && !record->ended && record->epoch == epoch;
  return current ? record->checkpoint : 0;
}

inline node_id home_office::locate(task_id task) noexcept {
  home_record* record = records_.find(task);
  if (record == nullptr) return no_node;
  held guard(record->lock);
  return home_records::holds(*record, task) && !record->ended ? record->place : no_node;
}

inline resident* home_office::find_here(task_id task) noexcept {
  if (home_record* record = records_.find(task)) {
    held guard(record->lock);
    return home_records::holds(*record, task) ? record->here.load(std::memory_order_relaxed) : nullptr;
  }
  return residents_.find_foreign(task);
}

inline resident* home_office::look_here(task_id task) noexcept {
  home_record* record = records_.find(task);
  return record != nullptr ? record->here.load(std::memory_order_acquire) : residents_.find_foreign(task);
}

inline void home_office::end_here(resident& task) noexcept {
  control_block& control = *task.control;
  task_id id = task.id;
  std::uint64_t epoch = task.epoch;
  region_number region = control.region;
  outcome how{control.outcome, {control.outcome_bytes, control.outcome_size}, control.process.status,
              control.process.used};
  how.used += control.process.programs_used;
  char* touched_end = end_of_touched(control);
  residents_.retire(task, id, id.home() == here_ ? records_.find(id) : nullptr);
  if (id.home() == here_) {
    record_end(id, epoch, std::move(how), touched_end);
    return;
  }
  vacated_.vacate(region, touched_end);
  outcome kept{how.kind, {how.bytes.data(), how.bytes.size()}, how.status, how.used};
  {
    held guard(untold_lock_); // before home can confirm it
    untold_.insert_or_assign(id, untold_end{epoch, std::move(kept)});
  }
  tell_end(id, epoch, how);
}

inline void home_office::tell_end(task_id task, std::uint64_t epoch, const outcome& how) {
  static_assert(outcome_limit <= connection_limits{}.attachment_bytes);
  iovec bytes{const_cast<std::byte*>(how.bytes.data()), how.bytes.size()};
  send_message(
      network_, task.home(),
      [&](protocol::Message::Builder message) {
        auto ended = message.initEnded();
        ended.setTask(task.bits());
        ended.setEpoch(epoch);
        ended.setKind(static_cast<std::uint8_t>(how.kind));
        ended.setStatus(how.status);
        ended.setUsage(kj::arrayPtr(reinterpret_cast<const kj::byte*>(&how.used), sizeof how.used));
      },
      std::span<const iovec>(&bytes, bytes.iov_len > 0 ? 1 : 0));
}

inline void home_office::end_seen(task_id task) noexcept {
  held guard(untold_lock_);
  untold_.erase(task);
}

inline bool home_office::all_ends_seen() noexcept {
  held guard(untold_lock_);
  return untold_.empty();
}

inline void home_office::tell_ends_again(node_id home) {
  held guard(untold_lock_);
  for (const auto& [task, end] : untold_)
    if (task.home() == home) tell_end(task, end.epoch, end.how);
}

inline void home_office::forget_ends(node_id home) noexcept {
  held guard(untold_lock_);
  std::erase_if(untold_, [&](const auto& each) { return each.first.home() == home; });
}

inline std::vector<task_id> home_office::lost_on(node_id node) {
  held guard(pool_lock_);
  std::vector<task_id> found;
  for (const auto& [task, lost] : lost_)
    if (lost.may_hold == node) found.push_back(task);
  return found;
}

inline bool home_office::no_longer_held(task_id task) noexcept {
  held guard(pool_lock_);
  auto found = lost_.find(task);
  if (found == lost_.end()) return false;
  free_region(found->second.region, task, nullptr);
  lost_.erase(found);
  return true;
}

inline void home_office::died(node_id node) noexcept {
  held guard(pool_lock_);
  std::erase_if(lost_, [&](const auto& each) {
    if (each.second.may_hold != node) return false;
    free_region(each.second.region, each.first, nullptr);
    return true;
  });
}

inline void home_office::record_end(task_id task, std::uint64_t epoch, outcome&& how, char* touched_end,
                                    node_id may_hold) noexcept {
  home_record* record = records_.find(task);
  if (record == nullptr) return;
  const bool born = how.kind != outcome_kind::none;
  const int status = how.status;
  const task_usage used = how.used;
  bool is_process = false;
  std::unique_ptr<outcome> kept;
  if (how.kind != outcome_kind::none) kept = std::make_unique<outcome>(std::move(how));
  end_waiter waiter;
  auto is_over = [&] { return !home_records::holds(*record, task) || record->ended || record->epoch > epoch; };
  {
    held guard(record->lock);
    if (is_over()) return;
    is_process = record->is_process && !record->detached;
  }
  // Who joins it finds it gone from its group; who waits for it finds no task any more.
  if (is_process && born) processes_.ended(task, status, used);
  {
    held guard(record->lock);
    if (is_over()) return;
    {
      held pool(pool_lock_);
      if (touched_end == nullptr && may_hold != no_node)
        lost_.insert_or_assign(task, lost_task{record->region, may_hold});
      else
        free_region(record->region, task, touched_end);
    }
    record->here.store(nullptr, std::memory_order_relaxed);
    is_process = record->is_process;
    if (record->detached || kept == nullptr) {
      records_.erase(task, *record);
    } else {
      record->ended = std::move(kept);
      waiter = std::exchange(record->waiter, {});
      // Under the lock, since the thread may stop waiting at any time, and takes the lock then.
      if (waiter.thread != nullptr) std::exchange(waiter.thread, nullptr)->wake();
    }
  }
  if (waiter) tell_waiter(waiter, task);
  if (is_process && born) processes_.ended(task, status, used);
  if (is_process && !born) processes_.unborn(task);
  if (when_task_ended != nullptr) when_task_ended(task);
}

inline void home_office::tell_waiter(const end_waiter& who, task_id) noexcept {
  if (who.local != nullptr) {
    this_scheduler->wake(*who.local); // whoever it is by now: see resident.hpp
  } else if (who.thread != nullptr) {
    who.thread->wake();
  } else {
    // A joiner elsewhere asks again and finds the end recorded.
    send_answer(network_, who.node, who.call, answer{});
  }
}

inline home_office::joined home_office::join(task_id task, const end_waiter& who, bool take,
                                             outcome* into) noexcept {
  home_record* record = records_.find(task);
  if (record == nullptr) return joined::unknown;
  held guard(record->lock);
  if (!home_records::holds(*record, task)) return joined::unknown;
  if (!record->ended) {
    record->waiter = who;
    return joined::waiting;
  }
  if (into != nullptr) *into = std::move(*record->ended);
  if (take) records_.erase(task, *record);
  return joined::ended;
}

inline home_office::joined home_office::peek(task_id task, const end_waiter& who, outcome& into) noexcept {
  home_record* record = records_.find(task);
  if (record == nullptr) return joined::unknown;
  held guard(record->lock);
  if (!home_records::holds(*record, task)) return joined::unknown;
  if (!record->ended) {
    record->waiter = who;
    return joined::waiting;
  }
  into = {record->ended->kind, {record->ended->bytes.data(), record->ended->bytes.size()}, 0, {}};
  return joined::ended;
}

inline void home_office::release(task_id task) noexcept {
  home_record* record = records_.find(task);
  if (record == nullptr) return;
  held guard(record->lock);
  if (!home_records::holds(*record, task)) return;
  if (record->ended)
    records_.erase(task, *record);
  else
    record->detached = true;
}

inline bool home_office::detached(task_id task) noexcept {
  home_record* record = records_.find(task);
  if (record == nullptr) return false;
  held guard(record->lock);
  return home_records::holds(*record, task) && record->detached;
}

inline void home_office::lose(task_id task, std::uint64_t epoch, node_id may_hold, const std::string& why) noexcept {
  byte_writer bytes;
  bytes.put(standard_exception::migrate_error);
  bytes.put(std::string("migrate::error"));
  bytes.put(why);
  bytes.put(static_cast<int>(errc::node_lost));
  bytes.put(true);
  record_end(task, epoch,
             outcome{outcome_kind::exception, {bytes.bytes().data(), bytes.bytes().size()}, killed_by(SIGKILL), {}},
             nullptr, may_hold);
}

} // namespace migrate::detail
