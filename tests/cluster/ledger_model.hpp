// The rules of the ledger of grants once more, by searching through everything each time: slow, and short enough to be
// seen right. The ledger must give the same orders.
#pragma once

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <migrate/cluster/ledger_terms.hpp>

namespace migrate_test {

using namespace migrate::detail;

class ledger_model {
public:
  explicit ledger_model(std::uint64_t first_grant) : next_grant_(first_grant) {}

  struct host {
    std::string address, name;
    std::uint64_t number = 0;
    unsigned slots = 0;
    bool present = false, fresh = false, lendable = false;
    ledger_time idle_since{};
    std::optional<ledger_time> stale_at, away_at;
  };
  struct grant {
    std::uint64_t id = 0, holder = 0, promised = 0;
    std::string address;
    bool long_running = false;
    std::uint64_t since = 0;
  };
  struct application {
    std::uint64_t id = 0, number = 0, wanted = 0, least = 0, turn = 0;
    std::string name;
    int priority = 0;
    bool long_running = false, present = false;
    std::optional<ledger_time> alone_until, unclaimed_until, hungry_at;
    bool hungry = false;
  };

  std::map<std::string, host> hosts;
  std::map<std::uint64_t, application> applications;
  std::map<std::uint64_t, grant> grants;
  std::vector<ledger_order> orders;

  void host_came(const host_registration& said, ledger_time now) {
    now_ = now;
    host& h = at(said.address);
    h.name = said.name;
    h.present = true;
    h.fresh = false;
    h.slots = std::max(1u, said.slots);
    h.away_at = h.stale_at = {};
    std::set<std::uint64_t> has;
    for (const held_grant& each : said.grants) {
      if (has.size() >= 2 * h.slots) break;
      auto known = grants.find(each.grant);
      if (known != grants.end() && known->second.address != h.address) continue;
      has.insert(each.grant);
      if (known != grants.end() && known->second.holder != 0 && known->second.holder != each.application) {
        revoke(known->second);
        grants.erase(known);
        known = grants.end();
      }
      if (known != grants.end()) {
        if (known->second.holder == 0) tell(ledger_order::kind::ended, known->second, each.application);
        continue;
      }
      application& a = of(each.application);
      grant& g = grants[each.grant];
      g = {each.grant, a.present ? 0 : a.id, 0, h.address, false, ++grants_made_};
      if (a.present)
        tell(ledger_order::kind::ended, g, a.id);
      else if (!a.unclaimed_until)
        a.unclaimed_until = now_ + limits_.unclaimed;
    }
    for (std::uint64_t id : ids_on(h))
      if (has.count(id) == 0) drop(id);
    settle();
  }

  void host_told(const std::string& address, const host_condition& said, ledger_time now) {
    now_ = now;
    auto found = hosts.find(address);
    if (found == hosts.end() || !found->second.present) return;
    host& h = found->second;
    h.fresh = true;
    h.lendable = said.lendable;
    h.idle_since = now - said.idle;
    h.stale_at = now + limits_.stale;
    settle();
  }

  void host_takes_back(const std::string& address, std::uint64_t id, ledger_time now) {
    now_ = now;
    auto g = grants.find(id);
    if (g == grants.end() || g->second.holder == 0 || g->second.address != address) return;
    revoke(g->second);
    settle();
  }

  void grant_ended(const std::string& address, std::uint64_t id, ledger_time now) {
    now_ = now;
    auto g = grants.find(id);
    if (g == grants.end() || g->second.address != address) return;
    drop(id);
    settle();
  }

  void host_left(const std::string& address, ledger_time now) {
    now_ = now;
    auto found = hosts.find(address);
    if (found == hosts.end() || !found->second.present) return;
    host& h = found->second;
    h.present = h.fresh = false;
    h.stale_at = {};
    h.away_at = now + limits_.away;
  }

  void asked(const application_ask& said, ledger_time now) {
    now_ = now;
    application& a = of(said.application);
    const bool came = !a.present;
    if (came) {
      a.name = said.host;
      a.turn = ++turns_;
    }
    a.present = true;
    a.unclaimed_until = {};
    a.wanted = said.wanted;
    a.least = std::min(said.least, said.wanted);
    a.priority = said.priority;
    a.long_running = said.long_running;
    if (came || said.back) {
      std::set<std::uint64_t> has;
      for (const held_grant& each : said.held) {
        has.insert(each.grant);
        auto known = grants.find(each.grant);
        auto on = hosts.find(each.address);
        if (known != grants.end() ? known->second.holder != a.id : on != hosts.end() && on->second.present) {
          orders.push_back({ledger_order::kind::revoked, each.grant, a.id, each.address, {}, {}});
        } else if (known == grants.end()) {
          if (on == hosts.end()) {
            host& h = at(each.address);
            h.name = each.host;
            h.away_at = now_ + limits_.unclaimed;
          }
          grants[each.grant] = {each.grant, a.id, 0, each.address, a.long_running, ++grants_made_};
        }
      }
      for (grant* each : newest_first(a.id))
        if (has.count(each->id) == 0) end(*each);
    }
    settle();
  }

  void gave_back(std::uint64_t id, std::uint64_t grant_id, ledger_time now, std::string_view,
                 std::uint64_t fewer) {
    now_ = now;
    auto g = grants.find(grant_id);
    if (applications.count(id) == 0 || g == grants.end() || g->second.holder != id) return;
    application& a = applications.at(id);
    a.wanted -= std::min(a.wanted, fewer);
    a.least = std::min(a.least, a.wanted);
    end(g->second);
    settle();
  }

  void application_left(std::uint64_t id, ledger_time now) {
    now_ = now;
    if (applications.count(id) == 0) return;
    forget(id);
    settle();
  }

  std::optional<ledger_time> next_due() const {
    std::optional<ledger_time> next;
    auto consider = [&](const std::optional<ledger_time>& when) {
      if (when && (!next || *when < *next)) next = when;
    };
    for (const auto& [key, h] : hosts) {
      consider(h.stale_at);
      consider(h.away_at);
    }
    for (const auto& [key, a] : applications) {
      consider(a.alone_until);
      consider(a.unclaimed_until);
      consider(a.hungry_at);
    }
    return next;
  }

  void advance(ledger_time now) {
    now_ = now;
    for (auto& [address, h] : hosts)
      if (h.stale_at && *h.stale_at <= now) {
        h.fresh = false;
        h.stale_at = {};
      }
    std::set<std::tuple<ledger_time, std::uint64_t, std::string>> lost;
    for (auto& [address, h] : hosts)
      if (h.away_at && *h.away_at <= now) lost.emplace(*h.away_at, h.number, address);
    for (const auto& [when, number, address] : lost) {
      for (std::uint64_t id : ids_on(hosts.at(address))) drop(id);
      hosts.erase(address);
    }
    std::set<std::tuple<ledger_time, std::uint64_t, std::uint64_t>> unclaimed;
    for (auto& [id, a] : applications)
      if (a.unclaimed_until && *a.unclaimed_until <= now) unclaimed.emplace(*a.unclaimed_until, a.number, id);
    for (const auto& [when, number, id] : unclaimed) forget(id);
    for (auto& [id, a] : applications)
      if (a.alone_until && *a.alone_until <= now) a.alone_until = {};
    for (auto& [id, a] : applications)
      if (a.hungry_at && *a.hungry_at <= now) {
        a.hungry_at = {};
        a.hungry = true;
      }
    settle();
  }

  std::uint64_t held(std::uint64_t id) const {
    return static_cast<std::uint64_t>(std::count_if(
        grants.begin(), grants.end(), [&](const auto& each) { return each.second.holder == id; }));
  }
  std::uint64_t coming(std::uint64_t id) const {
    return held(id) +
           static_cast<std::uint64_t>(std::count_if(
               grants.begin(), grants.end(), [&](const auto& each) { return each.second.promised == id; }));
  }
  bool usable(const host& h) const { return h.present && h.fresh && h.lendable; }
  unsigned on(const host& h, bool long_running) const {
    return static_cast<unsigned>(std::count_if(grants.begin(), grants.end(), [&](const auto& each) {
      return each.second.address == h.address && each.second.long_running == long_running;
    }));
  }
  unsigned free(const host& h) const {
    unsigned used = on(h, true) + on(h, false);
    return usable(h) && used < h.slots ? h.slots - used : 0;
  }

private:
  using turn = std::pair<int, std::uint64_t>;

  host& at(const std::string& address) {
    auto [found, made] = hosts.try_emplace(address);
    if (made) {
      found->second.address = address;
      found->second.number = ++numbers_;
    }
    return found->second;
  }
  application& of(std::uint64_t id) {
    auto [found, made] = applications.try_emplace(id);
    if (made) {
      found->second.id = id;
      found->second.number = ++numbers_;
    }
    return found->second;
  }
  int served_as(const application& a) const {
    return a.hungry ? std::numeric_limits<int>::min() : -a.priority;
  }
  turn turn_of(const application& a) const { return {served_as(a), a.turn}; }
  std::vector<std::uint64_t> ids_on(const host& h) const {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> found;
    for (const auto& [id, g] : grants)
      if (g.address == h.address) found.emplace_back(g.since, id);
    std::sort(found.begin(), found.end());
    std::vector<std::uint64_t> ids;
    for (const auto& each : found) ids.push_back(each.second);
    return ids;
  }
  std::vector<grant*> newest_first(std::uint64_t holder) {
    std::vector<grant*> all;
    for (auto& [id, g] : grants)
      if (g.holder == holder) all.push_back(&g);
    std::sort(all.begin(), all.end(), [](grant* a, grant* b) { return a->since > b->since; });
    return all;
  }
  void tell(ledger_order::kind what, const grant& g, std::uint64_t who) {
    orders.push_back({what, g.id, who, g.address, {}, {}});
  }
  void revoke(grant& g) {
    if (applications.at(g.holder).present) tell(ledger_order::kind::revoked, g, g.holder);
    g.holder = 0;
  }
  void end(grant& g) {
    tell(ledger_order::kind::ended, g, g.holder);
    g.holder = 0;
  }
  void drop(std::uint64_t id) {
    grant g = grants.at(id);
    if (g.holder != 0) revoke(g);
    grants.erase(id);
    if (g.promised == 0) return;
    application& to = applications.at(g.promised);
    const host& h = hosts.at(g.address);
    if (coming(to.id) < to.wanted && free(h) > 0 && h.name != to.name) give(to, h);
  }
  void forget(std::uint64_t id) {
    for (auto& [key, g] : grants)
      if (g.promised == id) g.promised = 0;
    for (grant* each : newest_first(id)) end(*each);
    applications.erase(id);
  }
  void give(application& to, const host& h) {
    while (grants.count(next_grant_) != 0) ++next_grant_;
    grant& g = grants[next_grant_];
    g = {next_grant_++, to.id, 0, h.address, to.long_running, ++grants_made_};
    to.turn = ++turns_;
    to.hungry = false;
    tell(ledger_order::kind::granted, g, to.id);
  }
  const host* choose(const application& a) const {
    const host* best = nullptr;
    for (const auto& [id, g] : grants) {
      const host& h = hosts.at(g.address);
      if (g.holder == a.id && free(h) > 0 && h.name != a.name && (best == nullptr || h.number < best->number))
        best = &h;
    }
    if (best != nullptr) return best;
    for (const auto& [address, h] : hosts)
      if (free(h) > 0 && h.name != a.name &&
          (best == nullptr || std::pair(h.idle_since, h.number) < std::pair(best->idle_since, best->number)))
        best = &h;
    return best;
  }
  bool single(const application& a) const {
    return a.present && coming(a.id) < a.wanted && coming(a.id) >= a.least;
  }
  unsigned free_for(const application& a) const {
    unsigned sum = 0;
    for (const auto& [address, h] : hosts)
      if (h.name != a.name) sum += free(h);
    return sum;
  }

  bool give_free() {
    application* one = nullptr;
    for (auto& [id, a] : applications)
      if (single(a) && choose(a) != nullptr && (one == nullptr || turn_of(a) < turn_of(*one))) one = &a;
    if (one != nullptr) {
      application* poorest = nullptr;
      for (auto& [id, a] : applications)
        if (single(a) && choose(a) != nullptr &&
            (poorest == nullptr ||
             std::pair(coming(id), turn_of(a)) < std::pair(coming(poorest->id), turn_of(*poorest))))
          poorest = &a;
      if (coming(one->id) >= coming(poorest->id) + 2) one = poorest;
    }
    std::map<std::tuple<std::uint64_t, int, std::uint64_t>, application*> together;
    for (auto& [id, a] : applications)
      if (a.present && coming(id) < a.least) together[{a.least - coming(id), served_as(a), a.turn}] = &a;
    application* many = nullptr;
    for (auto& [key, a] : together) {
      if (a != together.begin()->second && a->name == together.begin()->second->name) continue;
      if (free_for(*a) >= std::get<0>(key)) many = a;
      if (many != nullptr || a != together.begin()->second) break;
    }
    if (many != nullptr && (one == nullptr || turn_of(*many) < turn_of(*one))) {
      for (auto need = many->least - coming(many->id); need > 0; --need) give(*many, *choose(*many));
      return true;
    }
    if (one == nullptr) return false;
    give(*one, *choose(*one));
    return true;
  }

  bool let_one_in() {
    application* best = nullptr;
    const host* where = nullptr;
    for (auto& [id, a] : applications) {
      if (!single(a) || a.long_running || (best != nullptr && turn_of(*best) < turn_of(a))) continue;
      const host* found = nullptr;
      for (const auto& [address, h] : hosts)
        if (usable(h) && free(h) == 0 && h.name != a.name && on(h, true) > 0 && on(h, false) < h.slots &&
            (found == nullptr ||
             std::pair(h.idle_since, h.number) < std::pair(found->idle_since, found->number)))
          found = &h;
      if (found == nullptr) continue;
      best = &a;
      where = found;
    }
    if (best == nullptr) return false;
    give(*best, *where);
    return true;
  }

  bool take_one() {
    std::map<std::pair<std::uint64_t, std::uint64_t>, application*> rich;
    for (auto& [id, a] : applications)
      if (a.present && !a.alone_until && held(id) >= 2 && held(id) > a.least)
        rich[{std::numeric_limits<std::uint64_t>::max() - held(id), a.number}] = &a;
    for (auto& [key, robbed] : rich) {
      application* robber = nullptr;
      grant* which = nullptr;
      for (auto& [id, a] : applications) {
        if (!single(a) || held(robbed->id) < coming(id) + 2) continue;
        if (robber != nullptr &&
            std::pair(coming(robber->id), turn_of(*robber)) < std::pair(coming(id), turn_of(a)))
          continue;
        for (grant* g : newest_first(robbed->id))
          if (const host& h = hosts.at(g->address); usable(h) && h.name != a.name) {
            robber = &a;
            which = g;
            break;
          }
      }
      if (robber == nullptr) continue;
      tell(ledger_order::kind::revoked, *which, robbed->id);
      tell(ledger_order::kind::ended, *which, robbed->id);
      robbed->alone_until = now_ + limits_.alone;
      which->holder = 0;
      which->promised = robber->id;
      robber->turn = ++turns_;
      robber->hungry = false;
      return true;
    }
    return false;
  }

  void settle() {
    while (give_free() || let_one_in() || take_one()) {
    }
    for (auto& [id, a] : applications) {
      if (!a.present || coming(id) >= a.wanted || coming(id) > 0) {
        a.hungry = false;
        a.hungry_at = {};
      } else if (!a.hungry && !a.hungry_at) {
        a.hungry_at = now_ + limits_.patience;
      }
    }
  }

  const ledger_limits limits_{};
  ledger_time now_{};
  std::uint64_t next_grant_, numbers_ = 0, turns_ = 0, grants_made_ = 0;
};

} // namespace migrate_test
