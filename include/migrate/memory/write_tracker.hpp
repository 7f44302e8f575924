// Which pages of a region its task writes while it runs.
#pragma once

#include <cstdint>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include <migrate/memory/address_plan.hpp>

namespace migrate::detail {

class write_tracker {
  // userfaultfd's asynchronous write protection (Linux 6.7): the kernel notes the first write to a protected page by
  // itself, 0.5 µs each, also when a system call writes. What was written, page_scanner::take_written lists. Older kernels'
  // soft-dirty bits belong to the whole process, so that two moves at once would clear each other's.

public:
  write_tracker() noexcept {
    constexpr int user_mode_only =
        1; // all that an unprivileged process gets; nothing is served here, so it is enough
    constexpr std::uint64_t wp_async = 1 << 15;
    constexpr std::uint64_t pagefault_flag_wp = 1;
    descriptor_ = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | user_mode_only));
    if (descriptor_ < 0) return;
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = wp_async | pagefault_flag_wp;
    if (::ioctl(descriptor_, UFFDIO_API, &api) == 0 && (api.features & wp_async) != 0) return;
    ::close(descriptor_);
    descriptor_ = -1;
  }
  ~write_tracker() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  write_tracker(const write_tracker&) = delete;
  write_tracker& operator=(const write_tracker&) = delete;

  bool available() const noexcept { return descriptor_ >= 0; }
  // False: the kernel is older than Linux 6.7, or a sandbox forbids it.

  bool watch(region_number region) const noexcept {
    uffdio_register request{};
    request.range = {region.address(), region.size()};
    request.mode = UFFDIO_REGISTER_MODE_WP;
    return available() && ::ioctl(descriptor_, UFFDIO_REGISTER, &request) == 0;
  }
  // From now on pages of the region can be taken. False when the kernel refuses.

  void forget(region_number region) const noexcept {
    uffdio_range range{region.address(), region.size()};
    if (available()) ::ioctl(descriptor_, UFFDIO_UNREGISTER, &range);
  }

private:
  int descriptor_ = -1;
};
// Thread safety: any thread, one for each region.

} // namespace migrate::detail
