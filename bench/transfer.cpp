// The ways to move memory side by side, on one workload: a task that counts, and writes a share of its heap all the time.
// `transfer --help` says what can be asked for.
#include <migrate/mailbox.hpp>
#include <migrate/node.hpp>

#include "../tests/support/program.hpp"
#include "../tests/support/test_hosts.hpp"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <thread>

#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.hpp"
#include "transfer_document.hpp"
#include "transfer_figures.hpp"

using namespace migrate;

namespace {

constexpr const char* usage =
    R"(transfer [--rows] [--quick] [--only=WORDS] [--out=DIR] [--freeze=COMMAND --restore=COMMAND]

Prints a table of every strategy with several heaps and shares written, and then rows with what is to be reached.

  --rows             only the rows
  --only=WORDS       of the rows those that have these words, and no table
  --quick            no gigabyte, no link between hosts
  --out=DIR          writes transfer.csv and the figures there, and the tables of DIR/transfer.md if that is there
  --freeze=COMMAND   another checkpointer is timed on a process with the same workload. The command takes the process {pid}
                     down into the folder {dir}, which is empty but for the file `count` that the process has mapped. When the command
                     ends the process has stopped, or is gone.
  --restore=COMMAND  has it run again. The command may go on for as long as the process does.

Both are given to sh; one that fails is reported by its status. For example, as root:

  transfer --only=outside --freeze='criu dump -t {pid} -D {dir} -j' --restore='criu restore -D {dir} -j -d'

With TRANSFER_ONLY=STRATEGY the table has that one.
)";

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t page = 4096;
constexpr std::int64_t bin_ns = 10'000'000;

std::int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

// --- the workload ------------------------------------------------------------------------------------

struct account {
  std::int64_t begun = 0;
  std::int64_t pause =
      0; // nanoseconds between the last step before the move and the first one after it; of a checkpoint, the longest
  std::int64_t depended = 0;       // nanoseconds after the move in which its source was still needed
  std::vector<std::uint32_t> bins; // steps in each 10 ms

  auto migrate_fields() { return std::tie(begun, pause, depended, bins); }
};

struct workload {
  std::size_t heap = 0;
  double share = 0;      // of the heap written in each 100 ms, in runs of 16 pages here and there
  std::size_t burst = 0; // instead: bytes written just before each safe point, one in 20 ms
  bool shrinks = false;  // its memory does when it is compressed

  void prepare() {
    memory.assign(heap, 1);
    for (std::size_t at = 0; !shrinks && at + sizeof draw <= heap; at += sizeof draw) {
      draw ^= draw << 13;
      draw ^= draw >> 7;
      draw ^= draw << 17;
      std::memcpy(&memory[at], &draw, sizeof draw);
    }
    begun = last = now_ns();
    bins.assign(6000, 0);
  }
  void step() {
    std::int64_t now = now_ns();
    last = now;
    auto bin = static_cast<std::size_t>((now - begun) / bin_ns);
    if (bin < bins.size()) ++bins[bin];
    for (int i = 0; i < 1500; ++i) asm volatile("" : : : "memory");
    const std::size_t pages = heap / page;
    if (burst > 0) {
      if (now - last_burst < 20'000'000) return;
      last_burst = now;
      for (std::size_t i = 0; i < burst / page; ++i) ++memory[(next + i) % pages * page];
      next = (next + burst / page) % pages;
      safe = true;
      return;
    }
    safe = true;
    if (share == 0 || pages < 16) return;
    auto due =
        static_cast<std::size_t>(share * static_cast<double>(pages) * static_cast<double>(now - begun) / 1e8);
    for (; written < due; written += 16) {
      draw = draw * 6364136223846793005u + 1442695040888963407u;
      std::size_t first = (draw >> 33) % (pages / 16) * 16;
      for (std::size_t i = first; i < first + 16; ++i) ++memory[i * page];
    }
  }

  std::vector<char> memory;
  std::vector<std::uint32_t> bins;
  std::int64_t begun = 0, last = 0, last_burst = 0;
  std::size_t written = 0, next = 0;
  std::uint64_t draw = 1;
  bool safe = false;
};

account work(std::size_t heap, double share, std::size_t burst, bool shrinks, task_id parent) {
  workload its;
  its.heap = heap;
  its.share = share;
  its.burst = burst;
  its.shrinks = shrinks;
  its.prepare();
  mailbox<int> told;
  send(parent, 1);
  std::int64_t pause = 0, moved = 0, depended = 0;
  bool stays = false; // while it is asked for checkpoints
  for (std::int64_t looked = 0;;) {
    its.step();
    if (!std::exchange(its.safe, false)) continue;
    std::uint64_t moves = this_task::moves();
    std::int64_t before = now_ns();
    this_task::poll();
    if (this_task::moves() != moves) {
      moved = now_ns();
      pause = moved - before;
    } else if (stays) {
      pause = std::max(pause, now_ns() - before);
    }
    if (its.last - looked < 2'000'000) continue;
    looked = its.last;
    if (this_task::residual()) depended = now_ns() - moved;
    if (std::optional<int> what = told.try_receive()) {
      if (*what == 0) break;
      stays = true;
      send(parent, 1);
    }
  }
  return {its.begun, pause, depended, its.bins};
}

struct journey {
  account seen;
  std::int64_t from = 0, until = 0; // the call that moved it
  std::uint64_t bytes = 0;
  int code = 0;

  auto migrate_fields() { return std::tie(seen, from, until, bytes, code); }
};

node* first_node = nullptr; // whose tasks ask for moves, and stay

struct trip {
  std::size_t heap = 0;
  double share = 0;
  std::size_t burst = 0;
  transfer how = transfer::by_default;
  bool stays = false; // a checkpoint is made instead
  bool again = false; // it has been moved in the same way before, and what counts is the second move
  bool shrinks = false; // its memory, when it is compressed

  auto migrate_fields() { return std::tie(heap, share, burst, how, stays, again, shrinks); }
};

journey move_once(trip asked) {
  region_class kind = asked.heap < 32 * mib ? region_class::medium : region_class::large;
  auto worker = spawn({.name = "worker", .region = kind, .recover = asked.stays}, work, asked.heap,
                      asked.share, asked.burst, asked.shrinks, this_task::id());
  mailbox<int> in;
  in.receive();
  this_task::sleep_for(std::chrono::milliseconds(1000));
  if (asked.stays) {
    send(worker.id(), 1);
    in.receive();
  }
  std::error_code code;
  if (asked.again) {
    worker.migrate_to(node_id{2}, asked.how, code);
    this_task::sleep_for(std::chrono::milliseconds(1000));
  }
  journey made;
  auto bytes_so_far = [] {
    move_statistics all = first_node->statistics();
    return all.bytes_flushed + all.bytes_followed;
  };
  const std::uint64_t bytes_before = bytes_so_far();
  made.from = now_ns();
  if (asked.stays)
    worker.checkpoint();
  else if (!code)
    worker.migrate_to(node_id{static_cast<std::uint16_t>(asked.again ? 3 : 2)}, asked.how, code);
  made.until = now_ns();
  made.code = code.value();
  this_task::sleep_for(std::chrono::milliseconds(1300));
  made.bytes = bytes_so_far() - bytes_before;
  send(worker.id(), 0);
  made.seen = worker.join();
  return made;
}

struct measured {
  std::size_t heap = 0;
  double share = 0;
  bool again = false;
  std::string link, how;
  double freeze_ms = 0, total_ms = 0, full_speed_ms = 0;
  double before = 1, after = 0; // speed from the order to the freeze, and in the second after the move
  double mbytes = 0;
  double depended_ms = 0;
  std::vector<double> speed; // in each 10 ms from 200 ms before the order on, of what it was before
};

measured judge(const journey& made, const trip& asked, const std::string& link) {
  measured m;
  m.heap = asked.heap;
  m.share = asked.share;
  m.link = link;
  m.how = asked.stays ? "checkpoint"
                      : std::string(name_of(asked.how)) + (asked.shrinks ? ", compressible" : "") +
                            (made.code != 0 ? " (failed)" : "");
  m.again = asked.again;
  m.mbytes = static_cast<double>(made.bytes) / 1e6;
  m.depended_ms = static_cast<double>(made.seen.depended) / 1e6;
  m.freeze_ms = static_cast<double>(made.seen.pause) / 1e6;
  m.total_ms = static_cast<double>(made.until - made.from) / 1e6;
  auto bin_of = [&](std::int64_t when) {
    return static_cast<std::size_t>((when - made.seen.begun) / bin_ns);
  };
  const auto& bins = made.seen.bins;
  std::size_t ordered = bin_of(made.from), moved = bin_of(made.until);
  std::vector<double> usual; // of all bins that had any: a machine that others use stands still at times
  for (std::size_t i = 0; i < moved + 100 && i < bins.size(); ++i)
    if (bins[i] > 0) usual.push_back(bins[i]);
  double normal = std::max(1.0, bench::percentile(usual, 75));
  auto mean = [&](std::size_t first, std::size_t last) {
    double sum = 0;
    for (std::size_t i = first; i < last && i < bins.size(); ++i) sum += bins[i];
    return last > first ? sum / static_cast<double>(last - first) / normal : 1.0;
  };
  auto frozen = static_cast<std::size_t>(made.seen.pause / bin_ns) + 1;
  if (moved > ordered + frozen + 1) {
    // Against as long a time before, as far as there is: the machine's speed goes up and down by itself.
    const std::size_t length = moved - frozen - ordered;
    const double usual_then = mean(ordered - std::min(ordered, length), ordered);
    m.before = usual_then > 0 ? mean(ordered, ordered + length) / usual_then : 1;
  }
  m.after = mean(moved + 1, moved + 101);
  std::size_t whole = ordered;
  while (whole < moved + 50 && mean(whole, whole + 100) < 0.9) ++whole;
  m.full_speed_ms = static_cast<double>(whole - ordered) * 10;
  for (std::size_t i = ordered - std::min<std::size_t>(ordered, 20); i < moved + 100 && i < bins.size(); ++i)
    m.speed.push_back(bins[i] / normal);
  return m;
}

// --- a bare copy, from this process to another one -----------------------------------------------------

void receive_for_ever(int listener) {
  for (;;) {
    int peer = ::accept(listener, nullptr, nullptr);
    std::size_t bytes = 0;
    while (::recv(peer, &bytes, sizeof bytes, MSG_WAITALL) == sizeof bytes) {
      auto* to = static_cast<char*>(
          ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      for (std::size_t at = 0; at < bytes;) {
        ssize_t got = ::recv(peer, to + at, std::min(bytes - at, mib), 0);
        if (got <= 0) break;
        at += static_cast<std::size_t>(got);
      }
      ::munmap(to, bytes);
      char done = 1;
      if (::send(peer, &done, 1, 0) != 1) break;
    }
    ::close(peer);
  }
}

int loopback(int& port) {
  int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (port != 0) {
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) std::exit(1);
    return socket;
  }
  socklen_t length = sizeof address;
  ::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address);
  ::listen(socket, 4);
  ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length);
  port = ntohs(address.sin_port);
  return socket;
}

double bare_copy(int socket, const std::vector<char>& memory) {
  std::size_t bytes = memory.size();
  auto begun = bench::clock::now();
  char done = 0;
  if (::send(socket, &bytes, sizeof bytes, 0) != sizeof bytes) std::exit(1);
  for (std::size_t at = 0; at < bytes;) {
    ssize_t put = ::send(socket, memory.data() + at, std::min(bytes - at, mib), 0);
    if (put <= 0) std::exit(1);
    at += static_cast<std::size_t>(put);
  }
  if (::recv(socket, &done, 1, 0) != 1) std::exit(1);
  return bench::nanoseconds(bench::clock::now() - begun);
}

double quiet_move(std::size_t heap, transfer how) {
  // Of a task that writes nothing: nanoseconds.
  auto still = spawn({.region = region_class::large}, [heap, parent = this_task::id()] {
    std::vector<char> memory(heap, 1);
    mailbox<int> told;
    send(parent, 1);
    told.receive();
  });
  mailbox<int>().receive();
  auto begun = bench::clock::now();
  still.migrate_to(node_id{2}, how);
  double taken = bench::nanoseconds(bench::clock::now() - begun);
  send(still.id(), 0);
  still.join();
  return taken;
}

void move_with_image(std::size_t heap, std::size_t dirty, bool again) {
  // The bytes of its second move are what is measured, by the one who calls.
  auto writer = spawn({.region = region_class::large}, [heap, dirty, parent = this_task::id()] {
    std::vector<char> memory(heap, 1);
    mailbox<int> told;
    send(parent, 1);
    told.receive();
    for (std::size_t at = 0; at < dirty; at += page) memory[at + heap / 2] = 7;
    send(parent, 1);
    told.receive();
  });
  mailbox<int> in;
  in.receive();
  writer.migrate_to(node_id{2}, transfer::pre_flush);
  send(writer.id(), 1);
  in.receive();
  if (again) writer.migrate_to(node_id{3}, transfer::pre_flush);
  send(writer.id(), 1);
  writer.join();
}

// --- somebody else's checkpoints -----------------------------------------------------------------------

[[noreturn]] void be_a_process(const std::string& file, std::size_t heap, double share) {
  int nothing = ::open("/dev/null", O_RDWR); // a pipe's other end would have to be taken down, too
  for (int stream : {0, 1, 2}) ::dup2(nothing, stream);
  ::close(nothing);
  int to = ::open(file.c_str(), O_RDWR | O_CREAT, 0600);
  if (::ftruncate(to, 4096) != 0) std::exit(1);
  auto* count =
      static_cast<volatile std::uint64_t*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, to, 0));
  ::close(to);
  workload its;
  its.heap = heap;
  its.share = share;
  its.prepare();
  for (;;) {
    its.step();
    *count = *count + 1;
  }
}

std::string filled_in(std::string text, int process, const std::string& folder) {
  for (auto [name, value] :
       {std::pair<std::string, std::string>{"{pid}", std::to_string(process)}, {"{dir}", folder}})
    for (std::size_t at; (at = text.find(name)) != std::string::npos;) text.replace(at, name.size(), value);
  return text;
}

std::string time_outside(const std::string& self, const std::string& freeze, const std::string& restore,
                         std::size_t heap) {
  using namespace std::chrono_literals;
  constexpr auto patience = 60s;
  char made[] = "/tmp/migrate-outside-XXXXXX";
  if (::mkdtemp(made) == nullptr) return "there is no folder for it";
  const std::string folder = made, file = folder + "/count";
  struct removed {
    const std::string& path;
    ~removed() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  } cleanup{folder};
  migrate_test::program process({self, "process", file, std::to_string(heap), "0.01"}, {});
  const int id = process.id();
  struct ended { // also when it has another parent now
    int id;
    const std::string& program;
    ~ended() {
      std::error_code gone;
      if (std::filesystem::read_symlink("/proc/" + std::to_string(id) + "/exe", gone) == program)
        ::kill(id, SIGKILL);
    }
  } killed{id, self};
  auto until = [&](auto&& done) {
    auto limit = bench::clock::now() + patience;
    while (!done())
      if (bench::clock::now() > limit) return false;
    return true;
  };
  std::error_code missing;
  if (!until([&] { return std::filesystem::file_size(file, missing) == 4096; }))
    return "the workload does not begin";
  int at = ::open(file.c_str(), O_RDONLY);
  auto* count = static_cast<volatile std::uint64_t*>(::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, at, 0));
  ::close(at);
  if (!until([&] { return *count > 0; })) return "the workload does not begin";
  std::this_thread::sleep_for(1s);

  auto run = [&](const std::string& command) {
    return std::vector<std::string>{"/bin/sh", "-c", "exec 1>&2; " + filled_in(command, id, folder)};
  };
  auto failed = [](const std::string& command, int status) {
    return "`" + command + "` " +
           (status == migrate_test::program::hung ? "took more than a minute"
                                                  : "failed with status " + std::to_string(status));
  };
  auto begun = bench::clock::now();
  {
    migrate_test::program freezes(run(freeze), {});
    if (int status = freezes.wait(patience); status != 0) return failed(freeze, status);
  }
  auto middle = bench::clock::now();
  process.wait(0ms); // nobody can have its number again before its parent has heard of its end
  std::uint64_t stood = *count;
  migrate_test::program restores(run(restore), {});
  int status = migrate_test::program::hung;
  bool runs = until([&] {
    if (status == migrate_test::program::hung) status = restores.wait(0ms);
    return *count != stood || (status != migrate_test::program::hung && status != 0);
  });
  auto end = bench::clock::now();
  if (status != 0 && status != migrate_test::program::hung) return failed(restore, status);
  if (!runs) return "nothing runs a minute after `" + restore + "`";
  return bench::text("freeze %.1f ms, restore %.1f ms, stands still for %.1f ms",
                     bench::nanoseconds(middle - begun) / 1e6, bench::nanoseconds(end - middle) / 1e6,
                     bench::nanoseconds(end - begun) / 1e6);
}
// What came of it.

// --- the table -----------------------------------------------------------------------------------------

constexpr transfer all_ways[] = {transfer::flush,        transfer::full_copy, transfer::pre_copy,
                                 transfer::on_reference, transfer::pre_flush, transfer::automatic};

measured run_one(node& here, const std::string& link, const trip& asked) {
  return judge(here.run(move_once, asked), asked, link);
}

void print_line(const measured& m) {
  std::printf(
      "%-10s %9.1f MiB %5.1f %% %-12s %s freeze %9.2f ms, moved in %9.1f ms, full speed after %6.0f ms, "
      "speed %3.0f %% and "
      "%3.0f %%, %8.1f MB, source needed for %.0f ms\n",
      m.link.c_str(), static_cast<double>(m.heap) / mib, m.share * 100, m.how.c_str(),
      m.again ? "again" : "     ", m.freeze_ms, m.total_ms, m.full_speed_ms, m.before * 100, m.after * 100,
      m.mbytes, m.depended_ms);
  std::fflush(stdout);
}

std::string csv(const measured& m) {
  return bench::text("%s,%zu,%.3f,%s,%d,%.3f,%.3f,%.0f,%.3f,%.3f,%.3f,%.0f", m.link.c_str(), m.heap, m.share,
                     m.how.c_str(), m.again ? 2 : 1, m.freeze_ms, m.total_ms, m.full_speed_ms, m.before,
                     m.after, m.mbytes, m.depended_ms);
}

constexpr const char* csv_head =
    "link,heap bytes,share written each 100 ms,strategy,which move,freeze ms,move ms,full speed "
    "after ms,speed before,speed after,MB moved,source needed ms\n";

measured from_csv(const std::string& line) {
  std::istringstream words(line);
  std::vector<std::string> cells;
  for (std::string each; std::getline(words, each, ',');) cells.push_back(each);
  cells.resize(12);
  auto number = [&](std::size_t i) { return std::strtod(cells[i].c_str(), nullptr); };
  measured m;
  m.link = cells[0];
  m.heap = std::strtoull(cells[1].c_str(), nullptr, 10);
  m.share = number(2);
  m.how = cells[3];
  m.again = number(4) > 1;
  m.freeze_ms = number(5);
  m.total_ms = number(6);
  m.full_speed_ms = number(7);
  m.before = number(8);
  m.after = number(9);
  m.mbytes = number(10);
  m.depended_ms = number(11);
  return m;
}

std::string table_row(const measured& m) {
  auto ms = [](double time) { return bench::text(time < 10 ? "%.2f" : "%.0f", time); };
  const bool stays = m.how == "checkpoint";
  return bench::text("| %s | %zu | %.0f %% | %s%s | %s | %s | %s | %.0f %% | %s | %s |", m.link.c_str(),
                     m.heap / mib, m.share * 100, m.how.c_str(), m.again ? ", again" : "",
                     ms(m.freeze_ms).c_str(), ms(m.total_ms).c_str(),
                     stays ? "" : bench::text("%.0f", m.full_speed_ms).c_str(), m.before * 100,
                     stays ? "" : bench::text("%.1f", m.mbytes).c_str(),
                     stays ? "" : bench::text("%.0f", m.depended_ms).c_str());
}

constexpr const char* table_head[] = {"| link | heap, MiB | written each 100 ms | strategy | freeze, ms | "
                                      "moved in, ms | full speed after, ms | speed before the "
                                      "freeze | MB moved | source needed for, ms |",
                                      "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"};

std::vector<measured> run_table(node& here, const std::string& link, bool quick) {
  std::vector<measured> rows;
  auto add = [&](const trip& asked) {
    if (const char* only = std::getenv("TRANSFER_ONLY"); only != nullptr && name_of(asked.how) != only)
      return;
    rows.push_back(run_one(here, link, asked));
    print_line(rows.back());
  };
  const bool loopback = link == "loopback";
  std::vector<trip> cells{{0, 0}, {mib, 0.01}, {10 * mib, 0.01}, {100 * mib, 0.01}, {100 * mib, 0.1}};
  if (!quick && loopback)
    for (double share : {0.01, 0.1}) cells.push_back({1024 * mib, share});
  for (trip& each : cells) {
    for (transfer how : all_ways) {
      each.how = how;
      add(each);
    }
    if (loopback) add({each.heap, each.share, 0, transfer::pre_flush, true});
  }
  if (loopback)
    for (transfer how : all_ways) add({100 * mib, 0.01, 0, how, false, true});
  else
    for (transfer how : {transfer::full_copy, transfer::pre_copy, transfer::on_reference})
      add({100 * mib, 0.01, 0, how, false, false, true});
  return rows;
}

class row_list {
  // Rows with what is to be reached, printed as they are measured.
public:
  explicit row_list(std::string only) : only_(std::move(only)) {}

  bool wants(const std::string& what) const { return what.find(only_) != std::string::npos; }
  void add(const std::string& what, const std::string& measured, const std::string& to_reach, bool reached) {
    bench::row(what, measured, to_reach, reached);
    lines_.push_back("| " + what + " | " + measured + " | " + to_reach + " | " + (reached ? "ok" : "short") +
                     " |");
  }
  void ratio(const std::string& what, const bench::comparison& got, double most) {
    add(what,
        bench::text("%.2f x (%.2f-%.2f; %.2f against %.2f ms)", got.ratio.median, got.ratio.least,
                    got.ratio.most, got.mine.median, got.theirs.median),
        bench::text("<= %.1f x", most), got.ratio.median <= most);
  }
  const std::vector<std::string>& lines() const { return lines_; }

private:
  std::string only_;
  std::vector<std::string> lines_;
};

void reach(node& here, int socket, bool quick, row_list& rows) {
  const std::size_t large = (quick ? 100 : 1024) * mib;
  auto freeze = [&](const trip& asked) { return run_one(here, "loopback", asked).freeze_ms; };
  auto empty = [&] { return freeze({0, 0, 0, transfer::flush}); };
  for (transfer how : {transfer::pre_flush, transfer::pre_copy}) {
    std::string name(name_of(how));
    std::string what = bench::text("freeze of %s, %zu MiB heap, 1 %% written each 100 ms, loopback",
                                   name.c_str(), large / mib);
    std::string slow = "slowdown of the task while rounds of " + name + " go on, " +
                       std::to_string(large / mib) + " MiB heap";
    if (!rows.wants(what) && !rows.wants(slow)) continue;
    std::vector<double> freezes, speeds;
    for (int i = 0; i < 7; ++i) {
      measured m = run_one(here, "loopback", {large, 0.01, 0, how});
      freezes.push_back(m.freeze_ms);
      speeds.push_back((1 - m.before) * 100);
    }
    auto got = bench::spread_of(freezes);
    rows.add(what, bench::text("%.2f ms (%.2f-%.2f)", got.median, got.least, got.most), "<= 5 ms",
             got.median <= 5);
    got = bench::spread_of(speeds);
    rows.add(slow, bench::text("%.0f %% (%.0f-%.0f)", got.median, got.least, got.most), "<= 10 %",
             got.median <= 10);
  }
  if (std::string what = bench::text(
          "freeze of a checkpoint, %zu MiB heap, 1 %% written each 100 ms, against pre-flush's", large / mib);
      rows.wants(what))
    rows.ratio(what,
               bench::compare(
                   3,
                   [&] {
                     return freeze({large, 0.01, 0, transfer::pre_flush, true});
                   },
                   [&] {
                     return freeze({large, 0.01, 0, transfer::pre_flush});
                   }),
               1.5);
  if (std::string what = bench::text(
          "freeze of pre-flush, %zu MiB heap, 1 MiB written since the last round, against an empty task",
          large / mib);
      rows.wants(what))
    rows.ratio(what,
               bench::compare(
                   9,
                   [&] {
                     return freeze({large, 0, mib, transfer::pre_flush});
                   },
                   empty),
               2);
  for (std::size_t heap : {mib, 10 * mib, 100 * mib, large})
    if (std::string what =
            bench::text("freeze of copy on reference, %zu MiB heap, against an empty task", heap / mib);
        rows.wants(what))
      rows.ratio(what,
                 bench::compare(
                     5,
                     [&] {
                       return freeze({heap, 0, 0, transfer::on_reference});
                     },
                     empty),
                 2);
  std::vector<char> memory(256 * mib, 1);
  for (transfer how : {transfer::full_copy, transfer::pre_copy}) {
    std::string what = std::string(name_of(how)) + " of 256 MiB on loopback, rate against a bare TCP copy";
    if (!rows.wants(what)) continue;
    auto result = bench::compare(
        3, [&] { return bare_copy(socket, memory); },
        [&] { return here.run(quiet_move, std::size_t{256} * mib, how); });
    rows.add(what,
             bench::text("%.2f x (%.2f-%.2f; %.0f against %.0f ms)", result.ratio.median, result.ratio.least,
                         result.ratio.most, result.theirs.median / 1e6, result.mine.median / 1e6),
             ">= 0.6 x", result.ratio.median >= 0.6);
  }
  if (std::string what =
          "pre-flush of 300 MiB with an image, 20 MiB written: bytes moved against pages written";
      rows.wants(what)) {
    constexpr std::size_t dirty = 20 * mib;
    auto bytes = [&](bool again) {
      std::uint64_t before = here.statistics().bytes_flushed;
      here.run(move_with_image, 300 * mib, dirty, again);
      return static_cast<double>(here.statistics().bytes_flushed - before);
    };
    double once = bytes(false);
    double ratio = (bytes(true) - once) / static_cast<double>(dirty);
    rows.add(what, bench::text("%.2f x", ratio), "<= 1.2 x", ratio <= 1.2);
  }
}

// --- over a link of 1 Gbit/s between two hosts -----------------------------------------------------------

std::vector<std::string> table_over_link(const std::string& self) {
  std::vector<std::string> lines;
  if (::geteuid() != 0) return lines;
  migrate_test::test_hosts hosts(2, {.processor = 0, .link = "1gbit"});
  if (!hosts.made()) return lines;
  char folder[] = "/dev/shm/migrate-link-XXXXXX";
  if (::mkdtemp(folder) == nullptr) return lines;
  migrate_test::cluster_credentials keys(std::string(folder) + "/keys");
  auto command = [&](unsigned host, std::vector<std::string> more) {
    std::vector<std::string> whole{self, "link", "--migrate-store=" + std::string(folder) + "/store",
                                   "--migrate-credentials=" + keys.path(),
                                   "--migrate-listen=" + migrate_test::test_hosts::address(host) + ":7000"};
    whole.insert(whole.end(), more.begin(), more.end());
    return hosts.on(host, whole);
  };
  migrate_test::program first(command(1, {}), {});
  if (first.line() != "ready") return lines;
  migrate_test::program second(
      command(2, {"--migrate-join=" + migrate_test::test_hosts::address(1) + ":7000"}), {});
  for (std::string line; !(line = first.line(std::chrono::seconds(120))).empty() && line != "end";)
    if (line.starts_with("csv "))
      lines.push_back(line.substr(4));
    else
      std::printf("%s\n", line.c_str());
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return lines;
}

// --- what stays of it --------------------------------------------------------------------------------------

void write_all(const std::string& folder, const std::vector<measured>& table, const row_list& rows) {
  std::vector<std::string> lines(std::begin(table_head), std::end(table_head));
  std::ofstream text(folder + "/transfer.csv");
  text << csv_head;
  for (const measured& each : table) {
    text << csv(each) << '\n';
    lines.push_back(table_row(each));
  }
  document::put_table(folder + "/transfer.md", lines);
  std::vector<std::string> reached{"| what | measured | to reach | result |", "| --- | --- | --- | --- |"};
  reached.insert(reached.end(), rows.lines().begin(), rows.lines().end());
  document::put_table(folder + "/transfer.md", reached, true);

  std::map<std::string, figures::line> by_heap, speed;
  std::map<std::string, figures::bars> together;
  for (const measured& each : table) {
    if (each.link != "loopback") continue;
    const std::string& how = each.how;
    if (!each.again && each.heap > 0 && each.share == 0.01)
      by_heap[how].points.push_back({static_cast<double>(each.heap) / mib, each.freeze_ms});
    if (each.heap != 100 * mib || each.share != 0.01) continue;
    if (each.how != "checkpoint")
      together[how].values[each.again] = {each.freeze_ms, each.depended_ms, each.mbytes};
    if (each.again) continue;
    constexpr std::size_t together_by = 5; // 50 ms: what shorter times show is the machine's other work
    for (std::size_t i = 0; i + together_by <= each.speed.size(); i += together_by) {
      double sum = 0;
      for (std::size_t k = 0; k < together_by; ++k) sum += each.speed[i + k];
      speed[how].points.push_back({static_cast<double>(i) * 10 - 200, sum / together_by * 100});
    }
  }
  std::ofstream(folder + "/transfer-freeze.svg")
      << figures::draw("How long a task stands still for a move or a checkpoint (1 % written each 100 ms, loopback)",
                       "heap, MiB", "freeze, ms", by_heap, true, true);
  std::ofstream(folder + "/transfer-throughput.svg")
      << figures::draw_rows("Speed of a counting task through a move, by strategy (100 MiB heap, 1 % written "
                            "each 100 ms, loopback)",
                            "ms since it was asked for; 100 % is the usual speed", 130, speed);
  std::ofstream(folder + "/transfer-together.svg") << figures::draw_bars(
      "What a move costs, by strategy (100 MiB heap, 1 % written each 100 ms, loopback): shorter is better",
      {"the task stands still, ms", "the source is still needed, ms", "moved, MB"},
      {"its first move", "its next one, after a second"}, together);
}

} // namespace

int main(int argc, char** argv) {
  if (argc == 5 && std::strcmp(argv[1], "process") == 0)
    be_a_process(argv[2], std::strtoull(argv[3], nullptr, 10), std::strtod(argv[4], nullptr));
  if (argc > 1 && std::strcmp(argv[1], "--help") == 0) {
    std::fputs(usage, stdout);
    return 0;
  }
  node_options options = node_options::from(argc, argv);
  bool over_link = argc > 1 && std::strcmp(argv[1], "link") == 0;
  std::string out, freeze, restore, only, port_file;
  bool quick = false, rows_only = false;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    auto value = [&](const char* name, std::string& into) {
      if (word.starts_with(name)) into = word.substr(std::strlen(name));
    };
    value("--out=", out);
    value("--freeze=", freeze);
    value("--restore=", restore);
    value("--only=", only);
    value("--port-file=", port_file);
    quick = quick || word == "--quick";
    rows_only = rows_only || word == "--rows";
  }
  const bool joins = !options.join.empty();
  char folder[] = "/dev/shm/migrate-bench-XXXXXX";
  if (!joins && !over_link) {
    if (::mkdtemp(folder) == nullptr) return 1;
    port_file = std::string(folder) + "/port";
    options.store = std::string(folder) + "/store";
    options.nodes = 3;
    options.arguments = {"--port-file=" + port_file};
  }
  node here(std::move(options));
  first_node = &here;
  if (joins) {
    if (!over_link && number(here.id()) == 2) {
      int port = 0;
      int listener = loopback(port);
      std::thread(receive_for_ever, listener).detach();
      std::ofstream(port_file + ".new") << port << '\n';
      ::rename((port_file + ".new").c_str(), port_file.c_str());
    }
    here.serve();
    return 0;
  }
  if (over_link) {
    std::puts("ready");
    std::fflush(stdout);
    while (here.run([] { return nodes().size(); }) < 2)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    for (const measured& each : run_table(here, "1 Gbit/s", true)) std::printf("csv %s\n", csv(each).c_str());
    std::puts("end");
    std::fflush(stdout);
    return 0;
  }
  int port = 0;
  while (!(std::ifstream(port_file) >> port)) std::this_thread::yield();
  std::vector<measured> table;
  row_list rows(only);
  if (!rows_only && only.empty()) table = run_table(here, "loopback", quick);
  reach(here, loopback(port), quick, rows);
  std::string self = std::filesystem::read_symlink("/proc/self/exe");
  if (!freeze.empty() && !restore.empty())
    for (std::size_t heap : {10 * mib, 100 * mib})
      bench::shown(bench::text("outside checkpointer, %zu MiB heap, 1 %% written each 100 ms", heap / mib),
                   time_outside(self, freeze, restore, heap));
  if (!quick && !table.empty())
    for (const std::string& line : table_over_link(self)) table.push_back(from_csv(line));
  if (!out.empty()) write_all(out, table, rows);
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}
