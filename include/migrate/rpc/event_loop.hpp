// The event loop: one I/O thread, on which Cap'n Proto's KJ loop is the host and libuv its guest.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

#include <kj/async.h>
#include <kj/debug.h>
#include <kj/function.h>
#include <kj/timer.h>

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <uv.h>

#include <migrate/error.hpp>
#include <migrate/memory/current_heap.hpp>

namespace migrate {

class event_loop {
  // Thread safety: post(), run(), stop() and on_loop_thread() from any thread; everything else on the
  // I/O thread only. An exception that escapes a callback ends the program.

public:
  using clock = std::chrono::steady_clock;

  class watcher {
  public:
    virtual void on_ready(std::uint32_t events) noexcept = 0;
    // Called with EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP while they hold (level-triggered). May unwatch
    // and destroy any watcher, itself too.

  protected:
    ~watcher() = default;
  };

  struct timer {
    clock::time_point due{};
    std::uint64_t serial = 0;

    explicit operator bool() const noexcept { return serial != 0; }
    friend auto operator<=>(const timer&, const timer&) = default;
  };
  // Names a timer that was set. One that has fired or was cancelled is named no more, and cancelling it does nothing.

  event_loop();
  ~event_loop();
  event_loop(const event_loop&) = delete;
  event_loop& operator=(const event_loop&) = delete;

  void start();
  // Starts the I/O thread; returns when it runs. Once in an event_loop's life.

  void stop();
  // Ends the I/O thread and joins it. What was posted before is run; timers that are not due, detached promises and
  // libuv handles are cancelled. Not from the I/O thread. A second call does nothing.

  template <class F> bool post(F&& function);
  // Has function() called on the I/O thread, in the order of one thread's posts. Returns false, having destroyed the
  // function uncalled, when the loop has been stopped.

  template <class F> void run(F&& function);
  // Calls function() on the I/O thread and returns when it has returned; throws what it throws. Blocks the calling
  // thread, so it is for starting and stopping, not for tasks. Throws errc::shutting_down when the loop has stopped.

  [[gnu::noinline]] bool on_loop_thread() const noexcept {
    // Not inlined, since pthread_self is declared const and a task's thread may change between two calls.
    return ::pthread_equal(thread_id_.load(std::memory_order_relaxed), ::pthread_self()) != 0;
  }

  timer at(clock::time_point when, kj::Function<void()> callback);
  // Calls the callback at or just after `when`. Timers of the same instant fire in the order they were set.

  timer after(clock::duration delay, kj::Function<void()> callback) {
    return at(clock::now() + delay, kj::mv(callback));
  }

  bool cancel(timer& which);
  // Returns whether it was still to come. Forgets it either way.

  clock::time_point now() const noexcept { return now_; }
  // When the loop last woke.

  std::uint64_t turns() const noexcept { return turns_; }
  // How often the loop has woken.

  void watch(int fd, std::uint32_t events, watcher& who);
  void rewatch(int fd, std::uint32_t events, watcher& who);
  void unwatch(int fd, watcher& who) noexcept;

  uv_loop_t* uv() noexcept { return &uv_; }
  // The guest loop. Handles are added and closed on the I/O thread, in any callback; the host notices them by itself.
  // uv_run must not be called. A handle without a reference (uv_unref) does not keep the loop's timers going.

  kj::Timer& kj_timer() noexcept { return *kj_timer_; }

  void detach(kj::Promise<void> promise) { kj_tasks_->add(kj::mv(promise)); }
  // Keeps the promise until it is done. An exception in it is written to standard error.

private:
  struct job {
    job* next = nullptr;
    virtual void run() = 0;
    virtual ~job() noexcept(false) {}
  };

  template <class F> struct job_of final : job {
    ~job_of() noexcept(false) override {}
    explicit job_of(F&& f) : function(std::move(f)) {}
    explicit job_of(const F& f) : function(f) {}
    void run() override { function(); }
    F function;
  };

  struct closed_job final : job {
    ~closed_job() noexcept(false) override {}
    void run() override {}
  };

  struct kj_port final : kj::EventPort {
    explicit kj_port(event_loop& owner) : loop(owner) {}
    bool wait() override { KJ_FAIL_REQUIRE("a promise must not be waited for on the I/O thread"); }
    bool poll() override { return woken.exchange(false); }
    void wake() const override {
      woken.store(true);
      loop.wake_if_asleep();
    }
    event_loop& loop;
    mutable std::atomic<bool> woken{false};
  };

  struct kj_errors final : kj::TaskSet::ErrorHandler {
    void taskFailed(kj::Exception&& exception) override { KJ_LOG(ERROR, "detached task failed", exception); }
  };

  bool push(job* work) noexcept;
  void wake_if_asleep() noexcept;
  bool drain() noexcept;
  void close_queue() noexcept;
  void thread_main() noexcept;
  void fire_timers() noexcept;
  void run_uv(bool readable) noexcept;
  bool uv_wants_registration() const noexcept;
  void close_uv() noexcept;
  void sleep_and_dispatch(kj::EventLoop& kj_loop) noexcept;
  static kj::TimePoint kj_time(clock::time_point time) {
    return kj::origin<kj::TimePoint>() +
           std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count() *
               kj::NANOSECONDS;
  }

  std::atomic<job*> posted_{nullptr};
  std::atomic<bool> asleep_{false};
  std::atomic<bool> stopping_{false};
  closed_job closed_;
  int epoll_ = -1;
  int wake_ = -1;
  uv_loop_t uv_{};
  bool uv_readable_ = false;
  std::thread thread_;
  std::atomic<pthread_t> thread_id_{};
  clock::time_point now_{};
  std::uint64_t turns_ = 0;

  std::map<timer, kj::Function<void()>> timers_;
  std::uint64_t timer_serial_ = 0;

  std::array<epoll_event, 64> batch_{};
  int batch_size_ = 0;
  int batch_next_ = 0;

  kj_port port_{*this};
  kj::TimerImpl* kj_timer_ = nullptr;
  kj::TaskSet* kj_tasks_ = nullptr;
};

inline event_loop::event_loop() {
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (epoll_ < 0 || wake_ < 0 || ::uv_loop_init(&uv_) != 0)
    throw error(std::error_code(errno, std::system_category()),
                std::string("cannot make an event loop: ") + std::strerror(errno) +
                    "; is the limit of open files used up (ulimit -n)?");
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET; // edge-triggered, so that it need not be read
  event.data.ptr = &wake_;
  ::epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event);
  event.events = EPOLLIN;
  event.data.ptr = &uv_;
  ::epoll_ctl(epoll_, EPOLL_CTL_ADD, ::uv_backend_fd(&uv_), &event);
}

inline event_loop::~event_loop() {
  stop();
  close_queue();
  close_uv();
  ::close(wake_);
  ::close(epoll_);
}

inline void event_loop::start() {
  sigset_t all, before;
  ::sigfillset(&all);
  for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) ::sigdelset(&all, fault);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] { thread_main(); });
  } catch (...) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  run([] {});
}

inline void event_loop::stop() {
  if (!thread_.joinable()) return;
  stopping_.store(true);
  post([] {});
  thread_.join();
}

template <class F> bool event_loop::post(F&& function) {
  node_heap_scope heap;
  auto* work = new job_of<std::decay_t<F>>(std::forward<F>(function));
  if (push(work)) return true;
  delete work;
  return false;
}

template <class F> void event_loop::run(F&& function) {
  if (on_loop_thread()) {
    function();
    return;
  }
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::exception_ptr failure;
  bool accepted = post([&] {
    try {
      function();
    } catch (...) {
      failure = std::current_exception();
    }
    std::lock_guard lock(mutex);
    done = true;
    changed.notify_one();
  });
  if (!accepted) throw error(errc::shutting_down, "the node's I/O thread has been stopped");
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return done; });
  if (failure) std::rethrow_exception(failure);
}

inline bool event_loop::push(job* work) noexcept {
  job* head = posted_.load(std::memory_order_relaxed);
  do {
    if (head == &closed_) return false;
    work->next = head;
  } while (!posted_.compare_exchange_weak(head, work, std::memory_order_seq_cst, std::memory_order_relaxed));
  wake_if_asleep();
  return true;
}

inline void event_loop::wake_if_asleep() noexcept {
  // The loop sets asleep_ and then looks at the queue; a poster fills the queue and then looks at
  // asleep_. In the single order of these four at least one sees the other's.
  if (!asleep_.load(std::memory_order_seq_cst) || !asleep_.exchange(false, std::memory_order_seq_cst)) return;
  std::uint64_t one = 1;
  while (::write(wake_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

inline bool event_loop::drain() noexcept {
  job* list = posted_.load(std::memory_order_relaxed);
  if (list == nullptr || list == &closed_) return false;
  list = posted_.exchange(nullptr, std::memory_order_acq_rel);
  job* in_order = nullptr;
  while (list != nullptr) {
    job* next = list->next;
    list->next = in_order;
    in_order = list;
    list = next;
  }
  while (in_order != nullptr) {
    job* work = in_order;
    in_order = work->next;
    work->run();
    delete work;
  }
  return true;
}

inline void event_loop::close_queue() noexcept {
  job* none = nullptr;
  while (!posted_.compare_exchange_strong(none, &closed_)) {
    if (none == &closed_) return;
    drain();
    none = nullptr;
  }
}

inline void event_loop::thread_main() noexcept {
  thread_id_.store(::pthread_self(), std::memory_order_relaxed);
  ::pthread_setname_np(::pthread_self(), "migrate-io");
  kj::EventLoop kj_loop(port_);
  kj::WaitScope scope(kj_loop);
  now_ = clock::now();
  kj::TimerImpl kj_timer(kj_time(now_));
  kj_timer_ = &kj_timer;
  kj_errors errors;
  {
    kj::TaskSet tasks(errors);
    kj_tasks_ = &tasks;
    while (!stopping_.load(std::memory_order_relaxed)) {
      drain();
      fire_timers();
      run_uv(uv_readable_);
      if (kj_loop.isRunnable() || port_.woken.load(std::memory_order_relaxed)) scope.poll();
      sleep_and_dispatch(kj_loop);
    }
    while (drain() || kj_loop.isRunnable()) scope.poll();
  }
  while (drain() || kj_loop.isRunnable()) scope.poll();
  scope.cancelAllDetached();
  close_uv();
  close_queue();
  auto rest = std::move(timers_);
  timers_.clear();
  rest.clear();
}

inline event_loop::timer event_loop::at(clock::time_point when, kj::Function<void()> callback) {
  timer key{when, ++timer_serial_};
  timers_.emplace(key, kj::mv(callback));
  return key;
}

inline bool event_loop::cancel(timer& which) {
  timer key = std::exchange(which, timer{});
  auto found = timers_.find(key);
  if (found == timers_.end()) return false;
  auto dying = timers_.extract(found);
  return true;
}

inline void event_loop::fire_timers() noexcept {
  if (timers_.empty() && kj_timer_->nextEvent() == nullptr) return;
  now_ = clock::now();
  std::uint64_t newest =
      timer_serial_; // those set meanwhile wait for the next turn, so that all else is served
  for (auto next = timers_.begin(); next != timers_.end() && next->first.due <= now_;
       next = timers_.begin()) {
    if (next->first.serial > newest) break;
    auto fired = timers_.extract(next);
    fired.mapped()();
  }
  kj_timer_->advanceTo(kj_time(now_));
}

inline void event_loop::watch(int fd, std::uint32_t events, watcher& who) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = &who;
  if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0)
    throw error(std::error_code(errno, std::system_category()),
                std::string("cannot watch a descriptor: ") + std::strerror(errno));
}

inline void event_loop::rewatch(int fd, std::uint32_t events, watcher& who) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = &who;
  ::epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event);
}

inline void event_loop::unwatch(int fd, watcher& who) noexcept {
  ::epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
  for (int i = batch_next_; i < batch_size_; ++i)
    if (batch_[static_cast<std::size_t>(i)].data.ptr == &who)
      batch_[static_cast<std::size_t>(i)].data.ptr = nullptr;
}

inline bool event_loop::uv_wants_registration() const noexcept {
  // libuv registers new descriptors only when it next polls, and polls only when it has something to
  // do. Its queue of them is a circular list whose first word points at the next entry, at itself when empty.
  if (!::uv_loop_alive(&uv_)) return false;
  void* first = nullptr;
  std::memcpy(&first, &uv_.watcher_queue, sizeof first);
  return first != static_cast<const void*>(&uv_.watcher_queue);
}

inline void event_loop::run_uv(bool readable) noexcept {
  uv_readable_ = false;
  bool due = readable || uv_wants_registration();
  if (!due && ::uv_loop_alive(&uv_)) {
    ::uv_update_time(&uv_);
    due = ::uv_backend_timeout(&uv_) == 0;
  }
  if (!due) return;
  int turns = 0;
  do {
    ::uv_run(&uv_, UV_RUN_NOWAIT);
  } while (uv_wants_registration() && ++turns < 100);
}

inline void event_loop::close_uv() noexcept {
  if (uv_.data == this) return;
  ::uv_walk(
      &uv_,
      [](uv_handle_t* handle, void*) {
        if (!::uv_is_closing(handle)) ::uv_close(handle, nullptr);
      },
      nullptr);
  while (::uv_loop_close(&uv_) == UV_EBUSY) ::uv_run(&uv_, UV_RUN_ONCE);
  uv_.data = this;
}

inline void event_loop::sleep_and_dispatch(kj::EventLoop& kj_loop) noexcept {
  auto wait = std::chrono::nanoseconds::max();
  auto bound = [&](std::chrono::nanoseconds candidate) {
    if (candidate < wait)
      wait = candidate < std::chrono::nanoseconds(0) ? std::chrono::nanoseconds(0) : candidate;
  };
  bool timed = !timers_.empty();
  KJ_IF_MAYBE (next, kj_timer_->nextEvent()) {
    timed = true;
    now_ = clock::now();
    bound(std::chrono::nanoseconds((*next - kj_time(now_)) / kj::NANOSECONDS));
  }
  if (timed) now_ = clock::now();
  if (!timers_.empty()) bound(timers_.begin()->first.due - now_);
  if (::uv_loop_alive(&uv_)) {
    ::uv_update_time(&uv_);
    if (int ms = ::uv_backend_timeout(&uv_); ms >= 0) bound(std::chrono::milliseconds(ms));
  }
  if (uv_wants_registration()) wait = std::chrono::nanoseconds(0);

  asleep_.store(true, std::memory_order_seq_cst);
  if (posted_.load(std::memory_order_seq_cst) != nullptr || port_.woken.load(std::memory_order_seq_cst) ||
      stopping_.load(std::memory_order_seq_cst) || kj_loop.isRunnable())
    wait = std::chrono::nanoseconds(0);
  if (wait == std::chrono::nanoseconds(0)) asleep_.store(false, std::memory_order_relaxed);

  batch_next_ = 0;
  if (wait == std::chrono::nanoseconds::max() || wait == std::chrono::nanoseconds(0)) {
    batch_size_ =
        ::epoll_wait(epoll_, batch_.data(), static_cast<int>(batch_.size()), wait.count() == 0 ? 0 : -1);
  } else {
    timespec limit{};
    limit.tv_sec = static_cast<time_t>(wait.count() / 1'000'000'000);
    limit.tv_nsec = static_cast<long>(wait.count() % 1'000'000'000);
    batch_size_ = ::epoll_pwait2(epoll_, batch_.data(), static_cast<int>(batch_.size()), &limit, nullptr);
    if (batch_size_ < 0 && errno == ENOSYS) { // before Linux 5.11
      auto ms = (wait.count() + 999'999) / 1'000'000;
      batch_size_ = ::epoll_wait(epoll_, batch_.data(), static_cast<int>(batch_.size()),
                                 static_cast<int>(ms > 1'000'000 ? 1'000'000 : ms));
    }
  }
  asleep_.store(false, std::memory_order_relaxed);
  ++turns_;
  now_ = clock::now();
  if (batch_size_ < 0) batch_size_ = 0;
  while (batch_next_ < batch_size_) {
    epoll_event& event = batch_[static_cast<std::size_t>(batch_next_++)];
    if (event.data.ptr == nullptr || event.data.ptr == &wake_) continue;
    if (event.data.ptr == &uv_)
      uv_readable_ = true;
    else
      static_cast<watcher*>(event.data.ptr)->on_ready(event.events);
  }
}

} // namespace migrate
