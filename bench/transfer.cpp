// The ways to move memory side by side, on one workload: a task that counts, and writes a share of its heap all the time.
//
//   transfer [--out=DIR] [--quick] [--rows] [--freeze='COMMAND {pid} {dir}' --restore='COMMAND {dir}']
//
// With TRANSFER_ONLY=STRATEGY the table has that one. Prints a table and the rows that are to be reached, or these alone with --rows; with --out writes transfer.csv and the figures there. A checkpointer
// of processes that is given by its commands is timed on a process with the same workload.
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
#include "transfer_figures.hpp"

using namespace migrate;

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t page = 4096;
constexpr std::int64_t bin_ns = 10'000'000;

std::int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

// --- the workload ------------------------------------------------------------------------------------

struct account {
  std::int64_t begun = 0;
  std::int64_t pause = 0; // nanoseconds between the last step before the move and the first one after it
  std::int64_t depended = 0; // nanoseconds after the move in which its source was still needed
  std::vector<std::uint32_t> bins; // steps in each 10 ms

  auto migrate_fields() { return std::tie(begun, pause, depended, bins); }
};

struct workload {
  std::size_t heap = 0;
  double share = 0;      // of the heap written in each 100 ms, in runs of 16 pages here and there
  std::size_t burst = 0; // instead: bytes written just before each safe point, one in 20 ms

  void prepare() {
    memory.assign(heap, 1);
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

account work(std::size_t heap, double share, std::size_t burst, task_id parent) {
  workload its;
  its.heap = heap;
  its.share = share;
  its.burst = burst;
  its.prepare();
  mailbox<int> told;
  send(parent, 1);
  std::int64_t pause = 0, moved = 0, depended = 0;
  for (std::int64_t looked = 0;;) {
    its.step();
    if (!std::exchange(its.safe, false)) continue;
    std::uint64_t moves = this_task::moves();
    std::int64_t before = now_ns();
    this_task::poll();
    if (this_task::moves() != moves) {
      moved = now_ns();
      pause = moved - before;
    }
    if (its.last - looked < 2'000'000) continue;
    looked = its.last;
    if (this_task::residual()) depended = now_ns() - moved;
    if (told.try_receive()) break;
  }
  return {its.begun, pause, depended, its.bins};
}

struct journey {
  account seen;
  std::int64_t from = 0, until = 0; // the call that moved it
  int code = 0;

  auto migrate_fields() { return std::tie(seen, from, until, code); }
};

journey move_once(std::size_t heap, double share, std::size_t burst, transfer how, std::uint16_t target) {
  region_class kind = heap < 32 * mib ? region_class::medium : region_class::large;
  auto worker = spawn({.name = "worker", .region = kind}, work, heap, share, burst, this_task::id());
  mailbox<int>().receive();
  this_task::sleep_for(std::chrono::milliseconds(300));
  journey made;
  made.from = now_ns();
  std::error_code code;
  worker.migrate_to(node_id{target}, how, code);
  made.until = now_ns();
  made.code = code.value();
  this_task::sleep_for(std::chrono::milliseconds(1300));
  send(worker.id(), 0);
  made.seen = worker.join();
  return made;
}

struct measured {
  std::size_t heap = 0;
  double share = 0;
  std::string link, how;
  double freeze_ms = 0, total_ms = 0, full_speed_ms = 0;
  double before = 0, after = 0; // speed from the order to the freeze, and in the second after the move
  double mbytes = 0;
  double depended_ms = 0;
  std::vector<double> speed; // in each 10 ms from 200 ms before the order on, of what it was before
};

measured judge(const journey& made, std::size_t heap, double share, const std::string& link, transfer how,
               double bytes) {
  measured m{heap, share, link, std::string(name_of(how)), 0, 0, 0, 0, 0, bytes / 1e6, static_cast<double>(made.seen.depended) / 1e6, {}};
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
  m.before = moved > ordered + frozen + 1 ? mean(ordered, moved - frozen) : 1;
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
  int to = ::open(file.c_str(), O_RDWR | O_CREAT, 0600);
  if (::ftruncate(to, 4096) != 0) std::exit(1);
  auto* count =
      static_cast<volatile std::uint64_t*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, to, 0));
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

void time_outside(const std::string& self, const std::string& freeze, const std::string& restore,
                  std::size_t heap) {
  char folder[] = "/tmp/migrate-outside-XXXXXX";
  if (::mkdtemp(folder) == nullptr) return;
  std::string file = std::string(folder) + "/count";
  migrate_test::program process({self, "process", file, std::to_string(heap), "0.01"}, {});
  std::this_thread::sleep_for(std::chrono::seconds(2));
  int at = ::open(file.c_str(), O_RDONLY);
  auto* count = static_cast<volatile std::uint64_t*>(::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, at, 0));
  auto begun = bench::clock::now();
  int frozen = std::system(filled_in(freeze, process.id(), folder).c_str());
  auto middle = bench::clock::now();
  std::uint64_t stood = *count;
  int restored = std::system((filled_in(restore, process.id(), folder) + " &").c_str());
  while (*count == stood && bench::clock::now() - middle < std::chrono::seconds(60))
    std::this_thread::yield();
  auto end = bench::clock::now();
  bench::shown(bench::text("outside checkpointer, %zu MiB, 1 %% written each 100 ms", heap / mib),
               frozen != 0 || restored != 0
                   ? std::string("its command failed")
                   : bench::text("freeze %.1f ms, restore %.1f ms, stands still for %.1f ms",
                                 bench::nanoseconds(middle - begun) / 1e6,
                                 bench::nanoseconds(end - middle) / 1e6,
                                 bench::nanoseconds(end - begun) / 1e6));
}

// --- the table -----------------------------------------------------------------------------------------

constexpr transfer all_ways[] = {transfer::flush,        transfer::full_copy, transfer::pre_copy,
                                 transfer::on_reference, transfer::pre_flush, transfer::automatic};

measured run_one(node& here, std::size_t heap, double share, const std::string& link, transfer how,
                 std::size_t burst = 0) {
  std::uint64_t before = here.statistics().bytes_flushed;
  journey made = here.run(move_once, heap, share, burst, how, std::uint16_t{2});
  measured m =
      judge(made, heap, share, link, how, static_cast<double>(here.statistics().bytes_flushed - before));
  if (made.code != 0) m.how += " (failed)";
  return m;
}

void print_line(const measured& m) {
  std::printf("%-10s %9.1f MiB %5.1f %% %-10s freeze %9.2f ms, moved in %9.1f ms, full speed after %6.0f ms, "
              "speed %3.0f %% and "
              "%3.0f %%, %8.1f MB, source needed for %.0f ms\n",
              m.link.c_str(), static_cast<double>(m.heap) / mib, m.share * 100, m.how.c_str(), m.freeze_ms,
              m.total_ms, m.full_speed_ms, m.before * 100, m.after * 100, m.mbytes, m.depended_ms);
  std::fflush(stdout);
}

std::string csv(const measured& m) {
  return bench::text("%s,%zu,%.3f,%s,%.3f,%.3f,%.0f,%.3f,%.3f,%.3f,%.0f", m.link.c_str(), m.heap, m.share,
                     m.how.c_str(), m.freeze_ms, m.total_ms, m.full_speed_ms, m.before, m.after, m.mbytes, m.depended_ms);
}

// --- checkpoints -----------------------------------------------------------------------------------------

double longest_pause(std::size_t heap, double share) {
  // Of a task that works while it is committed: nanoseconds.
  auto worker = spawn({.name = "worker", .region = region_class::large, .recover = true},
                      [heap, share, parent = this_task::id()] {
                        workload its;
                        its.heap = heap;
                        its.share = share;
                        its.prepare();
                        mailbox<int> told;
                        send(parent, 1);
                        std::int64_t pause = 0, looked = 0;
                        for (bool measures = false;;) {
                          its.step();
                          if (!std::exchange(its.safe, false)) continue;
                          std::int64_t before = now_ns();
                          this_task::poll();
                          if (measures) pause = std::max(pause, now_ns() - before);
                          if (its.last - looked < 2'000'000) continue;
                          looked = its.last;
                          if (std::optional<int> what = told.try_receive()) {
                            if (*what == 0) return pause;
                            measures = true;
                            send(parent, 1);
                          }
                        }
                      });
  mailbox<int> in;
  in.receive();
  send(worker.id(), 1);
  in.receive();
  worker.checkpoint();
  send(worker.id(), 0);
  return static_cast<double>(worker.join());
}

std::vector<measured> run_table(node& here, const std::string& link, bool quick) {
  std::vector<measured> rows;
  struct cell {
    std::size_t heap;
    double share;
  };
  std::vector<cell> cells{{0, 0}, {mib, 0.01}, {10 * mib, 0.01}, {100 * mib, 0.01}, {100 * mib, 0.1}};
  if (!quick && link == "loopback")
    for (double share : {0.01, 0.1}) cells.push_back({1024 * mib, share});
  for (const cell& each : cells)
    for (transfer how : all_ways) {
      if (const char* only = std::getenv("TRANSFER_ONLY"); only != nullptr && name_of(how) != only) continue;
      rows.push_back(run_one(here, each.heap, each.share, link, how));
      print_line(rows.back());
    }
  return rows;
}

void reach(node& here, int socket, bool quick) {
  const std::size_t large = (quick ? 100 : 1024) * mib;
  std::vector<double> empty;
  for (int i = 0; i < 5; ++i) empty.push_back(run_one(here, 0, 0, "loopback", transfer::flush).freeze_ms);
  double nothing = bench::median(empty);
  std::vector<double> slow;
  for (transfer how : {transfer::pre_flush, transfer::pre_copy}) {
    std::vector<double> freezes;
    for (int i = 0; i < 3; ++i) {
      measured m = run_one(here, large, 0.01, "loopback", how);
      freezes.push_back(m.freeze_ms);
      slow.push_back(m.before);
    }
    auto got = bench::spread_of(freezes);
    bench::row(bench::text("freeze of %s, %zu MiB heap, 1 %% written each 100 ms, loopback",
                           std::string(name_of(how)).c_str(), large / mib),
               bench::text("%.2f ms (%.2f-%.2f)", got.median, got.least, got.most), "<= 5 ms",
               got.median <= 5);
  }
  auto kept = bench::compare(
      3, [&] { return here.run(longest_pause, large, 0.01) / 1e6; },
      [&] { return run_one(here, large, 0.01, "loopback", transfer::pre_flush).freeze_ms; });
  bench::ratio_row(
      bench::text("freeze of a checkpoint, %zu MiB heap, 1 %% written each 100 ms, against pre-flush's", large / mib),
      kept, 1.5, "ms");
  std::vector<double> burst;
  for (int i = 0; i < 3; ++i)
    burst.push_back(run_one(here, large, 0, "loopback", transfer::pre_flush, mib).freeze_ms);
  double after_burst = bench::median(burst);
  bench::row(
      bench::text(
          "freeze of pre-flush, %zu MiB heap, 1 MiB written since the last round, against an empty task",
          large / mib),
      bench::text("%.2f x (%.2f against %.2f ms)", after_burst / nothing, after_burst, nothing), "<= 2.0 x",
      after_burst <= 2 * nothing);
  for (std::size_t heap : {mib, 10 * mib, 100 * mib, large}) {
    std::vector<double> freezes;
    for (int i = 0; i < 5; ++i) freezes.push_back(run_one(here, heap, 0, "loopback", transfer::on_reference).freeze_ms);
    auto got = bench::spread_of(freezes);
    bench::row(bench::text("freeze of copy on reference, %zu MiB heap, against an empty task", heap / mib),
               bench::text("%.2f x (%.2f-%.2f ms against %.2f)", got.median / nothing, got.least, got.most, nothing),
               "<= 2.0 x", got.median <= 2 * nothing);
  }
  std::vector<char> memory(256 * mib, 1);
  for (transfer how : {transfer::full_copy, transfer::pre_copy}) {
    auto result = bench::compare(
        3, [&] { return bare_copy(socket, memory); },
        [&] { return here.run(quiet_move, std::size_t{256} * mib, how); });
    bench::row(bench::text("%s of 256 MiB on loopback, rate against a bare TCP copy",
                           std::string(name_of(how)).c_str()),
               bench::text("%.2f x (%.2f-%.2f; %.0f against %.0f ms)", result.ratio.median,
                           result.ratio.least, result.ratio.most, result.theirs.median / 1e6,
                           result.mine.median / 1e6),
               ">= 0.6 x", result.ratio.median >= 0.6);
  }
  constexpr std::size_t dirty = 20 * mib;
  auto bytes = [&](bool again) {
    std::uint64_t before = here.statistics().bytes_flushed;
    here.run(move_with_image, 300 * mib, dirty, again);
    return static_cast<double>(here.statistics().bytes_flushed - before);
  };
  double once = bytes(false);
  double ratio = (bytes(true) - once) / static_cast<double>(dirty);
  bench::row("pre-flush of 300 MiB with an image, 20 MiB written: bytes moved against pages written",
             bench::text("%.2f x", ratio), "<= 1.2 x", ratio <= 1.2);
  double slowdown = (1 - bench::median(slow)) * 100;
  bench::row("slowdown of the task while rounds of pre-flush and pre-copy go on",
             bench::text("%.0f %%", slowdown), "<= 10 %", slowdown <= 10);
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

} // namespace

int main(int argc, char** argv) {
  if (argc == 5 && std::strcmp(argv[1], "process") == 0)
    be_a_process(argv[2], std::strtoull(argv[3], nullptr, 10), std::strtod(argv[4], nullptr));
  node_options options = node_options::from(argc, argv);
  bool over_link = argc > 1 && std::strcmp(argv[1], "link") == 0;
  std::string out, freeze, restore, port_file;
  bool quick = false, rows_only = false;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    auto value = [&](const char* name, std::string& into) {
      if (word.starts_with(name)) into = word.substr(std::strlen(name));
    };
    value("--out=", out);
    value("--freeze=", freeze);
    value("--restore=", restore);
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
  std::vector<measured> rows;
  if (!rows_only) rows = run_table(here, "loopback", quick);
  reach(here, loopback(port), quick);
  std::string self = std::filesystem::read_symlink("/proc/self/exe");
  if (!freeze.empty() && !restore.empty())
    for (std::size_t heap : {10 * mib, 100 * mib}) time_outside(self, freeze, restore, heap);
  std::vector<std::string> linked = quick || rows_only ? std::vector<std::string>() : table_over_link(self);
  if (!out.empty()) {
    std::ofstream table(out + "/transfer.csv");
    table << "link,heap bytes,share written each 100 ms,strategy,freeze ms,move ms,full speed after ms,speed "
             "before,speed "
             "after,MB moved,source needed ms\n";
    for (const measured& each : rows) table << csv(each) << '\n';
    for (const std::string& each : linked) table << each << '\n';
    std::map<std::string, figures::line> by_heap, speed, together;
    for (const measured& each : rows) {
      if (each.share == 0.01 || each.heap == 0)
        by_heap[each.how].points.push_back(
            {std::max(0.1, static_cast<double>(each.heap) / mib), each.freeze_ms});
      if (each.heap == 100 * mib && each.share == 0.01) {
        constexpr std::size_t together_by = 5; // 50 ms: what shorter times show is the machine's other work
        for (std::size_t i = 0; i + together_by <= each.speed.size(); i += together_by) {
          double sum = 0;
          for (std::size_t k = 0; k < together_by; ++k) sum += each.speed[i + k];
          speed[each.how].points.push_back({static_cast<double>(i) * 10 - 200, sum / together_by * 100});
        }
        together[each.how].points = {{each.freeze_ms, each.mbytes}};
      }
    }
    std::ofstream(out + "/transfer-freeze.svg")
        << figures::draw("How long a task stands still, by its heap (1 % written each 100 ms, loopback)",
                         "heap, MiB", "freeze, ms", by_heap, true, true);
    std::ofstream(out + "/transfer-throughput.svg") << figures::draw_rows(
        "Speed of a counting task through a move, by strategy (100 MiB heap, 1 % written each 100 ms, loopback)",
        "ms since the move was asked for; 100 % is the speed before", 130, speed);
    std::ofstream(out + "/transfer-together.svg") << figures::draw(
        "Freeze and bytes moved (100 MiB heap, 1 % written each 100 ms): nearer to the corner is better; "
        "after the move only on-reference needs the source",
        "freeze, ms", "MB moved", together, true, false);
  }
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}
