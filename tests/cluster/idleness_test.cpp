#include <migrate/cluster/idleness.hpp>

#include <migrate/cluster/host_load.hpp>
#include <migrate/cluster/input_idle.hpp>
#include <migrate/cluster/owner_policy.hpp>
#include <migrate/cluster/process_tree.hpp>
#include <migrate/cluster/terminal_idle.hpp>

#include "../support/folder.hpp"

#include <cstdlib>
#include <fstream>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

using namespace migrate::detail;
using namespace std::chrono_literals;

namespace {

struct machine {
  migrate_test::folder root;
  moment now{std::chrono::steady_clock::time_point(100h), std::chrono::system_clock::time_point(400'000h)};

  machine() {
    std::filesystem::create_directories(dev() + "/pts");
    std::filesystem::create_directories(dev() + "/input");
    std::filesystem::create_directories(proc() + "/net");
    write(proc() + "/net/unix", "Num RefCount Protocol Flags Type St Inode Path\n");
  }
  std::string dev() const { return root.path / "dev"; }
  std::string proc() const { return root.path / "proc"; }

  static void write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

  void touch(const std::string& terminal, std::chrono::seconds ago) {
    std::string path = dev() + "/" + terminal;
    if (!std::filesystem::exists(path)) write(path, "");
    auto when = std::chrono::duration_cast<std::chrono::seconds>(now.wall.time_since_epoch() - ago);
    timespec times[2] = {{when.count(), 0}, {when.count(), 0}};
    REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
  }
  void pass(std::chrono::seconds time) {
    now.steady += time;
    now.wall += time;
  }
  void show_display() {
    write(proc() + "/net/unix",
          "Num RefCount Protocol Flags Type St Inode Path\n"
          "0000000000000000: 00000002 00000000 00010000 0001 01 17 @/tmp/.X11-unix/X0\n");
  }
};

long seconds(const idle_answer& answer) {
  return answer.idle
             ? static_cast<long>(std::chrono::duration_cast<std::chrono::seconds>(*answer.idle).count())
             : -1;
}
long seconds(const idleness& all) {
  return static_cast<long>(std::chrono::duration_cast<std::chrono::seconds>(all.idle).count());
}

struct told final : idle_source {
  std::optional<idle_time> idle;
  bool seat = false, hint = false;
  idle_answer look(const moment&) override { return {"told", idle, {}}; }
  bool watches_seat() const override { return seat; }
  bool only_a_hint() const override { return hint; }
};

} // namespace

TEST_CASE("the terminal that was read last decides") {
  machine here;
  here.touch("pts/0", 500s);
  here.touch("pts/3", 40s);
  here.touch("tty1", 90s);
  terminal_idle terminals(here.dev());
  auto answer = terminals.look(here.now);
  CHECK(seconds(answer) == 40);
  CHECK(answer.name == "terminal pts/3");
  here.pass(30s);
  CHECK(seconds(terminals.look(here.now)) == 70);
  here.pass(10s);
  here.touch("tty1", 5s);
  answer = terminals.look(here.now);
  CHECK(seconds(answer) == 5);
  CHECK(answer.name == "terminal tty1");
}

TEST_CASE("names that are no terminals of a person do not count") {
  machine here;
  here.touch("tty1", 300s);
  for (const char* name : {"tty", "tty0", "null", "pts/ptmx"}) here.touch(name, 1s);
  terminal_idle terminals(here.dev());
  CHECK(seconds(terminals.look(here.now)) == 300);
}

TEST_CASE("a borrower's terminal does not count, until somebody else has it") {
  machine here;
  here.touch("tty1", 300s);
  here.touch("pts/4", 1s);
  terminal_idle::names ours{"pts/4"};
  terminal_idle terminals(here.dev(), [&] { return ours; });
  CHECK(seconds(terminals.look(here.now)) == 300);
  ours.clear();
  std::filesystem::remove(here.dev() + "/pts/4"); // its program has ended
  CHECK(seconds(terminals.look(here.now)) == 300);
  here.touch("pts/4", 2s);
  CHECK(seconds(terminals.look(here.now)) == 2);
}

TEST_CASE("a terminal that is closed was in use until then") {
  machine here;
  here.touch("tty1", 500s);
  here.touch("pts/0", 10s);
  terminal_idle terminals(here.dev());
  CHECK(seconds(terminals.look(here.now)) == 10);
  here.pass(100s);
  std::filesystem::remove(here.dev() + "/pts/0");
  CHECK(seconds(terminals.look(here.now)) == 0);
  here.pass(7s);
  CHECK(seconds(terminals.look(here.now)) == 7);
}

TEST_CASE("stamps that lie make a machine no idler than it is") {
  machine here;
  terminal_idle terminals(here.dev());
  SECTION("in the future: it counts as touched when it was seen first") {
    here.touch("tty1", -3600s);
    CHECK(seconds(terminals.look(here.now)) == 0);
    here.pass(50s);
    CHECK(seconds(terminals.look(here.now)) == 50);
  }
  SECTION("before the machine started") {
    here.touch("tty1", std::chrono::hours(390'000));
    CHECK(seconds(terminals.look(here.now)) == 100 * 3600);
  }
  SECTION("before 1970") {
    here.touch("tty1", std::chrono::hours(500'000));
    CHECK(seconds(terminals.look(here.now)) == 100 * 3600);
  }
  SECTION("a clock that is set forward an hour") {
    here.touch("tty1", 20s);
    CHECK(seconds(terminals.look(here.now)) == 20);
    here.now.wall += 3600s;
    here.pass(5s);
    CHECK(seconds(terminals.look(here.now)) == 25);
    here.touch("tty1", 3600s); // read just now, by the clock as it was
    CHECK(seconds(terminals.look(here.now)) <= 5);
  }
  SECTION("a clock that is set back an hour") {
    here.touch("tty1", 20s);
    CHECK(seconds(terminals.look(here.now)) == 20);
    here.now.wall -= 3600s;
    here.pass(5s);
    CHECK(seconds(terminals.look(here.now)) == 25);
  }
}

TEST_CASE("without terminals, that source cannot tell") {
  machine here;
  CHECK_FALSE(terminal_idle(here.dev()).look(here.now).idle);
  CHECK_FALSE(terminal_idle(here.dev() + "/nowhere").look(here.now).idle);
}

TEST_CASE("an event of an input device is a touch, and can be awaited") {
  machine here;
  std::string path = here.dev() + "/input/event3";
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  int device = ::open(path.c_str(), O_RDWR | O_NONBLOCK);
  input_idle input(here.dev());
  CHECK(seconds(input.look(here.now)) == 0); // what was before is not known
  CHECK(input.watches_seat());
  REQUIRE(input.awaited().size() == 1);
  here.pass(100s);
  CHECK(seconds(input.look(here.now)) == 100);
  input_event event{};
  REQUIRE(::write(device, &event, sizeof event) == sizeof event);
  auto answer = input.look(here.now);
  CHECK(seconds(answer) == 0);
  CHECK(answer.name == "input event3");
  here.pass(9s);
  CHECK(seconds(input.look(here.now)) == 9);
  ::close(device);
}

TEST_CASE("an input device that comes or goes is a touch") {
  machine here;
  std::string path = here.dev() + "/input/event0", other = here.dev() + "/input/event1";
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  REQUIRE(::mkfifo(other.c_str(), 0600) == 0);
  int device = ::open(path.c_str(), O_RDWR | O_NONBLOCK), second = ::open(other.c_str(), O_RDWR | O_NONBLOCK);
  input_idle input(here.dev());
  input.look(here.now);
  here.pass(60s);
  ::close(device); // as read() tells that a device has been pulled out
  std::filesystem::remove(path);
  auto answer = input.look(here.now);
  CHECK(seconds(answer) == 0);
  CHECK(answer.name == "input event0, gone");
  here.pass(60s);
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  device = ::open(path.c_str(), O_RDWR | O_NONBLOCK);
  CHECK(seconds(input.look(here.now)) == 0);
  ::close(device);
  ::close(second);
}

TEST_CASE("a seat is not watched while one of its devices may not be read") {
  if (::geteuid() == 0) return; // who may read everything
  machine here;
  for (const char* name : {"/input/event0", "/input/event1"})
    REQUIRE(::mkfifo((here.dev() + name).c_str(), name[12] == '0' ? 0600 : 0) == 0);
  int device = ::open((here.dev() + "/input/event0").c_str(), O_RDWR | O_NONBLOCK);
  input_idle input(here.dev());
  auto answer = input.look(here.now);
  CHECK(answer.idle);
  CHECK_FALSE(input.watches_seat());
  CHECK(answer.problem.find("event1 may not be read") != std::string::npos);
  ::close(device);
}

TEST_CASE("a file says how idle the machine is") {
  machine here;
  std::string path = here.root.path / "idle";
  file_idle file(path);
  CHECK_FALSE(file.look(here.now).idle);
  machine::write(path, "busy\n");
  CHECK(seconds(file.look(here.now)) == 0);
  machine::write(path, "free");
  CHECK(seconds(file.look(here.now)) == 100 * 3600);
  machine::write(path, "77");
  CHECK(seconds(file.look(here.now)) == 77);
  for (const char* lie : {"-5", "", "soon", "99999999999999999999", "3 4"}) {
    INFO(lie);
    machine::write(path, lie);
    CHECK(seconds(file.look(here.now)) == 0);
    CHECK(file.look(here.now).problem != "");
  }
}

TEST_CASE("idleness is the least of all that can tell") {
  machine here;
  idle_watch watch(here.proc());
  auto one = std::make_shared<told>(), two = std::make_shared<told>();
  watch.add(one);
  watch.add(two);
  auto seen = watch.look(here.now);
  CHECK(seconds(seen) == 100 * 3600); // a headless machine that nobody touches
  CHECK_FALSE(seen.seat_unwatched);
  one->idle = 70s;
  CHECK(seconds(watch.look(here.now)) == 70);
  two->idle = 30s;
  CHECK(seconds(watch.look(here.now)) == 30);
  two->idle = -30s;
  CHECK(seconds(watch.look(here.now)) == 0);
  CHECK(watch.look(here.now).answers.size() == 3);
}

TEST_CASE("a source that falls silent was touched then") {
  machine here;
  idle_watch watch(here.proc());
  auto one = std::make_shared<told>();
  watch.add(one);
  one->idle = 70s;
  watch.look(here.now);
  one->idle.reset();
  auto seen = watch.look(here.now);
  CHECK(seconds(seen) == 0);
  CHECK(seen.decided_by == "told, vanished");
  here.pass(50s);
  CHECK(seconds(watch.look(here.now)) == 50);
}

TEST_CASE("a graphical seat needs a source that watches it, or a hint") {
  machine here;
  idle_watch watch(here.proc());
  auto terminal = std::make_shared<told>(), input = std::make_shared<told>(),
       session = std::make_shared<told>();
  session->hint = true;
  input->seat = true;
  for (const auto& each : {terminal, input, session}) watch.add(each);
  terminal->idle = 1000s;
  CHECK_FALSE(watch.look(here.now).seat_unwatched);
  here.show_display();
  CHECK(watch.look(here.now).seat_unwatched);
  session->idle = 200s;
  CHECK_FALSE(watch.look(here.now).seat_unwatched);
  CHECK(seconds(watch.look(here.now)) == 200);
  input->idle = 500s; // sees more than the hint
  CHECK_FALSE(watch.look(here.now).seat_unwatched);
  CHECK(seconds(watch.look(here.now)) == 500);
  std::filesystem::remove(here.proc() + "/net/unix");
  input->idle.reset();
  session->idle.reset();
  CHECK(watch.look(here.now).seat_unwatched);
}

TEST_CASE("the owner's word: busy until he says free, and free until he touches something") {
  machine here;
  idle_watch watch(here.proc());
  auto keyboard = std::make_shared<told>();
  watch.add(keyboard);
  keyboard->idle = 400s;
  watch.owner().say_busy(here.now);
  auto seen = watch.look(here.now);
  CHECK(seconds(seen) == 0);
  CHECK(seen.decided_by == "the owner says busy");
  here.pass(1000s);
  keyboard->idle = 1400s;
  CHECK(seconds(watch.look(here.now)) == 0);

  keyboard->idle = 0s; // he types it
  watch.owner().say_free(here.now);
  seen = watch.look(here.now);
  CHECK(seconds(seen) == 100 * 3600 + 1000);
  CHECK(seen.decided_by == "the owner says free");
  here.pass(60s);
  keyboard->idle = 60s;
  CHECK(seconds(watch.look(here.now)) == 100 * 3600 + 1060);
  keyboard->idle = 3s;
  CHECK(seconds(watch.look(here.now)) == 3);
}

TEST_CASE("terminals are named as the kernel numbers them") {
  auto device = [](unsigned major, unsigned minor) { return minor % 256 | major << 8 | (minor / 256) << 20; };
  CHECK(terminal_name(device(136, 3)) == "pts/3");
  CHECK(terminal_name(device(137, 4)) == "pts/260");
  CHECK(terminal_name(device(136, 1023)) == "pts/1023");
  CHECK(terminal_name(device(4, 1)) == "tty1");
  CHECK(terminal_name(device(4, 65)) == "ttyS1");
  CHECK(terminal_name(0).empty());
}

TEST_CASE("a terminal is a borrower's only while nobody else has it") {
  machine here;
  auto process = [&](int id, int parent, char state, unsigned terminal, const std::string& name = "x") {
    std::filesystem::create_directories(here.proc() + "/" + std::to_string(id));
    machine::write(here.proc() + "/" + std::to_string(id) + "/stat",
                   std::to_string(id) + " (" + name + ") " + state + " " + std::to_string(parent) + " 1 1 " +
                       std::to_string(terminal) +
                       " -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 300 1000000 25 1 1\n");
  };
  process(1, 0, 'S', 0);
  process(10, 1, 'S', 0, "warden) R 1 (");
  process(11, 10, 'R', (136 << 8) + 4);
  process(12, 11, 'S', (136 << 8) + 5);
  process(20, 1, 'R', (136 << 8) + 5);
  std::filesystem::create_directories(here.proc() + "/999"); // one that has just ended
  auto use = use_of(process_tree(here.proc()), {10});
  CHECK(use.running == 1);
  CHECK(use.resident_bytes == 50u * static_cast<unsigned>(::sysconf(_SC_PAGESIZE)));
  CHECK(use.terminals == std::set<std::string, std::less<>>{"pts/4"});
}

TEST_CASE("the tree of this machine's own processes") {
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  pid_t child = ::fork();
  if (child == 0) {
    ::close(ready[1]);
    char byte;
    static_cast<void>(!::read(ready[0], &byte, 1)); // until the test has looked
    ::_exit(0);
  }
  ::close(ready[0]);
  bool found = false;
  for (const process_entry& each : process_tree().descendants(::getpid())) found = found || each.id == child;
  CHECK(found);
  ::close(ready[1]);
  ::waitpid(child, nullptr, 0);
}

TEST_CASE("the load: lent below Sprite's first limits, until it is above the second") {
  using clock = std::chrono::steady_clock;
  host_load load(2);
  clock::time_point now(1h);
  auto sample = [&](double average, unsigned running, unsigned foreign) {
    load.sample(now, loadavg{{average, average, average}, running}, foreign);
    now += 5s;
  };
  auto hold = [&](unsigned running, unsigned foreign, std::chrono::seconds time) {
    for (auto end = now + time; now < end;) sample(0, running, foreign);
  };
  sample(1.4, 3, 0);
  CHECK(load.accepts()); // 0.7 for each of two processors
  hold(1 + 3, 0, 1h);
  CHECK(load.averages()[0] == Approx(1.5).epsilon(0.01));
  CHECK(load.accepts()); // between the limits it stays as it was
  CHECK(load.busy_for(now) > 50min);
  hold(1 + 8, 0, 10min);
  CHECK_FALSE(load.accepts());
  hold(1 + 4, 0, 3h);
  CHECK_FALSE(load.accepts());
  hold(1, 0, 2min);
  CHECK_FALSE(load.accepts()); // the average over 15 minutes is not yet below
  hold(1, 0, 1h);
  CHECK(load.accepts());
  CHECK(load.busy_for(now) == 0s);
}

TEST_CASE("the load of borrowers' programs is not the owner's") {
  host_load load(1);
  std::chrono::steady_clock::time_point now(1h);
  load.sample(now, loadavg{{4, 4, 4}, 5}, 4);
  CHECK(load.accepts());
  for (int i = 0; i < 1000; ++i) load.sample(now += 5s, loadavg{{4, 4, 4}, 5}, 4);
  CHECK(load.accepts());
  CHECK(load.averages()[0] == Approx(0).margin(0.001));
  CHECK(load.foreign() == 4);
  load.sample(now += 5s, loadavg{{4, 4, 4}, 2}, 4); // read at another instant
  CHECK(load.averages()[0] >= 0);
}

TEST_CASE("a load that cannot be read or makes no sense lends nothing") {
  machine here;
  host_load load(1);
  std::chrono::steady_clock::time_point now(1h);
  for (const char* text : {"", "nonsense", "-1 0 0 1/3 7", "nan 0 0 1/3 7", "1e300 0 0 1/3 7"}) {
    INFO(text);
    machine::write(here.proc() + "/loadavg", text);
    CHECK_FALSE(read_loadavg(here.proc()));
    load.sample(now, read_loadavg(here.proc()), 0);
    CHECK_FALSE(load.accepts());
  }
  machine::write(here.proc() + "/loadavg", "0.20 0.18 0.12 3/80 11206\n");
  auto read = read_loadavg(here.proc());
  REQUIRE(read);
  CHECK(read->averages[2] == 0.12);
  CHECK(read->running == 3);
  load.sample(now, read, 0);
  CHECK(load.accepts());
}

TEST_CASE("pressure, where the kernel tells") {
  machine here;
  CHECK_FALSE(read_pressure("memory", here.proc()));
  std::filesystem::create_directories(here.proc() + "/pressure");
  machine::write(here.proc() + "/pressure/memory", "some avg10=12.50 avg60=3.00 avg300=1.00 total=5\n"
                                                   "full avg10=2.25 avg60=0.00 avg300=0.00 total=1\n");
  auto read = read_pressure("memory", here.proc());
  REQUIRE(read);
  CHECK(read->some == 12.5);
  CHECK(read->full == 2.25);
  machine::write(here.proc() + "/pressure/memory", "some avg10=many\n");
  CHECK_FALSE(read_pressure("memory", here.proc()));
}

TEST_CASE("conditions of a policy") {
  host_figures now;
  now.idle = 900;
  now.load1 = 0.3;
  CHECK(condition::parse("idle>=900,load1<=0.3").all(now));
  CHECK(condition::parse("idle>900,load1<=0.3").first_not(now) == "idle>900");
  CHECK(condition::parse("idle<60,load1<0.4").first(now) == "load1<0.4");
  CHECK(condition::parse("").all(now));
  CHECK(condition::parse("").first(now).empty());
  for (const char* wrong :
       {"idle", "idle=3", "idle>", "idle>x", "speed>3", "idle>3;load1<2", ">3", "idle>3,,load1<1"}) {
    INFO(wrong);
    CHECK_THROWS_WITH(condition::parse(wrong), Catch::Contains("is no comparison"));
  }
}

TEST_CASE("what follows from a policy as the owner goes and comes") {
  std::chrono::steady_clock::time_point now(1h);
  using work = owner_decisions::foreign_work;
  owner_decisions::circumstances seen;
  auto look = [&](owner_decisions& decisions, double idle, std::chrono::seconds later = 0s) {
    seen.figures.idle = idle;
    decisions.look(now += later, seen);
  };

  SECTION("desktop: after a quarter of an hour, until a touch") {
    owner_decisions decisions(owner_policy::desktop());
    look(decisions, 800);
    CHECK_FALSE(decisions.lendable());
    CHECK(decisions.obstacle() == "not idle>900");
    look(decisions, 901);
    CHECK(decisions.lendable());
    seen.lent = true;
    look(decisions, 902);
    CHECK(decisions.work() == work::runs);
    look(decisions, 0);
    CHECK(decisions.work() == work::leaves);
    CHECK(decisions.obstacle() == "idle<60");
    look(decisions, 1000); // too late to stay
    CHECK(decisions.work() == work::leaves);
    CHECK_FALSE(decisions.lendable());
    seen.lent = false;
    look(decisions, 1001);
    CHECK(decisions.lendable());
  }
  SECTION("sprite: after half a minute") {
    owner_decisions decisions(owner_policy::sprite());
    look(decisions, 29);
    CHECK_FALSE(decisions.lendable());
    look(decisions, 30);
    CHECK(decisions.lendable());
    seen.load_accepts = false;
    look(decisions, 31);
    CHECK_FALSE(decisions.lendable());
    CHECK(decisions.obstacle() == "the load is too high");
  }
  SECTION("what would have to leave at once is not let in") {
    owner_policy hasty = owner_policy::sprite();
    hasty.start = condition::parse("idle>=0");
    owner_decisions decisions(hasty);
    look(decisions, 29);
    CHECK_FALSE(decisions.lendable());
    CHECK(decisions.obstacle() == "idle<30");
    look(decisions, 30);
    CHECK(decisions.lendable());
  }
  SECTION("the owner's own long computation wants the machine too") {
    owner_decisions decisions(owner_policy::desktop());
    seen.lent = true;
    seen.figures.busy = 119;
    look(decisions, 5000);
    CHECK(decisions.work() == work::runs);
    seen.figures.busy = 121;
    look(decisions, 5000);
    CHECK(decisions.work() == work::leaves);
  }
  SECTION("a policy that lets foreign work stand still for a while, in case the owner leaves soon") {
    owner_policy patient = owner_policy::sprite();
    patient.preempt = condition::parse("suspended>3");
    owner_decisions decisions(patient);
    seen.lent = true;
    look(decisions, 0);
    CHECK(decisions.work() == work::stopped);
    look(decisions, 1, 2s);
    CHECK(decisions.work() == work::stopped);
    look(decisions, 5000, 1s); // `migrate free`
    CHECK(decisions.work() == work::runs);
    look(decisions, 0, 1s);
    look(decisions, 4, 4s);
    CHECK(decisions.work() == work::leaves);
  }
  SECTION("a seat that nothing watches is not lent, nor kept") {
    owner_decisions decisions(owner_policy::sprite());
    seen.lent = true;
    look(decisions, 5000);
    seen.seat_unwatched = true;
    look(decisions, 5000);
    CHECK(decisions.work() == work::leaves);
    CHECK(decisions.obstacle() == "a graphical seat that nothing watches");
  }
}
