// The ledger of grants: which application has which slot of which host, and who gets the next. Pure logic: no input or
// output, no threads, and the time is passed in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <migrate/cluster/ledger_events.hpp>
#include <migrate/cluster/ledger_records.hpp>
#include <migrate/cluster/ledger_terms.hpp>
#include <migrate/cluster/ordered_heap.hpp>

namespace migrate::detail {

class grant_ledger {
  // Thread safety: none. Each call takes time logarithmic in the numbers of hosts and applications for each decision that it
  // leads to; the hosts and slots of one machine count as a constant.
  //
  // Who gets what. Waiting applications take turns: a higher priority first, then who asked or was served earlier; but
  // whoever has at least two fewer goes before, and whoever has waited with nothing for a minute before all. One
  // that is served gets a slot of a host that it has already, else of the one that has been idle longest, and
  // never of its own. With no slot free, one that is not long-running shares the slot of one that is. Else fair share takes a
  // grant from the application with the most for the one with the fewest, if that is at least two more, and then leaves the
  // robbed one alone for a while; never below what that one wants at least. Who wants several at once waits until
  // so many are free, and is not waited for.

public:
  explicit grant_ledger(std::uint64_t first_grant = 1, const ledger_limits& limits = {})
      : limits_(limits), next_grant_(first_grant), events_(limits.events) {}
  grant_ledger(const grant_ledger&) = delete;
  grant_ledger& operator=(const grant_ledger&) = delete;

  // An agent.
  void host_came(const host_registration& said, ledger_time now);
  // Again too: what it does not hold any more is over.
  void host_told(const std::string& address, const host_condition& said, ledger_time now);
  void host_takes_back(const std::string& address, std::uint64_t grant, std::string_view reason,
                       std::chrono::milliseconds left, ledger_time now);
  // It evicts what runs for the grant; grant_ended follows.
  void grant_ended(const std::string& address, std::uint64_t grant, ledger_time now);
  void host_left(const std::string& address, ledger_time now);
  // Its connection is closed. What it was granted for is lost if it does not come back soon.

  // An application.
  void asked(const application_ask& said, ledger_time now);
  void gave_back(std::uint64_t application, std::uint64_t grant, ledger_time now,
                 std::string_view unusable = {}, std::uint64_t fewer = 0);
  // `unusable` says why it could not use the host, which then comes last; it wants so many `fewer` from now on.
  void application_left(std::uint64_t application, ledger_time now);
  // Its connection is closed: all it has is given back.

  void advance(ledger_time now);
  // What is due by then happens.
  std::optional<ledger_time> next_due() const;

  std::vector<ledger_order> take_orders() { return std::exchange(orders_, {}); }
  // What the calls so far have led to, in order.

  void note_refusal(const std::string& peer, std::string_view reason, ledger_time now) {
    events_.add(now, ledger_act::refused, {}, peer, 0, 0, 0, reason);
  }
  // Of somebody who did not get as far as the ledger.

  const event_ring& events() const noexcept { return events_; }
  std::size_t hosts() const noexcept { return hosts_.size(); }
  std::size_t applications() const noexcept { return applications_.size(); }
  std::size_t grants() const noexcept { return grants_.size(); }
  // With those that are ending.

  const ledger_host* host(const std::string& address) const;
  const ledger_application* application(std::uint64_t id) const;
  const ledger_grant* grant(std::uint64_t id) const;
  template <class F> void for_each_host(F&& function) const {
    for (const auto& [address, each] : hosts_) function(each);
  }
  template <class F> void for_each_application(F&& function) const {
    for (const auto& [id, each] : applications_) function(each);
  }

private:
  ledger_machine& enter(const std::string& name);
  void leave(ledger_machine& which);
  void move_to(ledger_host& which, ledger_machine& where);
  void move_to(ledger_application& which, ledger_machine& where);
  ledger_host& host_at(const std::string& address);
  ledger_application& application_of(std::uint64_t id);

  void place(ledger_host& which);
  void place(ledger_application& which);
  // Anew in the orders, after something about it has changed.

  ledger_grant& add_grant(std::uint64_t id, ledger_host& host, ledger_application* holder, bool long_running);
  void detach(ledger_grant& which);
  // Takes it from its holder: it is ending.
  void remove(ledger_grant& which);
  // Its slot is free.
  void break_promise(ledger_grant& which);
  void take_from_holder(ledger_grant& which, ledger_act why, std::string_view reason,
                        std::chrono::milliseconds left = {});
  void end(ledger_grant& which, ledger_act why, std::string_view reason);
  void adopt(ledger_host& host, const held_grant& said);
  void claim(ledger_application& by, const held_grant& said);
  void forget(ledger_host& which, std::string_view reason);
  void forget(ledger_application& which, std::string_view reason);

  template <class Thing> due_key after(std::chrono::milliseconds time, const Thing& of) const {
    return {now_ + time, of.number};
  }
  void settle();
  bool give_free_slots();
  bool let_one_in();
  bool take_one();
  ledger_application* first_in_turn(const ledger_machine* not_of) const;
  ledger_application* poorest_served(ledger_host*& from, ledger_act& why) const;
  ledger_application* first_together() const;
  ledger_host* choose_host(const ledger_application& for_whom, ledger_act& why) const;
  ledger_grant* newest_to_take(const ledger_application& from, const ledger_machine* not_on) const;
  void give(ledger_application& to, ledger_host& from, ledger_act why);
  void order(ledger_order::kind what, const ledger_grant& which, std::uint64_t application,
             std::string_view reason = {}, std::chrono::milliseconds left = {});
  void note(ledger_act act, const ledger_host* host, const ledger_application* application,
            std::uint64_t grant = 0, std::uint64_t first = 0, std::uint64_t second = 0,
            std::string_view detail = {});

  const ledger_limits limits_;
  ledger_time now_{};
  std::uint64_t next_grant_;
  std::uint64_t numbers_ = 0;
  std::uint64_t turns_ = 0;
  std::uint64_t free_slots_ = 0;
  std::unordered_map<std::string, ledger_machine> machines_;
  std::unordered_map<std::string, ledger_host> hosts_;
  std::unordered_map<std::uint64_t, ledger_application> applications_;
  std::unordered_map<std::uint64_t, ledger_grant> grants_;

  ordered<idle_key, ledger_host, &ledger_host::free_at> free_;       // with a free slot
  ordered<idle_key, ledger_host, &ledger_host::lets_in_at> lets_in_; // none, but a long-running holder
  grouped_order<turn_key, ledger_application, &ledger_application::waits_short_at> waiting_short_;
  grouped_order<turn_key, ledger_application, &ledger_application::waits_long_at> waiting_long_;
  grouped_order<need_key, ledger_application, &ledger_application::waits_together_at> waiting_together_;
  grouped_order<poor_key, ledger_application, &ledger_application::poor_at>
      poor_; // that wait, but not for several at once
  ordered<rich_key, ledger_application, &ledger_application::rich_at> rich_; // that fair share may take from

  // What happens when nobody says anything.
  ordered<due_key, ledger_host, &ledger_host::stale_at> stale_;
  ordered<due_key, ledger_host, &ledger_host::away_at> away_;
  ordered<due_key, ledger_application, &ledger_application::alone_at> alone_;
  ordered<due_key, ledger_application, &ledger_application::unclaimed_at> unclaimed_;
  ordered<due_key, ledger_application, &ledger_application::hungry_at> hungry_;
  std::vector<ledger_order> orders_;
  event_ring events_;
};

} // namespace migrate::detail

#include <migrate/cluster/grant_ledger_impl.hpp>
