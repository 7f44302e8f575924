// The home's side of shared offsets, and the tokens that a node has.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include <migrate/file/shared_offset.hpp>
#include <migrate/home/request.hpp>
#include <migrate/task/scheduler.hpp>

namespace migrate::detail {

enum class offset_message : std::uint8_t {
  step,      // to home: an offset_step of a task, answered with an offset_range
  join,      // to home: one task more has the offset
  leave,     // to home: one less
  want,      // to home: the asking node's tasks wait for the token
  give_back, // to home: the token, with the offset
  unused,    // to home: the asking node does not have the token, or not any more
  granted,   // from home: the token, with the offset
  recall,    // from home: somebody else wants the token
};

inline void tell_offset(node_id to, offset_message what, const shared_offset& which, std::int64_t value = 0,
                        std::uint64_t serial = 0) {
  tell_service(to, service::offset, [&](byte_writer& out) {
    out.put(what);
    out.put(which);
    out.put(value);
    out.put(serial);
  });
}
// `serial`: of the grant.

inline std::recursive_mutex the_offset_lock;
// Held while a message about offsets is dealt with and while those that follow from it are sent: a grant and a recall
// must not overtake each other. Recursive, since a node that is home tells itself.

class offset_home {
  // Home learns of an offset by the first message that names it, since every message has the value that it began with.
  // Messages of several nodes may overtake each other, so an offset that nobody has any more is kept for a while.

public:
  void on_message(const request& asked, offset_message what, const shared_offset& which, byte_reader& in);
  void on_node_lost(node_id node);

private:
  struct served {
    std::uint64_t number = 0;
    offset_range range;
  };
  struct entry {
    shared_offset which;
    std::int64_t value = 0;
    long holders = 1;
    std::chrono::steady_clock::time_point idle_since;
    std::unordered_map<task_id, served> last; // a request that comes twice is answered alike
    node_id holder = no_node;                 // of the token
    std::uint64_t serial = 0;                 // of the last grant
    bool recalled = false;
    std::deque<node_id> waiting;
  };
  static constexpr auto patience = std::chrono::seconds(60);

  static offset_range make_step(entry& of, const offset_step& step) noexcept;
  static void pass_on(entry& of);
  entry& find(const shared_offset& which);
  void forget_idle();

  std::unordered_map<shared_key, entry, shared_key_hash> entries_;
};
// Thread safety: any thread, in a node_heap_scope.

class offset_tokens {
public:
  bool take(resident& task, const shared_offset& which, bool ask_again, std::int64_t& offset);
  // True: the calling task has it until put(), and must not wait between. False: it is woken when the token may be here.
  void put(const shared_offset& which, std::int64_t offset);
  void yield(resident& task, const shared_offset& which);
  // The task is about to leave: what this node has of it goes home first, so that the node is not needed any more.
  void on_granted(const shared_offset& which, std::int64_t offset, std::uint64_t serial);
  void on_recall(const shared_offset& which, std::uint64_t serial);

private:
  struct waiter {
    resident* task;
    task_id id;
  };
  struct token {
    bool here = false;
    bool busy = false;
    bool asked = false;    // home knows that it is wanted here
    bool fresh = false;    // nobody here has used it yet
    bool recalled = false; // to be given back after the next use
    std::int64_t offset = 0;
    std::uint64_t serial = 0; // of the last grant that came: an older one is a message that was sent twice
    std::chrono::steady_clock::time_point used;
    std::vector<waiter> waiting;
  };
  static constexpr auto patience = std::chrono::seconds(60);

  void give_back(const shared_offset& which, token& mine);

  std::unordered_map<shared_key, token, shared_key_hash> tokens_;
};
// Thread safety: any thread, in a node_heap_scope where a task runs.

inline constinit offset_home* this_offset_home = nullptr;
inline constinit offset_tokens* this_offset_tokens = nullptr;

// --- at home -----------------------------------------------------------------------------------------

inline offset_range offset_home::make_step(entry& of, const offset_step& step) noexcept {
  switch (step.what) {
  case offset_step::take: return {std::exchange(of.value, of.value + step.bytes), step.bytes, 0};
  case offset_step::take_within: {
    std::int64_t bytes = std::clamp<std::int64_t>(step.limit - of.value, 0, step.bytes);
    return {std::exchange(of.value, of.value + bytes), bytes, 0};
  }
  case offset_step::set: return {of.value = step.bytes, 0, 0};
  case offset_step::shift:
    if (of.value + step.bytes < 0) return {of.value, 0, -EINVAL};
    return {of.value += step.bytes, 0, 0};
  }
  return {of.value, 0, -EINVAL};
}

inline void offset_home::forget_idle() {
  auto old = std::chrono::steady_clock::now() - patience;
  std::erase_if(entries_, [&](const auto& each) { return each.second.holders <= 0 && each.second.idle_since < old; });
}

inline offset_home::entry& offset_home::find(const shared_offset& which) {
  auto found = entries_.find(which.key);
  if (found != entries_.end()) return found->second;
  forget_idle();
  entry& made = entries_[which.key];
  made.which = which;
  made.value = which.begun;
  return made;
}

inline void offset_home::pass_on(entry& of) {
  // The token goes to who has waited longest, or is called back from who has it.
  if (of.waiting.empty()) return;
  if (of.holder == no_node) {
    of.holder = of.waiting.front();
    of.waiting.pop_front();
    of.recalled = false;
    tell_offset(of.holder, offset_message::granted, of.which, of.value, ++of.serial);
  }
  if (!of.waiting.empty() && of.holder != no_node && !std::exchange(of.recalled, true))
    tell_offset(of.holder, offset_message::recall, of.which, 0, of.serial);
}

inline void offset_home::on_message(const request& asked, offset_message what, const shared_offset& which,
                                    byte_reader& in) {
  std::lock_guard guard(the_offset_lock);
  entry& of = find(which);
  if (what == offset_message::step) {
    auto number = in.get<std::uint64_t>();
    auto step = in.get<offset_step>();
    served& last = of.last[asked.task];
    if (last.number != number) last = {number, make_step(of, step)};
    answer result;
    result.first = static_cast<std::uint64_t>(last.range.at);
    result.second = static_cast<std::uint64_t>(last.range.failed < 0 ? last.range.failed : last.range.bytes);
    reply(asked, std::move(result));
    return;
  }
  auto value = in.get<std::int64_t>();
  switch (what) {
  case offset_message::join: ++of.holders; break;
  case offset_message::leave:
    of.last.erase(asked.task);
    if (--of.holders <= 0) of.idle_since = std::chrono::steady_clock::now();
    break;
  case offset_message::want:
    if (of.holder == asked.asker) // it has not come, or not yet
      tell_offset(of.holder, offset_message::granted, of.which, of.value, of.serial);
    else if (std::find(of.waiting.begin(), of.waiting.end(), asked.asker) == of.waiting.end())
      of.waiting.push_back(asked.asker);
    break;
  case offset_message::give_back:
  case offset_message::unused:
    // A recall may cross the token's return, and be answered when the token is there again.
    if (of.holder != asked.asker || in.get<std::uint64_t>() != of.serial) break;
    if (what == offset_message::give_back) of.value = value;
    of.holder = no_node;
    break;
  default: break;
  }
  pass_on(of);
}

inline void offset_home::on_node_lost(node_id node) {
  std::lock_guard guard(the_offset_lock);
  for (auto& [key, of] : entries_) {
    std::erase(of.waiting, node);
    if (of.holder == node) of.holder = no_node; // what it did last is not known
    pass_on(of);
  }
}

// --- on each node ------------------------------------------------------------------------------------

inline bool offset_tokens::take(resident& task, const shared_offset& which, bool ask_again, std::int64_t& offset) {
  std::lock_guard guard(the_offset_lock);
  auto now = std::chrono::steady_clock::now();
  if (!tokens_.contains(which.key))
    std::erase_if(tokens_, [&](const auto& each) {
      return !each.second.here && each.second.waiting.empty() && each.second.used + patience < now;
    });
  token& mine = tokens_[which.key];
  mine.used = now;
  std::erase_if(mine.waiting, [&](const waiter& each) { return each.task == &task; });
  if (mine.here && !mine.busy) {
    mine.busy = true;
    mine.fresh = false;
    offset = mine.offset;
    return true;
  }
  mine.waiting.push_back({&task, task.id});
  if (!mine.here && (!mine.asked || ask_again)) {
    mine.asked = true;
    tell_offset(which.key.home(), offset_message::want, which);
    // When home is here it may have come at once: the task is woken, and its park returns.
  }
  return false;
}

inline void offset_tokens::give_back(const shared_offset& which, token& mine) {
  // With the lock held: home must hear of the offset before anything else that this node says of the token.
  mine.here = false;
  mine.recalled = false;
  mine.asked = !mine.waiting.empty();
  tell_offset(which.key.home(), offset_message::give_back, which, mine.offset, mine.serial);
  if (mine.asked) tell_offset(which.key.home(), offset_message::want, which);
}

inline void offset_tokens::put(const shared_offset& which, std::int64_t offset) {
  std::lock_guard guard(the_offset_lock);
  token& mine = tokens_[which.key];
  mine.busy = false;
  mine.offset = offset;
  if (mine.recalled)
    give_back(which, mine);
  else
    for (const waiter& each : mine.waiting)
      if (each.task->id == each.id) this_scheduler->wake(*each.task);
}

inline void offset_tokens::yield(resident& task, const shared_offset& which) {
  std::lock_guard guard(the_offset_lock);
  auto found = tokens_.find(which.key);
  if (found == tokens_.end()) return;
  token& mine = found->second;
  std::erase_if(mine.waiting, [&](const waiter& each) { return each.task == &task; });
  if (mine.here && !mine.busy) give_back(which, mine);
}

inline void offset_tokens::on_granted(const shared_offset& which, std::int64_t offset, std::uint64_t serial) {
  std::lock_guard guard(the_offset_lock);
  token& mine = tokens_[which.key];
  if (serial <= mine.serial) return;
  mine.serial = serial;
  mine.asked = false;
  mine.here = true;
  mine.fresh = true;
  mine.offset = offset;
  for (const waiter& each : mine.waiting)
    if (each.task->id == each.id) this_scheduler->wake(*each.task);
}

inline void offset_tokens::on_recall(const shared_offset& which, std::uint64_t serial) {
  std::lock_guard guard(the_offset_lock);
  auto found = tokens_.find(which.key);
  if (found == tokens_.end() || !found->second.here || found->second.serial != serial) {
    tell_offset(which.key.home(), offset_message::unused, which, 0, serial);
    return;
  }
  token& mine = found->second;
  if (mine.busy || (mine.fresh && !mine.waiting.empty()))
    mine.recalled = true; // who waits here uses it once: else it could go round for ever without being used
  else
    give_back(which, mine);
}

// --- the service, and what tasks call ----------------------------------------------------------------

namespace offsets {

inline void on_request(const request& asked, byte_reader& in) {
  auto what = in.get<offset_message>();
  auto which = in.get<shared_offset>();
  if (what == offset_message::granted) {
    auto offset = in.get<std::int64_t>();
    this_offset_tokens->on_granted(which, offset, in.get<std::uint64_t>());
  } else if (what == offset_message::recall) {
    in.get<std::int64_t>();
    this_offset_tokens->on_recall(which, in.get<std::uint64_t>());
  } else {
    this_offset_home->on_message(asked, what, which, in);
  }
}

inline offset_range step(const shared_offset& which, const offset_step& wanted, std::uint64_t number) {
  shared_offset mine = which;
  for (;;) {
    called made = ask_home(mine.key.home(), service::offset, [&](byte_writer& out) {
      out.put(offset_message::step);
      out.put(mine);
      out.put(number);
      out.put(wanted);
    });
    if (made.how == waited::moved) continue;
    if (made.got.code != errc::ok) return {0, 0, -EIO};
    auto second = static_cast<std::int64_t>(made.got.second);
    return {static_cast<std::int64_t>(made.got.first), std::max<std::int64_t>(second, 0), std::min<long>(second, 0)};
  }
}

inline std::int64_t take_token(const shared_offset& which) {
  shared_offset mine = which;
  std::int64_t offset = 0;
  for (bool late = false;;) {
    {
      node_heap_scope scope;
      if (this_offset_tokens->take(*current_task(), mine, late, offset)) return offset;
    }
    late = !park_until(task_now() + std::chrono::seconds(1)); // a lost message costs so much
    safe_point();
  }
}

inline void put_token(const shared_offset& which, std::int64_t offset) {
  node_heap_scope scope;
  this_offset_tokens->put(which, offset);
}

inline void holders_change(const shared_offset& which, bool more) {
  node_heap_scope scope;
  if (!more && which.way == offset_sharing::token) this_offset_tokens->yield(*current_task(), which);
  tell_offset(which.key.home(), more ? offset_message::join : offset_message::leave, which);
}

} // namespace offsets
} // namespace migrate::detail
