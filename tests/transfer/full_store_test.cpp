// A store without room: what needs it is refused by its name, and the task goes on; what does not need it is done.
#include <migrate/task/transfer.hpp>

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"
#include "witness.hpp"

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <sys/mount.h>
#include <sys/resource.h>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using namespace migrate;
using namespace migrate_test;

namespace {

const no_cluster_of_its_own here;

// A task of node 1 is on node 2 and writes its memory all the time. When the store has been filled its parent has it moved
// to node 3, or committed.

constexpr std::size_t words = (6 << 20) / 8;

std::string worker(std::string file, bool limited, bool asks_itself, task_id parent) {
  written_words memory(words);
  this_task::migrate_to(node_id(2));
  if (asks_itself) this_task::checkpoint();
  if (limited) {
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    rlimit little{4096, limit.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &little);
  }
  send(parent, 1);
  auto step = [&] {
    memory.write();
    this_task::poll();
  };
  std::string said;
  if (asks_itself) {
    while (!is_there(file + ".full")) step();
    step();
    std::error_code code;
    bool again = this_task::checkpoint(code);
    said = again ? "restarted, " : code == errc::store_full ? "full, " : std::to_string(code.value()) + ", ";
  }
  while (!is_there(file + ".stop")) step();
  return said + (memory.wrong() > 0 ? "wrong" : "right on " + to_string(this_task::node()));
}

std::string watch(std::string file, std::string filler, bool limited, std::string what) {
  const bool asks_itself = what == "checkpoint", committed = what == "checkpoint by its parent";
  auto task = spawn({.name = "worker", .recover = asks_itself || committed}, worker, file, limited,
                    asks_itself, this_task::id());
  mailbox<int>().receive();
  if (committed && !limited) task.checkpoint();
  if (!filler.empty()) {
    touch(filler);
    int to = ::open(filler.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    std::vector<char> block(1 << 16, 'f');
    while (::write(to, block.data(), block.size()) > 0) {
    }
    ::close(to);
  }
  note(file + ".full", "");
  std::error_code code;
  try {
    if (committed)
      task.checkpoint();
    else if (!asks_itself)
      task.migrate_to(node_id(3), *transfer_named(what));
  } catch (const error& thrown) {
    code = thrown.code();
  }
  note(file + ".stop", "");
  std::string said = asks_itself                ? ""
                     : !code                    ? "done, "
                     : code == errc::store_full ? "full, "
                                                : std::to_string(code.value()) + ", ";
  return said + task.join();
}

const scenario_entry the_store{"a full store", [] {
                                 std::printf("%s\n", run(watch, wanted("FULL_FILE"), wanted("FULL_FILLER"),
                                                         wanted("FULL_LIMITED") == "1", wanted("FULL_WHAT"))
                                                         .c_str());
                                 std::fflush(stdout);
                                 return 0;
                               }};

std::string play(const std::string& what, const std::string& file, const std::string& store,
                 const std::string& filler) {
  program cluster({own_path()}, {{"MIGRATE_SCENARIO", "a full store"},
                                 {"MIGRATE_QUIET", "1"},
                                 {"MIGRATE_STORE", store},
                                 {"FULL_FILE", file},
                                 {"FULL_FILLER", filler},
                                 {"FULL_LIMITED", filler.empty() ? "1" : "0"},
                                 {"FULL_WHAT", what}});
  std::string said = cluster.line();
  CHECK(cluster.wait(std::chrono::seconds(20)) == 0);
  return said;
}

struct row {
  const char* what;
  const char* outcome;
};

constexpr row rows[] = {
    {"flush", "full, right on 2"},        {"pre-flush", "full, right on 2"},
    {"full-copy", "done, right on 3"},    {"pre-copy", "done, right on 3"},
    {"on-reference", "done, right on 3"}, {"auto", "done, right on 3"},
    {"checkpoint", "full, right on 2"},   {"checkpoint by its parent", "full, right on 2"},
};

} // namespace

TEST_CASE("where the node may write no more, what needs the store is refused by name, and the task goes on") {
  for (const row& each : rows) {
    CAPTURE(each.what);
    folder place;
    CHECK(play(each.what, place.path / "lines", "", "") == each.outcome);
  }
}

TEST_CASE("so it is with a file system that is full") {
  for (const row& each : rows) {
    CAPTURE(each.what);
    folder place, beside;
    if (::mount("migrate-test", place.path.c_str(), "tmpfs", 0, "size=64m,mode=700") != 0) {
      WARN("skipped: no file system can be mounted here: " << std::strerror(errno));
      return;
    }
    CHECK(play(each.what, beside.path / "lines", place.path / "store", place.path / "filler") ==
          each.outcome);
    ::umount2(place.path.c_str(), MNT_DETACH);
  }
}
