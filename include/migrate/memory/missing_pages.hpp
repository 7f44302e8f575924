// Pages of a region that are somewhere else until somebody touches them.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include <migrate/memory/address_plan.hpp>
#include <migrate/memory/kernel_lacks.hpp>

namespace migrate::detail {

class missing_pages {
  // userfaultfd(2): a thread that touches a page that is not there sleeps until the page has been put there. Who may not
  // have it for the kernel's own accesses (vm.unprivileged_userfaultfd) gets it for the program's: then a system call
  // that touches such a page fails with EFAULT.
  //
  // Where nobody may have it, such pages have no access, and whoever touches one is in a handler of SIGSEGV (task/faults.hpp)
  // until it has been put there, which is through /proc/self/mem, since that writes where the program may not: nobody
  // sees a page before all of it is there. For system calls this is as with programs only. What the program gives back, the
  // heap tells (heap_gives_back), as no event does.

public:
  missing_pages() noexcept {
    constexpr int user_mode_only = 1;
    if (kernel_lacks("missing-pages")) {
      serve_faults();
      return;
    }
    descriptor_ = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
    if (descriptor_ < 0) {
      descriptor_ = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | user_mode_only));
      programs_only_ = true;
    }
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = UFFD_FEATURE_EVENT_REMOVE;
    if (descriptor_ >= 0 && ::ioctl(descriptor_, UFFDIO_API, &api) == 0) return;
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
    serve_faults();
  }
  ~missing_pages() {
    if (by_faults()) served_.store(nullptr);
    for (int each : {descriptor_, told_, memory_, probe_[0], probe_[1]})
      if (each >= 0) ::close(each);
    while (watched* next = first_.load()) {
      first_ = next->next;
      delete next;
    }
  }
  missing_pages(const missing_pages&) = delete;
  missing_pages& operator=(const missing_pages&) = delete;

  bool available() const noexcept { return descriptor_ >= 0; }
  bool programs_only() const noexcept { return programs_only_; }
  bool by_faults() const noexcept { return memory_ >= 0; }
  // Without userfaultfd.
  int descriptor() const noexcept { return descriptor_; }
  // Readable when somebody has touched a page.

  bool watch(char* address, std::size_t bytes) {
    if (by_faults()) return add(address, bytes);
    uffdio_register request{};
    request.range = range_of(address, bytes);
    request.mode = UFFDIO_REGISTER_MODE_MISSING;
    return available() && ::ioctl(descriptor_, UFFDIO_REGISTER, &request) == 0;
  }
  // From now on pages that are not there are waited for: with by_faults(), those that are hidden after this. False when the
  // kernel refuses.
  void hide(char* address, std::size_t bytes) const noexcept {
    if (by_faults()) ::mprotect(address, bytes, PROT_NONE);
  }
  void forget(char* address, std::size_t bytes) noexcept {
    if (by_faults()) {
      ::mprotect(address, bytes, PROT_READ | PROT_WRITE);
      remove(address);
      wake(address, bytes);
      return;
    }
    uffdio_range range = range_of(address, bytes);
    ::ioctl(descriptor_, UFFDIO_UNREGISTER, &range);
  }
  // Pages that are not there read as zero. Whoever waits goes on.
  void forget_lost(char* address, std::size_t bytes) noexcept {
    if (!by_faults()) {
      forget(address, bytes);
      return;
    }
    remove(address);
    wake(address, bytes);
  }
  // But for those that lose() was told of.

  enum class put : std::uint8_t { done, there, again, gone, hidden };
  // `there`: a page is there already. `again`: an event has to be read first. `gone`: the range is not watched any more.
  // `hidden`: they are there, but the kernel refuses another mapping (vm.max_map_count), so that they show when all do.

  put copy(char* to, const void* from, std::size_t& bytes) const noexcept {
    if (by_faults()) return write(to, from, bytes) ? show(to, bytes) : put::gone;
    uffdio_copy request{};
    request.dst = reinterpret_cast<std::uint64_t>(to);
    request.src = reinterpret_cast<std::uint64_t>(from);
    request.len = bytes;
    int failed = ::ioctl(descriptor_, UFFDIO_COPY, &request);
    return outcome(failed, request.copy, bytes);
  }
  put zero(char* to, std::size_t& bytes) const noexcept {
    if (by_faults()) return show(to, bytes);
    uffdio_zeropage request{};
    request.range = range_of(to, bytes);
    int failed = ::ioctl(descriptor_, UFFDIO_ZEROPAGE, &request);
    return outcome(failed, request.zeropage, bytes);
  }
  // Puts pages where none are, and lets those go on who wait for them. `bytes`: how many were put.

  void wake(char* address, std::size_t bytes) const noexcept {
    if (by_faults()) {
      turns_.fetch_add(1);
      ::syscall(SYS_futex, &turns_, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
      return;
    }
    uffdio_range range = range_of(address, bytes);
    ::ioctl(descriptor_, UFFDIO_WAKE, &range);
  }

  void lose(char* address, std::size_t bytes) const noexcept {
    // From now on a touch is a fault: UFFDIO_POISON of Linux 6.6, which costs no mapping.
    if (by_faults()) return; // it is one
    struct poison {
      uffdio_range range;
      std::uint64_t mode;
      std::int64_t updated;
    } request{range_of(address, bytes), 0, 0};
    constexpr unsigned long poison_request = _IOWR(UFFDIO, 0x08, poison);
    if (::ioctl(descriptor_, poison_request, &request) != 0) ::mprotect(address, bytes, PROT_NONE);
  }
  // Before forget_lost(), of pages that will not come.

  static void make_zero(char* address, std::size_t bytes) noexcept {
    ::madvise(address, bytes, MADV_DONTNEED);
    ::mprotect(address, bytes, PROT_READ | PROT_WRITE);
  }
  // After that: undoes lose().

  template <class Touched, class Removed> bool read(Touched&& touched, Removed&& removed) const {
    // Calls touched(char* page) for whatever was touched, and removed(char*, std::size_t) for what the program has given
    // back (MADV_DONTNEED), for which it waits. False: nothing was there to be read.
    if (by_faults()) {
      std::array<char*, 16> pages;
      ssize_t got = ::read(descriptor_, pages.data(), sizeof pages);
      for (std::size_t i = 0; got > 0 && i < static_cast<std::size_t>(got) / sizeof pages[0]; ++i) touched(pages[i]);
      return got > 0;
    }
    uffd_msg events[16];
    ssize_t got = ::read(descriptor_, events, sizeof events);
    if (got < static_cast<ssize_t>(sizeof events[0])) return false;
    for (std::size_t i = 0; i < static_cast<std::size_t>(got) / sizeof events[0]; ++i) {
      if (events[i].event == UFFD_EVENT_PAGEFAULT)
        touched(reinterpret_cast<char*>(events[i].arg.pagefault.address & ~std::uint64_t{page_size - 1}));
      else if (events[i].event == UFFD_EVENT_REMOVE)
        removed(reinterpret_cast<char*>(events[i].arg.remove.start),
                static_cast<std::size_t>(events[i].arg.remove.end - events[i].arg.remove.start));
    }
    return true;
  }

  static bool arrives(char* address) noexcept {
    // In the handler, of a page of the plan that has no access: true when the page is there, after waiting for it, or when
    // there is a reason to try again; false when nobody will bring it.
    missing_pages* by = served_.load();
    return by != nullptr && by->wait(address);
  }

private:
  struct watched {
    std::atomic<std::uintptr_t> from{0}, to{0}; // zero: free
    watched* next = nullptr;
  };
  // Never freed, since a handler may look at it.

  void serve_faults() noexcept {
    int requests[2];
    if (::pipe2(requests, O_CLOEXEC | O_NONBLOCK) != 0) return;
    descriptor_ = requests[0];
    told_ = requests[1];
    int memory = ::open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    if (memory < 0 || ::pipe2(probe_, O_CLOEXEC | O_NONBLOCK) != 0 || !writes_hidden(memory)) {
      for (int* each : {&descriptor_, &told_, &memory, &probe_[0], &probe_[1]})
        if (*each >= 0) ::close(std::exchange(*each, -1));
      return;
    }
    memory_ = memory;
    programs_only_ = true;
    served_.store(this);
  }
  static bool writes_hidden(int memory) noexcept {
    // Some sandboxes and kernels forbid it.
    void* page = ::mmap(nullptr, page_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return false;
    const char mark = 'x';
    bool good = ::pwrite(memory, &mark, 1, static_cast<off_t>(reinterpret_cast<std::uintptr_t>(page))) == 1 &&
                ::mprotect(page, page_size, PROT_READ) == 0 && *static_cast<const volatile char*>(page) == mark;
    ::munmap(page, page_size);
    return good;
  }

  bool add(char* address, std::size_t bytes) {
    std::lock_guard guard(lock_);
    watched* free = first_.load();
    while (free != nullptr && free->from.load() != 0) free = free->next;
    bool fresh = free == nullptr;
    if (fresh) {
      free = new watched;
      free->next = first_.load();
    }
    free->to = reinterpret_cast<std::uintptr_t>(address) + bytes;
    free->from = reinterpret_cast<std::uintptr_t>(address);
    if (fresh) first_ = free;
    return true;
  }
  void remove(char* address) noexcept {
    std::lock_guard guard(lock_);
    for (watched* each = first_.load(); each != nullptr; each = each->next)
      if (each->from.load() == reinterpret_cast<std::uintptr_t>(address)) each->from = 0;
  }

  bool write(char* to, const void* from, std::size_t bytes) const noexcept {
    for (std::size_t done = 0; done < bytes;) {
      ssize_t now = ::pwrite(memory_, static_cast<const char*>(from) + done, bytes - done,
                             static_cast<off_t>(reinterpret_cast<std::uintptr_t>(to) + done));
      if (now <= 0 && errno != EINTR) return false;
      if (now > 0) done += static_cast<std::size_t>(now);
    }
    return true;
  }
  put show(char* to, std::size_t bytes) const noexcept {
    bool shown = ::mprotect(to, bytes, PROT_READ | PROT_WRITE) == 0;
    wake(to, bytes);
    return shown ? put::done : put::hidden;
  }

  bool wait(char* address) noexcept {
    // Only what a handler of a signal may do.
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    bool waited_for = false;
    for (watched* each = first_.load(); each != nullptr && !waited_for; each = each->next) {
      std::uintptr_t from = each->from.load();
      waited_for = from != 0 && at >= from && at < each->to.load();
    }
    std::uint32_t turn = turns_.load();
    if (readable(address)) return true; // it has come since
    if (!waited_for) return false;
    char* page = address - at % page_size;
    while (::write(told_, &page, sizeof page) < 0 && (errno == EAGAIN || errno == EINTR)) ::sched_yield();
    ::syscall(SYS_futex, &turns_, FUTEX_WAIT_PRIVATE, turn, nullptr, nullptr, 0);
    return true;
  }
  bool readable(const char* address) const noexcept {
    for (;;) {
      if (::write(probe_[1], address, 1) == 1) {
        char ignored;
        if (::read(probe_[0], &ignored, 1) < 0) return true; // another thread has it
        return true;
      }
      if (errno != EAGAIN && errno != EINTR) return false;
      ::sched_yield();
    }
  }

  static uffdio_range range_of(char* address, std::size_t bytes) noexcept {
    return {reinterpret_cast<std::uint64_t>(address), bytes};
  }
  static put outcome(int failed, std::int64_t done, std::size_t& bytes) noexcept {
    int reason = errno;
    if (failed == 0) return put::done;
    bytes = done > 0 ? static_cast<std::size_t>(done) : 0;
    if (bytes > 0) return put::done;
    return reason == EEXIST ? put::there : reason == EAGAIN ? put::again : put::gone;
  }

  static inline std::atomic<missing_pages*> served_{nullptr};

  int descriptor_ = -1;
  bool programs_only_ = false;
  // By faults:
  int told_ = -1; // the other end of the descriptor
  int memory_ = -1;
  int probe_[2] = {-1, -1};
  mutable std::atomic<std::uint32_t> turns_{0}; // counts what has come, for those who wait
  std::mutex lock_;
  std::atomic<watched*> first_{nullptr};
};
// Thread safety: any thread.

} // namespace migrate::detail
