// What huge pages, pages made in bulk, and a second stream would gain a full copy of a gigabyte on loopback.
#include "harness.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <migrate/store/resume.hpp>

namespace {

std::size_t all_bytes = std::size_t{1} << 30;         // or as many MiB as the argument says
constexpr std::size_t message = std::size_t{1} << 20; // as transfer/ahead.hpp sends them

enum class pages { one_by_one, in_bulk, huge };

class memory {
public:
  memory() {
    constexpr std::size_t huge_page = std::size_t{2} << 20;
    got_ = ::mmap(nullptr, all_bytes + huge_page, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got_ == MAP_FAILED) std::abort();
    auto address = reinterpret_cast<std::uintptr_t>(got_);
    begin_ = reinterpret_cast<char*>((address + huge_page - 1) / huge_page * huge_page);
  }
  ~memory() { ::munmap(got_, all_bytes + (std::size_t{2} << 20)); }
  memory(const memory&) = delete;
  memory& operator=(const memory&) = delete;
  char* begin() const { return begin_; }

private:
  void* got_;
  char* begin_;
};

double seconds(const std::function<void()>& of) {
  auto begun = std::chrono::steady_clock::now();
  of();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

void prepare(char* to, std::size_t bytes, pages how) {
  // What the target does before it copies a message's pages into their places.
  if (how == pages::in_bulk) migrate::detail::populate(to, bytes);
}

double fill(pages how) {
  // The target's part alone, from a buffer of a message.
  memory into;
  ::madvise(into.begin(), all_bytes, how == pages::huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  std::vector<char> from(message, 'x');
  return seconds([&] {
    for (std::size_t at = 0; at < all_bytes; at += message) {
      prepare(into.begin() + at, message, how);
      std::memcpy(into.begin() + at, from.data(), message);
    }
  });
}

class stream {
public:
  stream() {
    int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in here{};
    here.sin_family = AF_INET;
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof here;
    if (::bind(listener, reinterpret_cast<sockaddr*>(&here), size) != 0 || ::listen(listener, 1) != 0 ||
        ::getsockname(listener, reinterpret_cast<sockaddr*>(&here), &size) != 0)
      std::abort();
    out = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (::connect(out, reinterpret_cast<sockaddr*>(&here), size) != 0) std::abort();
    in = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    ::close(listener);
  }
  ~stream() {
    ::close(out);
    ::close(in);
  }
  stream(const stream&) = delete;
  stream& operator=(const stream&) = delete;

  int out = -1, in = -1;
};

void send_all(int to, const char* from, std::size_t bytes) {
  for (std::size_t done = 0; done < bytes;) {
    ssize_t now = ::write(to, from + done, std::min(message, bytes - done));
    if (now <= 0) std::abort();
    done += static_cast<std::size_t>(now);
  }
}
void receive_all(int from, char* to, std::size_t bytes, pages how) {
  // As a node does: into a buffer of its own, and from there into the places.
  std::vector<char> buffer(message);
  for (std::size_t done = 0; done < bytes; done += message) {
    for (std::size_t got = 0; got < message;) {
      ssize_t now = ::read(from, buffer.data() + got, message - got);
      if (now <= 0) std::abort();
      got += static_cast<std::size_t>(now);
    }
    prepare(to + done, message, how);
    std::memcpy(to + done, buffer.data(), message);
  }
}

double copy(std::size_t streams, pages how, const memory& from) {
  memory into;
  ::madvise(into.begin(), all_bytes, how == pages::huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  std::vector<stream> all(streams);
  const std::size_t part = all_bytes / streams;
  return seconds([&] {
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < streams; ++i) {
      threads.emplace_back([&, i] { send_all(all[i].out, from.begin() + i * part, part); });
      threads.emplace_back([&, i] { receive_all(all[i].in, into.begin() + i * part, part, how); });
    }
    for (std::thread& each : threads) each.join();
  });
}

template <class A, class B> void show(const char* what, A&& mine, B&& theirs) {
  bench::comparison got = bench::compare(7, mine, theirs);
  bench::shown(what,
               bench::text("%.2f x the time (%.2f-%.2f; %.0f against %.0f ms)", got.ratio.median,
                           got.ratio.least, got.ratio.most, got.mine.median * 1e3, got.theirs.median * 1e3));
}

} // namespace

int main(int argc, char** argv) {
  if (argc > 1) all_bytes = std::strtoull(argv[1], nullptr, 10) << 20;
  memory from;
  std::memset(from.begin(), 'x', all_bytes);
  show(
      "filling memory: pages made in bulk, against one by one", [] { return fill(pages::in_bulk); },
      [] { return fill(pages::one_by_one); });
  show(
      "filling memory: huge pages, against pages made in bulk", [] { return fill(pages::huge); },
      [] { return fill(pages::in_bulk); });
  show(
      "memory over loopback: huge pages, against pages made in bulk",
      [&] { return copy(1, pages::huge, from); }, [&] { return copy(1, pages::in_bulk, from); });
  show(
      "memory over loopback: two streams, against one", [&] { return copy(2, pages::in_bulk, from); },
      [&] { return copy(1, pages::in_bulk, from); });
  return 0;
}
