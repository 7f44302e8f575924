#include <migrate/cluster/grant_ledger.hpp>

#include "../support/random.hpp"
#include "ledger_model.hpp"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

using namespace migrate_test;
using namespace std::chrono_literals;

namespace {

host_condition idle_for(std::chrono::milliseconds time, bool lendable = true) {
  host_condition made;
  made.lendable = lendable;
  made.reason = lendable ? "idle" : "the owner is back";
  made.idle = time;
  return made;
}

application_ask wants(std::uint64_t application, std::uint32_t wanted, const std::string& host = "home") {
  application_ask made;
  made.application = application;
  made.name = "application " + std::to_string(application);
  made.host = host;
  made.wanted = wanted;
  return made;
}

struct bench {
  // A ledger, its time, and what it has ordered.

  grant_ledger ledger;
  ledger_time now{1000h};
  std::vector<ledger_order> orders;

  void host(const std::string& name, std::chrono::milliseconds idle, unsigned slots = 1) {
    ledger.host_came({"agent of " + name, name, slots, {}}, now);
    ledger.host_told("agent of " + name, idle_for(idle), now);
    take();
  }
  void ask(application_ask what) {
    ledger.asked(what, now);
    take();
  }
  void pass(std::chrono::milliseconds time) {
    auto end = now + time;
    while (ledger.next_due() && *ledger.next_due() <= end) {
      now = *ledger.next_due();
      ledger.advance(now);
    }
    now = end;
    take();
  }
  void take() {
    for (ledger_order& each : ledger.take_orders()) orders.push_back(std::move(each));
  }
  std::vector<std::string> got(std::uint64_t application) {
    // The hosts that it has been granted since this was last asked.
    std::vector<std::string> names;
    std::vector<ledger_order> rest;
    for (ledger_order& each : orders) {
      if (each.what == ledger_order::kind::granted && each.application == application)
        names.push_back(each.address.substr(std::string("agent of ").size()));
      else
        rest.push_back(std::move(each));
    }
    orders = std::move(rest);
    return names;
  }
  std::vector<ledger_order> all(ledger_order::kind what) {
    std::vector<ledger_order> found;
    for (const ledger_order& each : orders)
      if (each.what == what) found.push_back(each);
    std::erase_if(orders, [&](const ledger_order& each) { return each.what == what; });
    return found;
  }
  void end_what_ends() {
    for (const ledger_order& each : all(ledger_order::kind::ended))
      ledger.grant_ended(each.address, each.grant, now);
    take();
  }
  std::uint64_t held(std::uint64_t application) {
    auto* found = ledger.application(application);
    return found == nullptr ? 0 : found->held();
  }
  std::uint64_t newest(std::uint64_t application) { return ledger.application(application)->newest->id; }
  void give_back(std::uint64_t application) {
    ledger.gave_back(application, newest(application), now);
    take();
  }
  std::string last_reason(ledger_act act) {
    std::string found;
    ledger.events().for_each([&](const ledger_event& each) {
      if (each.act == act) found = each.what() + ": " + each.reason();
    });
    return found;
  }
};

using names = std::vector<std::string>;

} // namespace

TEST_CASE("the host that has been idle longest is granted first, and never the asker's own") {
  bench b;
  b.host("young", 1min);
  b.host("old", 100min);
  b.host("home", 500min);
  b.host("middle", 10min);
  b.ask(wants(1, 2));
  CHECK(b.got(1) == names{"old", "middle"});
  CHECK(b.last_reason(ledger_act::granted_longest_idle) ==
        "application 1 gets middle: idle for 600 s, the longest of those with a free slot");
  b.ask(wants(1, 10));
  CHECK(b.got(1) == names{"young"});
  b.ask(wants(2, 1, "elsewhere"));
  CHECK(b.got(2) == names{"home"});
}

TEST_CASE("an application gets another slot of a host that it has before any other") {
  bench b;
  b.host("large", 1min, 3);
  b.host("young", 30s);
  b.ask(wants(1, 1));
  CHECK(b.got(1) == names{"large"});
  b.host("old", 100min);
  b.ask(wants(1, 4));
  CHECK(b.got(1) == names{"large", "large", "old"});
}

TEST_CASE("waiting askers are served by priority, then in the order of asking") {
  bench b;
  for (std::uint64_t each : {1, 2, 3}) b.ask(wants(each, 1));
  auto urgent = wants(4, 1);
  urgent.priority = 5;
  b.ask(urgent);
  std::vector<std::uint64_t> order;
  for (const char* name : {"a", "b", "c", "d"}) {
    b.host(name, 1min);
    for (const auto& each : b.all(ledger_order::kind::granted)) order.push_back(each.application);
  }
  CHECK(order == std::vector<std::uint64_t>{4, 1, 2, 3});
}

TEST_CASE("a slot is free again when its agent says that nothing is left, not before") {
  bench b;
  b.host("a", 1min);
  b.ask(wants(1, 1));
  b.ask(wants(2, 1));
  b.give_back(1);
  CHECK(b.got(2).empty());
  auto ended = b.all(ledger_order::kind::ended);
  REQUIRE(ended.size() == 1);
  // Who has nothing to say about it says so in vain.
  b.ledger.grant_ended("another agent", ended[0].grant, b.now);
  b.ledger.gave_back(2, ended[0].grant, b.now);
  b.take();
  CHECK(b.got(2).empty());
  b.ledger.grant_ended(ended[0].address, ended[0].grant, b.now);
  b.take();
  CHECK(b.got(2).empty()); // application 1 still wants one, and asked before
  CHECK(b.held(1) == 1);
  b.ask(wants(1, 0));
  b.give_back(1);
  b.end_what_ends();
  CHECK(b.got(2) == names{"a"});
}

TEST_CASE("fair share takes from the one with the most, down to one more than the asker, once in a while") {
  bench b;
  for (const char* name : {"a", "b", "c", "d", "e", "f"}) b.host(name, 1min);
  b.ask(wants(1, 4));
  b.ask(wants(2, 2));
  b.ask(wants(3, 3, "x"));
  // It is taken from application 1, which is told, and its agent; nobody has it before the agent says that it is free.
  auto revoked = b.all(ledger_order::kind::revoked);
  REQUIRE(revoked.size() == 1);
  CHECK(revoked[0].application == 1);
  CHECK(revoked[0].reason.find("fair share") != std::string::npos);
  CHECK(b.last_reason(ledger_act::taken).find("fair share: it has 4 and application 3 has 0") !=
        std::string::npos);
  CHECK(b.got(3).empty());
  // A guest who comes meanwhile does not get what was taken for another.
  b.ask(wants(4, 1, "y"));
  CHECK(b.all(ledger_order::kind::revoked).size() == 1); // from application 2, since 1 is left alone
  b.end_what_ends();
  CHECK(b.got(3).size() == 1);
  CHECK(b.got(4).size() == 1);
  CHECK(b.held(1) == 3);
  CHECK(b.held(2) == 1);
  CHECK(b.held(3) == 1);
  // Both are left alone for half a minute; then 1 has two more than 3.
  b.ask(wants(2, 1));
  b.pass(29s);
  CHECK(b.all(ledger_order::kind::revoked).empty());
  b.pass(2s);
  revoked = b.all(ledger_order::kind::revoked);
  REQUIRE(revoked.size() == 1);
  CHECK(revoked[0].application == 1);
  b.end_what_ends();
  CHECK(b.held(3) == 2);
  // 2, 1, 2, 1: nobody has two more than anybody who waits.
  b.pass(10min);
  CHECK(b.all(ledger_order::kind::revoked).empty());
}

TEST_CASE("who wants at least so many gets none before it can have them all, and keeps them") {
  bench b;
  b.host("a", 1min);
  b.host("b", 1min);
  auto many = wants(1, 3);
  many.least = 3;
  b.ask(many);
  CHECK(b.held(1) == 0);
  b.ask(wants(2, 1)); // is not held up
  CHECK(b.held(2) == 1);
  b.host("c", 1min);
  CHECK(b.held(1) == 0);
  b.host("d", 1min);
  CHECK(b.held(1) == 3);
  // Fair share never takes it below.
  b.ask(wants(3, 1));
  b.pass(10min);
  CHECK(b.all(ledger_order::kind::revoked).empty());
  b.host("e", 1min);
  CHECK(b.held(3) == 1);
}

TEST_CASE("a long-running holder lets short tasks in when no slot is free") {
  bench b;
  b.host("a", 1min);
  auto slow = wants(1, 1);
  slow.long_running = true;
  b.ask(slow);
  CHECK(b.held(1) == 1);
  b.ask(wants(2, 1));
  CHECK(b.got(2) == names{"a"});
  CHECK(b.last_reason(ledger_act::granted_beside).find("lets short tasks in") != std::string::npos);
  // One for each slot, no long ones, and no short ones beside short ones.
  b.ask(wants(3, 1));
  auto other = wants(4, 1);
  other.long_running = true;
  b.ask(other);
  CHECK(b.held(3) == 0);
  CHECK(b.held(4) == 0);
  b.ask(wants(1, 0));
  b.give_back(1);
  b.end_what_ends();
  CHECK(b.held(3) == 0); // the slot has its short task
  b.ask(wants(2, 0));
  b.give_back(2);
  b.end_what_ends();
  CHECK(b.held(3) == 1);
}

TEST_CASE("an application that asks for a million hosts gets what there is") {
  bench b;
  for (int i = 0; i < 5; ++i) b.host("host " + std::to_string(i), 1min, 2);
  b.ask(wants(1, 1'000'000));
  CHECK(b.held(1) == 10);
  CHECK(b.ledger.grants() == 10);
  b.ask(wants(2, 4'000'000'000));
  auto all = wants(3, 4'000'000'000);
  all.least = 4'000'000'000;
  b.ask(all);
  b.pass(30min);
  CHECK(b.held(3) == 0);
  // An agent that says it has as many slots is not believed.
  b.host("liar", 1min, 4'000'000'000);
  CHECK(b.ledger.host("agent of liar")->slots <= 4096);
}

TEST_CASE("a closed connection gives back everything") {
  bench b;
  for (int i = 0; i < 4; ++i) b.host("host " + std::to_string(i), 1min);
  b.ask(wants(1, 4));
  b.ask(wants(2, 4));
  b.ledger.application_left(1, b.now);
  b.take();
  CHECK(b.all(ledger_order::kind::ended).size() == 4); // one of them was taken for application 2 before
  CHECK(b.ledger.application(1) == nullptr);
  auto grants = b.ledger.grants();
  CHECK(grants == 4);
  for (int i = 0; i < 4; ++i) {
    std::string address = "agent of host " + std::to_string(i);
    b.ledger.grant_ended(address, b.ledger.host(address)->grants.at(0)->id, b.now);
  }
  CHECK(b.held(2) == 4);
}

TEST_CASE("a host that is silent for three minutes is granted to nobody until it speaks") {
  bench b;
  b.host("a", 1min);
  b.host("b", 1min);
  b.ask(wants(1, 1));
  b.pass(179s);
  b.ledger.host_told("agent of b", idle_for(4min), b.now);
  b.pass(2s);
  CHECK(b.last_reason(ledger_act::host_stale) == "a is not lent: nothing heard of it for 180 s");
  CHECK(b.held(1) == 1); // what is granted stays
  b.ask(wants(2, 2, "x"));
  CHECK(b.got(2) == names{"b"});
  b.give_back(1);
  b.end_what_ends();
  CHECK(b.got(2).empty());
  b.ledger.host_told("agent of a", idle_for(4min), b.now);
  b.take();
  CHECK(b.held(1) + b.held(2) == 2);
}

TEST_CASE("an owner who returns is given the host at once, and its holder another") {
  bench b;
  b.host("a", 10min);
  b.host("b", 1min);
  b.ask(wants(1, 1));
  CHECK(b.got(1) == names{"a"});
  b.ledger.host_told("agent of a", idle_for(0ms, false), b.now);
  b.ledger.host_takes_back("agent of b", b.newest(1), "not its own", 3s, b.now);
  CHECK(b.held(1) == 1);
  b.ledger.host_takes_back("agent of a", b.newest(1), "keyboard", 3s, b.now);
  b.take();
  auto revoked = b.all(ledger_order::kind::revoked);
  REQUIRE(revoked.size() == 1);
  CHECK(revoked[0].reason == "keyboard");
  CHECK(revoked[0].left == 3s);
  CHECK(b.got(1) == names{"b"}); // before anything has left the first
}

TEST_CASE("a host that an application cannot use comes last until its agent speaks again") {
  bench b;
  b.host("a", 10min);
  b.host("b", 1min);
  b.ask(wants(1, 1));
  CHECK(b.got(1) == names{"a"});
  b.ledger.gave_back(1, b.newest(1), b.now, "another build");
  CHECK(b.ledger.grants() == 2);
  b.take();
  CHECK(b.got(1) == names{"b"});
  CHECK(b.last_reason(ledger_act::given_back) == "application 1 gives back a: another build");
  b.end_what_ends();
  b.host("c", 1s);
  b.ask(wants(1, 2));
  CHECK(b.got(1) == names{"c"});
}

TEST_CASE("an agent that is gone loses its grants, one that comes back keeps them") {
  bench b;
  b.host("a", 10min);
  b.ask(wants(1, 1));
  auto grant = b.newest(1);
  b.ledger.host_left("agent of a", b.now);
  b.pass(5s);
  CHECK(b.held(1) == 1);
  b.ledger.host_came({"agent of a", "a", 1, {{grant, 1, "", ""}}}, b.now);
  b.pass(1h);
  CHECK(b.held(1) == 1);
  CHECK(b.all(ledger_order::kind::revoked).empty());
  b.ledger.host_left("agent of a", b.now);
  b.pass(11s);
  CHECK(b.held(1) == 0);
  CHECK(b.all(ledger_order::kind::revoked).size() == 1);
  CHECK(b.ledger.hosts() == 0);
  CHECK(b.ledger.grants() == 0);
}

TEST_CASE("a ledger that is younger than the grants learns of them from both sides, in either order") {
  for (bool agent_first : {true, false}) {
    bench b;
    auto agents = [&] {
      b.ledger.host_came({"agent of a", "a", 2, {{77, 1, "", ""}, {78, 9, "", ""}}}, b.now);
      b.ledger.host_told("agent of a", idle_for(1min), b.now);
    };
    auto back = wants(1, 1);
    back.back = true;
    back.held = {{77, 1, "a", "agent of a"}};
    if (agent_first) agents();
    b.ask(back);
    if (!agent_first) agents();
    b.take();
    CHECK(b.held(1) == 1);
    CHECK(b.newest(1) == 77);
    CHECK(b.last_reason(ledger_act::held_before) != "");
    CHECK(b.all(ledger_order::kind::granted).empty());
    CHECK(b.all(ledger_order::kind::revoked).empty());
    // The other's application does not come back.
    CHECK(b.held(9) == 1);
    b.pass(31s);
    auto ended = b.all(ledger_order::kind::ended);
    REQUIRE(ended.size() == 1);
    CHECK(ended[0].grant == 78);
    CHECK(b.ledger.application(9) == nullptr);
  }
}

TEST_CASE("what is claimed and is not so is refused") {
  bench b;
  b.host("a", 1min, 2);
  b.ask(wants(1, 1));
  auto liar = wants(2, 1, "elsewhere");
  liar.held = {
      {b.newest(1), 2, "a", "agent of a"}, {4711, 2, "a", "agent of a"}, {4712, 2, "b", "agent of b"}};
  b.ask(liar);
  CHECK(b.held(1) == 1);
  auto refused = b.all(ledger_order::kind::revoked);
  REQUIRE(refused.size() == 2);
  CHECK(refused[0].application == 2);
  CHECK(b.held(2) == 1); // of b, which has not said so yet
  // b's agent knows whose grant it is.
  b.ledger.host_came({"agent of b", "b", 1, {{4712, 3, "", ""}}}, b.now);
  b.take();
  CHECK(b.held(3) == 1);
  CHECK(b.held(2) == 1); // the slot of a that is left
  CHECK(b.got(2) == names{"a"});
  // Neither has anything of a's.
  b.ledger.host_came({"agent of b", "b", 1, {{b.newest(1), 3, "", ""}}}, b.now);
  b.ledger.grant_ended("agent of b", b.newest(1), b.now);
  CHECK(b.held(1) == 1);
  CHECK(b.held(3) == 0);
}

TEST_CASE(
    "only ages count: the ledger decides the same whatever its clock says, and whatever others' clocks say") {
  std::vector<std::string> first;
  for (auto offset : {0h, 1h, 100'000h}) {
    bench b;
    b.now += offset;
    for (int i = 0; i < 5; ++i) b.host("host " + std::to_string(i), std::chrono::minutes(7 * i % 5));
    b.host("from the future", -1h); // its idle time makes no sense
    b.host("from long ago", std::chrono::hours(24 * 365 * 500));
    b.ask(wants(1, 4));
    b.pass(179s);
    b.ask(wants(2, 1, "x"));
    b.pass(2s);
    std::vector<std::string> decided;
    for (const ledger_order& each : b.orders)
      decided.push_back(std::to_string(each.application) + each.address);
    if (offset == 0h) first = decided;
    CHECK(decided == first);
    CHECK(decided.front().ends_with("from long ago"));
  }
}

TEST_CASE("the last events are kept with their reasons, and no more") {
  bench b;
  b.host("a", 1min);
  for (int i = 0; i < 1000; ++i) {
    b.ask(wants(1, 1));
    b.ask(wants(1, 0));
    b.give_back(1);
    b.end_what_ends();
  }
  std::size_t seen = 0;
  bool all = true;
  b.ledger.events().for_each([&](const ledger_event& each) {
    ++seen;
    all = all && !each.what().empty();
  });
  CHECK(seen == 1024);
  CHECK(all);
  CHECK(b.ledger.events().count() > 4000);
}

TEST_CASE("whoever wants a host has one in time, as long as there are as many hosts as applications") {
  // With greedy applications, owners that come and go, and grants that take their time to end.
  random_choices random(new_seed("nobody starves"));
  bench b;
  constexpr int machines = 12;
  constexpr std::uint64_t applications = 10;
  for (int i = 0; i < machines; ++i) b.host("host " + std::to_string(i), std::chrono::minutes(i));
  std::vector<ledger_time> poor_since(applications + 1, ledger_time::max());
  for (std::uint64_t a = 1; a <= applications; ++a) {
    auto ask = wants(a, 1'000'000, "home " + std::to_string(a));
    ask.priority = static_cast<int>(random.below(3));
    ask.long_running = random.one_in(2);
    b.ask(ask);
  }
  for (int step = 0; step < 2000; ++step) {
    b.pass(std::chrono::milliseconds(random.below(2000)));
    std::uint64_t who = 1 + random.below(applications);
    if (random.one_in(20)) {
      b.ledger.application_left(who, b.now);
      b.take();
      b.ask(wants(who, 1'000'000, "home " + std::to_string(who)));
    } else if (b.held(who) > 0 && random.one_in(2)) {
      b.give_back(who);
    }
    for (int i = 0; i < machines; ++i)
      if (step % 60 == i) b.ledger.host_told("agent of host " + std::to_string(i), idle_for(1min), b.now);
    b.take();
    if (random.one_in(2)) b.end_what_ends();
    for (std::uint64_t a = 1; a <= applications; ++a) {
      if (b.held(a) > 0)
        poor_since[a] = ledger_time::max();
      else if (poor_since[a] == ledger_time::max())
        poor_since[a] = b.now;
      else
        REQUIRE(b.now - poor_since[a] < 5min);
    }
  }
}

namespace {

class agreement {
  // A ledger and the model, told the same by agents and applications that lose connections, forget, and lie.

public:
  explicit agreement(std::uint64_t seed) : random_(seed) { restart(); }

  void step() {
    advance(now_ +
            std::chrono::milliseconds(random_.one_in(20) ? random_.below(200'000) : random_.below(3'000)));
    switch (random_.below(16)) {
    case 0:
    case 1: come(any(hosts_)); break;
    case 2: leave(any(hosts_)); break;
    case 3:
    case 4: tell(any(hosts_)); break;
    case 5:
    case 6:
    case 7: end_some(any(hosts_)); break;
    case 8:
    case 9:
    case 10: ask(any(applications_)); break;
    case 11:
    case 12: give_back(any(applications_)); break;
    case 13: take_back(any(hosts_)); break;
    case 14:
      if (random_.one_in(3)) leave(any(applications_));
      break;
    case 15:
      if (random_.one_in(40)) restart();
      break;
    }
    check();
  }

  std::size_t decisions = 0, robberies = 0, restarts = 0;

private:
  struct host {
    std::string address, name;
    unsigned slots;
    bool present = false;
    std::map<std::uint64_t, std::uint64_t> grants; // and whose
  };
  struct application {
    std::uint64_t id;
    std::string on;
    bool present = false;
    std::map<std::uint64_t, std::pair<std::string, std::string>> grants; // host, address
  };

  template <class T> T& any(std::vector<T>& of) { return of[random_.below(of.size())]; }

  void restart() {
    ++restarts;
    std::uint64_t first = restarts << 32;
    ledger_ = std::make_unique<grant_ledger>(first);
    model_ = std::make_unique<ledger_model>(first);
    robbed_at_.clear();
    if (hosts_.empty()) {
      for (unsigned i = 0; i < 9; ++i)
        hosts_.push_back(
            {"agent " + std::to_string(i), "machine " + std::to_string(i % 6), 1 + i % 3, false, {}});
      for (std::uint64_t i = 1; i <= 8; ++i)
        applications_.push_back({i, "machine " + std::to_string(i % 5), false, {}});
    }
    for (host& each : hosts_) each.present = false;
    for (application& each : applications_) each.present = false;
  }

  template <class F> void both(F&& function) {
    function(*ledger_);
    function(*model_);
    agree();
  }
  void advance(ledger_time to) {
    for (;;) {
      auto due = ledger_->next_due();
      REQUIRE(due == model_->next_due());
      if (!due || *due > to) break;
      now_ = std::max(now_, *due);
      both([&](auto& which) { which.advance(now_); });
    }
    now_ = to;
  }
  void agree() {
    auto orders = ledger_->take_orders();
    auto expected = std::exchange(model_->orders, {});
    REQUIRE(orders.size() == expected.size());
    for (std::size_t i = 0; i < orders.size(); ++i) {
      CAPTURE(i, orders[i].reason);
      REQUIRE(orders[i].what == expected[i].what);
      REQUIRE(orders[i].grant == expected[i].grant);
      REQUIRE(orders[i].application == expected[i].application);
      REQUIRE(orders[i].address == expected[i].address);
      obey(orders[i]);
    }
    REQUIRE(ledger_->hosts() == model_->hosts.size());
    REQUIRE(ledger_->applications() == model_->applications.size());
    REQUIRE(ledger_->grants() == model_->grants.size());
  }
  void obey(const ledger_order& order) {
    ++decisions;
    auto on =
        std::find_if(hosts_.begin(), hosts_.end(), [&](auto& each) { return each.address == order.address; });
    auto to = std::find_if(applications_.begin(), applications_.end(),
                           [&](auto& each) { return each.id == order.application; });
    if (order.what == ledger_order::kind::granted) {
      REQUIRE(on != hosts_.end());
      REQUIRE(to != applications_.end());
      REQUIRE(on->present);
      REQUIRE(to->present);
      REQUIRE(on->name != to->on); // never its own
      on->grants[order.grant] = to->id;
      to->grants[order.grant] = {on->name, on->address};
    } else if (order.what == ledger_order::kind::revoked && to != applications_.end()) {
      to->grants.erase(order.grant);
      if (order.reason.starts_with("fair share")) {
        ++robberies;
        auto before = robbed_at_.find(to->id);
        REQUIRE((before == robbed_at_.end() || now_ - before->second >= 30s));
        robbed_at_[to->id] = now_;
      }
    }
  }

  void come(host& which) {
    host_registration said{which.address, which.name, which.slots, {}};
    for (const auto& [grant, whose] : which.grants)
      if (!random_.one_in(20)) said.grants.push_back({grant, whose, "", ""});
    if (random_.one_in(20)) // of another
      for (const auto& [grant, whose] : any(hosts_).grants) said.grants.push_back({grant, whose, "", ""});
    if (random_.one_in(20)) said.grants.push_back({random_.below(100), 1 + random_.below(8), "", ""});
    which.present = true;
    which.grants.clear();
    for (const held_grant& each : said.grants) which.grants[each.grant] = each.application;
    both([&](auto& ledger) { ledger.host_came(said, now_); });
    tell(which);
  }
  void leave(host& which) {
    which.present = false;
    both([&](auto& ledger) { ledger.host_left(which.address, now_); });
  }
  void tell(host& which) {
    auto said = idle_for(std::chrono::seconds(random_.below(1000)), !random_.one_in(5));
    both([&](auto& ledger) { ledger.host_told(which.address, said, now_); });
  }
  void end_some(host& which) {
    if (!which.present) return;
    for (const auto& [grant, whose] : std::map(which.grants)) {
      auto* known = ledger_->grant(grant);
      if (known != nullptr && known->holder != nullptr && !random_.one_in(30)) continue;
      which.grants.erase(grant);
      both([&, id = grant](auto& ledger) { ledger.grant_ended(which.address, id, now_); });
    }
  }
  void take_back(host& which) {
    if (!which.present || which.grants.empty()) return;
    auto grant = which.grants.begin()->first;
    ledger_->host_takes_back(which.address, grant, "keyboard", 3s, now_);
    model_->host_takes_back(which.address, grant, now_);
    agree();
  }
  void ask(application& which) {
    application_ask said;
    said.application = which.id;
    said.name = "application " + std::to_string(which.id);
    said.host = which.on;
    said.wanted = static_cast<std::uint32_t>(random_.one_in(4) ? 1'000'000 : random_.below(6));
    said.least = static_cast<std::uint32_t>(random_.one_in(4) ? random_.below(5) : 0);
    said.priority = static_cast<int>(random_.below(3)) - 1;
    said.long_running = random_.one_in(4);
    said.back = random_.one_in(10);
    if (!which.present || said.back) {
      for (const auto& [grant, where] : which.grants)
        if (!random_.one_in(20)) said.held.push_back({grant, which.id, where.first, where.second});
      if (random_.one_in(20)) said.held.push_back({random_.below(100), which.id, "machine 9", "agent 9"});
      if (random_.one_in(20))
        for (const auto& [grant, where] : any(applications_).grants)
          said.held.push_back({grant, which.id, where.first, where.second});
      which.grants.clear();
      for (const held_grant& each : said.held) which.grants[each.grant] = {each.host, each.address};
    }
    which.present = true;
    both([&](auto& ledger) { ledger.asked(said, now_); });
  }
  void give_back(application& which) {
    if (!which.present || which.grants.empty()) return;
    auto grant = which.grants.begin()->first;
    if (!random_.one_in(20)) which.grants.erase(grant);
    auto& who = random_.one_in(20) ? any(applications_) : which;
    const std::uint64_t fewer = random_.below(3);
    both([&](auto& ledger) { ledger.gave_back(who.id, grant, now_, {}, fewer); });
  }
  void leave(application& which) {
    which.present = false;
    robbed_at_.erase(which.id);
    both([&](auto& ledger) { ledger.application_left(which.id, now_); });
  }

  void check() {
    // What holds whatever the rules are.
    std::uint64_t free = 0;
    ledger_->for_each_host([&](const ledger_host& each) {
      std::uint64_t longs = 0, shorts = 0;
      for (const ledger_grant* grant : each.grants) ++(grant->long_running ? longs : shorts);
      REQUIRE(longs == each.long_grants);
      REQUIRE(shorts == each.short_grants);
      if (each.usable() && longs + shorts < each.slots) free += each.slots - longs - shorts;
    });
    std::uint64_t held = 0;
    ledger_->for_each_application([&](const ledger_application& each) {
      held += each.held();
      if (each.waits() && !each.takes_all_or_none()) {
        // Nobody waits for a slot that it may have.
        std::uint64_t own = 0;
        ledger_->for_each_host(
            [&](const ledger_host& other) { own += other.on == each.on ? other.free_slots() : 0; });
        REQUIRE(free == own);
      }
      for (const ledger_grant* grant : each.promises) REQUIRE(grant->holder == nullptr);
    });
    REQUIRE(held <= ledger_->grants());
  }

  random_choices random_;
  ledger_time now_{1000h};
  std::unique_ptr<grant_ledger> ledger_;
  std::unique_ptr<ledger_model> model_;
  std::vector<host> hosts_;
  std::vector<application> applications_;
  std::map<std::uint64_t, ledger_time> robbed_at_;
};

} // namespace

TEST_CASE("the ledger decides as its rules say, whatever agents and applications do") {
  random_choices seeds(new_seed("grant ledger"));
  std::size_t decisions = 0, robberies = 0, restarts = 0;
  for (int round = 0; round < 60; ++round) {
    agreement both(seeds.next());
    for (int i = 0; i < 800; ++i) {
      CAPTURE(round, i);
      both.step();
    }
    decisions += both.decisions;
    robberies += both.robberies;
    restarts += both.restarts;
  }
  std::fprintf(stderr, "%zu decisions, %zu by fair share, %zu ledgers\n", decisions, robberies, restarts);
  CHECK(robberies > 100);
}
