// Open files, pipes and shared offsets while tasks are on several nodes.
#include <migrate/file.hpp>
#include <migrate/node.hpp>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <migrate/posix/fcntl.hpp>
#include <migrate/posix/unistd_files.hpp>

#include "harness.hpp"

using namespace migrate;
namespace px = migrate::posix;

namespace {

// --- moving with files -------------------------------------------------------------------------------

double move_round(std::string folder, int files, int moves) {
  // Nanoseconds for one move, as the task that is moved sees it.
  for (int i = 0; i < files; ++i)
    if (px::open((folder + "/" + std::to_string(i)).c_str(), O_CREAT | O_RDWR, 0600) < 0) std::abort();
  std::vector<double> times;
  for (int i = 0; i < moves; ++i) {
    node_id to = this_task::node() == node_id{1} ? node_id{2} : node_id{1};
    auto begun = bench::clock::now();
    this_task::migrate_to(to);
    times.push_back(bench::nanoseconds(bench::clock::now() - begun));
    this_task::sleep_for(std::chrono::milliseconds(files / 200)); // the source closes what it had
  }
  return bench::median(times);
}

void moves(node& here, const std::string& folder) {
  for (int files : {0, 10, 100, 1000}) {
    auto result = bench::compare(
        7, [&] { return here.run(move_round, folder, files, 20); }, [&] { return here.run(move_round, folder, 0, 20); });
    std::string what = bench::text("move a task with %d open files, against the same task with none", files);
    if (files == 0) {
      bench::shown(what, bench::text("%.1f us against %.1f us", result.mine.median / 1e3, result.theirs.median / 1e3));
      continue;
    }
    double more = (result.mine.median - result.theirs.median) / files / 1e3;
    bench::row(what,
               bench::text("%.2f us more for each file (%.1f us against %.1f us)", more, result.mine.median / 1e3,
                           result.theirs.median / 1e3),
               "<= 2 us more for each file", more <= 2);
  }
}

// --- 64 KiB blocks -----------------------------------------------------------------------------------

constexpr std::size_t block = 64 * 1024;

double pipe_round(int blocks) {
  // Nanoseconds for a block from a task on node 2 to one on node 1.
  int ends[2];
  px::pipe(ends);
  auto writer = spawn({.on = node_id{2}}, [=] {
    px::close(ends[0]);
    std::vector<char> bytes(block, 'x');
    for (int i = 0; i < blocks; ++i)
      if (px::write(ends[1], bytes.data(), block) != block) std::abort();
    px::close(ends[1]);
  });
  px::close(ends[1]);
  std::vector<char> bytes(block);
  std::size_t all = 0;
  auto begun = bench::clock::now();
  for (ssize_t got; (got = px::read(ends[0], bytes.data(), block)) > 0;) all += static_cast<std::size_t>(got);
  double time = bench::nanoseconds(bench::clock::now() - begun);
  px::close(ends[0]);
  writer.join();
  return all == block * static_cast<std::size_t>(blocks) ? time / blocks : 0;
}

double tcp_round(int blocks) {
  // The same through a connection, by the same two processes.
  pin_scope stay;
  int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener, 1) != 0) std::abort();
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  auto writer = spawn({.on = node_id{2}}, [address, blocks] {
    pin_scope there;
    int to = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (::connect(to, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) std::abort();
    std::vector<char> bytes(block, 'x');
    for (int i = 0; i < blocks; ++i)
      for (std::size_t done = 0; done < block;) done += static_cast<std::size_t>(::send(to, bytes.data() + done, block - done, 0));
    ::close(to);
  });
  int from = -1;
  while ((from = ::accept(listener, nullptr, nullptr)) < 0) this_task::yield(); // the writer is still on this worker
  std::vector<char> bytes(block);
  auto begun = bench::clock::now();
  while (::recv(from, bytes.data(), block, 0) > 0) {}
  double time = bench::nanoseconds(bench::clock::now() - begun);
  ::close(from);
  ::close(listener);
  writer.join();
  return time / blocks;
}

void pipes(node& here, const char* how) {
  constexpr int blocks = 2000;
  auto result = bench::compare(7, [&] { return here.run(tcp_round, blocks); }, [&] { return here.run(pipe_round, blocks); });
  // Times turned round: the ratio of throughputs is that of the connection's time to the pipe's.
  auto rate = [](double ns) { return static_cast<double>(block) / ns * 1e9 / (1 << 20); };
  bench::row(bench::text("64 KiB blocks through a pipe between two nodes (%s), against a bare TCP connection", how),
             bench::text("%.2f x its throughput (%.2f-%.2f; %.0f against %.0f MiB/s)", result.ratio.median,
                         result.ratio.least, result.ratio.most, rate(result.theirs.median), rate(result.mine.median)),
             ">= 0.7 x", result.ratio.median >= 0.7);
}

// --- shared offsets ----------------------------------------------------------------------------------

double append_round(std::string folder, int appends, int batch, bool spread) {
  // Nanoseconds for an append, of four tasks that share an offset; `batch` of them come from one task in a row.
  int fd = px::open((folder + "/shared").c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
  std::vector<task<>> all;
  auto begun = bench::clock::now();
  for (std::uint16_t i = 0; i < 4; ++i)
    all.push_back(spawn({.on = node_id(static_cast<std::uint16_t>(spread ? i + 1 : 1))}, [=] {
      char bytes[64] = {};
      for (int k = 0; k < appends; ++k) {
        if (px::write(fd, bytes, sizeof bytes) != sizeof bytes) std::abort();
        if (k % batch == batch - 1) this_task::sleep_for(std::chrono::microseconds(100)); // it computes
      }
    }));
  for (auto& each : all) each.join();
  double time = bench::nanoseconds(bench::clock::now() - begun);
  px::close(fd);
  return time / (4 * appends);
}

constexpr int batches[] = {1, 2, 4, 8, 16, 32, 64};

void offsets(node& here, const std::string& folder, const char* how, const char* results) {
  std::ofstream out(results, std::ios::app);
  for (int batch : batches) {
    std::vector<double> spread, alone;
    for (int i = 0; i < 5; ++i) {
      spread.push_back(here.run(append_round, folder, 256, batch, true));
      alone.push_back(here.run(append_round, folder, 256, batch, false));
    }
    out << how << ' ' << batch << ' ' << bench::median(spread) << '\n';
    if (batch != 1 && batch != 8 && batch != 64) continue;
    bench::shown(bench::text("shared-offset writes of 64 bytes by 4 tasks, %d at a time (%s)", batch, how),
                 bench::text("on 4 nodes %.1f us each, on one node %.1f us", bench::median(spread) / 1e3,
                             bench::median(alone) / 1e3));
  }
}

void overtaking(const std::string& results) {
  // From how many writes in a row on a token that goes round is cheaper than asking home for each.
  std::map<std::string, std::map<int, double>> times;
  std::ifstream in(results);
  std::string way;
  int batch = 0;
  for (double time = 0; in >> way >> batch >> time;) times[way][batch] = time;
  std::string point = "at no number of writes in a row up to 64";
  for (auto each = std::rbegin(batches); each != std::rend(batches) && times["token"][*each] < times["home"][*each]; ++each)
    point = bench::text("from %d writes in a row on", *each);
  bench::shown("shared offset on 4 nodes: the token overtakes the home", point);
}

int part(int argc, char** argv) {
  node_options options = node_options::from(argc, argv);
  std::string what = argc > 1 ? argv[1] : "";
  bool first = options.join.empty();
  char folder[] = "/dev/shm/migrate-files-XXXXXX";
  if (first && ::mkdtemp(folder) == nullptr) return 1;
  node here(std::move(options));
  if (!here.first()) {
    here.serve();
    return 0;
  }
  if (what == "moves") moves(here, folder);
  if (what == "pipe") pipes(here, argc > 2 ? argv[2] : "");
  if (what == "offset" && argc > 3) offsets(here, folder, argv[2], argv[3]);
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return 0;
}

bool run_part(std::vector<std::string> arguments) {
  // In a process of its own: the options are a whole cluster's.
  pid_t child = ::fork();
  if (child == 0) {
    std::vector<char*> argv{const_cast<char*>("files")};
    for (std::string& each : arguments) argv.push_back(each.data());
    argv.push_back(nullptr);
    ::execv("/proc/self/exe", argv.data());
    ::_exit(127);
  }
  int status = 0;
  return ::waitpid(child, &status, 0) == child && status == 0;
}

} // namespace

int main(int argc, char** argv) {
  if (argc > 1) return part(argc, argv);
  bool all = run_part({"moves", "--migrate-nodes=2"});
  all &= run_part({"pipe", "the kernel's, on one machine", "--migrate-nodes=2"});
  all &= run_part({"pipe", "kept at home, as between machines", "--migrate-nodes=2", "--migrate-reopen-files"});
  char results[] = "/tmp/migrate-offsets-XXXXXX";
  int made = ::mkstemp(results);
  if (made < 0) return 1;
  ::close(made);
  for (const char* way : {"kernel", "home", "token"})
    all &= run_part({"offset", way, results, "--migrate-nodes=4", std::string("--migrate-shared-offset=") + way});
  overtaking(results);
  ::unlink(results);
  return all ? 0 : 1;
}
