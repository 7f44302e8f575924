// What the ledger of grants keeps of hosts, applications and grants.
#pragma once

#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <tuple>
#include <unordered_set>
#include <utility>
#include <vector>

#include <migrate/cluster/ledger_terms.hpp>
#include <migrate/cluster/ordered_heap.hpp>

namespace migrate::detail {

struct ledger_host;
struct ledger_application;

using idle_key = std::pair<ledger_time, std::uint64_t>;         // idle since, number
using turn_key = std::pair<int, std::uint64_t>;                 // negated priority, turn
using need_key = std::tuple<std::uint64_t, int, std::uint64_t>; // how many at once, then a turn_key
using poor_key = std::tuple<std::uint64_t, int, std::uint64_t>; // how many it has, then a turn_key
using rich_key = std::pair<std::uint64_t, std::uint64_t>;       // how many fewer than the most; number
using due_key = std::pair<ledger_time, std::uint64_t>;          // when, number

struct ledger_machine {
  // What has one host name: agents' hosts, and the applications that run on it and so are never granted it.
  std::string name;
  unsigned users = 0;
  std::vector<ledger_host*> hosts;
  ordered_group<turn_key, ledger_application> waiting_short, waiting_long;
  ordered_group<need_key, ledger_application> waiting_together;
  ordered_group<poor_key, ledger_application> poor;
};

struct ledger_grant {
  std::uint64_t id = 0;
  ledger_host* host = nullptr;
  ledger_application* holder =
      nullptr; // null: it is ending, and its slot is not free before the agent says so
  ledger_application* promised = nullptr;          // who gets the slot when it has ended
  ledger_grant *newer = nullptr, *older = nullptr; // of its holder's
  bool long_running = false;
};

struct ledger_host {
  // What decisions need lies together.
  ledger_machine* on = nullptr;
  std::uint64_t number = 0;
  unsigned slots = 0;
  unsigned long_grants = 0, short_grants = 0; // with those that are ending
  bool present = false;                       // its agent is connected
  bool fresh = false;                         // and has told its condition lately
  bool lendable = false;                      // which was that it may be lent
  ledger_time idle_since{};
  std::vector<ledger_grant*> grants;                             // all
  std::uint32_t free_at = not_in_heap, lets_in_at = not_in_heap; // where it stands in the ledger's orders
  std::uint32_t stale_at = not_in_heap, away_at = not_in_heap;
  std::uint64_t free_counted = 0;

  std::string name, address;
  ledger_time told{};
  host_condition condition;

  bool usable() const noexcept { return present && fresh && lendable; }
  std::uint64_t free_slots() const noexcept {
    std::uint64_t used = std::uint64_t{long_grants} + short_grants;
    return usable() && used < slots ? slots - used : 0;
  }
  bool lets_in() const noexcept {
    // A long-running grant shares its slot with a short one.
    return usable() && free_slots() == 0 && long_grants > 0 && short_grants < slots;
  }
};

struct ledger_application {
  ledger_machine* on = nullptr;
  std::uint64_t number = 0;
  std::uint64_t turn = 0; // whose is lower asked, or was served, earlier
  std::uint64_t wanted = 0, least = 0;
  std::uint64_t count = 0; // of its grants
  ledger_grant *newest = nullptr, *oldest = nullptr;
  int priority = 0;
  bool present = false; // it is connected
  bool long_running = false;
  bool hungry = false; // its patience is over
  std::uint32_t waits_short_at = not_in_heap, waits_long_at = not_in_heap, waits_together_at = not_in_heap;
  std::uint32_t poor_at = not_in_heap, rich_at = not_in_heap; // where it stands in the ledger's orders
  std::uint32_t alone_at = not_in_heap, unclaimed_at = not_in_heap, hungry_at = not_in_heap;
  std::unordered_set<ledger_grant*> promises;
  std::set<std::pair<std::uint64_t, ledger_host*>> again; // where it has a grant and a slot is free

  std::uint64_t id = 0;
  std::string name, user;

  std::uint64_t held() const noexcept { return count; }
  std::uint64_t coming() const noexcept { return count + promises.size(); }
  bool waits() const noexcept { return present && coming() < wanted; }
  int served_as() const noexcept { return hungry ? std::numeric_limits<int>::min() : -priority; }
  bool takes_all_or_none() const noexcept { return coming() < least; }

  template <class F> void for_each_grant(F&& function) const {
    for (ledger_grant *each = newest, *next = nullptr; each != nullptr; each = next) {
      next = each->older;
      function(*each);
    }
  }
  // The newest first. The function may take the grant away.

  void add(ledger_grant& which) {
    which.older = newest;
    which.newer = nullptr;
    (newest == nullptr ? oldest : newest->newer) = &which;
    newest = &which;
    ++count;
  }
  void take_out(ledger_grant& which) {
    (which.newer == nullptr ? newest : which.newer->older) = which.older;
    (which.older == nullptr ? oldest : which.older->newer) = which.newer;
    which.newer = which.older = nullptr;
    --count;
  }
};

} // namespace migrate::detail
