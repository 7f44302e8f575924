// The command `migrate`: what it shows and does, and what it says when it cannot.
#include "../../examples/migrate/command.hpp"

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <pty.h>
#include <sys/wait.h>

#include <migrate/mailbox.hpp>

using namespace std::chrono_literals;
using migrate_test::folder;
using migrate_test::program;
namespace fs = std::filesystem;
using json = nlohmann::json;

namespace {

const migrate_test::no_cluster_of_its_own here;

struct message {};

// Three tasks on nodes 1, 2 and 2, of which one is pinned, until a line comes.
const migrate_test::scenario_entry held{"held", [] {
                                          using namespace migrate;
                                          auto tasks = migrate_test::run([] {
                                            std::vector<task_id> made;
                                            auto begin = [&](const char* name, node_id where, bool pinned) {
                                              auto one = spawn(
                                                  {.name = name, .on = where},
                                                  [pinned](task_id starter) {
                                                    std::optional<pin_scope> stays;
                                                    if (pinned) stays.emplace();
                                                    std::vector<char> memory(std::size_t{2} << 20, 'x');
                                                    asm volatile("" : : "r"(memory.data()) : "memory"); // or Clang
                                                                                                        // leaves it out
                                                    send(starter, true);
                                                    mailbox<message>().receive();
                                                  },
                                                  this_task::id());
                                              mailbox<bool>().receive();
                                              made.push_back(one.id());
                                              new task<void>(std::move(one)); // its end would detach the task
                                            };
                                            begin("first", node_id{1}, false);
                                            begin("twin", node_id{2}, false);
                                            begin("twin", node_id{2}, true);
                                            return made;
                                          });
                                          std::printf("ready\n");
                                          std::fflush(stdout);
                                          while (std::getchar() != '\n') {
                                          }
                                          migrate_test::run([tasks] {
                                            for (task_id each : tasks) {
                                              send(each, message{});
                                              task<void>(each).join();
                                            }
                                          });
                                          return 0;
                                        }};

struct ended {
  int status;
  std::string text;
};

struct desk {
  // A place where programs of this test, and no others, find each other.
  folder runtime;
  fs::path sockets = runtime.path / ("migrate-" + std::to_string(::geteuid()));

  desk() { ::setenv("XDG_RUNTIME_DIR", runtime.path.c_str(), 1); }

  ended run(std::vector<std::string> arguments, std::chrono::seconds limit = 30s) const {
    std::vector<std::string> command{"/bin/sh", "-c", "exec \"$0\" \"$@\" 2>&1",
                                     MIGRATE_EXAMPLES_DIR "/migrate"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    program shell(command, {});
    int status = shell.wait(limit);
    return {status, shell.rest()};
  }
  json status() const { return json::parse(run({"status", "--json"}).text); }
  std::size_t files() const {
    return fs::exists(sockets) ? static_cast<std::size_t>(std::distance(fs::directory_iterator(sockets), {}))
                               : 0;
  }
};

migrate_test::environment held_cluster() {
  return {{"MIGRATE_SCENARIO", "held"}, {"MIGRATE_NODES", "3"}, {"MIGRATE_QUIET", "1"}};
}

json task_of(const json& status, const std::string& name, std::size_t which = 0) {
  for (const json& each : status["programs"][0]["tasks"])
    if (each["name"] == name && which-- == 0) return each;
  return {};
}

class fake_agent final : migrate::channel_handler {
  // Keeps what it was told.
public:
  fake_agent() : server_(loop_, options(), *this) {
    loop_.start();
    server_.start({migrate::control_address("agent")});
  }
  ~fake_agent() {
    server_.stop();
    loop_.stop();
  }
  std::atomic<int> busy{0}, free{0};
  std::atomic<bool> refuses{false};

private:
  static migrate::channel_options options() {
    migrate::channel_options made;
    made.self = migrate::channel_party::of_this_process(migrate::protocol::HostRole::AGENT, "an agent");
    return made;
  }
  void on_message(migrate::channel& from, migrate::protocol::HostMessage::Reader message,
                  kj::ArrayPtr<const kj::byte>) override {
    if (refuses) throw migrate::error(migrate::errc::not_permitted, "not today");
    if (message.isBusy()) ++busy;
    if (message.isFree()) ++free;
    if (message.isStatusOf()) {
      from.answer(message.getCall(), [](migrate::protocol::HostMessage::Builder out) {
        auto line = out.initStatus().initHosts(1)[0];
        line.setHost("castor");
        line.setAgentAddress("127.0.0.1:7");
        line.setSlots(2);
        auto state = line.initState();
        state.setLendable(true);
        state.setSource("the keyboard");
        state.setReason("idle long enough");
        state.setIdleMilliseconds(3'723'000);
        state.setLoadOwn(0.25);
        auto holder = line.initHolders(1)[0];
        holder.setApplicationName("pic");
        holder.setUserName("ann");
      });
      return;
    }
    from.answer(message.getCall(), [](migrate::protocol::HostMessage::Builder out) { out.setDone(); });
  }

  migrate::event_loop loop_;
  migrate::channel_server server_;
};

} // namespace

TEST_CASE("status shows nodes, tasks and events") {
  desk here_;
  program cluster({migrate_test::own_path()}, held_cluster());
  REQUIRE(cluster.line() == "ready");
  json all = here_.status();
  REQUIRE(all["programs"].size() == 1);
  CHECK(all["programs"][0]["process"] == cluster.id());
  CHECK(all["programs"][0]["nodes"].size() == 3);
  CHECK(task_of(all, "first")["node"] == 1);
  CHECK(task_of(all, "twin")["node"] == 2);
  CHECK(task_of(all, "twin")["home"] == 1);
  CHECK(task_of(all, "twin")["bytes"] > 2'000'000);
  CHECK(all["problems"].empty());
  CHECK(all["events"].size() >= 4);

  ended table = here_.run({"status"});
  CHECK(table.status == 0);
  CHECK_THAT(table.text,
             Catch::Contains(" 3 nodes\n") && Catch::Contains("NODE  HOST") && Catch::Contains("TASK  NAME"));
  CHECK_THAT(table.text, Catch::Contains("(twin) moved from node 1 to node 2") && Catch::Contains("spawned"));
  CHECK(table.text.find('\033') == std::string::npos);
  cluster.say("");
  CHECK(cluster.wait(20s) == 0);
  CHECK(here_.files() == 0);
  CHECK(here_.status()["programs"].empty());
}

TEST_CASE("a task is moved by its number, or by its name when only one has it") {
  desk here_;
  program cluster({migrate_test::own_path()}, held_cluster());
  REQUIRE(cluster.line() == "ready");
  ended moved = here_.run({"move", "first", "3"});
  CHECK(moved.status == 0);
  CHECK_THAT(moved.text, Catch::Contains("(first)") && Catch::Contains("is on node 3"));
  json all = here_.status();
  CHECK(task_of(all, "first")["node"] == 3);
  CHECK(all["events"].back()["reason"] == "command");
  CHECK(here_.run({"move", task_of(all, "first")["task"], "2"}).status == 0);
  CHECK(task_of(here_.status(), "first")["node"] == 2);

  ended twins = here_.run({"move", "twin", "3"});
  CHECK(twins.status == 1);
  CHECK_THAT(twins.text, Catch::Contains("2 tasks") && Catch::Contains("give the number"));
  ended nobody = here_.run({"move", "9.99", "3"});
  CHECK(nobody.status == 1);
  CHECK_THAT(nobody.text, Catch::Contains("task 9.99") && Catch::Contains("no such task") &&
                              Catch::Contains("migrate status"));
  ended nowhere = here_.run({"move", "first", "77"});
  CHECK(nowhere.status == 1);
  CHECK_THAT(nowhere.text, Catch::Contains("node 77") && Catch::Contains("no such node"));
  ended other = here_.run({"move", "first", "3", "--process", "1"});
  CHECK(other.status == 1);
  CHECK_THAT(other.text, Catch::Contains("process 1 has no such task"));
  ended pinned = here_.run({"move", task_of(all, "twin", 1)["task"], "3"});
  CHECK(pinned.status == 1);
  CHECK_THAT(pinned.text, Catch::Contains("pin_scope"));

  program second({migrate_test::own_path()}, held_cluster());
  REQUIRE(second.line() == "ready");
  ended either = here_.run({"move", "first", "3"});
  CHECK(either.status == 1);
  CHECK_THAT(either.text, Catch::Contains("--process"));
  CHECK(here_.run({"move", "first", "3", "--process", std::to_string(second.id())}).status == 0);
  for (program* each : {&cluster, &second}) {
    each->say("");
    CHECK(each->wait(20s) == 0);
  }
  CHECK(here_.files() == 0);
}

TEST_CASE("what a killed program left is removed, and what lives is not") {
  desk here_;
  {
    program cluster({migrate_test::own_path()}, held_cluster());
    REQUIRE(cluster.line() == "ready");
    ::kill(-cluster.id(), SIGKILL);
    cluster.wait(20s);
  }
  CHECK(here_.files() == 1);
  program cluster({migrate_test::own_path()}, held_cluster());
  REQUIRE(cluster.line() == "ready");
  ended seen = here_.run({"status"});
  CHECK(seen.status == 0);
  CHECK_THAT(seen.text, Catch::Contains(" 3 nodes\n"));
  CHECK(here_.files() == 1);
  cluster.say("");
  CHECK(cluster.wait(20s) == 0);
}

TEST_CASE("a program whose directory is open to others says so and goes on") {
  desk here_;
  fs::create_directory(here_.sockets);
  fs::permissions(here_.sockets, fs::perms::all);
  program cluster({"/bin/sh", "-c", "exec \"$0\" 2>&1", migrate_test::own_path()},
                  {{"MIGRATE_SCENARIO", "held"}, {"MIGRATE_NODES", "2"}});
  std::string line = cluster.line();
  CHECK_THAT(line, Catch::Contains("migrate status") && Catch::Contains("nobody else can enter"));
  CHECK(cluster.line() == "ready");
  cluster.say("");
  CHECK(cluster.wait(20s) == 0);
}

TEST_CASE("busy and free reach the agent, and what it says comes back") {
  desk here_;
  ended alone = here_.run({"busy"});
  CHECK(alone.status == 1);
  CHECK_THAT(alone.text, Catch::Contains("busy") && Catch::Contains("no agent") && Catch::Contains("root"));
  fake_agent agent;
  ended busy = here_.run({"busy"});
  CHECK(busy.status == 0);
  CHECK(agent.busy == 1);
  CHECK(here_.run({"free"}).status == 0);
  CHECK(agent.free == 1);
  agent.refuses = true;
  ended refused = here_.run({"free"});
  CHECK(refused.status == 1);
  CHECK_THAT(refused.text, Catch::Contains("not today"));
}

TEST_CASE("hosts are shown with what decided") {
  desk here_;
  fake_agent agent;
  json all = here_.status();
  REQUIRE(all["hosts"].size() == 1);
  CHECK(all["hosts"][0]["decided_by"] == "the keyboard");
  CHECK(all["hosts"][0]["holders"][0]["user"] == "ann");
  ended table = here_.run({"status"});
  CHECK_THAT(table.text, Catch::Contains("castor") && Catch::Contains("lendable") &&
                             Catch::Contains("1:02 h") && Catch::Contains("the keyboard") &&
                             Catch::Contains("pic of ann") && Catch::Contains("idle long enough") &&
                             Catch::Contains("1/2"));
}

TEST_CASE("an address where nobody is is named") {
  desk here_;
  ended seen = here_.run({"status", "--database", "127.0.0.1:1"});
  CHECK(seen.status == 1);
  CHECK_THAT(seen.text, Catch::Contains("127.0.0.1:1") && Catch::Contains("refused"));
  CHECK(here_.run({"status"}).status == 0);
  CHECK(here_.run({"stetus"}).status == 2);
}

TEST_CASE("watching draws in place on a terminal, and q quits") {
  desk here_;
  program cluster({migrate_test::own_path()}, held_cluster());
  REQUIRE(cluster.line() == "ready");
  winsize size{24, 80, 0, 0};
  int master = -1;
  pid_t child = ::forkpty(&master, nullptr, nullptr, &size);
  if (child == 0) {
    ::execl(MIGRATE_EXAMPLES_DIR "/migrate", "migrate", "status", "--watch", "--interval", "0.1", nullptr);
    ::_exit(127);
  }
  std::string seen;
  auto read_until = [&](const std::string& what, std::size_t from) {
    for (auto until = std::chrono::steady_clock::now() + 20s; std::chrono::steady_clock::now() < until;) {
      if (seen.find(what, from) != std::string::npos) return true;
      pollfd ready{master, POLLIN, 0};
      if (::poll(&ready, 1, 1000) <= 0) continue;
      char bytes[4096];
      auto got = ::read(master, bytes, sizeof bytes);
      if (got <= 0) return false;
      seen.append(bytes, static_cast<std::size_t>(got));
    }
    return false;
  };
  CHECK(read_until("twin", 0));
  CHECK(read_until("\033[H", seen.size())); // once more, over what is there
  CHECK(::write(master, "q", 1) == 1);
  CHECK(read_until("\033[?1049l", 0)); // the terminal has what it had before
  int status = -1;
  ::waitpid(child, &status, 0);
  ::close(master);
  CHECK(status == 0);

  program plain({MIGRATE_EXAMPLES_DIR "/migrate", "status", "--watch", "--interval", "0.1"}, {});
  int tables = 0;
  for (int lines = 0; tables < 2 && lines < 500; ++lines) tables += plain.line().starts_with("NODE ");
  CHECK(tables == 2);
  ::kill(plain.id(), SIGINT);
  CHECK(plain.wait(20s) == 0);
  cluster.say("");
  CHECK(cluster.wait(20s) == 0);
}

TEST_CASE("tables keep to the width that there is") {
  using namespace migrate_command;
  overview all;
  host one;
  one.name = "a-host-with-a-rather-long-name.example.org";
  one.source = "input device /dev/input/event17 of the seat";
  one.reason = "the owner was here 12 minutes ago, and the policy asks for 15";
  one.holders = {{1, "simulation-of-everything", "somebody"}, {2, "another", "else"}};
  all.hosts = {one};
  migrate_command::program its{"program-with-a-long-name", "user", "host", 4242, {}, {}};
  its.nodes.push_back(
      {migrate::node_id{1}, "host", "[2001:db8::1234:5678:9abc]:40000", "leaves its host", 1, 2, 3});
  its.tasks.push_back({migrate::task_id(migrate::node_id{1}, 3, 0), "a\033[2Jname\n", "is to go to 3",
                       migrate::node_id{2}, 5, 1'500'000});
  all.programs = {its};
  all.events.push_back({61'000, "agent on castor",
                        "grant 17 of an application is evicted since the owner is back", "a reason"});
  all.events.push_back({5'000, "database on pollux", "host castor is lendable", "idle>900"});
  for (std::size_t width : {80, 100, 140}) {
    for (const section& each : sections_of(all, width)) {
      CHECK(each.title.size() <= width);
      for (const std::string& line : each.lines) {
        INFO(line);
        CHECK(width_of(line) <= width);
      }
    }
  }
  std::string text;
  for (const std::string& line : text_of(sections_of(all, 0), false)) text += line + "\n";
  CHECK_THAT(text, Catch::Contains(one.reason) && Catch::Contains("1.4 MiB") && Catch::Contains("1:01 min"));
  CHECK(text.find('\033') == std::string::npos); // what a task is called does not steer the terminal

  std::vector<section> many{{"Tasks", {"TASK"}, false, ""}, {"Events", {"AGO"}, true, ""}};
  for (int i = 0; i < 50; ++i) {
    many[0].lines.push_back("task " + std::to_string(i));
    many[1].lines.push_back("event " + std::to_string(i));
  }
  fit(many, 24);
  std::vector<std::string> lines = text_of(many, false);
  CHECK(lines.size() <= 24);
  CHECK(lines[2] == "task 0");
  CHECK(lines.back() == "event 49");
}
