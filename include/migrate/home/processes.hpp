// A home's tasks as processes: families, groups and sessions, and the meeting of exit and wait.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <signal.h>

#include <migrate/home/process_record.hpp>
#include <migrate/home/records.hpp>
#include <migrate/home/reply.hpp>
#include <migrate/task/ending.hpp>

namespace migrate::detail {

inline answer encode(const wait_reply& got) {
  byte_writer out;
  out.put(got.report);
  answer result;
  result.first = static_cast<std::uint64_t>(got.error);
  if (got.report.child) result.bytes = {out.bytes().data(), out.bytes().size()};
  return result;
}

struct process_hooks {
  void (*post)(task_id to, int signal, const child_event* about) = nullptr;
  // Sends a signal from the home itself. Called with no lock held, before whoever waits for the change is told.
};
inline constinit process_hooks the_process_hooks{};

class process_table {
public:
  process_table(node_id home, home_records& records) : init_(init_task(home)), records_(records) {}

  // --- births and ends

  void born(task_id child, task_id parent, bool awaited);
  // Before the child runs. A child inherits group, session, and what its parent does about its children's ends.
  std::optional<birth> born_as(task_id parent, std::uint64_t number);
  void remember(task_id parent, std::uint64_t number, const birth& child);
  // So that a birth whose answer was lost is asked for again and not made twice.
  void unborn(task_id child);
  void ended(task_id task, int status, const task_usage& used);

  // --- states

  void set_state(task_id task, process_state state, int signal);
  // stopped or running (continued), by `signal`: tells the parent and whoever waits.
  bool stopped(task_id task);

  void restarted(task_id task);
  // From a checkpoint: it may ask again what it has asked, with the number that it had then.

  // --- groups and sessions

  template <class F> void for_each_in_group(task_id group, F&& visit);
  // visit(task_id) for each member that has not ended, with no lock held. Returns how many there were; a group of
  // zombies has none, but exists.
  bool group_exists(task_id group);
  bool exists(task_id task);
  // Zombies exist.
  bool is_orphaned(task_id group);
  // No member has a parent in another group of the same session.
  struct place {
    task_id group, session, parent; // none: there is no such task
  };
  place where_is(task_id task);

  // --- requests of tasks

  void wait(const request& asked, const wait_request& what);
  void give_up_wait(const request& asked, std::uint64_t number);
  // Replies with what the wait has got already, if anything, and otherwise takes it back.
  int set_group(task_id who, std::uint64_t number, task_id task, task_id group); // an errno
  int set_session(task_id who, std::uint64_t number);
  void set_child_policy(task_id who, bool reaps_itself, bool no_stop_news);
  task_usage children_usage(task_id who);

private:
  struct group {
    task_id session;
    std::unordered_set<process_record*> members;
  };
  struct posting {
    task_id to;
    int signal;
    bool about_child;
    child_event about;
  };
  struct effects {
    // What is to be done when the lock is let go.
    std::vector<posting> signals;
    std::vector<std::pair<request, wait_reply>> replies;
    ~effects() {
      for (const posting& each : signals)
        if (the_process_hooks.post != nullptr)
          the_process_hooks.post(each.to, each.signal, each.about_child ? &each.about : nullptr);
      for (auto& [to, what] : replies) reply(to, encode(what));
    }
  };

  process_record* find(task_id task);
  process_record* make(task_id task);
  process_record& insert(task_id task, task_id parent);
  void join_group(process_record& task, task_id group, task_id session);
  void leave_group(process_record& task);
  void put_among(process_record& child, std::list<process_record*> process_record::*list);
  void take_from_siblings(process_record& child);
  void erase(process_record& task);
  void report(process_record& child, int code, int status, effects& after);
  void look_again(process_record& parent, effects& after);
  std::optional<wait_reply> try_wait(process_record& parent, wait_request& what);
  bool linked(task_id group, const process_record* without);
  bool runs(task_id task);
  task_id home_parent(task_id task);
  static std::optional<int> served_before(const process_record& who, std::uint64_t number);
  static void answered(process_record& who, std::uint64_t number, const wait_reply& with);

  task_id init_;
  home_records& records_;
  std::atomic<bool> any_{false}; // there has been a record
  spin_lock lock_;
  std::unordered_map<task_id, std::unique_ptr<process_record>> all_;
  std::unordered_map<task_id, group> groups_; // but for the home's first one
};
// Thread safety: any thread, inside a node_heap_scope where a task runs. Lock order: this lock, then a home record's.

// --- records -------------------------------------------------------------------------------------------------------

inline process_record* process_table::find(task_id task) {
  auto found = all_.find(task);
  return found == all_.end() ? nullptr : found->second.get();
}

inline bool process_table::runs(task_id task) {
  if (task == init_) return true;
  home_record* record = records_.find(task);
  if (record == nullptr) return false;
  held guard(record->lock);
  return home_records::holds(*record, task) && !record->ended;
}

inline task_id process_table::home_parent(task_id task) {
  home_record* record = records_.find(task);
  task_id parent;
  if (record != nullptr) {
    held guard(record->lock);
    if (home_records::holds(*record, task)) parent = record->parent;
  }
  return parent && runs(parent) ? parent : init_;
}

inline process_record& process_table::insert(task_id task, task_id parent) {
  any_.store(true, std::memory_order_relaxed);
  auto& fresh = all_[task];
  fresh = std::make_unique<process_record>();
  fresh->id = task;
  fresh->parent = parent;
  fresh->group = fresh->session = init_;
  put_among(*fresh, &process_record::children);
  return *fresh;
}

inline process_record* process_table::make(task_id task) {
  // The task's record, and those of its ancestors up to one that has one; null when it has ended.
  if (process_record* known = find(task)) return known;
  std::vector<task_id> line;
  for (task_id each = task; each != init_ && find(each) == nullptr; each = home_parent(each)) {
    home_record* record = records_.find(each);
    if (record == nullptr) break;
    held guard(record->lock);
    if (!home_records::holds(*record, each) || record->ended) break;
    record->is_process = true; // from now on its end is told to this table
    line.push_back(each);
  }
  for (std::size_t i = line.size(); i-- > 0;) insert(line[i], home_parent(line[i]));
  return find(task);
}

inline void process_table::put_among(process_record& child, std::list<process_record*> process_record::*list) {
  process_record* parent = find(child.parent);
  if (parent == nullptr) return;
  auto& into = parent->*list;
  child.among_siblings = into.insert(into.end(), &child);
}

inline void process_table::take_from_siblings(process_record& child) {
  if (process_record* parent = find(child.parent))
    (child.has_news ? parent->news : parent->children).erase(child.among_siblings);
}

inline void process_table::join_group(process_record& task, task_id id, task_id session) {
  task.group = id;
  task.session = session;
  if (id == init_) return;
  auto& joined = groups_[id];
  joined.session = session;
  joined.members.insert(&task);
}

inline void process_table::leave_group(process_record& task) {
  auto found = groups_.find(task.group);
  if (found == groups_.end()) return;
  found->second.members.erase(&task);
  if (found->second.members.empty()) groups_.erase(found);
}

inline void process_table::erase(process_record& task) {
  leave_group(task);
  take_from_siblings(task);
  all_.erase(task.id);
}

// --- births and ends -------------------------------------------------------------------------------------------------

inline void process_table::born(task_id child, task_id parent, bool awaited) {
  if (!awaited && !any_.load(std::memory_order_relaxed)) return; // who has no record is in the first group
  held guard(lock_);
  process_record* from = awaited ? make(parent) : find(parent);
  if (from == nullptr || (!awaited && from->group == init_ && !from->reaps_itself)) return;
  if (home_record* record = records_.find(child)) {
    held its(record->lock);
    record->is_process = true;
  }
  process_record& fresh = insert(child, parent);
  fresh.awaited = awaited;
  fresh.reaps_itself = from->reaps_itself;
  fresh.no_stop_news = from->no_stop_news;
  join_group(fresh, from->group, from->session);
}

inline std::optional<birth> process_table::born_as(task_id parent, std::uint64_t number) {
  held guard(lock_);
  process_record* from = find(parent);
  if (from == nullptr || from->last_child_number != number) return std::nullopt;
  return from->last_child;
}

inline void process_table::remember(task_id parent, std::uint64_t number, const birth& child) {
  held guard(lock_);
  if (process_record* from = find(parent)) {
    from->last_child_number = number;
    from->last_child = child;
  }
}

inline void process_table::unborn(task_id child) {
  held guard(lock_);
  if (process_record* record = find(child)) erase(*record);
}

inline void process_table::ended(task_id task, int status, const task_usage& used) {
  effects after;
  held guard(lock_);
  process_record* record = find(task);
  if (record == nullptr || record->state == process_state::zombie) return;

  // Groups that this end may leave without anybody in their session who looks after them.
  std::vector<task_id> touched{record->group};
  for (auto* list : {&record->children, &record->news})
    for (process_record* child : *list) touched.push_back(child->group);
  std::sort(touched.begin(), touched.end());
  touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
  std::erase_if(touched, [&](task_id each) { return !linked(each, nullptr) || linked(each, record); });

  record->waiter.reset();
  for (auto* list : {&record->children, &record->news}) {
    std::list<process_record*> orphans;
    orphans.swap(*list);
    for (process_record* child : orphans) {
      child->parent = init_;
      child->awaited = false;
      child->has_news = false;
      if (child->state == process_state::zombie) erase(*child);
    }
  }
  record->state = process_state::zombie;
  record->used = used;
  record->status = status;
  process_record* parent = record->awaited ? find(record->parent) : nullptr;
  if (parent != nullptr) {
    bool exited = (status & 0x7f) == 0;
    report(*record, exited ? CLD_EXITED : CLD_KILLED, status, after);
    if (parent->reaps_itself) erase(*record);
    look_again(*parent, after);
  } else {
    erase(*record);
  }

  for (task_id each : touched) {
    auto found = groups_.find(each);
    if (found == groups_.end()) continue;
    const auto& members = found->second.members;
    if (std::none_of(members.begin(), members.end(),
                     [](const process_record* member) { return member->state == process_state::stopped; }))
      continue;
    for (int signal : {SIGHUP, SIGCONT})
      for (const process_record* member : members)
        if (member->state != process_state::zombie) after.signals.push_back({member->id, signal, false, {}});
  }
}

inline void process_table::report(process_record& child, int code, int status, effects& after) {
  process_record* parent = find(child.parent);
  take_from_siblings(child);
  child.has_news = true;
  child.status = status;
  put_among(child, &process_record::news);
  if (parent == nullptr) return;
  if (parent->no_stop_news && (code == CLD_STOPPED || code == CLD_CONTINUED)) return;
  int value = code == CLD_EXITED || code == CLD_STOPPED ? (status >> 8) & 0xff : status & 0x7f;
  if (code == CLD_CONTINUED) value = SIGCONT;
  after.signals.push_back({parent->id, SIGCHLD, true, {child.id, code, value, child.used}});
}

// --- states ----------------------------------------------------------------------------------------------------------

inline void process_table::set_state(task_id task, process_state state, int signal) {
  effects after;
  held guard(lock_);
  process_record* record = make(task);
  if (record == nullptr || record->state == process_state::zombie || record->state == state) return;
  record->state = state;
  if (!record->awaited) return;
  bool stops = state == process_state::stopped;
  report(*record, stops ? CLD_STOPPED : CLD_CONTINUED, stops ? stopped_by(signal) : continued_status, after);
  if (process_record* parent = find(record->parent)) look_again(*parent, after);
}

inline bool process_table::stopped(task_id task) {
  held guard(lock_);
  process_record* record = find(task);
  return record != nullptr && record->state == process_state::stopped;
}

inline void process_table::restarted(task_id task) {
  held guard(lock_);
  process_record* record = find(task);
  if (record == nullptr) return;
  record->waiter.reset();
  record->last_number = 0;
  record->last_answered = false;
}

// --- waiting ---------------------------------------------------------------------------------------------------------

inline void process_table::answered(process_record& who, std::uint64_t number, const wait_reply& with) {
  who.last_number = number;
  who.last_answered = true;
  who.last_reply = with;
}

inline std::optional<wait_reply> process_table::try_wait(process_record& parent, wait_request& what) {
  if (what.selection.which == wait_selection::of::own_group)
    what.selection = {wait_selection::of::group, parent.group};
  auto chosen = [&](const process_record& child) {
    if (!child.awaited || child.parent != parent.id) return false;
    switch (what.selection.which) {
    case wait_selection::of::task: return child.id == what.selection.id;
    case wait_selection::of::group: return child.group == what.selection.id;
    default: return true;
    }
  };
  auto reportable = [&](const process_record& child) {
    if (!child.has_news) return false;
    if (child.state == process_state::zombie) return (what.options & WEXITED) != 0;
    return (what.options & (child.state == process_state::stopped ? WSTOPPED : WCONTINUED)) != 0;
  };
  process_record* found = nullptr;
  bool any = false; // that may still have something to report
  auto look_at = [&](process_record& child) {
    if (!chosen(child)) return;
    if (reportable(child))
      found = &child;
    else if (child.state != process_state::zombie)
      any = true;
  };
  if (what.selection.which == wait_selection::of::task) {
    if (process_record* child = find(what.selection.id)) look_at(*child);
  } else {
    for (auto each = parent.news.begin(); each != parent.news.end() && found == nullptr; ++each) look_at(**each);
    for (auto each = parent.children.begin(); each != parent.children.end() && found == nullptr && !any; ++each)
      look_at(**each);
  }
  if (found == nullptr) {
    if (!any) return wait_reply{ECHILD, {}};
    if ((what.options & WNOHANG) != 0) return wait_reply{};
    return std::nullopt;
  }
  wait_reply got{0, {found->id, found->status, found->used}};
  got.report.used += found->children_used;
  if ((what.options & WNOWAIT) != 0) return got;
  if (found->state == process_state::zombie) {
    parent.children_used += got.report.used;
    erase(*found);
  } else {
    take_from_siblings(*found);
    found->has_news = false;
    put_among(*found, &process_record::children);
  }
  return got;
}

inline void process_table::look_again(process_record& parent, effects& after) {
  if (!parent.waiter) return;
  if (std::optional<wait_reply> got = try_wait(parent, parent.waiter->what)) {
    answered(parent, parent.waiter->what.number, *got);
    after.replies.emplace_back(parent.waiter->asker, *got);
    parent.waiter.reset();
  }
}

inline void process_table::wait(const request& asked, const wait_request& what) {
  effects after;
  held guard(lock_);
  process_record* parent = find(asked.task);
  if (parent == nullptr) {
    after.replies.push_back({asked, {ECHILD, {}}});
    return;
  }
  if (what.number < parent->last_number) return; // of a wait that is over: nobody listens
  if (what.number == parent->last_number && parent->last_answered) {
    after.replies.push_back({asked, parent->last_reply});
    return;
  }
  if (parent->waiter && parent->waiter->what.number == what.number && parent->waiter->what.attempt > what.attempt)
    return; // sent before the task moved, and come after
  parent->last_number = what.number;
  parent->last_answered = false;
  parent->waiter = process_record::waiting{asked, what};
  look_again(*parent, after);
}

inline void process_table::give_up_wait(const request& asked, std::uint64_t number) {
  effects after;
  held guard(lock_);
  wait_reply got{EINTR, {}};
  if (process_record* parent = find(asked.task)) {
    if (parent->last_number == number && parent->last_answered)
      got = parent->last_reply;
    else
      answered(*parent, number, got); // should the wait itself come only now
    parent->waiter.reset();
  }
  after.replies.push_back({asked, got});
}

inline task_usage process_table::children_usage(task_id who) {
  held guard(lock_);
  process_record* record = find(who);
  return record == nullptr ? task_usage{} : record->children_used;
}

inline void process_table::set_child_policy(task_id who, bool reaps_itself, bool no_stop_news) {
  held guard(lock_);
  if (process_record* record = make(who)) {
    record->reaps_itself = reaps_itself;
    record->no_stop_news = no_stop_news;
  }
}

// --- groups and sessions ---------------------------------------------------------------------------------------------

inline process_table::place process_table::where_is(task_id task) {
  if (task == init_) return {init_, init_, task_id{}};
  held guard(lock_);
  if (process_record* record = find(task)) return {record->group, record->session, record->parent};
  if (!runs(task)) return {};
  return {init_, init_, home_parent(task)};
}

inline bool process_table::exists(task_id task) {
  held guard(lock_);
  return find(task) != nullptr || runs(task);
}

inline bool process_table::group_exists(task_id id) {
  held guard(lock_);
  return id == init_ || groups_.contains(id);
}

template <class F> void process_table::for_each_in_group(task_id id, F&& visit) {
  std::vector<task_id> members;
  {
    held guard(lock_);
    if (id == init_) {
      records_.for_each([&](task_id each, home_record& record) {
        if (!record.ended && !record.is_process) members.push_back(each);
      });
      for (const auto& [each, record] : all_)
        if (record->group == init_ && record->state != process_state::zombie) members.push_back(each);
    } else if (auto found = groups_.find(id); found != groups_.end()) {
      for (const process_record* each : found->second.members)
        if (each->state != process_state::zombie) members.push_back(each->id);
    }
  }
  for (task_id each : members) visit(each);
}

inline bool process_table::linked(task_id id, const process_record* without) {
  // Whether some member's parent is in another group of the session.
  auto found = groups_.find(id);
  if (found == groups_.end()) return false;
  for (const process_record* member : found->second.members) {
    if (member->state == process_state::zombie || member == without || member->parent == init_) continue;
    const process_record* parent = find(member->parent);
    if (parent != nullptr && parent != without && parent->state != process_state::zombie && parent->group != id &&
        parent->session == found->second.session)
      return true;
  }
  return false;
}

inline bool process_table::is_orphaned(task_id id) {
  held guard(lock_);
  return !linked(id, nullptr);
}

inline std::optional<int> process_table::served_before(const process_record& who, std::uint64_t number) {
  if (number > who.last_number) return std::nullopt;
  return who.last_reply.error; // when an older one: of a call that is over, so nobody listens
}

inline int process_table::set_group(task_id who, std::uint64_t number, task_id task, task_id id) {
  held guard(lock_);
  process_record* asker = make(who);
  if (asker == nullptr) return ESRCH;
  if (std::optional<int> before = served_before(*asker, number)) return *before;
  int error = [&] {
    if (!runs(task) || (task != who && home_parent(task) != who)) return ESRCH;
    process_record* target = make(task);
    if (target == nullptr) return ESRCH;
    if (target->session == task || target->session != asker->session) return EPERM;
    if (id != task && id != init_) {
      auto found = groups_.find(id);
      if (found == groups_.end() || found->second.session != asker->session) return EPERM;
    }
    if (id == init_ && asker->session != init_) return EPERM;
    if (target->group == id) return 0;
    leave_group(*target);
    join_group(*target, id, target->session);
    return 0;
  }();
  answered(*asker, number, {error, {}});
  return error;
}

inline int process_table::set_session(task_id who, std::uint64_t number) {
  held guard(lock_);
  process_record* asker = make(who);
  if (asker == nullptr) return ESRCH;
  if (std::optional<int> before = served_before(*asker, number)) return *before;
  int error = groups_.contains(who) ? EPERM : 0;
  if (error == 0) {
    leave_group(*asker);
    join_group(*asker, who, who);
  }
  answered(*asker, number, {error, {}});
  return error;
}

} // namespace migrate::detail
