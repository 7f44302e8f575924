// The region heap, as a program reaches it through operator new and delete, against glibc's malloc and
// mimalloc: the same traces, in turn, in one process.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <new>
#include <random>
#include <vector>

#include <dlfcn.h>
#include <sys/mman.h>

#include <migrate/memory/operators.hpp>

extern "C" void* __libc_malloc(std::size_t);
extern "C" void __libc_free(void*);

namespace {

constexpr int rounds = 21;

struct allocator {
  const char* name;
  void* (*allocate)(std::size_t);
  void (*release)(void*);
};

struct step {
  std::uint32_t slot;
  std::uint32_t bytes; // zero: only free
};

struct trace {
  const char* name;
  std::size_t slots;
  std::vector<step> steps;
  std::size_t pairs = 0;
};

double cpu_time() {
  timespec now;
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}
// In nanoseconds; what other programs do on the machine counts less than with a clock on the wall.

// Frees what is in the step's slot and puts a new block there, whose first bytes are touched.
[[gnu::noinline]] double run(const trace& what, const allocator& with, std::vector<void*>& slots) {
  auto allocate = with.allocate;
  auto release = with.release;
  void** at = slots.data();
  double start = cpu_time();
  for (step one : what.steps) {
    if (at[one.slot]) release(at[one.slot]);
    at[one.slot] = nullptr;
    if (one.bytes != 0) {
      auto* block = static_cast<std::uint64_t*>(allocate(one.bytes));
      block[0] = one.slot;
      block[1] = one.bytes;
      at[one.slot] = block;
    }
  }
  double end = cpu_time();
  return (end - start) / static_cast<double>(what.pairs);
}

trace finish(trace made) {
  made.pairs = static_cast<std::size_t>(
      std::count_if(made.steps.begin(), made.steps.end(), [](step one) { return one.bytes != 0; }));
  return made;
}

// Blocks of 48 bytes, freed in the reverse of the order in which they were allocated, 4 to 64 at a time.
trace lifo() {
  trace made{"LIFO 48 B", 64, {}};
  for (std::uint32_t depth = 0; made.steps.size() < 1'000'000; depth = (depth + 12) % 64) {
    for (std::uint32_t i = 0; i < depth + 4 && i < 64; ++i) made.steps.push_back({i, 48});
    for (std::uint32_t i = std::min(depth + 4, 64u); i-- > 0;) made.steps.push_back({i, 0});
  }
  return finish(std::move(made));
}

// 10,000 blocks, of which one at random is replaced by one of random size.
trace replace(const char* name, std::uint32_t smallest, std::uint32_t largest, std::mt19937& random) {
  trace made{name, 10'000, {}};
  std::uniform_int_distribution<std::uint32_t> slot(0, 9'999), bytes(smallest, largest);
  for (int i = 0; i < 1'000'000; ++i) made.steps.push_back({slot(random), bytes(random)});
  return finish(std::move(made));
}

// A program that grows to 40,000 blocks and shrinks to 4,000, again and again, while it replaces some all the
// time: most blocks small, some of several kilobytes, a few up to 64 KiB.
trace mixed(std::mt19937& random) {
  trace made{"mixed, growing and shrinking", 40'000, {}};
  std::vector<std::uint32_t> used, vacant;
  for (std::uint32_t i = 40'000; i-- > 0;) vacant.push_back(i);
  auto bytes = [&] {
    auto kind = random() % 1000;
    return static_cast<std::uint32_t>(16 + random() % (kind < 800   ? 240
                                                       : kind < 960 ? 2032
                                                       : kind < 998 ? 8176
                                                                    : 65520));
  };
  auto take = [&](std::vector<std::uint32_t>& from) {
    std::swap(from[random() % from.size()], from.back());
    auto slot = from.back();
    from.pop_back();
    return slot;
  };
  for (bool growing = true; made.steps.size() < 1'000'000;) {
    if (random() % 4 == 0 && !used.empty()) {
      made.steps.push_back({used[random() % used.size()], bytes()});
    } else if (growing) {
      used.push_back(take(vacant));
      made.steps.push_back({used.back(), bytes()});
      growing = !vacant.empty();
    } else {
      vacant.push_back(take(used));
      made.steps.push_back({vacant.back(), 0});
      growing = used.size() <= 4'000;
    }
  }
  for (auto slot : used) made.steps.push_back({slot, 0});
  return finish(std::move(made));
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

bool verdict(const char* against, const std::vector<double>& ratios, double most) {
  double logarithms = 0;
  for (double ratio : ratios) logarithms += std::log(ratio);
  double mean = std::exp(logarithms / static_cast<double>(ratios.size()));
  std::printf("heap geometric mean vs %s | %.2f x | <= %.1f x | %s\n", against, mean, most,
              mean <= most ? "ok" : "short");
  return mean <= most;
}

} // namespace

int main() {
  void* library = ::dlopen(MIGRATE_MIMALLOC, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    std::fprintf(stderr, "heap: cannot open mimalloc: %s\n", ::dlerror());
    return 2;
  }
  auto* mi_malloc = reinterpret_cast<void* (*)(std::size_t)>(::dlsym(library, "mi_malloc"));
  auto* mi_free = reinterpret_cast<void (*)(void*)>(::dlsym(library, "mi_free"));
  const migrate::detail::region_number region(migrate::region_class::large, 1);
  if (!mi_malloc || !mi_free ||
      ::mmap(region.base(), region.size(), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) != region.base()) {
    std::fprintf(stderr, "heap: no mi_malloc, or no room for a region\n");
    return 2;
  }
  migrate::region_heap heap(region.base(), region.size());

  const allocator allocators[] = {
      {"region heap", static_cast<void* (*)(std::size_t)>(::operator new),
       static_cast<void (*)(void*) noexcept>(::operator delete)},
      {"glibc", __libc_malloc, __libc_free},
      {"mimalloc", mi_malloc, mi_free},
  };
  std::mt19937 random(20'240'607);
  const trace traces[] = {lifo(), replace("random 16-512 B", 16, 512, random),
                          replace("random 16 B-8 KiB", 16, 8192, random), mixed(random)};

  std::vector<double> to_glibc, to_mimalloc;
  std::printf("ns for each free and allocation, median of %d rounds; ratios: median (least to most)\n",
              rounds);
  for (const trace& what : traces) {
    std::vector<void*> slots[3];
    std::vector<double> times[3], ratios[2];
    for (auto& one : slots) one.resize(what.slots);
    for (int round = -1; round < rounds; ++round) {
      double time[3];
      for (int i = 0; i < 3; ++i) {
        int turn = (i + round + 1) % 3;
        migrate::detail::heap_scope scope(&heap);
        time[turn] = run(what, allocators[turn], slots[turn]);
      }
      if (round < 0) continue; // the first fills the slots
      for (int i = 0; i < 3; ++i) times[i].push_back(time[i]);
      for (int i = 0; i < 2; ++i) ratios[i].push_back(time[0] / time[i + 1]);
    }
    for (int i = 0; i < 3; ++i)
      for (void* block : slots[i])
        if (block) allocators[i].release(block);
    std::printf("%-30s", what.name);
    for (int i = 0; i < 3; ++i) std::printf("  %s %.1f", allocators[i].name, median(times[i]));
    for (int i = 0; i < 2; ++i)
      std::printf("  /%s %.2f (%.2f to %.2f)", allocators[i + 1].name, median(ratios[i]),
                  *std::min_element(ratios[i].begin(), ratios[i].end()),
                  *std::max_element(ratios[i].begin(), ratios[i].end()));
    std::printf("\n");
    to_glibc.push_back(median(ratios[0]));
    to_mimalloc.push_back(median(ratios[1]));
  }
  bool ok = verdict("glibc", to_glibc, 1.0);
  ok &= verdict("mimalloc", to_mimalloc, 1.1);
  return ok ? 0 : 1;
}
