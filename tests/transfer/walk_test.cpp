// A task with something of every kind walks from node to node, and each node that it has left is killed at once: what
// it prints, and all that it leaves behind on purpose, is what it would have been at home.
#include <migrate/process.hpp>

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"

#include <csignal>
#include <fstream>
#include <iterator>

#include <migrate/clock.hpp>
#include <migrate/directory.hpp>
#include <migrate/environment.hpp>
#include <migrate/file.hpp>
#include <migrate/fork.hpp>
#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>
#include <migrate/posix/fcntl.hpp>
#include <migrate/posix/process.hpp>
#include <migrate/posix/signal.hpp>
#include <migrate/posix/stat.hpp>
#include <migrate/posix/unistd_files.hpp>
#include <migrate/posix/wait.hpp>
#include <migrate/signal.hpp>
#include <migrate/streams.hpp>

using namespace migrate;
using namespace std::chrono_literals;
using migrate_test::folder;
namespace px = migrate::posix;

namespace {

using text = std::string;

const migrate_test::no_cluster_of_its_own scenarios_only;

text all_of(int fd) {
  text whole;
  char bytes[64];
  for (ssize_t got; (got = px::read(fd, bytes, sizeof bytes)) > 0;) whole.append(bytes, static_cast<std::size_t>(got));
  return whole;
}

struct grave {
  pid_t process; // 0: no more
};

int dig_graves() {
  pin_scope home;
  mailbox<grave> orders;
  for (int dug = 0;; ++dug) {
    auto [from, next] = orders.receive_envelope();
    if (next.process == 0) return dug;
    ::kill(next.process, SIGKILL);
    send(from, true);
  }
}

struct favour {
  enum class kind : std::uint8_t { signals, letters, lock, end } what;
  int number;
};

void do_favours(text locked_file) {
  // At home, for the walker: sends it what is to come from elsewhere, and looks whether its lock holds.
  pin_scope home;
  mailbox<favour> asked;
  for (;;) {
    auto [walker, what] = asked.receive_envelope();
    bool held = true;
    switch (what.what) {
    case favour::kind::signals:
      queue_signal(walker, SIGRTMIN, static_cast<std::uint64_t>(what.number));
      send_signal(walker, SIGUSR2);
      break;
    case favour::kind::letters:
      for (int i = 0; i < what.number; ++i) send(walker, 100 + i);
      break;
    case favour::kind::lock: {
      int kernel = ::open(locked_file.c_str(), O_RDWR | O_CLOEXEC);
      struct flock wanted {};
      wanted.l_type = F_WRLCK;
      held = ::fcntl(kernel, F_OFD_SETLK, &wanted) != 0;
      ::close(kernel);
      break;
    }
    case favour::kind::end: return;
    }
    send(walker, held);
  }
}

int travel_along() {
  // A child that goes wherever its parent goes, with a file of its own.
  file mine("companion", O_CREAT | O_RDWR);
  mailbox<node_id> where;
  for (int steps = 0;; ++steps) {
    auto [walker, to] = where.receive_envelope();
    if (to == node_id(9999)) return steps;
    if (to != no_node) this_task::migrate_to(to);
    mine.write("step\n");
    send(walker, mine.tell());
  }
}

class walker {
public:
  walker(bool walks, bool locks, task_id undertaker, task_id friend_at_home)
      : walks_(walks), locks_(locks), undertaker_(undertaker), friend_(friend_at_home) {}

  void begin() {
    spawn_options at_home{.on = this_task::home()};
    if (walks_) this_task::migrate_to(way_.at(1));

    px::pipe(to_reader_);
    px::pipe(from_writer_);
    px::pipe(own_);
    reader_ = start_child(at_home, [ends = std::pair(to_reader_[0], to_reader_[1])] {
      pin_scope home;
      px::close(ends.second);
      file into("reader", O_CREAT | O_WRONLY);
      text whole = all_of(ends.first);
      into.write(whole);
      return static_cast<int>(whole.size());
    });
    px::close(to_reader_[0]);
    writer_ = start_child(at_home, [ends = std::pair(from_writer_[0], from_writer_[1])] {
      pin_scope home;
      px::close(ends.first);
      return px::write(ends.second, "abcdefghijklmnop", 16) == 16 ? 3 : 4;
    });
    px::close(from_writer_[1]);
    for (int each : {to_reader_[1], from_writer_[0]}) px::fcntl(each, F_SETFD, FD_CLOEXEC); // the others' business not
    px::write(own_[1], "in the pipe", 11);
    early_ = start_child(at_home, [] { return 17; });
    stopped_ = start_child(at_home, [] {
      raise_signal(SIGSTOP);
      return 18;
    });
    companion_ = start_child(travel_along);

    in_ = px::open("numbers", O_CREAT | O_RDWR, 0600);
    for (int i = 0; i < 6; ++i) px::write(in_, ("line " + std::to_string(i) + "\n").c_str(), 7);
    px::lseek(in_, 0, SEEK_SET);
    again_ = px::dup(in_);
    px::fcntl(again_, F_SETFD, FD_CLOEXEC);
    log_ = px::open("log", O_CREAT | O_WRONLY | O_APPEND, 0600);
    unlinked_ = px::open("unlinked", O_CREAT | O_RDWR, 0600);
    px::unlink("unlinked");
    locked_ = px::open("locked", O_CREAT | O_RDWR, 0600);
    if (locks_) {
      struct flock lock {};
      lock.l_type = F_WRLCK;
      print("lock %d\n", px::fcntl(locked_, F_SETLK, &lock));
    }

    on_signal(SIGUSR2, [this](const signal_info&) { ++handled_; });
    px::kill(px::getpid(), SIGUSR1);
    px::kill(px::getpid(), SIGUSR1);
    for (std::uint64_t i = 1; i <= 3; ++i) queue_signal(this_task::id(), SIGRTMIN, i);
    soon_.fire_in(30ms);
    late_.fire_in(200ms);
    px::alarm(3600);
    wake_ = steady_clock::now() + 250ms;
    ask(favour::kind::letters, 3);
    change_directory("deeper");
    file_mask(std::filesystem::perms(0077));
    set_environment("WALK", "on");
    this_task::at_exit([] { print("the last line\n"); });
    look();
  }

  void go(std::size_t step) {
    node_id to = walks_ ? way_.at(step) : no_node;
    pid_t before = ::getpid();
    send(companion_, to);
    print("the companion has written %d bytes\n", static_cast<int>(mailbox<std::uint64_t>().receive()));
    if (walks_) {
      this_task::migrate_to(to);
      send(undertaker_, grave{before});
      mailbox<bool>().receive();
    }
    look();
  }

  void waits_at(std::size_t step) {
    int status = 0;
    px::siginfo_t info{};
    switch (step) {
    case 2:
      print("timer %d\n", static_cast<int>(wait_for_signal({SIGRTMIN + 1}, 30s).value().value));
      px::waitid(P_PID, pid(stopped_), &info, WSTOPPED);
      print("stopped by %d\n", info.si_status);
      send_signal(stopped_, SIGCONT);
      break;
    case 3:
      px::waitpid(pid(early_), &status, 0);
      print("early %d\n", WEXITSTATUS(status));
      px::waitid(P_PID, pid(stopped_), &info, WEXITED);
      print("stopped %d\n", info.si_status);
      break;
    case 4:
      print("timer %d\n", static_cast<int>(wait_for_signal({SIGRTMIN + 2}, 30s).value().value));
      print("usr1 %d\n", wait_for_signal({SIGUSR1}, 30s).value().number);
      print("usr1 again %d\n", pending_signals().contains(SIGUSR1));
      this_task::sleep_until(wake_);
      print("alarm %d\n", px::alarm(0) > 3000);
      break;
    }
  }

  [[noreturn]] void finish() {
    char bytes[16] = {};
    px::read(own_[0], bytes, sizeof bytes);
    print("own pipe: %s\n", bytes);
    file relative("relative", O_CREAT | O_WRONLY, 0666);
    struct ::stat status;
    px::fstat(relative.descriptor(), &status);
    print("mode %o in %s, %s\n", static_cast<unsigned>(status.st_mode & 0777),
          working_directory().filename().c_str(), get_environment("WALK").value_or("").c_str());
    out.flush();
    px::close(unlinked_); // between machines it would be two files in two tasks
    if (task_id copy = migrate::fork()) {
      print("copy %d\n", wait_child(copy).exit_code());
    } else {
      px::write(log_, "copy\n", 5);
      this_task::quick_exit(5);
    }
    px::close(to_reader_[1]);
    print("reader %d\n", wait_child(reader_).exit_code());
    print("writer %d\n", wait_child(writer_).exit_code());
    send(companion_, node_id(9999));
    print("companion %d\n", wait_child(companion_).exit_code());
    std::error_code code;
    static_cast<void>(try_wait_child({}, code));
    print("no more children: %d\n", code == std::errc::no_child_process);
    this_task::exit(42);
  }

private:
  static px::pid_t pid(task_id task) { return static_cast<px::pid_t>(task.bits()); }

  bool ask(favour::kind what, int number) {
    send(friend_, favour{what, number});
    return mailbox<bool>().receive();
  }

  void look() {
    // One step of everything.
    ++steps_;
    char bytes[64] = {};
    px::read(steps_ % 2 == 0 ? in_ : again_, bytes, 7);
    print("read %s", bytes);
    print("close on exec %d %d\n", px::fcntl(in_, F_GETFD), px::fcntl(again_, F_GETFD));
    text line = "step " + std::to_string(steps_) + "\n";
    px::write(log_, line.data(), line.size());
    px::write(to_reader_[1], line.data(), line.size());
    px::write(unlinked_, line.data(), line.size());
    px::lseek(unlinked_, 0, SEEK_SET);
    print("unlinked: %s", all_of(unlinked_).c_str());
    char letters[4] = {};
    px::read(from_writer_[0], letters, 3);
    print("from the writer: %s\n", letters);
    if (locks_) print("locked: %d\n", ask(favour::kind::lock, 0));
    ask(favour::kind::signals, 10 + steps_);
    while (handled_ < steps_) wait_for_handler({SIGUSR1, SIGRTMIN, SIGRTMIN + 1, SIGRTMIN + 2});
    print("handler %d\n", handled_);
    print("queued %d\n", static_cast<int>(wait_for_signal({SIGRTMIN}, 30s).value().value));
    if (auto letter = mailbox<int>().try_receive()) print("letter %d\n", *letter);
    auto now = steady_clock::now();
    print("time goes on: %d\n", now >= last_);
    last_ = now;
  }

  bool walks_, locks_;
  task_id undertaker_, friend_;
  std::vector<node_id> way_ = nodes(); // the home, A, B, C, D
  signal_block blocked_{{SIGUSR1, SIGUSR2, SIGRTMIN, SIGRTMIN + 1, SIGRTMIN + 2}};
  signal_timer soon_{SIGRTMIN + 1, 77}, late_{SIGRTMIN + 2, 78};
  steady_clock::time_point wake_, last_;
  int to_reader_[2] = {-1, -1}, from_writer_[2] = {-1, -1}, own_[2] = {-1, -1};
  int in_ = -1, again_ = -1, log_ = -1, unlinked_ = -1, locked_ = -1;
  task_id reader_, writer_, early_, stopped_, companion_;
  int handled_ = 0, steps_ = 0;
};

const migrate_test::scenario_entry walk{"walk", [] {
  text directory = std::getenv("WALK_DIRECTORY");
  bool walks = std::getenv("WALK_STAYS") == nullptr;
  bool locks = std::getenv("MIGRATE_REOPEN_FILES") == nullptr; // a lock refuses a move between machines
  int graves = migrate_test::run([=] {
    pin_scope home;
    auto undertaker = spawn(dig_graves);
    auto friend_at_home = spawn(do_favours, directory + "/locked");
    change_directory(directory);
    task_id child = start_child([=, grave_digger = undertaker.id(), helper = friend_at_home.id()] {
      walker me(walks, locks, grave_digger, helper);
      me.begin();
      for (std::size_t step : {2, 3, 4}) {
        me.go(step);
        me.waits_at(step);
      }
      me.finish();
    });
    print("status %d\n", wait_child(child).status());
    send(friend_at_home.id(), favour{favour::kind::end, 0});
    friend_at_home.join();
    send(undertaker.id(), grave{0});
    return undertaker.join();
  });
  return graves == (walks ? 3 : 0) ? 0 : 3;
}};

text content(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

text play(bool walks, bool as_between_machines) {
  folder place;
  std::filesystem::create_directory(place.path / "deeper");
  migrate_test::environment how{{"MIGRATE_SCENARIO", "walk"},
                                {"MIGRATE_NODES", "5"},
                                {"MIGRATE_QUIET", "1"},
                                {"WALK_DIRECTORY", place.path}};
  if (!walks) how.push_back({"WALK_STAYS", "1"});
  if (as_between_machines) how.push_back({"MIGRATE_REOPEN_FILES", "1"});
  migrate_test::program cluster({migrate_test::own_path()}, how);
  int status = cluster.wait(60s);
  text all = cluster.rest() + "ended with " + std::to_string(status) + "\n";
  for (const char* name : {"log", "reader", "companion", "numbers", "deeper/relative"})
    all += text(name) + ":\n" + content(place.path / name);
  return all;
}

} // namespace

TEST_CASE("a task walks through four nodes, each killed behind it, as if it had never moved") {
  for (bool as_between_machines : {false, true}) {
    INFO((as_between_machines ? "as between machines" : "on one machine"));
    text stayed = play(false, as_between_machines);
    CHECK_THAT(stayed, Catch::Contains("the last line\nstatus 10752\nended with 0\n"));
    CHECK_THAT(stayed, Catch::Contains("copy 5\nreader 28\nwriter 3\ncompanion 3\nno more children: 1\n"));
    CHECK(play(true, as_between_machines) == stayed);
  }
}
