#include <migrate/file.hpp>

#include "file_fixture.hpp"
#include "../support/program.hpp"

#include <cstring>
#include <map>
#include <set>

namespace {

const migrate_test::no_cluster_of_its_own scenarios_only;

struct record {
  std::uint32_t writer;
  std::uint32_t number;
  char filling[24];
};

text append_records(int fd, std::uint32_t me, std::uint32_t records, random_choices random) {
  for (std::uint32_t i = 0; i < records; ++i) {
    record mine{me, i, {}};
    std::memset(mine.filling, static_cast<char>('a' + me), sizeof mine.filling);
    EXPECT(px::write(fd, &mine, sizeof mine) == sizeof mine);
    if (random.one_in(3)) this_task::migrate_to(random.node());
  }
  return "";
}

text many_write(const text& path, int flags, std::uint64_t seed) {
  random_choices random(seed);
  constexpr std::uint32_t writers = 4, records = 400;
  int fd = px::open(path.c_str(), O_CREAT | O_RDWR | flags, 0600);
  EXPECT(fd >= 0);
  EXPECT(px::write(fd, "head", 4) == 4);
  std::vector<task<text>> all;
  for (std::uint32_t w = 0; w < writers; ++w) all.push_back(spawn(append_records, fd, w, records, random.branch()));
  for (auto& each : all) {
    text wrong = each.join();
    EXPECT(wrong == "");
  }
  EXPECT(px::lseek(fd, 0, SEEK_CUR) == 4 + off_t{writers} * records * off_t{sizeof(record)});
  EXPECT(px::write(fd, "tail", 4) == 4);
  EXPECT(px::lseek(fd, 4, SEEK_SET) == 4);
  std::map<std::uint32_t, std::uint32_t> next;
  for (std::uint32_t i = 0; i < writers * records; ++i) {
    record got;
    EXPECT(px::read(fd, &got, sizeof got) == sizeof got);
    EXPECT(got.writer < writers);
    if (got.number != next[got.writer]++) return "a record is lost, doubled or out of order";
    for (char c : got.filling) EXPECT(c == static_cast<char>('a' + got.writer));
  }
  char tail[8] = {};
  EXPECT(px::read(fd, tail, sizeof tail) == 4 && text(tail) == "tail");
  return "";
}

text many_read(const text& path, std::uint64_t seed) {
  random_choices random(seed);
  constexpr std::uint32_t readers = 4, numbers = 1200;
  {
    file out(path, O_CREAT | O_WRONLY);
    for (std::uint32_t i = 0; i < numbers; ++i) out.write(std::as_bytes(std::span(&i, 1)));
  }
  int fd = px::open(path.c_str(), O_RDONLY);
  std::vector<task<std::vector<std::uint32_t>>> all;
  for (std::uint32_t r = 0; r < readers; ++r)
    all.push_back(spawn([fd, mine = random.branch()]() mutable {
      std::vector<std::uint32_t> seen;
      for (std::uint32_t number = 0; px::read(fd, &number, sizeof number) == sizeof number;) {
        seen.push_back(number);
        if (mine.one_in(5)) this_task::migrate_to(mine.node());
      }
      return seen;
    }));
  std::set<std::uint32_t> whole;
  std::size_t count = 0;
  for (auto& each : all) {
    std::vector<std::uint32_t> part = each.join();
    EXPECT(std::is_sorted(part.begin(), part.end()));
    count += part.size();
    whole.insert(part.begin(), part.end());
  }
  EXPECT(count == numbers);
  EXPECT(whole.size() == numbers);
  return "";
}

text seek_together(const text& path) {
  int fd = px::open(path.c_str(), O_CREAT | O_RDWR, 0600);
  EXPECT(px::write(fd, "0123456789", 10) == 10);
  auto child = spawn([fd]() -> text {
    be_moved();
    EXPECT(px::lseek(fd, 0, SEEK_CUR) == 10);
    EXPECT(px::lseek(fd, -4, SEEK_END) == 6);
    EXPECT(px::lseek(fd, -20, SEEK_CUR) == -1 && errno == EINVAL);
    EXPECT(px::lseek(fd, -1, SEEK_CUR) == 5);
    return "";
  });
  text wrong = child.join();
  EXPECT(wrong == "");
  be_moved();
  char got[4] = {};
  EXPECT(px::read(fd, got, 3) == 3 && text(got) == "567");
  auto late = spawn([fd]() -> text {
    be_moved();
    char rest[8] = {};
    EXPECT(px::read(fd, rest, 8) == 2 && text(rest) == "89");
    EXPECT(px::read(fd, rest, 8) == 0);
    return "";
  });
  wrong = late.join();
  EXPECT(wrong == "");
  // The node that a task has left is not needed for the offset.
  return "";
}

int all_of_it() {
  folder where;
  std::uint64_t seed = new_seed("offset");
  text wrong;
  auto expect = [&](const char* what, const text& said) {
    if (!said.empty()) wrong += text(what) + ": " + said + "; ";
  };
  expect("writing", migrate_test::run(many_write, where.path.string() + "/w", 0, seed));
  expect("appending", migrate_test::run(many_write, where.path.string() + "/a", O_APPEND, seed + 1));
  expect("reading", migrate_test::run(many_read, where.path.string() + "/r", seed + 2));
  expect("seeking", migrate_test::run(seek_together, where.path.string() + "/s"));
  expect("seeking away", migrate_test::run(
                             [](text path) -> text {
                               this_task::migrate_to(nodes().back());
                               return seek_together(path);
                             },
                             where.path.string() + "/t"));
  std::uint64_t moves = migrate_test::statistics().moves;
  std::fprintf(stderr, "offset: %llu moves\n", static_cast<unsigned long long>(moves));
  if (moves < 500) wrong += "too few moves";
  std::printf("%s\n", wrong.c_str());
  return wrong.empty() ? 0 : 1;
}

const migrate_test::scenario_entry entry{"shared", all_of_it};

text refused(const text& path) {
  int fd = px::open(path.c_str(), O_CREAT | O_RDWR, 0600);
  struct flock whole {};
  whole.l_type = F_WRLCK;
  EXPECT(px::fcntl(fd, F_SETLK, &whole) == 0);
  std::error_code code;
  text said;
  try {
    this_task::migrate_to(nodes().back());
  } catch (const error& why) {
    code = why.code();
    said = why.what();
  }
  EXPECT(code == errc::not_movable);
  if (said.find(path) == text::npos || said.find("lock") == text::npos) return "it says: " + said;
  px::close(fd);
  this_task::migrate_to(nodes().back());
  return "";
}

const migrate_test::scenario_entry refusal{"refused", [] {
                                             folder where;
                                             text wrong = migrate_test::run(refused, where.path.string() + "/a");
                                             std::printf("%s\n", wrong.c_str());
                                             return wrong.empty() ? 0 : 1;
                                           }};

void check(const char* way, bool reopen) {
  const char* torture = std::getenv("MIGRATE_TORTURE");
  migrate_test::environment with{{"MIGRATE_SCENARIO", "shared"}, {"MIGRATE_NODES", "4"}, {"MIGRATE_SHARED_OFFSET", way}};
  if (reopen) with.emplace_back("MIGRATE_REOPEN_FILES", "1");
  if (torture != nullptr) with.emplace_back("MIGRATE_TORTURE", torture);
  migrate_test::program all({migrate_test::own_path()}, with);
  int status = all.wait(std::chrono::seconds(60));
  INFO(all.rest());
  CHECK(status == 0);
}

} // namespace

TEST_CASE("between machines a move is refused while the task holds a record lock, naming the file") {
  migrate_test::program one({migrate_test::own_path()},
                            {{"MIGRATE_SCENARIO", "refused"}, {"MIGRATE_NODES", "2"}, {"MIGRATE_REOPEN_FILES", "1"}});
  int status = one.wait(std::chrono::seconds(30));
  INFO(one.rest());
  CHECK(status == 0);
}

TEST_CASE("tasks on four nodes share an offset that their home keeps") { check("home", false); }
TEST_CASE("the same when files are opened anew on each node") { check("home", true); }
TEST_CASE("tasks on four nodes share an offset by a token that goes round") { check("token", false); }
TEST_CASE("the same by a token when files are opened anew on each node") { check("token", true); }
TEST_CASE("tasks on four nodes of one machine share the kernel's offset") { check("kernel", false); }
