// The way of a signal: from whoever sends it to the receiver's home, and from there to where the receiver is.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <migrate/home/office.hpp>
#include <migrate/home/request.hpp>
#include <migrate/home/signal_delivery.hpp>
#include <migrate/home/signal_record.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/rpc/send.hpp>

namespace migrate::detail {

class signal_office {
  // Home numbers a task's signals, keeps each until the task's node confirms it, and sends again what is unconfirmed
  // when the task has been claimed by another node, when the connection was lost and is there again, and, after a
  // while, when the node says that the task is not there. The receiver's node takes only the next number: so a signal
  // is taken once and in order, however often it was sent. What comes while the task is frozen is held, unconfirmed:
  // it is the task's if the task stays, and is dropped if the task leaves, since home sends it to the new place.

public:
  signal_office(home_office& home, peers& network, event_loop& loop) : home_(home), network_(network), loop_(loop) {}

  // At home, from any thread:
  int post(task_id to, const signal_info& what, task_id from = {}, std::uint64_t request = 0);
  // An errno; zero also when the task has ended and was not waited for. `request`: see signal_record::is_repeated().
  bool change_is_new(task_id task, std::uint64_t number);
  void send_again(task_id to) noexcept;

  bool forward(int number);
  // From outside, to the group in the foreground. False: there is none.
  task_id foreground() const noexcept { return task_id(foreground_.load()); }
  void set_foreground(task_id group) noexcept { foreground_.store(group.bits()); }

  // On the I/O thread:
  void on_signal(node_id from, protocol::Signal::Reader message, kj::ArrayPtr<const kj::byte> attachment);
  void on_signal_seen(node_id from, protocol::SignalSeen::Reader message);
  void on_node_back(node_id node);

  // By the transfer engine:
  void encapsulate(resident& task, byte_writer& out);
  void restore(resident& task, byte_reader& in);
  void restarted(resident& task);
  void go_on(resident& task);
  // The task stays, or has arrived: what was held is its own now.
  void forget(resident& task) noexcept;
  // The task has left or ended.

private:
  enum class arrival { accepted, held, gap, not_here };
  struct receipt {
    arrival how;
    std::uint64_t last; // confirmed up to here
    resident* wake;
  };

  receipt take_in(resident* task, task_id to, const signal_inbox::numbered& got);
  resident* transmit(home_record& record, task_id to, std::size_t first);
  void try_later(signal_record& mine, task_id to);
  void confirm(node_id home, task_id task, std::uint64_t upto, bool here);

  static constexpr std::chrono::milliseconds patience{2};
  // For a task that is not where home believes it: about to begin, or on the way back from a move that failed.

  home_office& home_;
  peers& network_;
  event_loop& loop_;
  std::atomic<std::uint64_t> foreground_{0}; // a group of this home's, or nothing
};
// Thread safety: any thread, inside a node_heap_scope where a task runs. Lock order: a home record's, then a
// resident's; neither is held while a task is woken.

inline constinit signal_office* this_signals = nullptr;

inline signal_office::receipt signal_office::take_in(resident* task, task_id to, const signal_inbox::numbered& got) {
  if (task == nullptr) return {arrival::not_here, 0, nullptr};
  held guard(task->lock);
  run_state state = task->state.load();
  if (task->id != to || state == run_state::none) return {arrival::not_here, 0, nullptr};
  if (task->signals == nullptr) task->signals = new signal_inbox;
  signal_inbox& box = *task->signals;
  if (state == run_state::frozen) {
    if (box.is_next(got.number)) box.held.push_back(got);
    return {arrival::held, 0, nullptr};
  }
  box.admit_held();
  box.adopt(got.number);
  if (got.number > box.last + 1) return {arrival::gap, 0, nullptr};
  if (got.number == box.last + 1) {
    box.add(got.info);
    box.last = got.number;
    raise_attention(*task);
  }
  return {arrival::accepted, box.last, task};
}

inline resident* signal_office::transmit(home_record& record, task_id to, std::size_t first) {
  // With the record's lock held. The caller wakes who is returned.
  signal_record& mine = *record.signals;
  if (record.place != home_.here()) {
    for (std::size_t i = first; i < mine.unseen.size(); ++i) {
      const signal_inbox::numbered& next = mine.unseen[i];
      iovec bytes{const_cast<signal_info*>(&next.info), sizeof next.info};
      send_message(
          network_, record.place,
          [&](protocol::Message::Builder message) {
            auto signal = message.initSignal();
            signal.setTask(to.bits());
            signal.setNumber(next.number);
          },
          std::span<const iovec>(&bytes, 1));
    }
    return nullptr;
  }
  resident* wake = nullptr;
  while (!mine.unseen.empty()) {
    receipt got = take_in(record.here, to, mine.unseen.front());
    if (got.how == arrival::not_here) try_later(mine, to);
    if (got.how != arrival::accepted) break;
    mine.seen(got.last);
    wake = got.wake;
  }
  if (!mine.unseen.empty() && record.here != nullptr) // the first is held: the others as well
    for (std::size_t i = 1; i < mine.unseen.size(); ++i) take_in(record.here, to, mine.unseen[i]);
  return wake;
}

inline int signal_office::post(task_id to, const signal_info& what, task_id from, std::uint64_t request) {
  home_record* record = home_.records().find(to);
  if (record == nullptr) return ESRCH;
  resident* wake = nullptr;
  bool known = false;
  {
    held guard(record->lock);
    known = home_records::holds(*record, to);
    if (known && (record->ended || what.number == 0)) return 0;
  }
  if (!known) return home_.processes().exists(to) ? 0 : ESRCH; // a zombie takes every signal
  {
    held guard(record->lock);
    if (!home_records::holds(*record, to) || record->ended) return 0;
    if (record->signals == nullptr) record->signals = std::make_unique<signal_record>();
    signal_record& mine = *record->signals;
    if (mine.is_repeated(from, request)) return 0;
    if (mine.unseen.size() >= signal_record::most_unseen) return EAGAIN;
    mine.unseen.push_back({++mine.last, what});
    wake = transmit(*record, to, mine.unseen.size() - 1);
  }
  if (wake != nullptr) this_scheduler->wake(*wake);
  return 0;
}

inline bool signal_office::forward(int number) {
  task_id group = foreground();
  if (!group) return false;
  std::vector<task_id> tasks;
  home_.processes().for_each_in_group(group, [&](task_id each) { tasks.push_back(each); });
  signal_info what;
  what.number = number;
  what.code = SI_KERNEL;
  bool sent = false;
  for (task_id each : tasks) sent |= post(each, what) == 0;
  return sent;
}

inline void signal_office::send_again(task_id to) noexcept {
  home_record* record = home_.records().find(to);
  if (record == nullptr) return;
  resident* wake = nullptr;
  {
    held guard(record->lock);
    if (!home_records::holds(*record, to) || record->ended || record->signals == nullptr) return;
    record->signals->trying_again = false;
    wake = transmit(*record, to, 0);
  }
  if (wake != nullptr) this_scheduler->wake(*wake);
}

inline void signal_office::try_later(signal_record& mine, task_id to) {
  if (std::exchange(mine.trying_again, true)) return;
  loop_.post([this, to] { loop_.after(patience, [this, to] { send_again(to); }); });
}

inline bool signal_office::change_is_new(task_id task, std::uint64_t number) {
  home_record* record = home_.records().find(task);
  if (record == nullptr) return false;
  held guard(record->lock);
  if (!home_records::holds(*record, task) || record->ended) return false;
  if (record->signals == nullptr) record->signals = std::make_unique<signal_record>();
  if (number <= record->signals->last_change) return false;
  record->signals->last_change = number;
  return true;
}

inline void signal_office::confirm(node_id home, task_id task, std::uint64_t upto, bool here) {
  send_message(network_, home, [&](protocol::Message::Builder message) {
    auto seen = message.initSignalSeen();
    seen.setTask(task.bits());
    seen.setNumber(upto);
    seen.setHere(here);
  });
}

inline void signal_office::on_signal(node_id from, protocol::Signal::Reader message,
                                     kj::ArrayPtr<const kj::byte> attachment) {
  task_id to(message.getTask());
  signal_inbox::numbered got{message.getNumber(), {}};
  if (from != to.home() || attachment.size() != sizeof got.info) return;
  std::memcpy(&got.info, attachment.begin(), sizeof got.info);
  if (!is_signal(got.info.number)) return;
  receipt how = take_in(home_.find_here(to), to, got);
  if (how.wake != nullptr) this_scheduler->wake(*how.wake);
  if (how.how == arrival::accepted || how.how == arrival::not_here)
    confirm(from, to, how.last, how.how == arrival::accepted);
}

inline void signal_office::on_signal_seen(node_id from, protocol::SignalSeen::Reader message) {
  task_id task(message.getTask());
  home_record* record = home_.records().find(task);
  if (record == nullptr) return;
  held guard(record->lock);
  if (!home_records::holds(*record, task) || record->ended || record->signals == nullptr) return;
  signal_record& mine = *record->signals;
  if (message.getHere())
    mine.seen(message.getNumber());
  else if (from == record->place && !mine.unseen.empty())
    try_later(mine, task);
}

inline void signal_office::on_node_back(node_id node) {
  std::vector<task_id> tasks;
  home_.records().for_each([&](task_id id, home_record& record) {
    if (record.signals != nullptr && !record.signals->unseen.empty() && record.place == node) tasks.push_back(id);
  });
  for (task_id id : tasks) send_again(id);
}

// --- moves

inline void signal_office::encapsulate(resident& task, byte_writer& out) {
  held guard(task.lock);
  out.put(task.signals != nullptr);
  if (task.signals != nullptr) task.signals->encode(out);
}

inline void signal_office::restore(resident& task, byte_reader& in) {
  bool looks = own_timers(*task.control) != nullptr; // this node's clock is to be set for them
  held guard(task.lock);
  if (in.get<bool>()) {
    if (task.signals == nullptr) task.signals = new signal_inbox;
    task.signals->decode(in);
    task.signals->held.clear(); // sent before the task was claimed for this node: home sends them again
    looks |= task.signals->waiting != 0;
  }
  if (looks) raise_attention(task);
}

inline void signal_office::restarted(resident& task) {
  held guard(task.lock);
  if (task.signals == nullptr) task.signals = new signal_inbox;
  task.signals->any_next = true;
}

inline void signal_office::go_on(resident& task) {
  task_id id;
  std::uint64_t upto = 0;
  {
    held guard(task.lock);
    run_state state = task.state.load();
    if (state == run_state::frozen || state == run_state::none || task.signals == nullptr) return;
    signal_inbox& box = *task.signals;
    id = task.id;
    box.wakes_at = 0; // it may have passed while the task was frozen
    raise_attention(task);
    if (!box.held.empty()) {
      box.admit_held();
      upto = box.last;
    }
  }
  this_scheduler->wake(task);
  if (upto == 0) return;
  if (id.home() != home_.here()) {
    confirm(id.home(), id, upto, true);
    return;
  }
  if (home_record* record = home_.records().find(id)) {
    held guard(record->lock);
    if (home_records::holds(*record, id) && record->signals != nullptr) record->signals->seen(upto);
  }
}

inline void signal_office::forget(resident& task) noexcept {
  signal_inbox* box = nullptr;
  {
    held guard(task.lock);
    box = std::exchange(task.signals, nullptr);
    lower_attention(task);
    task.state.store(run_state::none); // signals that still come find nobody
  }
  if (box == nullptr) return; // nor has it timers
  the_signals->forget_wake(task);
  delete box;
}

// ---------------------------------------------------------------------------------------------------

namespace signals {

enum class operation : std::uint8_t { send, change, foreground, set_foreground };

inline constexpr std::int64_t everybody = -1;

inline int post_to_all(const std::vector<task_id>& tasks, const signal_info& what, task_id from, std::uint64_t number) {
  int result = ESRCH;
  for (task_id each : tasks)
    if (this_signals->post(each, what, from, number) == 0) result = 0;
  return result;
}

inline int post_to(std::int64_t to, const signal_info& what, task_id from, std::uint64_t number) {
  // As kill(2), of this home's tasks.
  if (to > 0) return this_signals->post(task_id(static_cast<std::uint64_t>(to)), what, from, number);
  process_table& processes = this_home->processes();
  std::vector<task_id> tasks;
  if (to == everybody) {
    this_home->records().for_each([&](task_id each, home_record& record) {
      if (!record.ended && each != from) tasks.push_back(each);
    });
    return post_to_all(tasks, what, from, number);
  }
  task_id group = to == 0 ? processes.where_is(from).group : task_id(static_cast<std::uint64_t>(-to));
  if (!group || !processes.group_exists(group)) return ESRCH;
  processes.for_each_in_group(group, [&](task_id each) { tasks.push_back(each); });
  return tasks.empty() ? 0 : post_to_all(tasks, what, from, number); // a group of zombies is there
}

inline bool may_stop(task_id task, int signal) {
  // POSIX: nobody of its session could continue a task of an orphaned group, so that a terminal's stop does not stop
  // it. A home's first group is looked after by whoever started the cluster.
  task_id group = this_home->processes().where_is(task).group;
  return signal == SIGSTOP || group == init_task(task.home()) || !this_home->processes().is_orphaned(group);
}

inline void serve(const request& asked, byte_reader& in) {
  answer made;
  auto what = in.get<operation>();
  auto number = in.get<std::uint64_t>();
  if (what == operation::send) {
    auto to = in.get<std::int64_t>();
    auto info = in.get<signal_info>();
    if (info.number != 0 && !is_signal(info.number)) throw error(errc::protocol, "there is no such signal");
    made.first = static_cast<std::uint64_t>(post_to(to, info, asked.task, number));
  } else if (what == operation::foreground) {
    made.first = this_signals->foreground().bits();
  } else if (what == operation::set_foreground) {
    auto group = in.get<task_id>();
    process_table& processes = this_home->processes();
    bool there = processes.group_exists(group);
    if (there && processes.where_is(group).session == processes.where_is(asked.task).session)
      this_signals->set_foreground(group);
    else
      made.first = there ? EPERM : ESRCH;
  } else {
    auto change = in.get<signal_change>();
    int signal = in.get<std::int32_t>();
    made.first = change == signal_change::continued || may_stop(asked.task, signal);
    if (made.first != 0 && this_signals->change_is_new(asked.task, number))
      this_home->processes().set_state(
          asked.task, change == signal_change::stopped ? process_state::stopped : process_state::running, signal);
  }
  reply(asked, std::move(made));
}
// The home's side of service::signal.

inline void post_from_home(task_id to, int signal, const child_event* about) {
  signal_info what;
  what.number = signal;
  what.code = SI_KERNEL;
  if (about != nullptr) {
    what.code = about->code;
    what.sender = about->child;
    what.status = about->status;
  }
  this_signals->post(to, what);
}

inline int send_by(node_id home, std::int64_t to, const signal_info& what, std::uint64_t number) {
  for (;;) {
    called made = ask_home(home, service::signal, [&](byte_writer& out) {
      out.put(operation::send);
      out.put(number);
      out.put(to);
      out.put(what);
    });
    if (made.how == waited::moved) continue;
    if (made.got.code == errc::ok) return static_cast<int>(made.got.first);
    return made.got.code == errc::protocol ? EINVAL : EHOSTUNREACH;
  }
}

inline int send(std::int64_t to, const signal_info& what) {
  resident* me = current_task();
  std::uint64_t number = me == nullptr ? 0 : next_request();
  if (to == everybody) {
    std::array<node_id, 256> all;
    std::size_t count = std::min(the_services->nodes(all.data(), all.size()), all.size());
    int result = ESRCH;
    for (std::size_t i = 0; i < count; ++i)
      if (send_by(all[i], to, what, number) == 0) result = 0;
    return result;
  }
  if (to == 0 && me == nullptr) return ESRCH;
  node_id home = to == 0 ? me->id.home() : task_id(static_cast<std::uint64_t>(to > 0 ? to : -to)).home();
  return home == no_node ? ESRCH : send_by(home, to, what, number);
}

inline std::optional<std::uint64_t> ask_own_home(operation what, task_id group) {
  for (;;) {
    called made = ask_home(self().id.home(), service::signal, [&](byte_writer& out) {
      out.put(what);
      out.put(std::uint64_t{0}); // asking twice does no harm
      out.put(group);
    });
    if (made.how == waited::moved) continue;
    if (made.got.code != errc::ok) return std::nullopt;
    return made.got.first;
  }
}

inline int foreground_group(task_id& group) {
  std::optional<std::uint64_t> got = ask_own_home(operation::foreground, {});
  if (got) group = task_id(*got);
  return got ? 0 : EHOSTUNREACH;
}

inline int set_foreground_group(task_id group) {
  return static_cast<int>(ask_own_home(operation::set_foreground, group).value_or(EHOSTUNREACH));
}

inline bool tell_change(signal_change what, int signal) {
  std::uint64_t number = next_request();
  for (;;) {
    called made = ask_home(self().id.home(), service::signal, [&](byte_writer& out) {
      out.put(operation::change);
      out.put(number);
      out.put(what);
      out.put(static_cast<std::int32_t>(signal));
    });
    if (made.how == waited::moved) continue;
    return made.got.code != errc::ok || made.got.first != 0;
  }
}

} // namespace signals
} // namespace migrate::detail
