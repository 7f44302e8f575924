// Pages of a region that are somewhere else until somebody touches them.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include <migrate/memory/address_plan.hpp>

namespace migrate::detail {

class missing_pages {
  // userfaultfd(2): a thread that touches a page that is not there sleeps until the page has been put there. Who may not
  // have it for the kernel's own accesses (vm.unprivileged_userfaultfd) gets it for the program's: then a system call
  // that touches such a page fails with EFAULT.

public:
  missing_pages() noexcept {
    constexpr int user_mode_only = 1;
    descriptor_ = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
    if (descriptor_ < 0) {
      descriptor_ = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | user_mode_only));
      programs_only_ = true;
    }
    if (descriptor_ < 0) return;
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = UFFD_FEATURE_EVENT_REMOVE;
    if (::ioctl(descriptor_, UFFDIO_API, &api) == 0) return;
    ::close(descriptor_);
    descriptor_ = -1;
  }
  ~missing_pages() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  missing_pages(const missing_pages&) = delete;
  missing_pages& operator=(const missing_pages&) = delete;

  bool available() const noexcept { return descriptor_ >= 0; }
  bool programs_only() const noexcept { return programs_only_; }
  int descriptor() const noexcept { return descriptor_; }
  // Readable when somebody has touched a page.

  bool watch(char* address, std::size_t bytes) const noexcept {
    uffdio_register request{};
    request.range = range_of(address, bytes);
    request.mode = UFFDIO_REGISTER_MODE_MISSING;
    return available() && ::ioctl(descriptor_, UFFDIO_REGISTER, &request) == 0;
  }
  // From now on pages that are not there are waited for. False when the kernel refuses.
  void forget(char* address, std::size_t bytes) const noexcept {
    uffdio_range range = range_of(address, bytes);
    ::ioctl(descriptor_, UFFDIO_UNREGISTER, &range);
  }
  // Pages that are not there read as zero. Whoever waits goes on.

  enum class put : std::uint8_t { done, there, again, gone };
  // `there`: a page is there already. `again`: an event has to be read first. `gone`: the range is not watched any more.

  put copy(char* to, const void* from, std::size_t& bytes) const noexcept {
    uffdio_copy request{};
    request.dst = reinterpret_cast<std::uint64_t>(to);
    request.src = reinterpret_cast<std::uint64_t>(from);
    request.len = bytes;
    int failed = ::ioctl(descriptor_, UFFDIO_COPY, &request);
    return outcome(failed, request.copy, bytes);
  }
  put zero(char* to, std::size_t& bytes) const noexcept {
    uffdio_zeropage request{};
    request.range = range_of(to, bytes);
    int failed = ::ioctl(descriptor_, UFFDIO_ZEROPAGE, &request);
    return outcome(failed, request.zeropage, bytes);
  }
  // Puts pages where none are, and lets those go on who wait for them. `bytes`: how many were put.

  void wake(char* address, std::size_t bytes) const noexcept {
    uffdio_range range = range_of(address, bytes);
    ::ioctl(descriptor_, UFFDIO_WAKE, &range);
  }

  void lose(char* address, std::size_t bytes) const noexcept {
    // From now on a touch is a fault: UFFDIO_POISON of Linux 6.6, which costs no mapping.
    struct poison {
      uffdio_range range;
      std::uint64_t mode;
      std::int64_t updated;
    } request{range_of(address, bytes), 0, 0};
    constexpr unsigned long poison_request = _IOWR(UFFDIO, 0x08, poison);
    if (::ioctl(descriptor_, poison_request, &request) != 0) ::mprotect(address, bytes, PROT_NONE);
  }
  // Before forget(), of pages that will not come.

  static void make_zero(char* address, std::size_t bytes) noexcept {
    ::madvise(address, bytes, MADV_DONTNEED);
    ::mprotect(address, bytes, PROT_READ | PROT_WRITE);
  }
  // After forget(): undoes lose().

  template <class Touched, class Removed> bool read(Touched&& touched, Removed&& removed) const {
    // Calls touched(char* page) for whatever was touched, and removed(char*, std::size_t) for what the program has given
    // back (MADV_DONTNEED), for which it waits. False: nothing was there to be read.
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

private:
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

  int descriptor_ = -1;
  bool programs_only_ = false;
};
// Thread safety: any thread.

} // namespace migrate::detail
