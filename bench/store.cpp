// What the store adds to a move: commit, verify, map and touch again, against writing the same bytes to
// a file and mapping that. Two processes, both ways in turn, on each directory named on the command line.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <migrate/store.hpp>

namespace {

using migrate::image;
using migrate::page_range;
using migrate::store;
using migrate::task_id;

constexpr std::size_t page = migrate::detail::page_size;
constexpr std::size_t mebibyte = 1u << 20;
const migrate::detail::region_number region(migrate::region_class::large, 3);
const migrate::task_id task(migrate::node_id(1), 1, 0);

double now() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(2);
}

void clear_region() {
  if (::mmap(region.base(), region.size(), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
    fail("mmap");
}

void touch(char* start, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += page) {
    auto word = reinterpret_cast<volatile std::uint64_t*>(start + i);
    *word = *word + 1;
  }
}

void fill(std::size_t first, std::size_t bytes, std::uint64_t seed) {
  auto words = reinterpret_cast<std::uint64_t*>(region.base() + first);
  for (std::size_t i = 0; i < bytes / 8; ++i) words[i] = (seed + i) * 0x9e37'79b9'7f4a'7c15u;
}

struct request {
  enum { resume, plain } kind;
  std::size_t manifest; // bytes that follow
  std::size_t first;    // touch from here
  std::size_t bytes;
};

void put(int fd, const void* data, std::size_t bytes) {
  for (auto at = static_cast<const char*>(data); bytes > 0;) {
    ssize_t done = ::write(fd, at, bytes);
    if (done <= 0) fail("write");
    at += done;
    bytes -= static_cast<std::size_t>(done);
  }
}

bool get(int fd, void* data, std::size_t bytes) {
  for (auto at = static_cast<char*>(data); bytes > 0;) {
    ssize_t done = ::read(fd, at, bytes);
    if (done <= 0) return false;
    at += done;
    bytes -= static_cast<std::size_t>(done);
  }
  return true;
}

[[noreturn]] void serve(const std::string& path, int in, int out) {
  // The node that tasks arrive at.
  store mine = store::open(path);
  request asked;
  while (get(in, &asked, sizeof asked)) {
    std::vector<std::byte> manifest(asked.manifest);
    get(in, manifest.data(), manifest.size());
    clear_region();
    double start = now();
    if (asked.kind == request::resume) {
      mine.resume_into(image::parse(manifest), region.base());
      touch(region.base() + asked.first, asked.bytes);
    } else {
      int fd = ::open((path + "/plain").c_str(), O_RDONLY | O_CLOEXEC);
      if (fd < 0) fail("open");
      void* got = ::mmap(region.base(), asked.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0);
      if (got == MAP_FAILED) fail("mmap");
      ::close(fd);
      touch(region.base(), asked.bytes);
    }
    double took = now() - start;
    put(out, &took, sizeof took);
  }
  std::_Exit(0);
}

struct peer {
  int to = -1, from = -1;
  pid_t process = -1;

  explicit peer(const std::string& path) {
    int there[2], back[2];
    if (::pipe2(there, O_CLOEXEC) != 0 || ::pipe2(back, O_CLOEXEC) != 0) fail("pipe");
    process = ::fork();
    if (process < 0) fail("fork");
    if (process == 0) {
      ::close(there[1]);
      ::close(back[0]);
      serve(path, there[0], back[1]);
    }
    ::close(there[0]);
    ::close(back[1]);
    to = there[1];
    from = back[0];
  }
  ~peer() {
    ::close(to);
    ::close(from);
    ::waitpid(process, nullptr, 0);
  }

  double ask(request asked, const std::vector<std::byte>& manifest) const {
    asked.manifest = manifest.size();
    put(to, &asked, sizeof asked);
    put(to, manifest.data(), manifest.size());
    double took = 0;
    if (!get(from, &took, sizeof took)) fail("the other process");
    return took;
  }
};

struct cost {
  double out = 0, in = 0;
  double all() const { return out + in; }
};

template <class F> double median(const std::vector<cost>& costs, F&& of) {
  std::vector<double> values;
  for (const cost& one : costs) values.push_back(of(one));
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

cost move_plain(const peer& other, const std::string& path, std::size_t bytes) {
  std::string name = path + "/plain";
  ::unlink(name.c_str());
  double start = now();
  int fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) fail("open");
  put(fd, region.base(), bytes);
  ::close(fd);
  cost took;
  took.out = now() - start;
  took.in = other.ask({request::plain, 0, 0, bytes}, {});
  return took;
}

void row(const std::string& what, const std::vector<double>& ratios, double most) {
  std::vector<double> sorted = ratios;
  std::sort(sorted.begin(), sorted.end());
  double middle = sorted[sorted.size() / 2];
  std::printf("%s | %.2f x (%.2f to %.2f) | <= %.1f x | %s\n", what.c_str(), middle, sorted.front(),
              sorted.back(), most, middle <= most ? "ok" : "short");
}

void run(const std::string& directory) {
  std::string path = directory + "/migrate-bench-" + std::to_string(::getpid());
  migrate::store_options options;
  options.create = true;
  store mine = store::open(path, options);
  peer other(path);
  clear_region();

  for (std::size_t size : {std::size_t{4096}, mebibyte, 10 * mebibyte, 100 * mebibyte}) {
    const int rounds = size > 50 * mebibyte ? 9 : 31;
    std::vector<cost> plain, moved;
    std::vector<double> ratios;
    fill(0, size, 1);
    page_range all[] = {{region.base(), size}};
    image base;
    for (int round = 0; round < rounds; ++round) {
      touch(region.base(), size);
      plain.push_back(move_plain(other, path, size));
      double start = now();
      image next = mine.commit(task, region, base.valid() ? &base : nullptr, all, all, {});
      cost took;
      took.out = now() - start;
      took.in = other.ask({request::resume, 0, 0, size}, next.encode());
      mine.collect(task, next);
      base = next;
      moved.push_back(took);
      ratios.push_back(took.all() / plain.back().all());
    }
    mine.remove(task);
    std::string name =
        size < mebibyte ? std::to_string(size / 1024) + " KiB" : std::to_string(size / mebibyte) + " MiB";
    std::printf(
        "  %s on %s: write %.0f us, commit %.0f us; map and touch %.0f us, resume and touch %.0f us\n",
        name.c_str(), directory.c_str(), median(plain, [](const cost& c) { return c.out; }),
        median(moved, [](const cost& c) { return c.out; }), median(plain, [](const cost& c) { return c.in; }),
        median(moved, [](const cost& c) { return c.in; }));
    if (size >= mebibyte)
      row("store: " + name + " dirty, commit until touched again (" + directory + ")", ratios, 1.5);
  }

  // A second, small task lies above the large one; the two move in turn.
  const std::size_t large = 1024 * mebibyte, above = 2 * large;
  const migrate::task_id small_task(migrate::node_id(1), 2, 0);
  fill(0, large, 2);
  fill(above, mebibyte, 3);
  page_range all[] = {{region.base(), large}}, small[] = {{region.base() + above, mebibyte}};
  image base = mine.commit(task, region, nullptr, all, all, {});
  image small_base = mine.commit(small_task, region, nullptr, small, small, {});
  other.ask({request::resume, 0, 0, 0}, base.encode());
  auto move = [&](task_id name, image& from, std::size_t first, std::span<const page_range> live) {
    touch(region.base() + first, mebibyte);
    page_range dirty[] = {{region.base() + first, mebibyte}};
    double start = now();
    image next = mine.commit(name, region, &from, dirty, live, {});
    cost took;
    took.out = now() - start;
    took.in = other.ask({request::resume, 0, first, mebibyte}, next.encode());
    mine.collect(name, next);
    from = next;
    return took;
  };
  std::vector<cost> moved, reference;
  std::vector<double> ratios;
  for (std::size_t round = 0; round < 41; ++round) {
    reference.push_back(move(small_task, small_base, above, small));
    moved.push_back(move(task, base, round * 31 % 1023 * mebibyte, all));
    ratios.push_back(moved.back().all() / reference.back().all());
  }
  std::printf(
      "  1 MiB of 1 GiB on %s: commit %.0f us, resume and touch %.0f us; 1 MiB of 1 MiB: %.0f us, %.0f us\n",
      directory.c_str(), median(moved, [](const cost& c) { return c.out; }),
      median(moved, [](const cost& c) { return c.in; }),
      median(reference, [](const cost& c) { return c.out; }),
      median(reference, [](const cost& c) { return c.in; }));
  row("store: 1 MiB dirty of 1 GiB against 1 MiB of 1 MiB (" + directory + ")", ratios, 1.3);
  mine.remove(small_task);
  mine.remove(task);
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

} // namespace

int main(int argc, char** argv) {
  std::vector<std::string> directories(argv + 1, argv + argc);
  if (directories.empty()) directories = {"/dev/shm", std::filesystem::temp_directory_path().string()};
  try {
    for (const std::string& directory : directories) run(directory);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "%s\n", problem.what());
    return 1;
  }
}
