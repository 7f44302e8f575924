// Delivering messages between tasks, exactly once and in order for each sender while either end moves.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <migrate/file/inbox.hpp>
#include <migrate/home/office.hpp>
#include <migrate/rpc/send.hpp>
#include <migrate/task/wait.hpp>

namespace migrate::detail {

class post_office {
  // A message to a task on the same node goes straight into its inbox. One to a task elsewhere is
  // numbered and kept by the sender until the receiver's node confirms it; whatever happens to either
  // end, the sender's side sends again from the last confirmed one (go-back-N), and the receiver takes
  // only the number that it expects. Both counters move with their tasks. Places are cached and
  // corrected by who answers "not here"; the receiver's home knows better.

public:
  post_office(home_office& home, peers& network) : home_(home), network_(network) {}

  // By the running task:
  enum class sent { done, full, away, gone };
  sent send_here(resident& from, task_id to, std::uint64_t key, const void* data, std::size_t bytes);
  bool send_away(resident& from, task_id to, std::uint64_t key, const void* data, std::size_t bytes);
  // False when too much is under way already; the task is woken when that changes.
  errc take_failure(resident& from, task_id to) noexcept;
  void stop_waiting(resident& from, task_id to, std::uint64_t key);
  // It has given up sending: what room it waited for is another's.
  bool settled(resident& task, std::size_t most) noexcept;
  // Whether at most that much of what it sent is unconfirmed; if not, the task is woken as it falls.
  letter* take(resident& task, std::uint64_t key) noexcept;
  letter* take_or_await(resident& task, std::uint64_t key) noexcept;
  void set_capacity(resident& task, std::uint64_t key, std::uint32_t capacity);
  std::size_t waiting(resident& task, std::uint64_t key) noexcept;

  // On the I/O thread:
  void on_mail(node_id from, protocol::Mail::Reader message, kj::ArrayPtr<const kj::byte> attachment);
  void on_mail_seen(node_id from, protocol::MailSeen::Reader message);
  void on_mail_again(node_id from, protocol::MailRoute::Reader message);
  void on_node_lost(node_id node, bool for_ever);
  void on_node_back(node_id node);

  // By the transfer engine, with the task frozen:
  void encapsulate(resident& task, byte_writer& out);
  void restore(resident& task, byte_reader& in);
  void restarted(resident& task, std::uint64_t from);
  void go_on(resident& task);
  // The task stays, or has arrived: mail that was held can come.
  void forget(resident& task) noexcept;
  // The task has left or ended.

private:
  enum class verdict { accepted, not_here, held, full, out_of_order };
  struct delivery {
    verdict how;
    std::uint64_t sequence; // the one expected, when out of order
  };

  delivery deliver(task_id to, letter* mail, bool numbered, const mail_waiter& sender, std::uint64_t oldest = 0);
  void transmit(task_id from, task_id to);
  [[nodiscard]] bool seen(task_id from, task_id to, node_id by, verdict how, std::uint64_t sequence,
                          node_id place);
  // True: there is more to transmit.
  bool tell_again(task_id to, const mail_waiter& who);
  // False when the sender waits there no more: it has moved, and sends again from where it is.
  void tell_of_room(resident& receiver, task_id to, std::uint64_t key);
  static inbox& box_of(resident& task); // with its lock held
  static inbox* look_into(resident& running) noexcept {
    // Null when there is none yet. For the task itself, which needs no lock to know that it has sent nothing.
    return std::atomic_ref(running.mail).load(std::memory_order_acquire);
  }
  static bool must_queue(inbox& box, resident& from, task_id to);
  // Behind what it has sent there while it was away.
  static bool put_in_hand(resident& receiver, task_id to, letter* mail) noexcept;
  sent put_in_box(resident& from, task_id to, letter* mail);
  static void put_back(resident& task) noexcept;

  static constexpr std::uint64_t again = ~std::uint64_t{0}; // no sequence: the receiver can take mail again
  static constexpr std::size_t window_bytes = std::size_t{4} << 20;

  home_office& home_;
  peers& network_;
};
// Thread safety: any thread, inside a node_heap_scope where a task runs. Never holds two residents'
// locks, nor one while it wakes a task on another.

inline constinit post_office* this_post = nullptr;

inline inbox& post_office::box_of(resident& task) {
  if (task.mail == nullptr) {
    node_heap_scope scope;
    std::atomic_ref(task.mail).store(new inbox, std::memory_order_release);
  }
  return *task.mail;
}

inline void post_office::put_back(resident& task) noexcept {
  // Under its lock. What the task was given and has not taken is the oldest of its lane.
  if (letter* untaken = task.in_hand.load(std::memory_order_relaxed)) {
    task.in_hand.store(nullptr, std::memory_order_relaxed);
    box_of(task).lane(untaken->key).put_back(untaken);
    task.anything_in.store(true, std::memory_order_relaxed);
  }
}

inline bool post_office::put_in_hand(resident& receiver, task_id to, letter* mail) noexcept {
  // Without the lock: whoever ends a park owns the task until it is queued.
  if (receiver.state.load(std::memory_order_relaxed) != run_state::parked ||
      receiver.awaits.load(std::memory_order_relaxed) != mail->key || !this_scheduler->unpark(receiver))
    return false;
  bool right = receiver.id == to && receiver.awaits.load(std::memory_order_relaxed) == mail->key;
  if (right) receiver.in_hand.store(mail, std::memory_order_relaxed);
  this_scheduler->start_unparked(receiver); // when another task's, for nothing
  return right;
}

inline post_office::delivery post_office::deliver(task_id to, letter* mail, bool numbered,
                                                  const mail_waiter& sender, std::uint64_t oldest) {
  // Takes the letter over only if it is accepted as new; an old one is discarded.
  resident* receiver = home_.look_here(to);
  if (receiver == nullptr) return {verdict::not_here, 0};
  bool wake = false;
  {
    held guard(receiver->lock);
    run_state state = receiver->state.load();
    if (receiver->id != to || state == run_state::none) return {verdict::not_here, 0};
    inbox& box = box_of(*receiver);
    std::uint64_t* expected = nullptr;
    if (numbered) {
      expected = &box.expected[mail->from];
      *expected = std::max(*expected, oldest); // larger only when one of the two was restarted
      if (mail->sequence < *expected) {
        letter_stock::discard(mail);
        return {verdict::accepted, 0};
      }
    }
    if (state == run_state::frozen) {
      box.held.add(sender);
      return {verdict::held, 0};
    }
    if (numbered && mail->sequence > *expected) return {verdict::out_of_order, *expected};
    mail_lane& lane = box.lane(mail->key);
    if (lane.count >= lane.capacity) {
      lane.blocked.add(sender);
      return {verdict::full, 0};
    }
    if (expected != nullptr) ++*expected;
    wake = lane.count == 0; // only then may the receiver wait for it
    lane.push(mail);
    receiver->anything_in.store(true, std::memory_order_relaxed);
    if (!lane.blocked.empty()) lane.blocked.remove(sender); // at other places it has yet to hear of it
  }
  if (wake) this_scheduler->wake(*receiver);
  return {verdict::accepted, 0};
}

[[gnu::noinline]] inline bool post_office::must_queue(inbox& box, resident& from, task_id to) {
  held guard(from.lock);
  mail_channel* channel = box.find_channel(to);
  return channel != nullptr && !channel->unseen.empty();
}

[[gnu::always_inline]] inline post_office::sent
post_office::send_here(resident& from, task_id to, std::uint64_t key, const void* data, std::size_t bytes) {
  inbox* box = look_into(from);
  if (box != nullptr && box->unseen.load(std::memory_order_relaxed) > 0 && must_queue(*box, from, to))
    return sent::away;
  letter* mail = letter_stock::make(from.id, key, 0, data, bytes);
  if (resident* receiver = home_.look_here(to); receiver != nullptr && put_in_hand(*receiver, to, mail)) {
    if (auto note = note_message.load(std::memory_order_relaxed)) [[unlikely]]
      note(from.id, to, home_.here());
    return sent::done;
  }
  return put_in_box(from, to, mail);
}

[[gnu::noinline]] inline post_office::sent post_office::put_in_box(resident& from, task_id to, letter* mail) {
  delivery how = deliver(to, mail, false, {from.id, &from, no_node});
  if (how.how == verdict::accepted) {
    if (auto note = note_message.load(std::memory_order_relaxed)) [[unlikely]]
      note(from.id, to, home_.here());
    return sent::done;
  }
  letter_stock::discard(mail);
  if (how.how == verdict::full || how.how == verdict::held) return sent::full;
  if (to.home() == home_.here() && home_.locate(to) == no_node) return sent::gone;
  return sent::away;
}

inline bool post_office::send_away(resident& from, task_id to, std::uint64_t key, const void* data,
                                   std::size_t bytes) {
  node_id place = no_node;
  {
    held guard(from.lock);
    inbox& box = box_of(from);
    mail_channel& channel = box.channel(to);
    place = channel.place;
    if (channel.unseen.size() >= mail_channel::most_under_way || channel.bytes >= window_bytes) {
      box.settling = true;
      return false;
    }
    channel.unseen.push_back(letter_stock::make(from.id, key, channel.next_sequence++, data, bytes));
    channel.bytes += bytes;
    ++box.unseen;
  }
  if (auto note = note_message.load(std::memory_order_relaxed); note != nullptr && place != no_node)
    note(from.id, to, place);
  transmit(from.id, to);
  return true;
}

inline errc post_office::take_failure(resident& from, task_id to) noexcept {
  inbox* box = look_into(from);
  if (box == nullptr) return errc::ok;
  held guard(from.lock);
  mail_channel* channel = box->find_channel(to);
  return channel == nullptr ? errc::ok : channel->failed;
}

inline bool post_office::settled(resident& task, std::size_t most) noexcept {
  inbox* box = look_into(task);
  if (box == nullptr) return true;
  held guard(task.lock);
  if (box->unseen <= most) return true;
  box->settling = true;
  return false;
}

[[gnu::always_inline]] inline letter* post_office::take_or_await(resident& task, std::uint64_t key) noexcept {
  letter* got = task.in_hand.load(std::memory_order_relaxed);
  if (got != nullptr && got->key == key) {
    task.in_hand.store(nullptr, std::memory_order_relaxed);
    task.awaits.store(0, std::memory_order_relaxed);
    return got;
  }
  if (got == nullptr && !task.anything_in.load(std::memory_order_relaxed)) {
    task.awaits.store(key, std::memory_order_relaxed); // the scheduler looks once more when it has parked
    return nullptr;
  }
  return take(task, key);
}

[[gnu::noinline]] inline letter* post_office::take(resident& task, std::uint64_t key) noexcept {
  letter* got = nullptr;
  bool room = false;
  {
    held guard(task.lock);
    put_back(task);
    mail_lane* lane = task.mail == nullptr ? nullptr : task.mail->find_lane(key);
    task.awaits.store(0, std::memory_order_relaxed);
    if (lane == nullptr) return nullptr;
    got = lane->pop();
    room = got != nullptr && !lane->blocked.empty();
    if (lane->count == 0 && !task.mail->anything_in_lanes())
      task.anything_in.store(false, std::memory_order_relaxed);
  }
  if (room) {
    node_heap_scope scope;
    tell_of_room(task, task.id, key);
  }
  return got;
}

inline void post_office::tell_of_room(resident& receiver, task_id to, std::uint64_t key) {
  for (bool told = false; !told;) {
    std::vector<mail_waiter> next;
    {
      held guard(receiver.lock);
      mail_lane* lane = receiver.id != to || receiver.mail == nullptr ? nullptr : receiver.mail->find_lane(key);
      if (lane == nullptr || lane->blocked.empty() || lane->count >= lane->capacity) return;
      next = lane->blocked.pop();
    }
    for (const mail_waiter& each : next) told |= tell_again(to, each);
  }
}


inline void post_office::stop_waiting(resident& from, task_id to, std::uint64_t key) {
  resident* receiver = home_.find_here(to);
  if (receiver == nullptr) return;
  {
    held guard(receiver->lock);
    if (receiver->id != to || receiver->mail == nullptr) return;
    const mail_waiter parked{from.id, &from, no_node}; // not its letters that are under way
    receiver->mail->held.remove(parked);
    mail_lane* lane = receiver->mail->find_lane(key);
    if (lane == nullptr || lane->blocked.remove(parked)) return;
  }
  tell_of_room(*receiver, to, key); // it was told, and makes no use of it
}

inline void post_office::set_capacity(resident& task, std::uint64_t key, std::uint32_t capacity) {
  std::vector<mail_waiter> all;
  {
    held guard(task.lock);
    mail_lane& lane = box_of(task).lane(key);
    lane.capacity = std::max<std::uint32_t>(capacity, 1);
    all = std::exchange(lane.blocked.waiters, {});
  }
  for (const mail_waiter& each : all) tell_again(task.id, each);
}

inline std::size_t post_office::waiting(resident& task, std::uint64_t key) noexcept {
  held guard(task.lock);
  mail_lane* lane = task.mail == nullptr ? nullptr : task.mail->find_lane(key);
  return lane == nullptr ? 0 : lane->count;
}

inline bool post_office::tell_again(task_id to, const mail_waiter& who) {
  if (who.local != nullptr) {
    if (who.local->id != who.from) return false;
    this_scheduler->wake(*who.local);
  } else if (who.node == home_.here()) {
    if (seen(who.from, to, home_.here(), verdict::accepted, again, no_node)) transmit(who.from, to);
  } else {
    send_message(network_, who.node, [&](protocol::Message::Builder message) {
      auto route = message.initMailAgain();
      route.setFrom(who.from.bits());
      route.setTo(to.bits());
    });
  }
  return true;
}

inline void post_office::transmit(task_id from, task_id to) {
  // Sends what is not under way yet. The sender's lock orders concurrent calls for one sender; mail for a
  // receiver on this node is handed over letter by letter outside it.
  for (;;) {
    resident* sender = home_.find_here(from);
    if (sender == nullptr) return;
    letter* mine = nullptr;
    {
      held guard(sender->lock);
      if (sender->id != from || sender->mail == nullptr) return;
      mail_channel* channel = sender->mail->find_channel(to);
      if (channel == nullptr || channel->on_hold) return;
      if (channel->place == no_node) channel->place = to.home();
      if (channel->place != home_.here()) {
        for (; channel->more(); ++channel->under_way) {
          letter* next = channel->unseen[channel->under_way];
          iovec bytes{next->bytes(), next->size};
          send_message(
              network_, channel->place,
              [&](protocol::Message::Builder message) {
                auto mail = message.initMail();
                mail.setFrom(from.bits());
                mail.setTo(to.bits());
                mail.setSequence(next->sequence);
                mail.setKey(next->key);
                mail.setOldest(channel->unseen.front()->sequence);
              },
              std::span<const iovec>(&bytes, next->size > 0 ? 1 : 0));
        }
        return;
      }
      if (channel->unseen.empty() || channel->under_way > 0) return; // another thread is handing over
      letter* next = channel->unseen.front();
      channel->under_way = 1;
      mine = letter_stock::make(next->from, next->key, next->sequence, next->bytes(), next->size);
    }
    std::uint64_t sequence = mine->sequence;
    delivery how = deliver(to, mine, true, {from, nullptr, home_.here()}, sequence);
    if (how.how != verdict::accepted) letter_stock::discard(mine);
    node_id place = how.how == verdict::not_here ? home_.locate(to) : no_node;
    if (!seen(from, to, home_.here(), how.how, how.how == verdict::out_of_order ? how.sequence : sequence,
              place))
      return;
  }
}

inline bool post_office::seen(task_id from, task_id to, node_id by, verdict how, std::uint64_t sequence,
                              node_id place) {
  resident* sender = home_.find_here(from);
  if (sender == nullptr) return false; // it has moved, and sends again from where it is
  bool wake = false;
  bool more = false;
  {
    held guard(sender->lock);
    if (sender->id != from || sender->mail == nullptr) return false;
    inbox& box = *sender->mail;
    mail_channel* channel = box.find_channel(to);
    if (channel == nullptr) return false;
    auto confirm_below = [&](std::uint64_t end) {
      while (!channel->unseen.empty() && channel->unseen.front()->sequence < end) {
        channel->bytes -= channel->unseen.front()->size;
        letter_stock::discard(channel->unseen.front());
        channel->unseen.pop_front();
        if (channel->under_way > 0) --channel->under_way;
        --box.unseen;
      }
    };
    // An answer to any but the oldest letter, or from where the channel does not lead any more, is out of date.
    bool of_oldest = by == channel->place && !channel->unseen.empty() && channel->unseen.front()->sequence == sequence;
    switch (how) {
    case verdict::accepted:
      if (sequence == again) {
        if (!channel->on_hold) {
          channel->early = by == channel->place;
          return false;
        }
        channel->under_way = 0;
        channel->on_hold = false;
      } else {
        std::size_t before = channel->unseen.size();
        confirm_below(sequence + 1);
        if (channel->unseen.size() == before) return false;
        channel->on_hold = false;
        channel->window = std::min(channel->window + before - channel->unseen.size(), mail_channel::most_under_way);
      }
      break;
    case verdict::out_of_order:
      if (by != channel->place) return false;
      confirm_below(sequence);
      if (channel->on_hold) break;
      if (channel->under_way > 0 && channel->resent_from == sequence) return false; // on their way again
      channel->resent_from = sequence;
      channel->under_way = 0;
      break;
    case verdict::held:
    case verdict::full:
      if (!of_oldest) return false;
      if (how == verdict::full) channel->window = std::max<std::size_t>(channel->window / 2, 2);
      channel->on_hold = !std::exchange(channel->early, false);
      channel->under_way = 0;
      if (channel->on_hold) return false;
      break;
    case verdict::not_here:
      if (!of_oldest) return false;
      channel->under_way = 0;
      channel->on_hold = false;
      channel->early = false;
      channel->place = place;
      if (by == to.home() && place == no_node) { // it has ended: nothing will ever take these
        channel->failed = errc::no_such_task;
        confirm_below(~std::uint64_t{0});
      }
      break;
    }
    wake = std::exchange(box.settling, false);
    more = !channel->on_hold && channel->more();
  }
  if (wake) this_scheduler->wake(*sender);
  return more;
}

inline void post_office::on_mail(node_id from, protocol::Mail::Reader message,
                                 kj::ArrayPtr<const kj::byte> attachment) {
  task_id sender(message.getFrom());
  task_id to(message.getTo());
  std::uint64_t sequence = message.getSequence();
  letter* mail =
      letter_stock::make(sender, message.getKey(), sequence, attachment.begin(), attachment.size());
  delivery how = deliver(to, mail, true, {sender, nullptr, from}, std::min(message.getOldest(), sequence));
  if (how.how != verdict::accepted)
    letter_stock::discard(mail);
  else if (auto note = note_message.load(std::memory_order_relaxed))
    note(sender, to, from);
  send_message(network_, from, [&](protocol::Message::Builder reply) {
    auto seen = reply.initMailSeen();
    seen.setFrom(sender.bits());
    seen.setTo(to.bits());
    seen.setSequence(how.how == verdict::out_of_order ? how.sequence : sequence);
    static constexpr protocol::MailStatus status[] = {
        protocol::MailStatus::ACCEPTED, protocol::MailStatus::NOT_HERE, protocol::MailStatus::HELD,
        protocol::MailStatus::FULL, protocol::MailStatus::OUT_OF_ORDER};
    seen.setStatus(status[static_cast<std::size_t>(how.how)]);
    if (how.how == verdict::not_here) seen.setPlace(number(home_.locate(to)));
  });
}

inline void post_office::on_mail_seen(node_id from, protocol::MailSeen::Reader message) {
  verdict how = verdict::accepted;
  switch (message.getStatus()) {
  case protocol::MailStatus::ACCEPTED: how = verdict::accepted; break;
  case protocol::MailStatus::NOT_HERE: how = verdict::not_here; break;
  case protocol::MailStatus::HELD: how = verdict::held; break;
  case protocol::MailStatus::FULL: how = verdict::full; break;
  case protocol::MailStatus::OUT_OF_ORDER: how = verdict::out_of_order; break;
  }
  task_id sender(message.getFrom());
  task_id to(message.getTo());
  if (seen(sender, to, from, how, message.getSequence(), node_id(message.getPlace()))) transmit(sender, to);
}

inline void post_office::on_mail_again(node_id from, protocol::MailRoute::Reader message) {
  task_id sender(message.getFrom());
  task_id to(message.getTo());
  if (seen(sender, to, from, verdict::accepted, again, no_node)) transmit(sender, to);
}

inline void post_office::on_node_lost(node_id node, bool for_ever) {
  std::vector<std::pair<task_id, task_id>> routes;
  home_.residents().for_each([&](resident& task) {
    held guard(task.lock);
    if (task.mail == nullptr) return;
    bool wake = false;
    for (auto& channel : task.mail->channels) {
      bool asks_home = channel->place == no_node && channel->to.home() == node;
      if (channel->place != node && !asks_home) continue;
      channel->under_way = 0;
      channel->on_hold = false;
      channel->early = false;
      if (for_ever && channel->to.home() == node) {
        channel->failed = errc::home_unreachable;
        for (letter* lost : channel->unseen) letter_stock::discard(lost);
        task.mail->unseen -= channel->unseen.size();
        channel->unseen.clear();
        channel->bytes = 0;
        wake = true;
      } else {
        channel->place = no_node;
        if (!channel->unseen.empty() && channel->to.home() != node)
          routes.emplace_back(task.id, channel->to);
        else if (!channel->unseen.empty())
          channel->on_hold = true; // on_node_back() ends it, or the loss for ever
      }
    }
    if (wake) this_scheduler->wake(task);
  });
  for (const auto& [from, to] : routes) transmit(from, to);
}

inline void post_office::on_node_back(node_id node) {
  std::vector<std::pair<task_id, task_id>> routes;
  home_.residents().for_each([&](resident& task) {
    held guard(task.lock);
    if (task.mail == nullptr) return;
    for (auto& channel : task.mail->channels)
      if (!channel->unseen.empty() && (channel->place == node || channel->to.home() == node)) {
        channel->on_hold = false;
        channel->under_way = 0;
        routes.emplace_back(task.id, channel->to);
      }
  });
  for (const auto& [from, to] : routes) transmit(from, to);
}

inline void post_office::encapsulate(resident& task, byte_writer& out) {
  held guard(task.lock);
  put_back(task);
  out.put(task.mail != nullptr);
  if (task.mail != nullptr) task.mail->encode(out);
}

inline void post_office::restore(resident& task, byte_reader& in) {
  held guard(task.lock);
  if (!in.get<bool>()) return;
  box_of(task).decode(task.id, in);
  task.anything_in.store(true, std::memory_order_relaxed);
}

inline void post_office::restarted(resident& task, std::uint64_t from) {
  held guard(task.lock);
  box_of(task).number_from(from);
}

inline void post_office::go_on(resident& task) {
  std::vector<mail_waiter> held_back;
  std::vector<task_id> routes;
  task_id id;
  {
    held guard(task.lock);
    id = task.id;
    if (task.mail == nullptr) return;
    held_back = std::exchange(task.mail->held.waiters, {});
    for (auto& channel : task.mail->channels)
      if (!channel->unseen.empty() && channel->under_way == 0) routes.push_back(channel->to);
  }
  for (const mail_waiter& each : held_back) tell_again(id, each);
  for (task_id to : routes) transmit(id, to);
}

inline void post_office::forget(resident& task) noexcept {
  inbox* box = nullptr;
  task_id id;
  {
    held guard(task.lock);
    put_back(task);
    box = std::exchange(task.mail, nullptr);
    id = task.id;
    task.state.store(run_state::none); // mail that still comes finds nobody
  }
  if (box == nullptr) return;
  for (const mail_waiter& each : box->held.waiters) tell_again(id, each);
  for (auto& lane : box->lanes)
    for (const mail_waiter& each : lane->blocked.waiters) tell_again(id, each);
  delete box;
}

// ---------------------------------------------------------------------------------------------------

namespace mail {

[[gnu::noinline]] inline errc send_again(post_office::sent how, task_id to, std::uint64_t key,
                                         const void* data, std::size_t bytes, const steady_point* deadline) {
  for (;; how = this_post->send_here(*current_task(), to, key, data, bytes)) {
    resident& me = *current_task();
    if (how == post_office::sent::done) return errc::ok;
    if (how == post_office::sent::gone) return errc::no_such_task;
    if (how == post_office::sent::away) {
      node_heap_scope scope;
      errc failed = this_post->take_failure(me, to);
      if (failed != errc::ok) return failed;
      if (this_post->send_away(me, to, key, data, bytes)) return errc::ok;
    }
    if (deadline == nullptr)
      park();
    else if (!park_until(*deadline)) {
      {
        node_heap_scope scope;
        this_post->stop_waiting(*current_task(), to, key);
      }
      return errc::timed_out;
    }
    safe_point();
  }
}

inline errc send(task_id to, std::uint64_t key, const void* data, std::size_t bytes,
                 const steady_point* deadline) {
  post_office::sent how = this_post->send_here(*current_task(), to, key, data, bytes);
  return how == post_office::sent::done ? errc::ok : send_again(how, to, key, data, bytes, deadline);
}

inline letter* take(std::uint64_t key) noexcept { return this_post->take(*current_task(), key); }

inline letter* take_or_await(std::uint64_t key) noexcept {
  return this_post->take_or_await(*current_task(), key);
}

inline void set_capacity(std::uint64_t key, std::uint32_t capacity) {
  node_heap_scope scope;
  this_post->set_capacity(*current_task(), key, capacity);
}

inline std::size_t waiting(std::uint64_t key) noexcept { return this_post->waiting(self(), key); }

inline void settle() noexcept {
  for (;;) {
    bool done = false;
    {
      node_heap_scope scope;
      done = this_post->settled(*current_task(), 0);
    }
    if (done) return;
    park();
    safe_point();
  }
}

inline constexpr mail_services services{send,         take,   take_or_await, letter_stock::discard,
                                        set_capacity, waiting};

} // namespace mail
} // namespace migrate::detail
