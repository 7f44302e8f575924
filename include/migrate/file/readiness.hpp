// Waking tasks when a descriptor of the kernel is ready for them.
#pragma once

#include <cerrno>
#include <cstdint>

#include <sys/epoll.h>
#include <unistd.h>

#include <migrate/error.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/store/descriptor.hpp>
#include <migrate/task/scheduler.hpp>

namespace migrate::detail {

class readiness final : public event_loop::watcher {
public:
  explicit readiness(event_loop& loop) : all_(::epoll_create1(EPOLL_CLOEXEC)) {
    if (!all_) throw error(std::error_code(errno, std::generic_category()), "epoll_create1");
    if (loop.on_loop_thread())
      loop.watch(all_.get(), EPOLLIN, *this);
    else
      loop.run([&] { loop.watch(all_.get(), EPOLLIN, *this); });
  }
  // Lives until the loop has stopped.

  void wake_when(resident& task, int kernel, std::uint32_t events) noexcept {
    epoll_event what{};
    what.events = events | EPOLLONESHOT;
    what.data.ptr = &task;
    if (::epoll_ctl(all_.get(), EPOLL_CTL_MOD, kernel, &what) == 0) return;
    if (errno == ENOENT && ::epoll_ctl(all_.get(), EPOLL_CTL_ADD, kernel, &what) == 0) return;
    this_scheduler->wake(task); // cannot be watched: it looks again
  }

  void forget(int kernel) noexcept { ::epoll_ctl(all_.get(), EPOLL_CTL_DEL, kernel, nullptr); }
  // Before it is closed: the kernel goes on watching a description that somebody else still has.

private:
  void on_ready(std::uint32_t) noexcept override {
    epoll_event ready[64];
    int count = ::epoll_wait(all_.get(), ready, 64, 0);
    for (int i = 0; i < count; ++i) this_scheduler->wake(*static_cast<resident*>(ready[i].data.ptr));
  }

  descriptor all_;
};
// Thread safety: any thread. A record that is another task's by now is woken for nothing.

inline constinit readiness* this_readiness = nullptr;

} // namespace migrate::detail
