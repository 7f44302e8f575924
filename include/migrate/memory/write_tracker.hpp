// Which pages of a region its task writes while it runs.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include <migrate/memory/address_plan.hpp>
#include <migrate/memory/kernel_lacks.hpp>

namespace migrate::detail {

class write_tracker {
  // userfaultfd's write protection. What was written, page_scanner::take_written lists.
  //
  // Asynchronous (Linux 6.7): the kernel notes the first write to a protected page by itself, also when a system
  // call writes. Before that (Linux 5.7) a thread of this object is told of such a write and lifts the protection, while
  // who writes waits, which takes far longer. What is protected still, each page's entry says (pagemap, bit 57), so that the thread
  // keeps no books.
  //
  // The kernel's own writes, as of read(2), have to be served like the task's: without asynchronous protection this is for
  // root, or vm.unprivileged_userfaultfd, only. Ways that were not taken: where mprotect(2) forbids writing, or userfaultfd
  // serves programs only, a system call that writes fails with EFAULT, and no touching before it helps, since the next
  // round may protect in between; and soft-dirty bits are cleared for the whole process at once, are a build option of the
  // kernel, and are missing from those that this was tested on.

public:
  write_tracker() noexcept {
    constexpr int user_mode_only = 1; // all that an unprivileged process gets; nothing is served, so it is enough
    constexpr std::uint64_t wp_async = 1 << 15;
    if (!kernel_lacks("async-wp") && open(user_mode_only, wp_async | pagefault_flag_wp)) return;
    if (open(0, pagefault_flag_wp)) serve();
  }
  ~write_tracker() {
    if (served()) {
      std::uint64_t one = 1;
      while (::write(stop_, &one, sizeof one) < 0 && errno == EINTR) {
      }
      thread_.join();
      ::close(stop_);
    }
    if (descriptor_ >= 0) ::close(descriptor_); // whoever waits goes on
  }
  write_tracker(const write_tracker&) = delete;
  write_tracker& operator=(const write_tracker&) = delete;

  bool available() const noexcept { return descriptor_ >= 0; }
  // False: the kernel has neither kind, or a sandbox forbids it.

  bool served() const noexcept { return thread_.joinable(); }
  int descriptor() const noexcept { return descriptor_; }
  // Of the older kind: page_scanner::protect_by() wants to know.

  bool watch(region_number region) const noexcept {
    if (!available()) return false;
    if (!served()) return start(region.address(), region.size());
    // This kind takes no mapped files. What the task writes into an image's pages, which then are none of the file's, is
    // listed each time.
    bool any = false;
    for_each_mapping(region, [&](std::uintptr_t from, std::size_t bytes) {
      if (!start(from, bytes)) return;
      any = true;
      allow(from, bytes); // an earlier watch may have left its marks
    });
    return any;
  }
  // From now on pages of the region can be taken. False when the kernel refuses.

  void forget(region_number region, std::size_t touched) const noexcept {
    if (!available()) return;
    if (!served()) {
      // Takes time for each page, in which the task cannot have a fault served: so it goes in steps.
      constexpr std::size_t step = std::size_t{4} << 20;
      for (std::size_t done = 0; done < region.size();) {
        std::size_t now = done < touched ? std::min(step, region.size() - done) : region.size() - done;
        stop(region.address() + done, now);
        done += now;
      }
      return;
    }
    for_each_mapping(region, [&](std::uintptr_t from, std::size_t bytes) {
      allow(from, bytes);
      stop(from, bytes);
    });
  }
  // touched: bytes from the region's start on, behind which there are few pages.

private:
  static constexpr std::uint64_t pagefault_flag_wp = 1 << 0;

  bool open(int flags, std::uint64_t features) noexcept {
    descriptor_ = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags));
    if (descriptor_ < 0) return false;
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = features;
    if (::ioctl(descriptor_, UFFDIO_API, &api) == 0 && (api.features & features) == features) return true;
    ::close(descriptor_);
    descriptor_ = -1;
    return false;
  }

  void serve() noexcept {
    stop_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    // No handler of the program's runs there: it could write into what is protected.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      thread_ = std::thread([this] { lift(); });
    } catch (const std::exception&) {
      ::close(stop_);
      ::close(descriptor_);
      descriptor_ = -1;
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void lift() noexcept {
    pollfd both[] = {{descriptor_, POLLIN, 0}, {stop_, POLLIN, 0}};
    while (both[1].revents == 0) {
      if (::poll(both, 2, -1) < 0) continue;
      uffd_msg events[16];
      ssize_t got = ::read(descriptor_, events, sizeof events);
      if (got < static_cast<ssize_t>(sizeof events[0])) continue;
      for (std::size_t i = 0; i < static_cast<std::size_t>(got) / sizeof events[0]; ++i)
        if (events[i].event == UFFD_EVENT_PAGEFAULT) {
          std::uintptr_t page = events[i].arg.pagefault.address & ~std::uint64_t{page_size - 1};
          if (allow(page, page_size)) continue;
          uffdio_range range{page, page_size}; // it has been forgotten meanwhile
          ::ioctl(descriptor_, UFFDIO_WAKE, &range);
        }
    }
  }

  bool start(std::uintptr_t from, std::size_t bytes) const noexcept {
    uffdio_register request{};
    request.range = {from, bytes};
    request.mode = UFFDIO_REGISTER_MODE_WP;
    return ::ioctl(descriptor_, UFFDIO_REGISTER, &request) == 0;
  }
  void stop(std::uintptr_t from, std::size_t bytes) const noexcept {
    uffdio_range range{from, bytes};
    ::ioctl(descriptor_, UFFDIO_UNREGISTER, &range);
  }
  bool allow(std::uintptr_t from, std::size_t bytes) const noexcept {
    uffdio_writeprotect request{};
    request.range = {from, bytes};
    return ::ioctl(descriptor_, UFFDIO_WRITEPROTECT, &request) == 0;
  }

  template <class F> static void for_each_mapping(region_number region, F&& found) noexcept {
    // found(std::uintptr_t, std::size_t bytes) for each of the kernel's in the region that has no file.
    std::FILE* maps = std::fopen("/proc/self/maps", "re");
    if (maps == nullptr) return;
    char line[512];
    const std::uintptr_t low = region.address(), high = low + region.size();
    while (std::fgets(line, sizeof line, maps) != nullptr) {
      unsigned long long from = 0, to = 0, file = 0;
      if (std::sscanf(line, "%llx-%llx %*s %*s %*s %llu", &from, &to, &file) != 3 || file != 0) continue;
      std::uintptr_t begin = std::max<std::uintptr_t>(from, low), end = std::min<std::uintptr_t>(to, high);
      if (begin < end) found(begin, end - begin);
    }
    std::fclose(maps);
  }

  int descriptor_ = -1;
  int stop_ = -1;
  std::thread thread_;
};
// Thread safety: any thread, one for each region.

} // namespace migrate::detail
