// An agent as a database, applications and an owner see it. This program is also the agent, and what it starts.
#define CATCH_CONFIG_RUNNER
#include "../../examples/hostd/command.hpp"

#include <migrate/cluster/agent_link.hpp>
#include <migrate/cluster/host_database.hpp>
#include <migrate/rpc/channel.hpp>

#include "../support/folder.hpp"
#include "../support/program.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>

using namespace migrate;
using namespace std::chrono_literals;
using detail::bytes_of;

namespace {

// ---- what is started: a node that tells the test, by a named pipe, what it hears of its agent

void tell(const std::string& text) {
  int pipe = ::open(std::getenv("TELL"), O_WRONLY | O_CLOEXEC);
  std::string line = text + "\n";
  static_cast<void>(!::write(pipe, line.data(), line.size()));
  ::close(pipe);
}

struct node_side final : detail::agent_link::listener {
  bool answers = true;

  void on_link_message(detail::agent_link& from, protocol::HostMessage::Reader message) override {
    if (!message.isEvict()) return;
    tell("evict " + std::string(message.getEvict().getReason().cStr()));
    if (answers) from.send([](protocol::HostMessage::Builder out) { out.setEvicted(); });
  }
  void on_link_closed(detail::agent_link&, const error&) override {}
};

int node(const std::string& what) {
  if (what == "exit") return 3;
  if (what == "count") { // and stand still when it is told to
    for (;;) {
      tell("on");
      ::usleep(1000);
    }
  }
  int inherited = detail::agent_link::take_inherited();
  if (inherited < 0 || std::getenv(detail::agent_link::variable) != nullptr) return 9;
  event_loop loop;
  loop.start();
  node_side here;
  here.answers = what == "node";
  std::shared_ptr<detail::agent_link> link;
  loop.run([&] { link = detail::agent_link::adopt(loop, inherited, here, "the agent"); });
  if (what == "stubborn") {
    for (int each = 1; each < NSIG; ++each) ::signal(each, SIG_IGN);
    if (::fork() == 0) { // a daemon
      ::setsid();
      if (::fork() != 0) ::_exit(0);
      tell("daemon " + std::to_string(::getpid()));
      for (;;) ::pause();
    }
  }
  tell("ready");
  for (;;) ::pause();
}

// ---- who talks to the agent

struct heard {
  std::string kind, text;
  std::uint64_t number = 0;
  std::vector<std::uint64_t> grants;
  std::shared_ptr<channel> from;
};

class ears : public channel_handler {
public:
  void on_open(channel& from) override { add({"open", "", 0, {}, from.shared_from_this()}); }
  void on_message(channel& from, protocol::HostMessage::Reader message,
                  kj::ArrayPtr<const kj::byte>) override {
    heard one{"", "", 0, {}, from.shared_from_this()};
    if (message.isRegister()) {
      one.kind = "register";
      one.text = message.getRegister().getAddress().cStr();
      one.number = message.getRegister().getSlots();
      for (auto each : message.getRegister().getGrants()) one.grants.push_back(each.getGrant());
      from.answer(message.getCall(), [](protocol::HostMessage::Builder out) { out.setDone(); });
    } else if (message.isState()) {
      one.kind = message.getState().getLendable() ? "lendable" : "kept";
      one.text =
          std::string(message.getState().getReason().cStr()) + " by " + message.getState().getSource().cStr();
    } else if (message.isGranted()) {
      one.kind = "granted";
      one.number = message.getGranted().getGrant();
      one.text = bytes_of(message.getGranted().getSecret());
    } else if (message.isRevoked()) {
      one.kind = "revoked";
      one.number = message.getRevoked().getGrant();
      one.text = message.getRevoked().getReason().cStr();
    } else if (message.isGrantEnded()) {
      one.kind = "ended";
      one.number = message.getGrantEnded().getGrant();
    }
    add(one);
  }
  void on_closed(channel&, const error& reason) override { add({"closed", reason.what(), 0, {}, {}}); }

  heard wait(const std::string& kind, std::chrono::seconds limit = 30s) {
    // The first of the kind that was not taken before; what was said before it is forgotten.
    auto deadline = std::chrono::steady_clock::now() + limit;
    std::unique_lock lock(mutex_);
    for (;;) {
      while (!all_.empty()) {
        heard first = all_.front();
        all_.erase(all_.begin());
        if (first.kind == kind) return first;
      }
      if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) return {"nothing", "", 0, {}, {}};
    }
  }

private:
  void add(heard what) {
    std::lock_guard lock(mutex_);
    all_.push_back(std::move(what));
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<heard> all_;
};

channel_options as(protocol::HostRole role, const std::string& name) {
  channel_options made;
  made.self = channel_party::of_this_process(role, name);
  return made;
}

struct database {
  event_loop loop;
  ears hears;
  std::unique_ptr<channel_server> server;
  std::shared_ptr<channel> agent;

  explicit database(const std::string& address = "127.0.0.1:0") {
    loop.start();
    server = std::make_unique<channel_server>(loop, as(protocol::HostRole::DATABASE, "database"), hears);
    server->start({address});
  }
  ~database() {
    server->stop();
    agent.reset();
    loop.stop();
  }
  std::string address() const { return server->addresses()[0]; }

  heard registered() {
    auto made = hears.wait("register");
    agent = made.from;
    return made;
  }
  void reserve(std::uint64_t grant, const std::string& secret = "secret", uid_t user = ::geteuid()) {
    agent->send([&](protocol::HostMessage::Builder out) {
      auto one = out.initReserved();
      one.setGrant(grant);
      one.setApplication(7);
      one.setApplicationName("test");
      one.setUser(user);
      one.setSecret(kj::StringPtr(secret.c_str()).asBytes());
    });
  }
  void end(std::uint64_t grant) {
    agent->send([&](protocol::HostMessage::Builder out) {
      auto one = out.initEnded();
      one.setGrant(grant);
      one.setReason("given back");
    });
  }
};

std::string own_address() {
  static const std::string made = [] {
    detail::descriptor file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    return to_string(*detail::copy_content(file.get()));
  }();
  return made;
}

struct caller {
  event_loop loop;
  ears hears;
  std::unique_ptr<channel_client> client;

  explicit caller(const std::string& address, protocol::HostRole role = protocol::HostRole::APPLICATION) {
    loop.start();
    client = std::make_unique<channel_client>(loop, address, as(role, "test"), hears);
    client->start();
  }
  ~caller() {
    client->stop();
    loop.stop();
  }
  template <class Fill, class Read> auto call(Fill&& fill, Read&& read) {
    return client->wait_open()->call(fill, read, 30s);
  }

  std::string launch(std::uint64_t grant, const std::string& what, const std::string& pipe,
                     const std::string& secret = "secret", const std::string& executable = own_address()) {
    // The process id, or why not.
    try {
      auto fill = [&](protocol::HostMessage::Builder out) {
        auto one = out.initLaunch();
        one.setGrant(grant);
        one.setSecret(kj::StringPtr(secret.c_str(), secret.size()).asBytes());
        one.setExecutable(kj::StringPtr(executable.c_str()).asBytes());
        one.setPath(migrate_test::own_path().c_str());
        one.setStore("/nowhere");
        auto arguments = one.initArguments(3);
        arguments.set(0, "program");
        arguments.set(1, "--as");
        arguments.set(2, what.c_str());
        one.initEnvironment(1).set(0, ("TELL=" + pipe).c_str());
      };
      return call(fill, [](protocol::HostMessage::Reader answer) {
        return std::to_string(answer.getLaunched().getProcess());
      });
    } catch (const error& problem) {
      return problem.what();
    }
  }
  std::string say(const std::function<void(protocol::HostMessage::Builder)>& what) {
    try {
      call(what, [](protocol::HostMessage::Reader) {});
      return "done";
    } catch (const error& problem) {
      return problem.what();
    }
  }
  std::string busy() {
    return say([](protocol::HostMessage::Builder out) { out.setBusy(); });
  }
  std::string free() {
    return say([](protocol::HostMessage::Builder out) { out.setFree(); });
  }
};

// ---- a machine with an agent

struct machine {
  migrate_test::folder root;
  std::unique_ptr<migrate_test::program> agent;
  std::string address, pipe;
  int listening = -1;
  std::string heard_;

  machine() {
    namespace fs = std::filesystem;
    ::setenv("XDG_RUNTIME_DIR", root.path.c_str(), 1);
    fs::create_directories(root.path / "dev/pts");
    fs::create_directories(root.path / "dev/input");
    fs::create_directories(root.path / "proc/net");
    write("proc/net/unix", "Num RefCount Protocol Flags Type St Inode Path\n");
    write("proc/loadavg", "0.00 0.00 0.00 1/100 1\n");
    owner_is("free");
    pipe = root.path / "pipe";
    ::mkfifo(pipe.c_str(), 0600);
    listening = ::open(pipe.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  }
  ~machine() { ::close(listening); }

  void write(const std::string& path, const std::string& text) {
    std::string made = root.path / (path + ".new");
    std::ofstream(made) << text;
    std::filesystem::rename(made, root.path / path);
  }
  void owner_is(const std::string& what) { write("owner", what); }
  std::string file(const std::string& name) const { return root.path / name; }

  void lend(const std::string& to, std::vector<std::string> more = {}) {
    std::vector<std::string> command{migrate_test::own_path(), "--agent", "--database", to};
    auto option = [&](const std::string& name, const std::string& value) {
      if (std::find(more.begin(), more.end(), name) == more.end())
        command.insert(command.end(), {name, value});
    };
    option("--policy", "sprite");
    option("--slots", "2");
    option("--idle-file", file("owner"));
    option("--dev", file("dev"));
    option("--proc", file("proc"));
    option("--look-idle", "20");
    option("--look-lent", "20");
    option("--nice", "0");
    option("--cache", file("cache"));
    option("--scratch", file("scratch"));
    command.push_back("--normal-scheduling"); // others may want the processors too
    if (::geteuid() == 0) command.push_back("--run-as-root");
    command.insert(command.end(), more.begin(), more.end());
    agent = std::make_unique<migrate_test::program>(command, migrate_test::environment{});
    address = agent->line();
    REQUIRE(address.starts_with("127.0.0.1:"));
  }

  std::string told(std::chrono::seconds limit = 30s) {
    // The next line that a node says.
    auto deadline = std::chrono::steady_clock::now() + limit;
    for (;;) {
      if (std::size_t end = heard_.find('\n'); end != heard_.npos) {
        std::string first = heard_.substr(0, end);
        heard_.erase(0, end + 1);
        return first;
      }
      auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      pollfd waited{listening, POLLIN, 0};
      if (left.count() <= 0 || ::poll(&waited, 1, static_cast<int>(left.count())) <= 0) return "nothing";
      char bytes[4096];
      ssize_t got = ::read(listening, bytes, sizeof bytes);
      if (got > 0) heard_.append(bytes, static_cast<std::size_t>(got));
    }
  }
  std::size_t left_in_scratch() {
    std::size_t count = 0;
    std::error_code ignored;
    for (auto& each : std::filesystem::recursive_directory_iterator(file("scratch"), ignored))
      count += each.path().filename().string().starts_with("migrate-");
    return count;
  }
};

bool alive(const std::string& process) { return ::kill(std::atoi(process.c_str()), 0) == 0; }

bool dies(const std::string& process) {
  // Within half a minute. Not our child, so there is nothing else to wait for.
  for (int i = 0; i < 6000 && alive(process); ++i) ::usleep(5000);
  return !alive(process);
}

bool is_process(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == text.npos;
}

bool contains(const std::string& text, const std::string& part) {
  INFO(text);
  bool found = text.find(part) != text.npos;
  if (!found) UNSCOPED_INFO(text);
  return found;
}

struct lent : machine {
  // With a node that runs.
  database ledger;
  std::unique_ptr<caller> application;
  std::string process;

  explicit lent(const std::string& what = "node", const std::vector<std::string>& more = {}) {
    lend(ledger.address(), more);
    ledger.registered();
    CHECK(ledger.hears.wait("lendable").kind == "lendable");
    ledger.reserve(11);
    application = std::make_unique<caller>(address);
    process = application->launch(11, what, pipe);
    INFO(process);
    REQUIRE(is_process(process));
    if (what != "exit") {
      std::string said = told();
      if (said.starts_with("daemon")) {
        daemon = said.substr(7);
        said = told();
      } else if (what == "stubborn") {
        daemon = told().substr(7);
      }
      REQUIRE((said == "ready" || said == "on"));
    }
  }
  std::string daemon;
};

} // namespace

TEST_CASE("an agent registers, says that its machine may be lent, and starts what it is told to") {
  lent here;
  CHECK(alive(here.process));
  here.ledger.end(11);
  CHECK(here.told() == "evict given back");
  CHECK(here.ledger.hears.wait("ended").number == 11);
  CHECK_FALSE(alive(here.process));
  CHECK(here.left_in_scratch() == 0);
}

TEST_CASE("with the database itself: asked for, granted, launched, and taken back when the owner says busy") {
  machine here;
  event_loop loop;
  loop.start();
  host_database_options options;
  auto ledger = std::make_unique<host_database>(loop, options);
  ledger->start();
  here.lend(ledger->addresses()[0], {"--name", "elsewhere"}); // nobody is granted his own host
  {
    caller asks(ledger->addresses()[0]), launches(here.address);
    CHECK(asks.say([](protocol::HostMessage::Builder out) {
      auto ask = out.initAsk();
      ask.setApplication(7);
      ask.setWanted(1);
    }) == "done");
    auto granted = asks.hears.wait("granted");
    REQUIRE(granted.kind == "granted");
    std::string process = launches.launch(granted.number, "node", here.pipe, granted.text);
    INFO(process);
    REQUIRE(is_process(process));
    REQUIRE(here.told() == "ready");
    caller command(here.address, protocol::HostRole::COMMAND);
    CHECK(command.busy() == "done");
    auto revoked = asks.hears.wait("revoked");
    CHECK(revoked.number == granted.number);
    CHECK(contains(revoked.text, "idle<30: the owner says busy"));
    CHECK(here.told() == "evict idle<30: the owner says busy");
    CHECK(dies(process));
  }
  ledger.reset();
  loop.stop();
}

TEST_CASE(
    "only an application that knows the secret of a grant that the database reserved launches, and once") {
  machine here;
  database ledger;
  here.lend(ledger.address());
  auto registration = ledger.registered();
  CHECK(registration.text == here.address);
  CHECK(registration.number == 2);
  ledger.hears.wait("lendable");
  ledger.reserve(11);
  ledger.reserve(12, "other", ::geteuid() + 1);
  caller application(here.address), command(here.address, protocol::HostRole::COMMAND);
  CHECK(contains(application.launch(99, "node", here.pipe), "reserved no grant 99 on this host"));
  CHECK(contains(application.launch(11, "node", here.pipe, "guess"), "does not know the secret of grant 11"));
  CHECK(contains(application.launch(11, "node", here.pipe, ""), "does not know the secret of grant 11"));
  CHECK(contains(application.launch(11, "node", here.pipe, "secretsecret"),
                 "does not know the secret of grant 11"));
  CHECK(contains(application.launch(12, "node", here.pipe, "other"), "a cluster's nodes have one user"));
  CHECK(
      contains(application.launch(11, "node", here.pipe, "secret", "../../bin/sh"), "is no content address"));
  CHECK(contains(command.launch(11, "node", here.pipe), "is no application"));
  std::string process = application.launch(11, "node", here.pipe);
  REQUIRE(is_process(process));
  CHECK(contains(application.launch(11, "node", here.pipe), "grant 11 has its node already"));
  CHECK(alive(process));
}

TEST_CASE("another build is not started, and the grant ends") {
  machine here;
  database ledger;
  here.lend(ledger.address());
  ledger.registered();
  ledger.hears.wait("lendable");
  ledger.reserve(11);
  caller application(here.address);
  std::string other = own_address();
  other[3] = other[3] == '0' ? '1' : '0';
  std::string refused = application.launch(11, "node", here.pipe, "secret", other);
  CHECK(contains(refused, "is not on this host"));
  CHECK(contains(refused, "is another build here"));
  CHECK(ledger.hears.wait("ended").number == 11);
}

TEST_CASE("a launch that overtakes the database's word waits for it") {
  machine here;
  database ledger;
  here.lend(ledger.address());
  ledger.registered();
  ledger.hears.wait("lendable");
  caller application(here.address);
  std::string process;
  std::thread asks([&] { process = application.launch(11, "node", here.pipe); });
  // The agent answers in the order of one channel's requests, so it has the launch when it has told its status.
  application.say([](protocol::HostMessage::Builder out) { out.setStatusOf(); });
  ledger.reserve(11);
  asks.join();
  CHECK(is_process(process));
}

TEST_CASE("a program's own end is the grant's") {
  lent here("exit");
  CHECK(here.ledger.hears.wait("ended").number == 11);
}

TEST_CASE("the owner comes back: the node is told, leaves, and the machine is his") {
  lent here("node", {"--leave", "600000"}); // it does not wait for that when the node says that it has left
  here.owner_is("busy");
  CHECK(here.told() == "evict idle<30: file " + here.file("owner"));
  auto revoked = here.ledger.hears.wait("revoked");
  CHECK(revoked.number == 11);
  CHECK(revoked.text == "idle<30: file " + here.file("owner"));
  auto kept = here.ledger.hears.wait("kept");
  CHECK(kept.text == "idle<30 by file " + here.file("owner"));
  CHECK(here.ledger.hears.wait("ended").number == 11);
  CHECK_FALSE(alive(here.process));
  here.owner_is("free");
  CHECK(here.ledger.hears.wait("lendable").kind == "lendable");
}

TEST_CASE("a node that does not leave is gone after the deadline, with its daemon") {
  lent here("stubborn", {"--leave", "100"});
  CHECK(alive(here.daemon));
  here.owner_is("busy");
  CHECK(here.told().starts_with("evict "));
  CHECK(here.ledger.hears.wait("ended").number == 11);
  CHECK_FALSE(alive(here.process));
  CHECK_FALSE(alive(here.daemon));
  CHECK(here.left_in_scratch() == 0);
}

TEST_CASE("a key press acts at once, not at the next look") {
  machine here;
  std::string device = here.file("dev/input/event0");
  REQUIRE(::mkfifo(device.c_str(), 0600) == 0);
  int keyboard = ::open(device.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  database ledger;
  here.lend(ledger.address(), {"--look-lent", "3600000", "--start", "idle>=0", "--suspend", "idle<1"});
  ledger.registered();
  ledger.hears.wait("lendable");
  for (;;) { // the device counts as touched when it was seen first
    caller command(here.address, protocol::HostRole::COMMAND);
    auto idle = command.call([](protocol::HostMessage::Builder out) { out.setStatusOf(); },
                             [](protocol::HostMessage::Reader answer) {
                               return answer.getStatus().getHosts()[0].getState().getIdleMilliseconds();
                             });
    if (idle >= 1000) break;
    std::this_thread::sleep_for(50ms);
  }
  ledger.reserve(11);
  caller application(here.address);
  REQUIRE(is_process(application.launch(11, "node", here.pipe)));
  REQUIRE(here.told() == "ready");
  input_event press{};
  REQUIRE(::write(keyboard, &press, sizeof press) == sizeof press);
  CHECK(here.told() == "evict idle<1: input event0");
  CHECK(ledger.hears.wait("ended").number == 11);
  ::close(keyboard);
}

TEST_CASE("the owner says busy, and free, and sees what his agent did and why") {
  lent here;
  caller command(control_addresses("agent").at(0), protocol::HostRole::COMMAND);
  CHECK(command.busy() == "done");
  CHECK(here.told() == "evict idle<30: the owner says busy");
  CHECK(here.ledger.hears.wait("ended").number == 11);
  std::string host, reason, events;
  bool lendable = true;
  std::size_t holders = 9;
  auto read = [&](protocol::HostMessage::Reader answer) {
    auto line = answer.getStatus().getHosts()[0];
    lendable = line.getState().getLendable();
    reason = line.getState().getReason().cStr();
    holders = line.getHolders().size();
    for (auto each : answer.getStatus().getEvents())
      events += std::string(each.getWhat().cStr()) + ": " + each.getReason().cStr() + "\n";
  };
  command.call([](protocol::HostMessage::Builder out) { out.setStatusOf(); }, read);
  CHECK_FALSE(lendable);
  CHECK(contains(reason, "idle"));
  CHECK(holders == 0);
  CHECK(contains(events, "the owner says busy: "));
  CHECK(contains(events, "grant 11 is evicted: idle<30: the owner says busy\n"));
  CHECK(contains(events, "grant 11 is gone: "));
  CHECK(command.free() == "done");
  CHECK(here.ledger.hears.wait("lendable").kind == "lendable");
}

TEST_CASE("a source of idleness that vanishes or lies takes the machine back") {
  SECTION("it vanishes") {
    lent here;
    std::filesystem::remove(here.file("owner"));
    CHECK(here.told() == "evict idle<30: file " + here.file("owner") + ", vanished");
    CHECK(here.ledger.hears.wait("ended").number == 11);
  }
  SECTION("it makes no sense") {
    lent here;
    here.owner_is(GENERATE("-100", "99999999999999999999999999", "", "lent"));
    CHECK(here.told() == "evict idle<30: file " + here.file("owner"));
  }
  SECTION("a terminal that was read in the future") {
    lent here;
    std::string terminal = here.file("dev/tty1");
    std::ofstream(terminal) << "";
    timespec times[2] = {{::time(nullptr) + 3600, 0}, {::time(nullptr) + 3600, 0}};
    ::utimensat(AT_FDCWD, terminal.c_str(), times, 0);
    CHECK(here.told() == "evict idle<30: terminal tty1");
  }
  SECTION("a display that nothing watches") {
    lent here;
    here.write("proc/net/unix", "0000: 00000002 00000000 00010000 0001 01 17 /run/user/1000/wayland-0\n");
    CHECK(contains(here.told(), "evict a graphical seat that nothing watches"));
  }
}

TEST_CASE("a display that nothing watches is lent only when the owner says so") {
  bool says_so = GENERATE(false, true);
  machine here;
  here.write("proc/net/unix", "0000: 00000002 00000000 00010000 0001 01 17 @/tmp/.X11-unix/X0\n");
  database ledger;
  here.lend(ledger.address(),
            says_so ? std::vector<std::string>{"--lend-unwatched"} : std::vector<std::string>{});
  ledger.registered();
  auto first = ledger.hears.wait(says_so ? "lendable" : "kept");
  CHECK(first.text ==
        (says_so ? "idle by file " : "a graphical seat that nothing watches by file ") + here.file("owner"));
}

TEST_CASE("an owner who wants his machine is not kept waiting by a grant that is only reserved") {
  machine here;
  database ledger;
  here.lend(ledger.address());
  ledger.registered();
  ledger.hears.wait("lendable");
  ledger.reserve(11);
  here.owner_is("busy");
  CHECK(ledger.hears.wait("ended").number == 11);
  ledger.hears.wait("kept", 0s);
  ledger.reserve(12); // the database has not heard yet
  CHECK(ledger.hears.wait("ended").number == 12);
  caller application(here.address);
  CHECK(contains(application.launch(12, "node", here.pipe), "reserved no grant 12"));
}

TEST_CASE("no more grants than slots") {
  machine here;
  database ledger;
  here.lend(ledger.address());
  ledger.registered();
  ledger.hears.wait("lendable");
  for (std::uint64_t grant : {11, 12, 13}) ledger.reserve(grant);
  CHECK(ledger.hears.wait("ended").number == 13);
}

TEST_CASE("a policy that lets foreign work stand still, and go on when the owner leaves soon") {
  lent here("count", {"--preempt", "suspended>1000"});
  here.owner_is("busy");
  CHECK(here.ledger.hears.wait("kept").kind == "kept");
  while (here.told(1s) != "nothing") {
  }
  CHECK(alive(here.process));
  here.owner_is("free");
  CHECK(here.told() == "on");
  here.owner_is("busy"); // and when he says so himself, or the application does, it ends
  here.ledger.hears.wait("kept");
  here.application.reset();
  CHECK(here.ledger.hears.wait("ended").number == 11);
  CHECK_FALSE(alive(here.process));
}

TEST_CASE("an application that is lost takes what it has launched with it") {
  lent here("stubborn", {"--leave", "600000"});
  here.application.reset();
  CHECK(here.ledger.hears.wait("ended").number == 11);
  CHECK_FALSE(alive(here.process));
  CHECK_FALSE(alive(here.daemon));
}

TEST_CASE("a database that dies and comes back: the agent keeps its grants, and says which") {
  machine here;
  auto ledger = std::make_unique<database>();
  std::string where = ledger->address();
  here.lend(where);
  CHECK(ledger->registered().grants.empty());
  ledger->hears.wait("lendable");
  ledger->reserve(11);
  ledger->reserve(12);
  caller application(here.address);
  std::string process = application.launch(11, "node", here.pipe);
  REQUIRE(is_process(process));
  REQUIRE(here.told() == "ready");
  ledger.reset();
  database next(where);
  CHECK(next.registered().grants == std::vector<std::uint64_t>{11, 12});
  CHECK(next.hears.wait("lendable").kind == "lendable");
  CHECK(alive(process));
  CHECK(is_process(application.launch(12, "node", here.pipe)));
  next.end(11);
  CHECK(next.hears.wait("ended").number == 11);
}

TEST_CASE("an agent that is killed while it lends leaves nothing, and the database hears of it") {
  bool groups = GENERATE(true, false);
  lent here("stubborn",
            groups ? std::vector<std::string>{} : std::vector<std::string>{"--no-control-groups"});
  ::kill(here.agent->id(), SIGKILL);
  CHECK(here.ledger.hears.wait("closed").kind == "closed");
  CHECK(dies(here.process));
  CHECK(dies(here.daemon));
  for (int i = 0; i < 6000 && here.left_in_scratch() > 0; ++i) ::usleep(5000);
  CHECK(here.left_in_scratch() == 0);
}

TEST_CASE("an agent whose keeper is killed ends, with status 1, and leaves nothing") {
  lent here("stubborn", {"--leave", "100"});
  std::string keeper;
  for (const auto& each : detail::descendants_of(here.agent->id()))
    if (each.parent == here.agent->id()) keeper = std::to_string(each.id);
  REQUIRE(is_process(keeper));
  ::kill(std::atoi(keeper.c_str()), SIGKILL);
  CHECK(here.agent->wait(60s) == 1);
  CHECK(dies(here.process));
  CHECK(dies(here.daemon));
}

TEST_CASE("an agent that is stopped evicts first") {
  lent here;
  ::kill(here.agent->id(), SIGTERM);
  CHECK(here.told() == "evict the agent is stopped");
  CHECK(here.ledger.hears.wait("kept").text.starts_with("the agent is stopped"));
  CHECK(here.ledger.hears.wait("ended").number == 11);
  CHECK(here.agent->wait(60s) == 0);
  CHECK_FALSE(alive(here.process));
  CHECK(control_addresses("agent").empty());
  CHECK_FALSE(std::filesystem::exists(here.file("scratch/agent-" + std::to_string(here.agent->id()))));
}

TEST_CASE("a limit on memory holds for what the agent starts") {
  machine here;
  database ledger;
  here.lend(ledger.address(), {"--memory", "64mb", "--no-control-groups"});
  ledger.registered();
  ledger.hears.wait("lendable");
  ledger.reserve(11);
  caller application(here.address);
  REQUIRE(is_process(application.launch(11, "memory", here.pipe)));
  CHECK(ledger.hears.wait("ended").number == 11);
  CHECK(here.told(0s) == "nothing"); // it did not come to its end
}

TEST_CASE("peers that are nobody are sent away") {
  machine here;
  database ledger;
  here.lend(ledger.address());
  ledger.registered();
  auto port = static_cast<std::uint16_t>(std::atoi(here.address.substr(here.address.find(':') + 1).c_str()));
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(port);
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto closed = [&](int socket) {
    char bytes[256];
    pollfd waited{socket, POLLIN, 0};
    while (::poll(&waited, 1, 30'000) > 0) {
      ssize_t got = ::read(socket, bytes, sizeof bytes);
      if (got <= 0) return true;
    }
    return false;
  };
  SECTION("nonsense") {
    int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(::connect(socket, reinterpret_cast<sockaddr*>(&where), sizeof where) == 0);
    std::string text = "GET / HTTP/1.0\r\n\r\n" + std::string(4096, 'x');
    static_cast<void>(!::write(socket, text.data(), text.size()));
    CHECK(closed(socket));
    ::close(socket);
  }
  SECTION("another user of the machine") {
    if (::geteuid() != 0) return;
    pid_t other = ::fork();
    if (other == 0) {
      if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(2);
      int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (::connect(socket, reinterpret_cast<sockaddr*>(&where), sizeof where) != 0) ::_exit(3);
      ::_exit(closed(socket) ? 0 : 1);
    }
    int status = -1;
    ::waitpid(other, &status, 0);
    CHECK(status == 0);
  }
  caller command(here.address, protocol::HostRole::COMMAND);
  CHECK(command.busy() == "done"); // and it listens on
}

TEST_CASE("what an agent refuses to do, it says") {
  auto refusal = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"/bin/sh", "-c", "exec \"$0\" \"$@\" 2>&1", migrate_test::own_path(),
                                         "--agent", "--database", "127.0.0.1:1"});
    migrate_test::program agent(arguments, {});
    CHECK(agent.wait(30s) != 0);
    return agent.rest();
  };
  CHECK(contains(refusal({"--start", "idle=3"}), "'idle=3' is no comparison"));
  CHECK(contains(refusal({"--policy", "generous"}), "generous not in {desktop,sprite}"));
  CHECK(contains(refusal({"--user", "no-such-user"}), "there is no user no-such-user"));
  if (::geteuid() == 0) {
    CHECK(contains(refusal({}), "foreign programs should not; name a user with --user"));
    CHECK(contains(refusal({"--user", "root"}), "foreign programs should not"));
  } else {
    CHECK(contains(refusal({"--user", "root"}), "only root can run nodes as another user"));
  }
  std::vector<std::string> open{"--listen", "0.0.0.0:0"};
  if (::geteuid() == 0) open.push_back("--run-as-root");
  CHECK(contains(refusal(open), "say which (--advertise)"));
  open.insert(open.end(), {"--advertise", "here"});
  CHECK(contains(refusal(open), "credentials"));
}

int main(int argc, char** argv) {
  if (argc > 2 && std::strcmp(argv[1], "--as") == 0) {
    if (std::strcmp(argv[2], "memory") != 0) return node(argv[2]);
    for (int i = 0; i < 1024; ++i) {
      std::memset(::malloc(1 << 20), 1, 1 << 20);
      ::usleep(2000);
    }
    tell("all of it");
    return 0;
  }
  if (argc > 1 && std::strcmp(argv[1], "--agent") == 0) {
    argv[1] = argv[0];
    return migrate_hostd::run(argc - 1, argv + 1);
  }
  return Catch::Session().run(argc, argv);
}
