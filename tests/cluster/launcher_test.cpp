// What an agent starts for a grant: that it is the right program, keeps its limits, and that nothing of it is left.
// This program is also the one that is started, with what it is to do as its first argument.
#define CATCH_CONFIG_RUNNER
#include <migrate/cluster/launcher.hpp>

#include "../support/folder.hpp"
#include "../support/program.hpp"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>

using namespace migrate::detail;
using namespace std::chrono_literals;

namespace {

// ---- what is started

[[noreturn]] void sleep_for_ever() {
  for (;;) ::pause();
}

void say(const std::string& text) {
  // To the test, over the descriptor that a node is given.
  const char* number = std::getenv("MIGRATE_AGENT");
  if (number == nullptr) ::_exit(3);
  std::string line = text + "\n";
  static_cast<void>(!::write(std::atoi(number), line.data(), line.size()));
}

void daemonize(const std::function<void()>& then) {
  // As daemon(3) does, twice over: two forks, two sessions, and no parent.
  if (::fork() != 0) return;
  ::setsid();
  if (::fork() != 0) ::_exit(0);
  ::setsid();
  for (int each = 1; each < NSIG; ++each) ::signal(each, SIG_IGN);
  then();
  sleep_for_ever();
}

int do_as(const std::string& what) {
  if (what == "exit") return 7;
  if (what == "crash") ::raise(SIGSEGV);
  if (what == "wait") {
    say("ready");
    sleep_for_ever();
  }
  if (what == "ignore") {
    for (int each = 1; each < NSIG; ++each) ::signal(each, SIG_IGN);
    say("ready");
    sleep_for_ever();
  }
  if (what == "daemon") {
    daemonize([] { say("daemon " + std::to_string(::getpid())); });
    sleep_for_ever();
  }
  if (what == "daemon-and-exit") {
    daemonize([] { say("daemon " + std::to_string(::getpid())); });
    char byte;
    return static_cast<int>(::read(3, &byte, 1)); // until the test has heard of the daemon
  }
  if (what == "answer") { // it and its daemon, whoever comes first
    auto answer = [] {
      for (char byte; ::read(3, &byte, 1) == 1;) say("here");
    };
    daemonize(answer);
    answer();
    return 0;
  }
  if (what == "family") {
    for (int i = 0; i < 20; ++i)
      if (::fork() == 0) {
        ::signal(SIGTERM, SIG_IGN);
        if (::fork() == 0) ::setsid();
        sleep_for_ever();
      }
    say("ready");
    sleep_for_ever();
  }
  if (what == "fork-bomb") {
    // As many as do no harm to the other tests.
    auto* count = static_cast<std::atomic<int>*>(
        ::mmap(nullptr, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    say("ready");
    for (;;)
      if (count->fetch_add(1) > 300 || ::fork() < 0) ::usleep(10'000);
  }
  if (what == "memory") {
    constexpr std::size_t bytes = std::size_t{1} << 30, step = 1 << 20;
    char* all = static_cast<char*>(
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (std::size_t at = 0; at < bytes; at += step) {
      std::memset(all + at, 1, step);
      ::usleep(2000);
    }
    say("all of it");
    sleep_for_ever();
  }
  if (what == "disk") {
    std::string chunk(1 << 20, 'x');
    std::ofstream file(std::string(std::getenv("TMPDIR")) + "/big");
    for (int i = 0; i < 1000 && file; ++i) {
      file << chunk << std::flush;
      ::usleep(2000);
    }
    say("all of it");
    sleep_for_ever();
  }
  if (what == "babble") {
    std::string chunk(1 << 20, 'x');
    for (int i = 0; i < 100; ++i) static_cast<void>(!::write(2, chunk.data(), chunk.size()));
    std::fputs("\nlast words\n", stderr);
    return 0;
  }
  if (what == "files") {
    // Folders that may not be entered, and one that lies deeper than a path can be long.
    std::string top = std::getenv("TMPDIR");
    if (::chdir(top.c_str()) != 0) return 1;
    std::ofstream("file") << "x";
    ::symlink("/", "link");
    ::mkdir("closed", 0700);
    std::ofstream("closed/file") << "x";
    ::chmod("closed", 0);
    for (int i = 0; i < 400; ++i)
      if (::mkdir("aaaaaaaaaa", 0700) != 0 || ::chdir("aaaaaaaaaa") != 0) return 2;
    return 0;
  }
  if (what == "tell") {
    rlimit core{};
    ::getrlimit(RLIMIT_CORE, &core);
    struct stat status {};
    char here[4096] = {};
    const char* given = std::getenv("GIVEN");
    say("scheduler " + std::to_string(::sched_getscheduler(0)));
    say("nice " + std::to_string(::getpriority(PRIO_PROCESS, 0)));
    say("core " + std::to_string(core.rlim_cur));
    say("privileges " + std::to_string(::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)));
    say("user " + std::to_string(::geteuid()) + " " + std::to_string(::getuid()));
    say("session " + std::to_string(::getsid(0) == ::getpid()));
    say("given " + std::string(given != nullptr ? given : "nothing"));
    say("directory " + std::string(::getcwd(here, sizeof here)));
    say(std::string("scratch ") + std::getenv("TMPDIR"));
    std::string open = "descriptors";
    for (int i = 0; i < 1000; ++i)
      if (::fcntl(i, F_GETFD) >= 0) open += " " + std::to_string(i);
    say(open);
    say("input " + std::to_string(::fstat(0, &status) == 0 && S_ISCHR(status.st_mode)));
    return 0;
  }
  return 99;
}

// ---- what starts it

struct agent {
  migrate_test::folder root;
  launch_options options;
  std::optional<launcher> starts;

  explicit agent(bool groups = true) {
    ::chmod(root.path.c_str(), 0711);
    options.cache = root.path / "cache";
    options.scratch = root.path / "scratch";
    options.control_groups = groups;
  }
  launcher& start() {
    if (!starts) starts.emplace(options);
    return *starts;
  }
  std::size_t left_in_scratch() {
    std::size_t count = 0;
    for (auto& each : std::filesystem::directory_iterator(start().places().scratch)) count += each.exists();
    return count;
  }
};

content_address own_address() {
  static content_address address = [] {
    descriptor file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    return *copy_content(file.get());
  }();
  return address;
}

launch_order order(const std::string& what, std::uint64_t grant = 1) {
  launch_order made;
  made.grant = grant;
  made.executable = {own_address(), migrate_test::own_path(), "/nowhere"};
  made.arguments = {"program", "--as", what};
  if (what != "tell" && what != "fork-bomb")
    made.limits = {.nice = 0, .idle_only = false}; // others may want the processors too
  return made;
}

struct running {
  launched_grant grant;
  std::string heard;

  running(launcher& from, const launch_order& what) : grant(from.launch(what)) {}

  warden_report report(std::chrono::seconds limit = 20s) {
    // The next one; kind::stuck with "nothing came" when the limit passes, or the warden is gone.
    auto deadline = std::chrono::steady_clock::now() + limit;
    for (;;) {
      bool closed = false;
      if (auto made = take_report(grant, closed)) return *made;
      pollfd waited{grant.warden.get(), POLLIN, 0};
      auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      if (closed || left.count() <= 0 || ::poll(&waited, 1, static_cast<int>(left.count())) <= 0)
        return {warden_report::kind::stuck, 0, 0, "nothing came", {}};
    }
  }
  std::string line(std::chrono::seconds limit = 20s) {
    // The next that the program says.
    auto deadline = std::chrono::steady_clock::now() + limit;
    for (;;) {
      if (std::size_t end = heard.find('\n'); end != heard.npos) {
        std::string first = heard.substr(0, end);
        heard.erase(0, end + 1);
        return first;
      }
      pollfd waited{grant.node.get(), POLLIN, 0};
      auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      char bytes[4096];
      ssize_t got = 0;
      if (left.count() > 0 && ::poll(&waited, 1, static_cast<int>(left.count())) > 0)
        got = ::read(grant.node.get(), bytes, sizeof bytes);
      if (got <= 0) return "nothing";
      heard.append(bytes, static_cast<std::size_t>(got));
    }
  }
  std::map<std::string, std::string> lines() {
    std::map<std::string, std::string> all;
    for (std::string one = line(); one != "nothing"; one = line()) {
      std::size_t space = one.find(' ');
      all[one.substr(0, space)] = space == one.npos ? "" : one.substr(space + 1);
    }
    return all;
  }
};

bool alive(pid_t process) { return ::kill(process, 0) == 0 || errno == EPERM; }

using kind = warden_report::kind;

} // namespace

TEST_CASE("a program starts, ends by itself, and is reported") {
  agent here;
  running one(here.start(), order("exit"));
  auto started = one.report();
  REQUIRE(started.what == kind::started);
  CHECK(started.process > 0);
  auto gone = one.report();
  CHECK(gone.what == kind::gone);
  CHECK(WEXITSTATUS(gone.status) == 7);
  CHECK(gone.text == "it exited with status 7");
  CHECK(here.left_in_scratch() == 0);

  running two(here.start(), order("crash", 2));
  two.report();
  CHECK(two.report().text == "it was ended by signal 11");
}

TEST_CASE("what it is given: a priority below everything, a folder, and no descriptor of the agent's") {
  agent here;
  auto what = order("tell");
  what.environment = {"GIVEN=this", "MIGRATE_AGENT=77", "TMPDIR=/"};
  what.directory = "/nowhere/at/all";
  int extra = ::open("/dev/null", O_RDONLY); // inherited, were it not closed
  running one(here.start(), what);
  REQUIRE(one.report().what == kind::started);
  auto said = one.lines();
  ::close(extra);
  CHECK(said["scheduler"] == std::to_string(SCHED_IDLE));
  CHECK(said["nice"] == "19");
  CHECK(said["core"] == "0");
  CHECK(said["privileges"] == "1");
  CHECK(said["session"] == "1");
  CHECK(said["given"] == "this");
  CHECK(said["descriptors"] == "0 1 2 3");
  CHECK(said["input"] == "1");
  CHECK(said["directory"] == said["scratch"]);
  CHECK(said["scratch"].starts_with(here.options.scratch));
}

TEST_CASE("a directory that is there is where it starts") {
  agent here;
  auto what = order("tell");
  what.directory = "/usr";
  running one(here.start(), what);
  CHECK(one.lines()["directory"] == "/usr");
}

TEST_CASE("the executable: at its path, else from the store by way of the cache, else refused") {
  agent here;
  auto what = order("exit");
  std::string store = here.root.path / "store";
  std::filesystem::create_directory(store);

  SECTION("another build lies at its path, and the store has it") {
    what.executable.path = "/bin/true";
    what.executable.store = store;
    CHECK(publish_executable(store) == own_address());
    CHECK(publish_executable(store) == own_address()); // once more is not wrong
    running one(here.start(), what);
    REQUIRE(one.report().what == kind::started);
    CHECK(one.report().text == "it exited with status 7");

    std::filesystem::remove_all(store); // the cache has it by now
    running two(here.start(), what);
    REQUIRE(two.report().what == kind::started);
    CHECK(two.report().text == "it exited with status 7");

    std::string cached = here.options.cache + "/" + to_string(own_address());
    struct stat status {};
    REQUIRE(::stat(here.options.cache.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0700);
    std::ofstream(cached, std::ios::in | std::ios::out) << "damaged";
    running three(here.start(), what);
    auto refused = three.report();
    CHECK(refused.what == kind::failed);
    CHECK(refused.text.find("/bin/true is another build here") != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(cached));
  }
  SECTION("it is damaged in the store") {
    what.executable.path = "/nowhere";
    what.executable.store = store;
    publish_executable(store);
    std::ofstream(executables_of_store(store) + "/" + to_string(own_address()), std::ios::in | std::ios::out)
        << "damaged";
    running one(here.start(), what);
    auto refused = one.report();
    CHECK(refused.what == kind::failed);
    CHECK(refused.text.find("is damaged") != std::string::npos);
  }
  SECTION("it is nowhere") {
    what.executable.path = "/dev/zero"; // which has no end
    running one(here.start(), what);
    auto refused = one.report();
    CHECK(refused.what == kind::failed);
    CHECK(refused.text.find("is not on this host: neither /dev/zero nor the cache") != std::string::npos);
    CHECK(here.left_in_scratch() == 0);
  }
  SECTION("the cache is open to others") {
    std::filesystem::create_directory(here.options.cache);
    ::chmod(here.options.cache.c_str(), 0777);
    what.executable.path = "/nowhere";
    running one(here.start(), what);
    CHECK(one.report().text.find("others may read or write") != std::string::npos);
  }
}

TEST_CASE("content addresses as text") {
  auto address = own_address();
  CHECK(parse_content_address(to_string(address)) == address);
  for (const std::string& wrong :
       std::vector<std::string>{"", "12", "-", "../../etc/passwd", to_string(address) + "0x"}) {
    INFO(wrong);
    CHECK_FALSE(parse_content_address(wrong));
  }
}

TEST_CASE("the cache keeps what was used last") {
  migrate_test::folder root;
  executable_folder folder(root.path / "cache");
  content_address all[3];
  for (int i = 0; i < 3; ++i) {
    std::string path = root.path / std::to_string(i);
    std::ofstream(path) << std::string(1000, static_cast<char>('a' + i));
    descriptor file(::open(path.c_str(), O_RDONLY));
    all[i] = folder.add(file.get(), path);
    timespec times[2] = {{100 + i, 0}, {100 + i, 0}};
    ::utimensat(AT_FDCWD, (root.path / "cache" / to_string(all[i])).c_str(), times, 0);
  }
  CHECK(folder.find(all[0])); // used now
  folder.trim(2000, all[2]);
  CHECK(folder.find(all[0]));
  CHECK_FALSE(folder.find(all[1]));
  CHECK(folder.find(all[2]));
}

TEST_CASE("what does not want to die is gone after the deadline, with all that it has started") {
  bool groups = GENERATE(true, false);
  INFO("control groups: " << groups);
  agent here(groups);
  std::string what = GENERATE("wait", "ignore", "daemon", "family", "fork-bomb");
  INFO(what);
  auto wanted = order(what);
  wanted.limits.processes = 100;
  running one(here.start(), wanted);
  auto started = one.report();
  REQUIRE(started.what == kind::started);
  std::string said = one.line();
  pid_t daemon = said.starts_with("daemon ") ? std::atoi(said.c_str() + 7) : 0;
  REQUIRE((said == "ready" || daemon > 0));
  pid_t warden = 0;
  process_entry entry;
  REQUIRE(read_process("/proc", std::to_string(started.process), entry));
  warden = entry.parent;
  tell_warden(one.grant, "end 20");
  auto gone = one.report();
  CHECK(gone.what == kind::gone);
  CHECK(gone.text == "it was killed at its deadline");
  CHECK_FALSE(alive(started.process));
  if (daemon > 0) CHECK_FALSE(alive(daemon));
  CHECK(descendants_of(warden).empty());
  CHECK(here.left_in_scratch() == 0);
}

TEST_CASE("a program's end is its daemons' end") {
  agent here(GENERATE(true, false));
  running one(here.start(), order("daemon-and-exit"));
  REQUIRE(one.report().what == kind::started);
  std::string said = one.line();
  REQUIRE(said.starts_with("daemon "));
  pid_t daemon = std::atoi(said.c_str() + 7);
  CHECK(alive(daemon));
  static_cast<void>(!::write(one.grant.node.get(), "x", 1));
  CHECK(one.report().text == "it exited with status 1");
  CHECK_FALSE(alive(daemon));
}

TEST_CASE("an agent that lets go of a grant, or dies, ends it") {
  agent here(GENERATE(true, false));
  running one(here.start(), order("daemon"));
  auto started = one.report();
  REQUIRE(started.what == kind::started);
  std::string said = one.line();
  pid_t daemon = std::atoi(said.c_str() + 7);
  bool whole = GENERATE(false, true);
  if (whole)
    here.starts.reset();
  else
    one.grant.warden.close();
  // The node's descriptor is at its end when nobody has the other one any more.
  CHECK(one.line() == "nothing");
  for (int i = 0; i < 2000 && (alive(daemon) || alive(started.process)); ++i) ::usleep(5000);
  CHECK_FALSE(alive(daemon));
  CHECK_FALSE(alive(started.process));
}

TEST_CASE("a warden that is killed leaves nothing either") {
  agent here(GENERATE(true, false));
  running one(here.start(), order("daemon"));
  auto started = one.report();
  REQUIRE(started.what == kind::started);
  pid_t daemon = std::atoi(one.line().c_str() + 7);
  process_entry entry;
  REQUIRE(read_process("/proc", std::to_string(started.process), entry));
  ::kill(entry.parent, SIGKILL);
  CHECK(one.report().text == "nothing came");
  for (int i = 0; i < 2000 && (alive(daemon) || alive(started.process) || here.left_in_scratch() > 0); ++i)
    ::usleep(5000);
  CHECK_FALSE(alive(daemon));
  CHECK_FALSE(alive(started.process));
  CHECK(here.left_in_scratch() == 0);

  running two(here.start(), order("exit", 2)); // and others go on
  CHECK(two.report().what == kind::started);
}

TEST_CASE("everything stands still, and goes on") {
  agent here(GENERATE(true, false));
  running one(here.start(), order("answer"));
  REQUIRE(one.report().what == kind::started);
  auto answered = [&](std::chrono::milliseconds limit) {
    pollfd waited{one.grant.node.get(), POLLIN, 0};
    return ::poll(&waited, 1, static_cast<int>(limit.count())) > 0 && one.line() == "here";
  };
  auto ask = [&] { return ::write(one.grant.node.get(), "?", 1) == 1; };
  REQUIRE(ask());
  REQUIRE(answered(10s));
  tell_warden(one.grant, "stop");
  auto limit = std::chrono::steady_clock::now() + 20s;
  bool still = false;
  while (!still && std::chrono::steady_clock::now() < limit) still = ask() && !answered(100ms);
  CHECK(still);
  tell_warden(one.grant, "go");
  CHECK(answered(10s));
  tell_warden(one.grant, "stop");
  tell_warden(one.grant, "end 0");
  auto gone = one.report();
  CHECK(gone.what == kind::gone);
  CHECK(gone.text == "it was ended at once");
}

TEST_CASE("a limit on memory") {
  agent here(GENERATE(true, false));
  auto what = order("memory");
  what.limits.memory_bytes = 64 << 20;
  running one(here.start(), what);
  auto started = one.report();
  REQUIRE(started.what == kind::started);
  INFO(started.text);
  CHECK(started.text.find("memory limited by ") == 0);
  auto gone = one.report();
  CHECK(gone.what == kind::gone);
  CHECK(gone.text.find("over") != std::string::npos);
  CHECK(gone.text.find("limit of 64") != std::string::npos);
  CHECK(one.line() == "nothing");
}

TEST_CASE("a limit on what it writes to its folder") {
  agent here;
  auto what = order("disk");
  what.limits.scratch_bytes = 20 << 20;
  running one(here.start(), what);
  REQUIRE(one.report().what == kind::started);
  auto gone = one.report();
  CHECK(gone.text.find("its files in TMPDIR took") == 0);
  CHECK(one.line() == "nothing");
  CHECK(here.left_in_scratch() == 0);
}

TEST_CASE("100 MB on standard error cost nothing, and the last words are kept") {
  agent here;
  running one(here.start(), order("babble"));
  one.report();
  auto gone = one.report();
  CHECK(gone.text == "it exited with status 0");
  CHECK(gone.last_words.size() <= 4096);
  CHECK(gone.last_words.ends_with("\nlast words\n"));
}

TEST_CASE("files that are hard to remove are removed, and what links lead to is not") {
  agent here;
  running one(here.start(), order("files"));
  one.report();
  CHECK(one.report().text == "it exited with status 0");
  CHECK(here.left_in_scratch() == 0);
  CHECK(std::filesystem::exists("/usr"));
}

TEST_CASE("many grants at once") {
  agent here;
  std::vector<std::unique_ptr<running>> all;
  for (unsigned i = 0; i < 8; ++i)
    all.push_back(std::make_unique<running>(here.start(), order("wait", 10 + i)));
  for (auto& each : all) CHECK(each->line() == "ready");
  for (auto& each : all) tell_warden(each->grant, "end 0");
  for (auto& each : all) {
    CHECK(each->report().what == kind::started);
    CHECK(each->report().what == kind::gone);
  }
  CHECK(here.left_in_scratch() == 0);
}

TEST_CASE("what an agent left that died with its keeper is removed by the next one") {
  agent here;
  std::filesystem::create_directories(here.options.scratch + "/agent-1/migrate-1-5/deep");
  ::chmod(here.options.scratch.c_str(), 0700);
  std::filesystem::path of_one_that_lives;
  {
    agent other;
    other.options.scratch = here.options.scratch;
    of_one_that_lives = other.start().places().scratch;
    here.options.cache = here.options.cache + "2";
    CHECK_FALSE(std::filesystem::exists(here.options.scratch + "/agent-1"));
    CHECK(std::filesystem::exists(of_one_that_lives));
  }
  CHECK_FALSE(std::filesystem::exists(of_one_that_lives));
}

TEST_CASE("folders that are not the agent's alone are refused") {
  agent here;
  std::filesystem::create_directory(here.options.scratch);
  ::chmod(here.options.scratch.c_str(), 0777);
  CHECK_THROWS_WITH(here.start(), Catch::Contains("is open to others"));
}

TEST_CASE("root runs nodes as somebody else") {
  if (::geteuid() != 0) return;
  agent here;
  here.options.user = launch_user::named("nobody");
  here.options.cache = here.root.path / "nobody";
  std::filesystem::create_directory(here.options.cache);
  ::chmod(here.options.cache.c_str(), 0700);
  REQUIRE(::chown(here.options.cache.c_str(), here.options.user.id, here.options.user.group) == 0);
  std::string copy = here.root.path / "program"; // where nobody finds it
  std::filesystem::copy(migrate_test::own_path(), copy);
  auto what = order("tell");
  what.executable.path = copy;
  running one(here.start(), what);
  auto started = one.report();
  INFO(started.text);
  REQUIRE(started.what == kind::started);
  auto said = one.lines();
  std::string id = std::to_string(here.options.user.id);
  CHECK(said["user"] == id + " " + id);
  CHECK(said["directory"] == said["scratch"]);
  CHECK(one.report().what == kind::gone);
  CHECK(here.left_in_scratch() == 0);
}

TEST_CASE("there is no such user") {
  CHECK_THROWS_WITH(launch_user::named("no-such-user-here"),
                    Catch::Contains("there is no user no-such-user-here"));
}

TEST_CASE("orders and reports as bytes") {
  auto made = order("wait", 99);
  made.environment = {"A=1", "B=2:3", ""};
  made.limits = {5, 6, 7, -3, false};
  auto read = decode_order(encode(made));
  REQUIRE(read);
  CHECK(read->grant == 99);
  CHECK(read->executable.address == made.executable.address);
  CHECK(read->arguments == made.arguments);
  CHECK(read->environment == made.environment);
  CHECK(read->limits.nice == -3);
  CHECK(read->limits.scratch_bytes == 6);
  CHECK_FALSE(read->limits.idle_only);
  std::string bytes = encode(made);
  for (std::size_t i = 0; i < bytes.size(); ++i) CHECK_FALSE(decode_order(bytes.substr(0, i)));
  for (const char* wrong : {"", "9:1", "99999999999999999999:", "-1:x", "1:9"})
    CHECK_FALSE(decode_report(wrong));
}

int main(int argc, char** argv) {
  if (argc > 2 && std::strcmp(argv[1], "--as") == 0) return do_as(argv[2]);
  return Catch::Session().run(argc, argv);
}
