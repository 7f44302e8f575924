// How the ledger of grants decides. Included by grant_ledger.hpp.
#pragma once

#include <algorithm>
#include <limits>
#include <unordered_set>

#include <migrate/cluster/grant_ledger.hpp>

namespace migrate::detail {

// Records ------------------------------------------------------------------------------------------

template <class Record> void expect(const Record* which) noexcept {
  // It is needed soon: one wait for memory instead of one for each of its cache lines.
  for (std::size_t at = 0; which != nullptr && at < sizeof *which; at += 64)
    __builtin_prefetch(reinterpret_cast<const char*>(which) + at, 1);
}

inline const ledger_host* grant_ledger::host(const std::string& address) const {
  auto found = hosts_.find(address);
  return found == hosts_.end() ? nullptr : &found->second;
}

inline const ledger_application* grant_ledger::application(std::uint64_t id) const {
  auto found = applications_.find(id);
  return found == applications_.end() ? nullptr : &found->second;
}

inline const ledger_grant* grant_ledger::grant(std::uint64_t id) const {
  auto found = grants_.find(id);
  return found == grants_.end() ? nullptr : &found->second;
}

inline ledger_machine& grant_ledger::enter(const std::string& name) {
  ledger_machine& which = machines_[name];
  if (which.users++ == 0) which.name = name;
  return which;
}

inline void grant_ledger::leave(ledger_machine& which) {
  if (--which.users == 0) machines_.erase(std::string(which.name));
}

inline ledger_host& grant_ledger::host_at(const std::string& address) {
  auto [at, made] = hosts_.try_emplace(address);
  if (made) {
    at->second.address = address;
    at->second.number = ++numbers_;
    at->second.on = &enter({});
    at->second.on->hosts.push_back(&at->second);
  }
  return at->second;
}

inline ledger_application& grant_ledger::application_of(std::uint64_t id) {
  auto [at, made] = applications_.try_emplace(id);
  if (made) {
    at->second.id = id;
    at->second.number = ++numbers_;
    at->second.on = &enter({});
  }
  return at->second;
}

inline void grant_ledger::move_to(ledger_host& which, ledger_machine& where) {
  bool present = std::exchange(which.present, false);
  place(which); // nowhere
  std::erase(which.on->hosts, &which);
  leave(*std::exchange(which.on, &where));
  where.hosts.push_back(&which);
  which.name = where.name;
  which.present = present;
}

inline void grant_ledger::move_to(ledger_application& which, ledger_machine& where) {
  bool present = std::exchange(which.present, false);
  place(which);
  leave(*std::exchange(which.on, &where));
  which.present = present;
}

inline void grant_ledger::place(ledger_host& which) {
  const bool was_free = which.free_at != not_in_heap;
  const std::uint64_t slots = which.free_slots();
  const idle_key idle{which.idle_since, which.number};
  free_.set(which, slots > 0 ? std::optional(idle) : std::nullopt);
  lets_in_.set(which, which.lets_in() ? std::optional(idle) : std::nullopt);
  free_slots_ += slots - which.free_counted;
  which.free_counted = slots;
  if (was_free == (slots > 0)) return;
  for (ledger_grant* each : which.grants) {
    if (each->holder == nullptr) continue;
    if (was_free)
      each->holder->again.erase({which.number, &which});
    else
      each->holder->again.emplace(which.number, &which);
  }
}

inline void grant_ledger::place(ledger_application& which) {
  ledger_machine& on = *which.on;
  const bool waits = which.waits();
  const bool together = waits && which.takes_all_or_none();
  const bool single = waits && !together;
  const std::uint64_t coming = which.coming();
  if (!waits || coming > 0) {
    which.hungry = false;
    hungry_.set(which, {});
  } else if (!which.hungry && which.hungry_at == not_in_heap) {
    hungry_.set(which, after(limits_.patience, which));
  }
  const turn_key turn{which.served_as(), which.turn};
  auto if_so = [](bool so, const auto& key) { return so ? std::optional(key) : std::nullopt; };
  waiting_short_.set(on.waiting_short, which, if_so(single && !which.long_running, turn));
  waiting_long_.set(on.waiting_long, which, if_so(single && which.long_running, turn));
  waiting_together_.set(on.waiting_together, which,
                        if_so(together, need_key(which.least - coming, turn.first, turn.second)));
  poor_.set(on.poor, which, if_so(single, poor_key(coming, turn.first, turn.second)));
  const std::uint64_t held = which.held();
  rich_.set(which, if_so(which.present && which.alone_at == not_in_heap && held >= 2 && held > which.least,
                         rich_key(std::numeric_limits<std::uint64_t>::max() - held, which.number)));
}

// Grants -------------------------------------------------------------------------------------------

inline ledger_grant& grant_ledger::add_grant(std::uint64_t id, ledger_host& host, ledger_application* holder,
                                             bool long_running) {
  ledger_grant& made = grants_[id];
  made.id = id;
  made.host = &host;
  made.holder = holder;
  made.long_running = long_running;
  ++(long_running ? host.long_grants : host.short_grants);
  host.grants.push_back(&made);
  if (holder != nullptr) {
    holder->add(made);
    if (host.free_at != not_in_heap) holder->again.emplace(host.number, &host);
  }
  place(host);
  if (holder != nullptr) place(*holder);
  return made;
}

inline void grant_ledger::detach(ledger_grant& which) {
  ledger_application& holder = *std::exchange(which.holder, nullptr);
  ledger_host& host = *which.host;
  holder.take_out(which);
  bool another = std::any_of(host.grants.begin(), host.grants.end(),
                             [&](const ledger_grant* each) { return each->holder == &holder; });
  if (!another) holder.again.erase({host.number, &host});
  place(holder);
}

inline void grant_ledger::break_promise(ledger_grant& which) {
  if (which.promised == nullptr) return;
  ledger_application& to = *std::exchange(which.promised, nullptr);
  to.promises.erase(&which);
  place(to);
}

inline void grant_ledger::remove(ledger_grant& which) {
  ledger_host& host = *which.host;
  ledger_application* promised = which.promised;
  break_promise(which);
  if (which.holder != nullptr) detach(which);
  --(which.long_running ? host.long_grants : host.short_grants);
  std::erase(host.grants, &which);
  grants_.erase(std::uint64_t{which.id});
  place(host);
  if (promised != nullptr && promised->waits() && host.free_slots() > 0 && promised->on != host.on)
    give(*promised, host, ledger_act::granted_promised);
}

inline void grant_ledger::take_from_holder(ledger_grant& which, ledger_act why, std::string_view reason,
                                           std::chrono::milliseconds left) {
  ledger_application& holder = *which.holder;
  note(why, which.host, &holder, which.id, 0, 0, reason);
  if (holder.present) order(ledger_order::kind::revoked, which, holder.id, reason, left);
  detach(which);
}

inline void grant_ledger::end(ledger_grant& which, ledger_act why, std::string_view reason) {
  ledger_application& holder = *which.holder;
  note(why, which.host, &holder, which.id, 0, 0, reason);
  order(ledger_order::kind::ended, which, holder.id, reason, limits_.notice);
  detach(which);
}

inline void grant_ledger::order(ledger_order::kind what, const ledger_grant& which, std::uint64_t application,
                                std::string_view reason, std::chrono::milliseconds left) {
  orders_.push_back({what, which.id, application, which.host->address, std::string(reason), left});
}

inline void grant_ledger::note(ledger_act act, const ledger_host* host, const ledger_application* application,
                               std::uint64_t grant, std::uint64_t first, std::uint64_t second,
                               std::string_view detail) {
  events_.add(now_, act,
              host == nullptr      ? std::string_view()
              : host->name.empty() ? host->address
                                   : host->name,
              application == nullptr ? std::string_view() : application->name, grant, first, second, detail);
}

// Agents -------------------------------------------------------------------------------------------

inline void grant_ledger::host_came(const host_registration& said, ledger_time now) {
  now_ = now;
  ledger_host& host = host_at(said.address);
  if (host.on->name != said.name) move_to(host, enter(said.name));
  host.present = true;
  host.fresh = false; // until it tells its condition
  host.slots = std::clamp(said.slots, 1u, limits_.slots);
  away_.set(host, {});
  stale_.set(host, {});
  note(ledger_act::host_came, &host, nullptr, 0, host.slots);

  std::unordered_set<std::uint64_t> has;
  for (const held_grant& each : said.grants) {
    if (has.size() >= 2 * std::uint64_t{host.slots}) {
      note(ledger_act::refused, &host, nullptr, each.grant, 0, 0,
           "it says that it has more grants than it has slots");
      break;
    }
    auto known = grants_.find(each.grant);
    if (known != grants_.end() && known->second.host != &host) {
      note(ledger_act::refused, &host, nullptr, each.grant, 0, 0,
           "it says that it has a grant that another host has");
      continue;
    }
    has.insert(each.grant);
    if (known != grants_.end() && known->second.holder != nullptr &&
        known->second.holder->id != each.application) {
      // The agent has it from the database that made the grant.
      take_from_holder(known->second, ledger_act::refused, "its host has the grant for another application");
      remove(known->second);
      known = grants_.end();
    }
    if (known == grants_.end())
      adopt(host, each);
    else if (known->second.holder == nullptr)
      order(ledger_order::kind::ended, known->second, each.application,
            "it was ended while the agent was away");
  }
  for (ledger_grant* each : std::vector(host.grants)) {
    if (has.count(each->id) != 0) continue;
    if (each->holder != nullptr)
      take_from_holder(*each, ledger_act::revoked, "its host has come back without it");
    remove(*each);
  }
  place(host);
  settle();
}

inline void grant_ledger::adopt(ledger_host& host, const held_grant& said) {
  ledger_application& holder = application_of(said.application);
  if (holder.present) { // and has not claimed it
    ledger_grant& made = add_grant(said.grant, host, nullptr, false);
    order(ledger_order::kind::ended, made, holder.id, "its application does not have it any more");
    return;
  }
  if (holder.unclaimed_at == not_in_heap) unclaimed_.set(holder, after(limits_.unclaimed, holder));
  add_grant(said.grant, host, &holder, false);
  note(ledger_act::held_before, &host, &holder, said.grant);
}

inline void grant_ledger::host_told(const std::string& address, const host_condition& said, ledger_time now) {
  now_ = now;
  auto found = hosts_.find(address);
  if (found == hosts_.end() || !found->second.present) return;
  ledger_host& host = found->second;
  const bool was = host.usable();
  const bool first = !std::exchange(host.fresh, true);
  constexpr auto longest = std::chrono::milliseconds(std::chrono::hours(24 * 3650));
  const bool other_reason = host.condition.reason != said.reason;
  host.condition = said;
  host.lendable = said.lendable;
  host.condition.idle = std::clamp(said.idle, std::chrono::milliseconds(0), longest);
  host.told = now;
  host.idle_since = now - host.condition.idle;
  stale_.set(host, after(limits_.stale, host));
  if (first || was != said.lendable || (!said.lendable && other_reason))
    note(said.lendable ? ledger_act::host_lent : ledger_act::host_withheld, &host, nullptr, 0, 0, 0,
         said.reason);
  place(host);
  settle();
}

inline void grant_ledger::host_takes_back(const std::string& address, std::uint64_t grant,
                                          std::string_view reason, std::chrono::milliseconds left,
                                          ledger_time now) {
  now_ = now;
  auto found = grants_.find(grant);
  if (found == grants_.end() || found->second.holder == nullptr) return; // over already, or about to be
  if (found->second.host->address != address) {
    note(ledger_act::refused, host(address), nullptr, grant, 0, 0,
         "it takes back a grant that another host has");
    return;
  }
  take_from_holder(found->second, ledger_act::revoked, reason, left);
  settle();
}

inline void grant_ledger::grant_ended(const std::string& address, std::uint64_t grant, ledger_time now) {
  now_ = now;
  auto found = grants_.find(grant);
  if (found == grants_.end()) return;
  ledger_grant& which = found->second;
  if (which.host->address != address) {
    note(ledger_act::refused, host(address), nullptr, grant, 0, 0, "it ends a grant that another host has");
    return;
  }
  if (which.holder != nullptr) take_from_holder(which, ledger_act::revoked, "it has ended on its host");
  note(ledger_act::ended, which.host, nullptr, grant);
  remove(which);
  settle();
}

inline void grant_ledger::host_left(const std::string& address, ledger_time now) {
  now_ = now;
  auto found = hosts_.find(address);
  if (found == hosts_.end() || !found->second.present) return;
  ledger_host& host = found->second;
  host.present = host.fresh = false;
  stale_.set(host, {});
  away_.set(host, after(limits_.away, host));
  note(ledger_act::host_away, &host, nullptr, 0, 0, 0, "the connection to its agent is closed");
  place(host);
}

inline void grant_ledger::forget(ledger_host& host, std::string_view reason) {
  host.present = false;
  place(host);
  note(ledger_act::host_gone, &host, nullptr, 0, 0, 0, reason);
  for (ledger_grant* each : std::vector(host.grants)) {
    if (each->holder != nullptr) take_from_holder(*each, ledger_act::revoked, reason);
    remove(*each);
  }
  stale_.set(host, {});
  away_.set(host, {});
  std::erase(host.on->hosts, &host);
  leave(*host.on);
  hosts_.erase(std::string(host.address));
}

// Applications -------------------------------------------------------------------------------------

inline void grant_ledger::asked(const application_ask& said, ledger_time now) {
  now_ = now;
  ledger_application& by = application_of(said.application);
  const bool came = !by.present;
  if (came) {
    if (by.on->name != said.host) move_to(by, enter(said.host));
    by.name = said.name;
    by.user = said.user;
    by.turn = ++turns_;
  }
  by.present = true;
  unclaimed_.set(by, {});
  const std::uint64_t least = std::min(said.least, said.wanted);
  if (came || by.wanted != said.wanted || by.least != least)
    note(ledger_act::asked, nullptr, &by, 0, said.wanted, least);
  by.wanted = said.wanted;
  by.least = least;
  by.priority = std::clamp(said.priority, -1000, 1000);
  by.long_running = said.long_running;

  if (came || said.back) {
    std::unordered_set<std::uint64_t> has;
    for (const held_grant& each : said.held) {
      claim(by, each);
      has.insert(each.grant);
    }
    by.for_each_grant([&](ledger_grant& each) {
      if (has.count(each.id) == 0) end(each, ledger_act::given_back, "it has come back without it");
    });
  }
  place(by);
  settle();
}

inline void grant_ledger::claim(ledger_application& by, const held_grant& said) {
  auto refuse = [&](const char* reason) {
    note(ledger_act::refused, nullptr, &by, said.grant, 0, 0, reason);
    orders_.push_back({ledger_order::kind::revoked, said.grant, by.id, said.address, reason, {}});
  };
  auto known = grants_.find(said.grant);
  if (known != grants_.end()) {
    if (known->second.holder != &by) refuse("it is not this application's any more");
    return;
  }
  auto at = hosts_.find(said.address);
  const bool known_host = at != hosts_.end();
  if (known_host && at->second.present) return refuse("its host has no such grant");
  ledger_host& host = host_at(said.address);
  if (!known_host) {
    move_to(host, enter(said.host));
    away_.set(host, after(limits_.unclaimed, host));
  }
  add_grant(said.grant, host, &by, by.long_running);
  note(ledger_act::held_before, &host, &by, said.grant);
}

inline void grant_ledger::gave_back(std::uint64_t application, std::uint64_t grant, ledger_time now,
                                    std::string_view unusable, std::uint64_t fewer) {
  now_ = now;
  auto by = applications_.find(application);
  auto found = grants_.find(grant);
  if (by == applications_.end() || found == grants_.end()) return;
  if (found->second.holder == nullptr) return; // taken from it meanwhile
  if (found->second.holder != &by->second) {
    note(ledger_act::refused, nullptr, &by->second, grant, 0, 0, "it gives back what it does not have");
    return;
  }
  ledger_host& host = *found->second.host;
  expect(&host);
  expect(&by->second);
  expect(by->second.on);
  expect(found->second.newer);
  expect(found->second.older);
  by->second.wanted -= std::min(by->second.wanted, fewer);
  by->second.least = std::min(by->second.least, by->second.wanted);
  end(found->second, ledger_act::given_back, unusable.empty() ? "given back" : unusable);
  if (!unusable.empty()) { // or it would be the next that the application gets
    host.idle_since = now;
    place(host);
  }
  settle();
}

inline void grant_ledger::application_left(std::uint64_t application, ledger_time now) {
  now_ = now;
  auto found = applications_.find(application);
  if (found == applications_.end()) return;
  forget(found->second, "its connection is closed");
  settle();
}

inline void grant_ledger::forget(ledger_application& which, std::string_view reason) {
  which.present = false;
  place(which);
  note(ledger_act::application_gone, nullptr, &which, 0, 0, 0, reason);
  while (!which.promises.empty()) break_promise(**which.promises.begin());
  which.for_each_grant([&](ledger_grant& each) { end(each, ledger_act::given_back, reason); });
  alone_.set(which, {});
  unclaimed_.set(which, {});
  hungry_.set(which, {});
  leave(*which.on);
  applications_.erase(std::uint64_t{which.id});
}

// Time ---------------------------------------------------------------------------------------------

inline void grant_ledger::advance(ledger_time now) {
  now_ = now;
  auto due = [&](const auto& all) {
    auto* first = all.first();
    return first != nullptr && first->key.first <= now ? first->thing : nullptr;
  };
  bool any = false;
  for (; ledger_host* host = due(stale_); any = true) {
    stale_.set(*host, {});
    host->fresh = false;
    note(ledger_act::host_stale, host, nullptr, 0,
         static_cast<std::uint64_t>(
             std::chrono::duration_cast<std::chrono::seconds>(now - host->told).count()));
    place(*host);
  }
  for (; ledger_host* host = due(away_); any = true) forget(*host, "its agent is gone");
  for (; ledger_application* which = due(unclaimed_); any = true)
    forget(*which, "the application has not come back");
  for (; ledger_application* which = due(alone_); any = true) {
    alone_.set(*which, {});
    place(*which);
  }
  for (; ledger_application* which = due(hungry_); any = true) {
    hungry_.set(*which, {});
    which->hungry = true;
    place(*which);
  }
  if (any) settle();
}

inline std::optional<ledger_time> grant_ledger::next_due() const {
  std::optional<ledger_time> next;
  auto consider = [&](const auto& all) {
    auto* first = all.first();
    if (first != nullptr && (!next || first->key.first < *next)) next = first->key.first;
  };
  consider(stale_);
  consider(away_);
  consider(alone_);
  consider(unclaimed_);
  consider(hungry_);
  return next;
}

// Decisions ----------------------------------------------------------------------------------------

inline void grant_ledger::settle() {
  while (give_free_slots() || let_one_in() || take_one()) {
  }
}

inline ledger_application* grant_ledger::first_in_turn(const ledger_machine* not_of) const {
  auto* one =
      not_of == nullptr ? waiting_short_.first() : waiting_short_.first_outside(not_of->waiting_short);
  auto* other = not_of == nullptr ? waiting_long_.first() : waiting_long_.first_outside(not_of->waiting_long);
  auto* first = one == nullptr || (other != nullptr && other->key < one->key) ? other : one;
  return first == nullptr ? nullptr : first->thing;
}

inline ledger_application* grant_ledger::poorest_served(ledger_host*& from, ledger_act& why) const {
  auto* first = poor_.first();
  if (first != nullptr && (from = choose_host(*first->thing, why)) == nullptr) {
    first = poor_.first_outside(first->thing->on->poor);
    if (first != nullptr) from = choose_host(*first->thing, why);
  }
  return first == nullptr || from == nullptr ? nullptr : first->thing;
}

inline ledger_application* grant_ledger::first_together() const {
  auto fits = [&](const auto* which) {
    if (which == nullptr) return false;
    std::uint64_t may_have = free_slots_;
    for (const ledger_host* own : which->thing->on->hosts) may_have -= own->free_counted;
    return may_have >= std::get<0>(which->key);
  };
  auto* first = waiting_together_.first();
  if (first == nullptr || fits(first)) return first == nullptr ? nullptr : first->thing;
  auto* next = waiting_together_.first_outside(first->thing->on->waiting_together);
  return fits(next) ? next->thing : nullptr;
}

inline ledger_host* grant_ledger::choose_host(const ledger_application& for_whom, ledger_act& why) const {
  why = ledger_act::granted_again;
  for (const auto& [number, each] : for_whom.again)
    if (each->on != for_whom.on) return each; // it may have claimed one of its own
  why = ledger_act::granted_longest_idle;
  auto* first = free_.first_that([&](const ledger_host& each) { return each.on != for_whom.on; });
  return first == nullptr ? nullptr : first->thing;
}

inline bool grant_ledger::give_free_slots() {
  if (free_slots_ == 0) return false;
  ledger_act why{};
  ledger_host* from = nullptr;
  ledger_application* one = first_in_turn(nullptr);
  if (one != nullptr) from = choose_host(*one, why);
  if (one != nullptr && from == nullptr) {
    // All that is free is on its own machine, and so may be had by whoever is not there.
    one = first_in_turn(one->on);
    if (one != nullptr) from = choose_host(*one, why);
  }
  if (one != nullptr) { // unless fair share would take it away again
    ledger_act other_why{};
    ledger_host* other = nullptr;
    ledger_application* poorest = poorest_served(other, other_why);
    if (poorest != nullptr && one->coming() >= poorest->coming() + 2) {
      one = poorest;
      from = other;
      why = other_why;
    }
  }
  ledger_application* many = first_together();
  if (many != nullptr &&
      (one == nullptr || turn_key(many->served_as(), many->turn) < turn_key(one->served_as(), one->turn))) {
    for (std::uint64_t need = many->least - many->coming(); need > 0; --need)
      give(*many, *choose_host(*many, why), ledger_act::granted_together);
    return true;
  }
  if (one == nullptr) return false;
  give(*one, *from, why);
  return true;
}

inline bool grant_ledger::let_one_in() {
  auto* first = waiting_short_.first();
  if (first == nullptr) return false;
  auto off = [&](const ledger_host& each) { return each.on != first->thing->on; };
  auto* from = lets_in_.first_that(off);
  if (from == nullptr) {
    first = waiting_short_.first_outside(first->thing->on->waiting_short);
    if (first != nullptr) from = lets_in_.first_that(off);
  }
  if (from == nullptr) return false;
  give(*first->thing, *from->thing, ledger_act::granted_beside);
  return true;
}

inline ledger_grant* grant_ledger::newest_to_take(const ledger_application& from,
                                                  const ledger_machine* not_on) const {
  unsigned left = limits_.looked_at;
  for (ledger_grant* each = from.newest; each != nullptr && left > 0; each = each->older, --left) {
    if (each->host->on != not_on && each->host->usable()) return each;
  }
  return nullptr;
}

inline bool grant_ledger::take_one() {
  const auto* poorest = poor_.first();
  const auto* richest = rich_.first();
  if (poorest == nullptr || richest == nullptr || richest->thing->held() < std::get<0>(poorest->key) + 2)
    return false;
  ledger_application *robbed = nullptr, *robber = nullptr;
  ledger_grant* which = nullptr;
  unsigned left = limits_.looked_at;
  rich_.in_order([&](const auto& rich) {
    robbed = rich.thing;
    if (robbed->held() < std::get<0>(poorest->key) + 2 || left-- == 0) return false;
    // Whoever is on the machine of one grant may have another.
    const decltype(poorest) nobody = nullptr;
    which = newest_to_take(*robbed, nullptr);
    if (which == nullptr) return true;
    ledger_grant* another = newest_to_take(*robbed, which->host->on);
    auto* first = poor_.first_outside(which->host->on->poor);
    auto* second = another == nullptr ? nobody : poor_.first_outside(another->host->on->poor);
    if (first == nullptr || (second != nullptr && second->key < first->key)) {
      first = second;
      which = another;
    }
    if (first == nullptr || robbed->held() < std::get<0>(first->key) + 2) return true;
    robber = first->thing;
    return false;
  });
  if (robber == nullptr) return false;
  const std::string reason = "fair share: " + robber->name + " has " + std::to_string(robber->coming());
  note(ledger_act::taken, which->host, robbed, which->id, robbed->held(), robber->coming(), robber->name);
  order(ledger_order::kind::revoked, *which, robbed->id, reason, limits_.notice);
  order(ledger_order::kind::ended, *which, robbed->id, reason, limits_.notice);
  alone_.set(*robbed, after(limits_.alone, *robbed));
  detach(*which);
  which->promised = robber;
  robber->promises.insert(which);
  robber->turn = ++turns_;
  place(*robber);
  return true;
}

inline void grant_ledger::give(ledger_application& to, ledger_host& from, ledger_act why) {
  while (grants_.count(next_grant_) != 0) ++next_grant_;
  to.turn = ++turns_;
  ledger_grant& made = add_grant(next_grant_++, from, &to, to.long_running);
  order(ledger_order::kind::granted, made, to.id);
  note(why, &from, &to, made.id,
       static_cast<std::uint64_t>(
           std::chrono::duration_cast<std::chrono::seconds>(now_ - from.idle_since).count()));
}

} // namespace migrate::detail
