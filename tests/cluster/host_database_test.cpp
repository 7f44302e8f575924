#include <migrate/cluster/host_database.hpp>

#include "../support/folder.hpp"
#include "host_fixture.hpp"

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

using namespace migrate_test;

namespace {

class application final : public party {
  // As hosts are asked for, without starting anything on them.

public:
  application(const std::string& database, std::uint64_t its_id, const std::string& its_host = "home")
      : party(database, protocol::HostRole::APPLICATION, "application " + std::to_string(its_id), its_host),
        id(its_id) {
    link.start();
  }
  ~application() { link.stop(); }
  void ask(std::uint32_t how_many, int priority = 0) {
    wanted = how_many;
    request([&](protocol::HostMessage::Builder out) { write(out.initAsk(), priority, false); });
  }
  void give_back(std::uint64_t grant) {
    forget(grant);
    request([&](protocol::HostMessage::Builder out) { out.initGiveBack().setGrant(grant); });
  }
  std::size_t holds() {
    std::lock_guard lock(mutex_);
    return held_.size();
  }
  void on_open(channel& to) override {
    if (again_) to.send([&](protocol::HostMessage::Builder out) { write(out.initAsk(), 0, true); });
    again_ = true;
    party::on_open(to);
  }
  void on_message(channel&, protocol::HostMessage::Reader message, kj::ArrayPtr<const kj::byte>) override {
    if (message.isGranted()) {
      auto said = message.getGranted();
      {
        std::lock_guard lock(mutex_);
        held_[said.getGrant()] = {said.getHost().cStr(), said.getAgentAddress().cStr()};
      }
      told.add({"granted", said.getGrant(), said.getHost().cStr(), bytes_of(said.getSecret()), 0, {}});
    } else if (message.isRevoked()) {
      auto said = message.getRevoked();
      forget(said.getGrant());
      told.add({"revoked", said.getGrant(), said.getReason().cStr(), "", said.getMilliseconds(), {}});
    }
  }

  const std::uint64_t id;
  std::atomic<std::uint32_t> wanted{0};

private:
  void forget(std::uint64_t grant) {
    std::lock_guard lock(mutex_);
    held_.erase(grant);
  }
  void write(protocol::HostAsk::Builder out, int priority, bool back) {
    out.setApplication(id);
    out.setWanted(wanted);
    out.setPriority(priority);
    out.setBack(back);
    if (!back) return;
    std::lock_guard lock(mutex_);
    auto list = out.initHeld(static_cast<unsigned>(held_.size()));
    unsigned at = 0;
    for (const auto& [grant, where] : held_) {
      list[at].setGrant(grant);
      list[at].setHost(where.first.c_str());
      list[at++].setAgentAddress(where.second.c_str());
    }
  }

  std::mutex mutex_;
  std::map<std::uint64_t, std::pair<std::string, std::string>> held_;
  bool again_ = false;
};

struct database : running_loop {
  explicit database(host_database_options options = {}) : service(*this, std::move(options)) {
    service.start();
  }
  ~database() { service.stop(); }
  std::string address() const { return service.addresses()[0]; }
  std::size_t grants() {
    std::size_t found = 0;
    service.look([&](const detail::grant_ledger& ledger) { found = ledger.grants(); });
    return found;
  }

  host_database service;
};

host_database_options at(std::vector<std::string> where) {
  host_database_options made;
  made.listen = std::move(where);
  return made;
}

errc refusal(const std::function<void()>& function) {
  try {
    function();
  } catch (const error& problem) {
    CAPTURE(problem.what());
    return static_cast<errc>(problem.code().value());
  }
  return errc::ok;
}

} // namespace

TEST_CASE("an application that asks is granted a host, with a secret that its agent has too") {
  database d;
  fake_agent one(d.address(), "one");
  application a(d.address(), 1);
  a.ask(1);
  auto granted = a.told.wait("granted");
  CHECK(granted.text == "one");
  CHECK(granted.secret.size() == 16);
  auto reserved = one.told.wait("reserved");
  CHECK(reserved.grant == granted.grant);
  CHECK(reserved.text == "application 1");
  CHECK(reserved.secret == granted.secret);

  a.ask(2);
  fake_agent two(d.address(), "two");
  auto second = a.told.wait("granted");
  CHECK(second.text == "two");
  CHECK(second.grant != granted.grant);
  CHECK(second.secret != granted.secret);
  fake_agent home(d.address(), "home"); // the application's own
  a.ask(3);
  fake_agent three(d.address(), "three");
  CHECK(a.told.wait("granted").text == "three");
  CHECK(home.told.count("reserved") == 0);
}

TEST_CASE("waiting askers are woken in order, each by a host that another gives back") {
  database d;
  fake_agent host(d.address(), "host");
  std::vector<std::unique_ptr<application>> askers;
  for (std::uint64_t i = 1; i <= 4; ++i) {
    askers.push_back(std::make_unique<application>(d.address(), i));
    askers.back()->ask(1);
  }
  for (auto& each : askers) {
    auto granted = each->told.wait("granted");
    REQUIRE(granted.kind == "granted");
    for (auto& other : askers) REQUIRE(other->told.count("granted") == 0);
    each->ask(0);
    each->give_back(granted.grant);
    auto ended = host.told.wait("ended");
    CHECK(ended.grant == granted.grant);
    CHECK(ended.text == "given back");
    CHECK(ended.milliseconds == 3000);
  }
}

TEST_CASE("a closed connection gives back everything, also one that is killed") {
  migrate_test::folder folder;
  std::string address = "unix:" + (folder.path / "own" / "database.sock").string();
  const bool killed = GENERATE(false, true);
  CAPTURE(killed);
  int go[2], done[2];
  REQUIRE((::pipe(go) == 0 && ::pipe(done) == 0));
  char byte = 0;
  // Before this process has threads that the child would lack.
  pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::read(go[0], &byte, 1) != 1) ::_exit(1);
    {
      application a(address, 1);
      a.ask(100);
      for (int i = 0; i < 3; ++i) a.told.wait("granted");
      if (::write(done[1], "x", 1) != 1 || ::read(go[0], &byte, 1) != 1) ::_exit(1);
    }
    ::_exit(0);
  }
  {
    database d(at({address}));
    fake_agent one(address, "one", 2), two(address, "two", 1);
    REQUIRE((::write(go[1], "x", 1) == 1 && ::read(done[0], &byte, 1) == 1));
    application next(address, 9);
    next.ask(3);
    CHECK(next.told.wait("granted").kind == "granted"); // by fair share
    if (killed)
      ::kill(child, SIGKILL);
    else
      CHECK(::write(go[1], "x", 1) == 1);
    ::waitpid(child, nullptr, 0);
    for (int i = 0; i < 2; ++i) CHECK(next.told.wait("granted").kind == "granted");
    CHECK(d.grants() == 3);
  }
  for (int each : {go[0], go[1], done[0], done[1]}) ::close(each);
}

TEST_CASE("an owner who returns is told of to the holder, who gets another host") {
  database d;
  fake_agent one(d.address(), "one");
  application a(d.address(), 1);
  a.ask(1);
  auto granted = a.told.wait("granted");
  fake_agent two(d.address(), "two");
  one.tell(false);
  one.takes_back(granted.grant, "keyboard");
  auto revoked = a.told.wait("revoked");
  CHECK(revoked.grant == granted.grant);
  CHECK(revoked.text == "keyboard");
  CHECK(revoked.milliseconds == 2500);
  CHECK(a.told.wait("granted").text == "two");
  one.ended(granted.grant);
  CHECK(d.grants() == 1);
}

TEST_CASE("an agent that is gone is told of to its holders") {
  host_database_options options;
  options.limits.away = 100ms;
  database d(options);
  auto one = std::make_unique<fake_agent>(d.address(), "one");
  application a(d.address(), 1);
  a.ask(1);
  auto granted = a.told.wait("granted");
  one.reset();
  auto revoked = a.told.wait("revoked");
  CHECK(revoked.grant == granted.grant);
  CHECK(revoked.text.find("agent is gone") != std::string::npos);
  CHECK(revoked.milliseconds == 0);
  CHECK(d.grants() == 0);
}

TEST_CASE("fair share tells the robbed, the agent, and then the asker") {
  database d;
  fake_agent one(d.address(), "one"), two(d.address(), "two");
  one.holds_on = two.holds_on = true;
  application rich(d.address(), 1), poor(d.address(), 2);
  rich.ask(2);
  rich.told.wait("granted");
  rich.told.wait("granted");
  poor.ask(1);
  auto revoked = rich.told.wait("revoked");
  CHECK(revoked.text.find("fair share") != std::string::npos);
  CHECK(revoked.milliseconds == 3000);
  CHECK(poor.told.count("granted") == 0);
  bool first = one.told.count("ended") > 0;
  fake_agent& taken = first || one.told.wait("ended", 200ms).kind == "ended" ? one : two;
  taken.ended(revoked.grant);
  CHECK(poor.told.wait("granted").text == taken.host);
}

TEST_CASE("the database is killed and started again while it is used: who holds a host keeps it") {
  migrate_test::folder folder;
  std::string address = "unix:" + (folder.path / "own" / "database.sock").string();
  auto start = [&] {
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    pid_t made = ::fork();
    if (made == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      database d(at({address}));
      if (::write(ready[1], "x", 1) < 0) ::_exit(1);
      for (;;) ::pause();
    }
    char byte;
    REQUIRE(::read(ready[0], &byte, 1) == 1);
    ::close(ready[0]);
    ::close(ready[1]);
    return made;
  };
  auto stop = [](pid_t which) {
    ::kill(which, SIGKILL);
    ::waitpid(which, nullptr, 0);
  };
  // Before this process has threads that a child would lack.
  pid_t first = start();
  {
    fake_agent one(address, "one"), two(address, "two", 2);
    application a(address, 1), b(address, 2);
    a.ask(2);
    std::set<std::uint64_t> had{a.told.wait("granted").grant, a.told.wait("granted").grant};
    b.ask(1);
    had.insert(b.told.wait("granted").grant);
    for (int round = 0; round < 3; ++round) {
      for (party* each : std::initializer_list<party*>{&one, &two, &a, &b}) each->told.wait("open");
      stop(first);
      for (party* each : std::initializer_list<party*>{&one, &two, &a, &b})
        REQUIRE(each->told.wait("closed").kind == "closed");
      first = start();
      for (party* each : std::initializer_list<party*>{&one, &two, &a, &b})
        REQUIRE(each->told.wait("open").kind == "open");
      for (party* each : std::initializer_list<party*>{&one, &two, &a, &b})
        each->told.add({"open", 0, "", "", 0, {}});
      // Nothing was lost, and nothing is granted twice.
      a.ask(2);
      b.ask(1);
      one.tell(true);
      two.tell(true);
      CHECK(a.holds() == 2);
      CHECK(b.holds() == 1);
      CHECK(one.holds() + two.holds() == 3);
      for (party* each : std::initializer_list<party*>{&a, &b}) {
        CHECK(each->told.count("granted") == 0);
        CHECK(each->told.count("revoked") == 0);
      }
      CHECK(one.told.count("ended") + two.told.count("ended") == 0);
    }
    // The new one decides as the old one would have.
    application c(address, 3);
    c.ask(1);
    CHECK(had.count(a.told.wait("revoked").grant) == 1); // by fair share
    CHECK(c.told.wait("granted").kind == "granted");
  }
  stop(first);
}

TEST_CASE("messages that cannot be are refused by name, and harm nobody else") {
  database d;
  fake_agent one(d.address(), "one");
  application a(d.address(), 1);
  a.ask(1);
  auto granted = a.told.wait("granted");
  auto expect = [&](party& liar, const std::function<void(protocol::HostMessage::Builder)>& fill, errc code) {
    CHECK(refusal([&] { liar.request(fill); }) == code);
  };

  SECTION("an application that registers a host") {
    expect(
        a, [](auto out) { out.initRegister().setAddress("x"); }, errc::protocol);
  }
  SECTION("an agent that asks for hosts") {
    expect(
        one, [](auto out) { out.initAsk().setApplication(7); }, errc::protocol);
  }
  SECTION("a state of no host") {
    application other(d.address(), 2);
    expect(
        other, [](auto out) { out.initState(); }, errc::protocol);
  }
  SECTION("an agent of no address, and one that changes it") {
    expect(
        one, [](auto out) { out.initRegister(); }, errc::protocol);
    expect(
        one, [](auto out) { out.initRegister().setAddress("elsewhere"); }, errc::protocol);
  }
  SECTION("an application without a number, and one that changes it") {
    expect(
        a, [](auto out) { out.initAsk(); }, errc::protocol);
    expect(
        a, [](auto out) { out.initAsk().setApplication(7); }, errc::protocol);
  }
  SECTION("giving back before asking") {
    application other(d.address(), 2);
    expect(
        other, [&](auto out) { out.initGiveBack().setGrant(granted.grant); }, errc::protocol);
  }
  SECTION("giving back, and ending, what another has") {
    application other(d.address(), 2);
    other.ask(0);
    other.give_back(granted.grant);
    fake_agent two(d.address(), "two");
    two.ended(granted.grant);
    two.takes_back(granted.grant, "mine now");
  }
  SECTION("what only others do") {
    expect(
        a, [](auto out) { out.setBusy(); }, errc::protocol);
    expect(
        a, [](auto out) { out.initGranted(); }, errc::protocol);
    application other(d.address(), 2);
    other.link.wait_open()->send([](protocol::HostMessage::Builder out) { out.initLaunch(); });
    CHECK(other.told.wait("closed").kind == "closed");
  }
  SECTION("a million hosts, and a million grants held") {
    application greedy(d.address(), 2);
    greedy.ask(1'000'000);
    greedy.request([](protocol::HostMessage::Builder out) {
      auto ask = out.initAsk();
      ask.setApplication(2);
      ask.setWanted(4'000'000'000);
      ask.setBack(true);
      auto held = ask.initHeld(20'000);
      for (unsigned i = 0; i < held.size(); ++i) held[i].setGrant(i);
    });
  }
  SECTION("an enormous host, idle for ever") {
    fake_agent large(d.address(), "large", 4'000'000'000);
    large.tell(true, std::chrono::milliseconds::max());
    application greedy(d.address(), 2);
    greedy.ask(10);
    for (int i = 0; i < 10; ++i) REQUIRE(greedy.told.wait("granted").kind == "granted");
  }
  // Nobody else has noticed.
  CHECK(a.holds() == 1);
  CHECK(one.holds() == 1);
  fake_agent last(d.address(), "last");
  application other(d.address(), 99);
  other.ask(1);
  CHECK(other.told.wait("granted").kind == "granted");
}

TEST_CASE("an application or agent that connects again before its old connection is known to be lost") {
  database d;
  fake_agent one(d.address(), "one");
  application a(d.address(), 1);
  a.ask(1);
  auto granted = a.told.wait("granted");
  {
    application same(d.address(), 1); // that has lost what it had
    same.ask(1);
    CHECK(a.told.wait("closed").kind == "closed");
    CHECK(one.told.wait("ended").grant == granted.grant);
    CHECK(same.told.wait("granted").text == "one");
  }
  fake_agent successor(d.address(), "one");
  CHECK(one.told.wait("closed").kind == "closed");
}

TEST_CASE("the status shows hosts, holders, applications and events with their reasons") {
  database d;
  fake_agent one(d.address(), "one"), two(d.address(), "two");
  two.tell(false);
  application a(d.address(), 1);
  a.ask(5);
  a.told.wait("granted");
  struct seen_status {
    std::string holder, reason, application;
    std::uint32_t wanted = 0, held = 0;
    bool granted = false;
  };
  auto seen = a.link.wait_open()->call([](protocol::HostMessage::Builder out) { out.setStatusOf(); },
                                       [](protocol::HostMessage::Reader message) {
                                         seen_status made;
                                         auto status = message.getStatus();
                                         CHECK(status.getHosts().size() == 2);
                                         for (auto each : status.getHosts()) {
                                           CHECK(each.getState().getSource() == "test");
                                           CHECK(each.getAge() < 60'000);
                                           if (each.getHolders().size() > 0)
                                             made.holder = each.getHolders()[0].getApplicationName().cStr();
                                           if (!each.getState().getLendable())
                                             made.reason = each.getState().getReason().cStr();
                                         }
                                         made.application = status.getApplications()[0].getName().cStr();
                                         made.wanted = status.getApplications()[0].getWanted();
                                         made.held = status.getApplications()[0].getHeld();
                                         for (auto each : status.getEvents())
                                           made.granted =
                                               made.granted || (each.getWhat() == "application 1 gets one" &&
                                                                each.getReason().size() > 0);
                                         return made;
                                       });
  CHECK(seen.holder == "application 1");
  CHECK(seen.reason == "the owner is back");
  CHECK(seen.application == "application 1");
  CHECK(seen.wanted == 5);
  CHECK(seen.held == 1);
  CHECK(seen.granted);
}
