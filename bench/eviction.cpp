// Eviction: how long it takes until a machine is its owner's again. Over test hosts with an agent and a host database,
// which need root, and between the nodes of one machine.
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <migrate/cluster/host_database.hpp>
#include <migrate/hosts.hpp>
#include <migrate/mailbox.hpp>
#include <migrate/node.hpp>
#include <migrate/program.hpp>
#include <migrate/rpc/channel.hpp>

#include "../tests/support/folder.hpp"
#include "../tests/support/program.hpp"
#include "../tests/support/test_hosts.hpp"
#include "harness.hpp"

#ifndef MIGRATE_EXAMPLES_DIR
#define MIGRATE_EXAMPLES_DIR "build/examples"
#endif

using namespace migrate;

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

std::uint64_t fill(std::vector<char>& memory, char value) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < memory.size(); i += 4096) {
    memory[i] = static_cast<char>(value + static_cast<char>(i >> 12));
    sum = sum * 31 + static_cast<unsigned char>(memory[i]);
  }
  return sum;
}

std::uint64_t sum_of(const std::vector<char>& memory) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < memory.size(); i += 4096)
    sum = sum * 31 + static_cast<unsigned char>(memory[i]);
  return sum;
}

bool hold(std::size_t bytes, task_id starter) {
  // Until a message comes.
  std::vector<char> memory(bytes);
  std::uint64_t sum = fill(memory, 7);
  mailbox<int> in;
  send(starter, 1);
  in.receive();
  return sum_of(memory) == sum;
}

bool run_until(const std::string& file, task_id starter) {
  // A program that has come no further than to wait for a file.
  program_options how;
  how.restartable = true;
  program waiter({"sh", "-c", "until [ -e \"$0\" ]; do sleep 0.1; done", file}, how);
  send(starter, 1);
  return waiter.wait().status == 0;
}

struct clearing {
  double whole; // until the evicting program knows that the node is clear
  double clear; // until the last task had gone
};

std::vector<task_id> begin(node& here, node_id where, int tasks, std::size_t bytes, const std::string& file) {
  // They hold so much memory or, when there is a file, wait for it.
  return here.run([=] {
    std::vector<task_id> all;
    mailbox<int> ready;
    spawn_options how{.name = "held", .region = region_class::large, .on = where};
    for (int i = 0; i < tasks; ++i) {
      auto made = file.empty() ? spawn(how, hold, bytes, this_task::id())
                               : spawn(how, run_until, file, this_task::id());
      all.push_back(made.id());
      new task<bool>(std::move(made)); // joined below, by another task
    }
    for (int i = 0; i < tasks; ++i) ready.receive();
    return all;
  });
}

bool all_right(node& here, const std::vector<task_id>& ids, const std::string& file) {
  // Wherever they are by now, they end well.
  if (!file.empty()) std::fclose(std::fopen(file.c_str(), "w"));
  bool right = here.run([ids, holds = file.empty()] {
    bool all = true;
    for (task_id each : ids) {
      if (holds) send(each, 1);
      all = task<bool>(each).join() && all;
    }
    return all;
  });
  if (!file.empty()) std::remove(file.c_str());
  return right;
}

clearing evict(node& here, node_id which, int tasks, std::size_t bytes, const std::string& file = {}) {
  auto ids = begin(here, which, tasks, bytes, file);
  auto start = bench::clock::now();
  eviction_report how =
      here.evict(which, "the benchmark's key press", std::chrono::seconds(file.empty() ? 60 : 3));
  double whole = bench::nanoseconds(bench::clock::now() - start);
  if (!all_right(here, ids, file) || how.moved != static_cast<std::uint64_t>(tasks)) {
    std::fprintf(stderr, "an evicted task lost its memory or its program, or stayed\n");
    std::exit(1);
  }
  return {whole, static_cast<double>(how.took)};
}

void row(const std::string& what, const std::vector<double>& times, double most) {
  auto seconds = bench::spread_of(times);
  std::string text =
      bench::text("%.3f s (%.3f-%.3f)", seconds.median / 1e9, seconds.least / 1e9, seconds.most / 1e9);
  if (most > 0)
    bench::row(what, text, bench::text("<= %.1f s", most), seconds.median <= most * 1e9);
  else
    bench::shown(what, text);
}

// --- over test hosts -------------------------------------------------------------------------------------

constexpr unsigned home = 1, taken_back = 2, last = 3;
constexpr const char* borrows = "MIGRATE_BENCH_BORROWS"; // set for the application

int borrow(node& here) {
  // Each line on standard input is how much memory a task is to hold, 0 for a program instead: eight begin on the host
  // that will be taken back. The next line asks whether they have ended well.
  host_pool pool({.wanted = last - 1, .name = "eviction"});
  auto lent = [&] {
    for (;;) {
      const auto hosts = pool.hosts();
      for (const granted_host& each : hosts)
        if (each.host == "host" + std::to_string(taken_back) && hosts.size() == last - 1) return each.node;
      if (!pool.next_event(std::chrono::seconds(30))) throw std::runtime_error("no host came within 30 s");
    }
  };
  for (std::string line; std::getline(std::cin, line);) {
    std::size_t bytes = std::stoul(line);
    std::string file = bytes == 0 ? here.store_path() + "/go" : "";
    auto ids = begin(here, lent(), 8, bytes, file);
    std::printf("begun\n");
    std::fflush(stdout);
    if (!std::getline(std::cin, line)) break;
    std::printf(all_right(here, ids, file) ? "right\n" : "wrong\n");
    std::fflush(stdout);
  }
  return 0;
}

class borrowed_hosts final : public channel_handler {
  // A host database, which this process is, and agents on hosts of their own; the application is this program again.
public:
  explicit borrowed_hosts(const migrate_test::test_hosts& hosts)
      : hosts_(hosts), credentials_((folder_.path / "keys").string()) {
    migrate::credentials files;
    files.certificate = credentials_.path() + "/node.crt";
    files.key = credentials_.path() + "/node.key";
    files.authority = credentials_.path() + "/authority.crt";
    migrate_test::network_of network(hosts, home); // the loop's thread and sockets are there
    loop_.start();
    host_database_options how;
    how.listen = {address(home, 7100)};
    how.security = files;
    how.log = [this](const std::string& line) { heard(line); };
    database_ = std::make_unique<host_database>(loop_, std::move(how));
    database_->start();
    std::filesystem::create_directories(folder_.path / "proc");
    std::filesystem::create_directories(folder_.path / "dev");
    std::ofstream(folder_.path / "proc" / "loadavg") << "0.00 0.00 0.00 1/100 1\n";
    std::ofstream(folder_.path / "idle") << "3600\n";
    for (unsigned host = 2; host <= last; ++host) {
      agents_.push_back(start(host, {MIGRATE_EXAMPLES_DIR "/migrate-hostd",
                                     "--database",
                                     address(home, 7100),
                                     "--listen",
                                     address(host, 7101),
                                     "--credentials",
                                     credentials_.path(),
                                     "--slots",
                                     "1",
                                     "--policy",
                                     "sprite",
                                     "--idle-file",
                                     path("idle"),
                                     "--dev",
                                     path("dev"),
                                     "--proc",
                                     path("proc"),
                                     "--lend-unwatched",
                                     "--cache",
                                     path("cache"),
                                     "--scratch",
                                     path("scratch" + std::to_string(host)),
                                     "--run-as-root",
                                     "--quiet"}));
      if (agents_.back()->line().empty()) throw std::runtime_error("an agent did not start");
    }
    channel_options as;
    as.self = channel_party::of_this_process(protocol::HostRole::COMMAND, "bench");
    // As the command `migrate busy` there.
    std::string control = runtime(taken_back).string() + "/migrate-" + std::to_string(::geteuid()) +
                          "/agent-" + std::to_string(agents_.front()->id()) + ".sock";
    owner_ = std::make_unique<channel_client>(loop_, "unix:" + control, std::move(as), *this);
    owner_->start();
    owner_->wait_open();
    application_ =
        start(home, {migrate_test::own_path(), "--migrate-nodes=1", "--migrate-quiet",
                     "--migrate-hosts=" + address(home, 7100), "--migrate-listen=" + address(home, 7000),
                     "--migrate-credentials=" + credentials_.path(), "--migrate-store=" + path("store")});
  }
  ~borrowed_hosts() {
    application_->close_input();
    application_->wait(std::chrono::seconds(30));
    owner_->stop();
    agents_.clear();
    database_->stop();
    loop_.stop();
  }

  double take_back(std::size_t bytes) {
    // Nanoseconds from the owner's word until his agent says that nothing of the grant is left on the machine.
    application_->say(std::to_string(bytes));
    expect("begun");
    {
      std::lock_guard lock(mutex_);
      lines_.clear();
    }
    auto start = bench::clock::now();
    tell([](protocol::HostMessage::Builder out) { out.setBusy(); });
    double clear = bench::nanoseconds(await("host2 has a slot again") - start);
    application_->say("");
    expect("right");
    tell([](protocol::HostMessage::Builder out) { out.setFree(); });
    return clear;
  }

private:
  static std::string address(unsigned host, unsigned port) {
    return migrate_test::test_hosts::address(host) + ":" + std::to_string(port);
  }
  std::string path(const std::string& name) const { return (folder_.path / name).string(); }
  std::filesystem::path runtime(unsigned host) const { return folder_.path / ("run" + std::to_string(host)); }
  std::unique_ptr<migrate_test::program> start(unsigned host, std::vector<std::string> command) const {
    std::filesystem::create_directory(runtime(host));
    std::filesystem::permissions(runtime(host), std::filesystem::perms::owner_all);
    return std::make_unique<migrate_test::program>(
        hosts_.on(host, std::move(command)),
        migrate_test::environment{{"XDG_RUNTIME_DIR", runtime(host).string()}, {borrows, "1"}});
  }
  void expect(const std::string& wanted) {
    std::string line = application_->line(std::chrono::seconds(60));
    if (line != wanted) throw std::runtime_error("the application says '" + line + "', not " + wanted);
  }
  template <class Fill> void tell(Fill&& fill) {
    owner_->wait_open()->call(fill, [](protocol::HostMessage::Reader) {});
  }
  void on_message(channel&, protocol::HostMessage::Reader, kj::ArrayPtr<const kj::byte>) override {}

  void heard(const std::string& line) {
    std::lock_guard lock(mutex_);
    lines_.emplace_back(bench::clock::now(), line);
    changed_.notify_all();
  }
  bench::clock::time_point await(const std::string& what) {
    std::unique_lock lock(mutex_);
    bench::clock::time_point when;
    bool found = changed_.wait_for(lock, std::chrono::seconds(30), [&] {
      for (const auto& [at, line] : lines_)
        if (line.find(what) != std::string::npos) {
          when = at;
          return true;
        }
      return false;
    });
    if (!found) throw std::runtime_error("not heard within 30 s: " + what);
    return when;
  }

  const migrate_test::test_hosts& hosts_;
  migrate_test::folder folder_;
  migrate_test::cluster_credentials credentials_;
  event_loop loop_;
  std::unique_ptr<host_database> database_;
  std::vector<std::unique_ptr<migrate_test::program>> agents_;
  std::unique_ptr<channel_client> owner_;
  std::unique_ptr<migrate_test::program> application_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<bench::clock::time_point, std::string>> lines_; // under mutex_
};

void over_test_hosts(unsigned rounds) {
  migrate_test::test_hosts hosts(last, {.processor = 0});
  if (!hosts.made()) return;
  borrowed_hosts all(hosts);
  std::vector<double> tasks, programs;
  all.take_back(mib); // the first move between two hosts connects them
  for (unsigned i = 0; i < rounds; ++i) {
    tasks.push_back(all.take_back(100 * mib));
    programs.push_back(all.take_back(0));
  }
  row("eviction of 8 foreign tasks of 100 MiB each from a test host: from its owner's word until the host is "
      "clear",
      tasks, 1);
  row("the same for 8 running programs", programs, 3);
}

} // namespace

int main(int argc, char** argv) {
  try {
    constexpr unsigned rounds = 5;
    if (std::getenv(borrows) != nullptr) {
      node here(node_options::from(argc, argv));
      if (here.first()) return borrow(here);
      here.serve();
      return 0;
    }
    if (argc == 1) over_test_hosts(rounds); // while this process has no node
    node_options options = node_options::from(argc, argv);
    if (options.join.empty()) options.nodes = 3 + 3 * rounds; // each round's node leaves
    node here(std::move(options));
    if (!here.first()) {
      here.serve();
      return 0;
    }
    const std::string file = here.store_path() + "/go";
    std::vector<double> whole, clear, small, programs;
    std::uint16_t next = 2;
    for (unsigned i = 0; i < rounds; ++i) {
      clearing seen = evict(here, node_id{next++}, 8, 100 * mib);
      whole.push_back(seen.whole);
      clear.push_back(seen.clear);
      small.push_back(evict(here, node_id{next++}, 8, 64 * 1024).whole);
      programs.push_back(evict(here, node_id{next++}, 8, 0, file).whole);
    }
    row("eviction of 8 foreign tasks of 100 MiB each, between nodes of one machine: from the key press until "
        "the host is clear",
        whole, 1);
    row("the same as the evicted node sees it: until its last task has gone", clear, 0);
    row("the same for 8 tasks of 64 KiB", small, 0);
    row("eviction of 8 running programs: they stand still, are given up when the owner stays, and run again "
        "elsewhere",
        programs, 3);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "eviction: %s\n", problem.what());
    return 1;
  }
}
