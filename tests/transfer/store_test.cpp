#include <migrate/store.hpp>

#include "../support/cluster.hpp"
#include "../support/folder.hpp"
#include "../support/program.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/mailbox.hpp>
#include <migrate/nodes.hpp>

using namespace migrate;
using migrate_test::folder;
namespace fs = std::filesystem;

namespace {

const migrate_test::no_cluster_of_its_own here;

constexpr std::size_t words = (8 << 20) / 8;

std::vector<std::uint64_t> make_data() {
  std::vector<std::uint64_t> data(words);
  for (std::size_t i = 0; i < words; ++i) data[i] = i * 3;
  return data;
}

bool right(const std::vector<std::uint64_t>& data) {
  for (std::size_t i = 0; i < words; ++i)
    if (data[i] != i * 3) return false;
  return true;
}

// Moves 8 MiB when it is told to, once with the store spoilt and once with the store mended.
const migrate_test::scenario_entry spoilt_store{"spoilt store", [] {
  std::printf("%s\n", migrate_test::cluster_store().c_str());
  std::fflush(stdout);
  auto traveller = spawn({.name = "traveller"}, [] {
    std::vector<std::uint64_t> data = make_data();
    std::vector<std::string> log;
    mailbox<bool> go;
    for (int i = 0; i < 2; ++i) {
      go.receive();
      std::error_code code;
      this_task::migrate_to(nodes().back(), code);
      log.push_back(std::to_string(code.value()) + " " + std::to_string(number(this_task::node())) +
                    (right(data) ? " right" : " wrong"));
      if (i == 0) spawn([text = log.back()] { std::printf("%s\n", text.c_str()); std::fflush(stdout); }).join();
    }
    return log;
  });
  task_id id = traveller.id();
  for (int i = 0; i < 2; ++i) {
    int c = 0;
    while ((c = std::getchar()) != '\n' && c != EOF) {}
    spawn([id] { send(id, true); }).join();
  }
  std::printf("%s\n", traveller.join().back().c_str());
  std::fflush(stdout);
  return 0;
}};

bool mounted(const fs::path& where, const char* options) {
  if (::mount("migrate-test", where.c_str(), "tmpfs", 0, options) == 0) return true;
  WARN("skipped: no file system can be mounted here: " << std::strerror(errno));
  return false;
}

template <class Spoil, class Mend>
void check(errc code, const fs::path& store, Spoil&& spoil, Mend&& mend, const std::string& then = "0 3 right") {
  migrate_test::program cluster({migrate_test::own_path()}, {{"MIGRATE_SCENARIO", "spoilt store"},
                                                             {"MIGRATE_STORE", store.string()},
                                                             {"MIGRATE_QUIET", "1"}});
  REQUIRE(cluster.line() == store.string());
  spoil();
  cluster.say("go");
  std::string first = cluster.line();
  mend();
  CHECK(first == std::to_string(static_cast<int>(code)) + " 1 right");
  cluster.say("go");
  CHECK(cluster.line() == then);
  CHECK(cluster.wait(std::chrono::seconds(20)) == 0);
}

} // namespace

TEST_CASE("a move whose store has gone fails and the task goes on") {
  folder place;
  fs::path store = place.path / "store";
  auto spoil = [&] {
    std::error_code busy; // nodes write into it meanwhile
    while (fs::exists(store)) fs::remove_all(store, busy);
  };
  check(errc::store_missing, store, spoil, [] {}, std::to_string(static_cast<int>(errc::store_missing)) + " 1 right");
}

TEST_CASE("a move whose store is full fails and the task goes on") {
  folder place;
  if (!mounted(place.path, "size=16m,mode=700")) return;
  fs::path store = place.path / "store", filler = place.path / "filler";
  check(
      errc::store_full, store,
      [&] {
        std::ofstream out(filler, std::ios::binary);
        std::vector<char> block(1 << 16, 'f');
        while (out.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {}
      },
      [&] { fs::remove(filler); });
  ::umount2(place.path.c_str(), MNT_DETACH);
}

TEST_CASE("a move whose store has become read-only fails and the task goes on") {
  folder place;
  if (!mounted(place.path, "size=64m,mode=700")) return;
  check(
      errc::store_read_only, place.path / "store",
      [&] { REQUIRE(::mount("migrate-test", place.path.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, "size=64m") == 0); },
      [&] { REQUIRE(::mount("migrate-test", place.path.c_str(), "tmpfs", MS_REMOUNT, "size=64m") == 0); });
  ::umount2(place.path.c_str(), MNT_DETACH);
}

TEST_CASE("a move whose store others may enter now, or belongs to somebody else, fails and the task goes on") {
  folder place;
  fs::path store = place.path / "store";
  check(
      errc::store_owner, store, [&] { REQUIRE(::chmod(store.c_str(), 0755) == 0); },
      [&] { REQUIRE(::chmod(store.c_str(), 0700) == 0); });
  if (::geteuid() != 0) return;
  folder other;
  store = other.path / "store";
  check(
      errc::store_owner, store, [&] { REQUIRE(::chown(store.c_str(), 65534, 65534) == 0); },
      [&] { REQUIRE(::chown(store.c_str(), 0, 0) == 0); });
}

namespace {

// Node 3 is stopped when the offer comes; its image is damaged; it goes on.
const migrate_test::scenario_entry damaged_image{"damaged image", [] {
  std::printf("%s\n", migrate_test::cluster_store().c_str());
  for (int process : migrate_test::other_processes()) std::printf("%d\n", process);
  std::fflush(stdout);
  auto traveller = spawn({.name = "traveller"}, [] {
    std::vector<std::uint64_t> data = make_data();
    std::string first;
    std::error_code code;
    try {
      this_task::migrate_to(nodes().back());
    } catch (const error& thrown) {
      code = thrown.code();
      first = thrown.what();
    }
    std::string log = std::to_string(code.value()) + " " + std::to_string(number(this_task::node())) +
                      (right(data) ? " right" : " wrong");
    this_task::migrate_to(nodes().back(), code); // a fresh image is a good one
    log += " " + std::to_string(code.value()) + (right(data) ? " right" : " wrong");
    return std::pair(log, first);
  });
  auto [log, what] = traveller.join();
  std::printf("%s\n%s\n", log.c_str(), what.c_str());
  std::fflush(stdout);
  return 0;
}};

bool stopped(int process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  std::size_t end = text.rfind(')');
  return end != std::string::npos && end + 2 < text.size() && text[end + 2] == 'T';
}

} // namespace

TEST_CASE("a damaged image is refused by name and the task goes on at the source") {
  struct harm {
    errc code;
    void (*apply)(int file, off_t size);
  };
  static constexpr harm harms[] = {
      {errc::image_damaged,
       [](int file, off_t size) {
         char byte = 0;
         REQUIRE(::pread(file, &byte, 1, size / 2) == 1);
         byte = static_cast<char>(byte ^ 0x40);
         REQUIRE(::pwrite(file, &byte, 1, size / 2) == 1);
       }},
      {errc::image_truncated, [](int file, off_t size) { REQUIRE(::ftruncate(file, size / 2) == 0); }},
      {errc::store_owner, [](int file, off_t) { REQUIRE(::fchown(file, 65534, 65534) == 0); }},
  };
  for (const harm& each : harms) {
    if (each.code == errc::store_owner && ::geteuid() != 0) continue;
    CAPTURE(static_cast<int>(each.code));
    folder place;
    fs::path store = place.path / "store";
    migrate_test::program cluster({migrate_test::own_path()}, {{"MIGRATE_SCENARIO", "damaged image"},
                                                               {"MIGRATE_FAULT", "stop:3:target.offered"},
                                                               {"MIGRATE_STORE", store.string()},
                                                               {"MIGRATE_KEEPALIVE", "30000"},
                                                               {"MIGRATE_QUIET", "1"}});
    REQUIRE(cluster.line() == store.string());
    std::vector<int> processes{std::stoi(cluster.line()), std::stoi(cluster.line())};
    int target = 0;
    while (target == 0) // an image is there when its target has been stopped
      for (int process : processes)
        if (stopped(process)) target = process;
    int harmed = 0;
    for (const auto& entry : fs::recursive_directory_iterator(store)) {
      if (!entry.is_regular_file() || entry.file_size() < (1 << 20)) continue;
      int file = ::open(entry.path().c_str(), O_RDWR | O_CLOEXEC);
      each.apply(file, static_cast<off_t>(entry.file_size()));
      ::close(file);
      ++harmed;
    }
    REQUIRE(harmed == 1);
    ::kill(target, SIGCONT);
    CHECK(cluster.line() == std::to_string(static_cast<int>(each.code)) + " 1 right 0 right");
    CHECK_THAT(cluster.line(), Catch::Contains("task 1.1"));
    CHECK(cluster.wait(std::chrono::seconds(20)) == 0);
  }
}
