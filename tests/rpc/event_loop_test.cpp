#include <migrate/rpc/event_loop.hpp>

#include <catch2/catch.hpp>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

using namespace migrate;
using namespace std::chrono_literals;

namespace {

class latch {
public:
  void set() {
    std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 30s, [&] { return set_; });
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

} // namespace

TEST_CASE("posted functions run on the I/O thread, in the order of each poster") {
  event_loop loop;
  loop.start();
  constexpr int threads = 4, posts = 20'000;
  std::vector<int> next(threads, 0);
  bool in_order = true, on_loop = true;
  std::vector<std::thread> posters;
  for (int t = 0; t < threads; ++t)
    posters.emplace_back([&, t] {
      for (int i = 0; i < posts; ++i)
        loop.post([&, t, i] {
          in_order = in_order && next[static_cast<std::size_t>(t)]++ == i;
          on_loop = on_loop && loop.on_loop_thread();
        });
    });
  for (auto& poster : posters) poster.join();
  loop.run([] {});
  CHECK(in_order);
  CHECK(on_loop);
  CHECK(next == std::vector<int>(threads, posts));
  CHECK_FALSE(loop.on_loop_thread());
}

TEST_CASE("no wake-up is lost") {
  // Each post waits for the answer to the one before, so the loop goes to sleep at every moment of a post.
  event_loop loop;
  loop.start();
  std::vector<std::thread> posters;
  int answered = 0; // counted on the I/O thread
  for (int t = 0; t < 2; ++t)
    posters.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) loop.run([&] { ++answered; });
    });
  for (auto& poster : posters) poster.join();
  loop.stop();
  CHECK(answered == 20'000);
}

TEST_CASE("stop runs what was posted before and refuses what comes after") {
  auto kept = std::make_shared<int>(0);
  int ran = 0;
  {
    event_loop loop;
    loop.start();
    for (int i = 0; i < 100; ++i) loop.post([&] { ++ran; });
    loop.run([&] {
      loop.post([&] { ++ran; });
      loop.after(1h, [kept] {});
      loop.detach(loop.kj_timer().afterDelay(3600 * kj::SECONDS).then([kept] {}));
      loop.detach(kj::Promise<void>(kj::NEVER_DONE).attach(kj::heap<std::shared_ptr<int>>(kept)));
    });
    loop.stop();
    CHECK(ran == 101);
    CHECK(kept.use_count() == 1);
    CHECK_FALSE(loop.post([kept] {}));
    CHECK(kept.use_count() == 1);
    CHECK_THROWS_AS(loop.run([] {}), error);
    loop.stop();
  }
}

TEST_CASE("a loop that was never started can be destroyed with posts in it") {
  auto kept = std::make_shared<int>(0);
  { event_loop loop; }
  CHECK(kept.use_count() == 1);
}

TEST_CASE("run throws what the function throws") {
  event_loop loop;
  loop.start();
  CHECK_THROWS_WITH(loop.run([] { throw std::runtime_error("no"); }), "no");
  bool nested = false;
  loop.run([&] { loop.run([&] { nested = true; }); });
  CHECK(nested);
}

TEST_CASE("timers fire in order, not early, and not when cancelled") {
  event_loop loop;
  loop.start();
  latch done;
  std::vector<int> order;
  bool early = false;
  loop.run([&] {
    auto start = event_loop::clock::now();
    auto add = [&](int name, std::chrono::milliseconds delay) {
      return loop.at(start + delay, [&, name, due = start + delay] {
        early = early || event_loop::clock::now() < due;
        order.push_back(name);
        if (name == 3) done.set();
      });
    };
    add(3, 30ms);
    add(1, 5ms);
    auto cancelled = add(9, 10ms);
    add(2, 5ms);
    CHECK(loop.cancel(cancelled));
    CHECK_FALSE(loop.cancel(cancelled));
    event_loop::timer none;
    CHECK_FALSE(loop.cancel(none));
  });
  REQUIRE(done.wait());
  loop.run([&] {
    CHECK(order == std::vector<int>{1, 2, 3});
    CHECK_FALSE(early);
  });
}

TEST_CASE("a timer that sets itself again does not keep posts from running") {
  event_loop loop;
  loop.start();
  int fired = 0;
  kj::Function<void()> again = [&] {
    ++fired;
    loop.at(event_loop::clock::time_point{}, [&] { again(); });
  };
  loop.run([&] { again(); });
  for (int i = 0; i < 10; ++i) loop.run([] {});
  loop.stop();
  CHECK(fired > 1);
}

TEST_CASE("a loop with nothing to do sleeps") {
  event_loop loop;
  loop.start();
  latch done;
  std::uint64_t before = 0, after = 0;
  uv_timer_t unused;
  loop.run([&] {
    uv_timer_init(loop.uv(), &unused); // a guest that is there and does nothing
    before = loop.turns();
    loop.after(100ms, [&] {
      after = loop.turns();
      done.set();
    });
  });
  REQUIRE(done.wait());
  CHECK(after - before <= 4);
}

TEST_CASE("libuv handles, KJ promises, timers and posts make progress side by side") {
  event_loop loop;
  loop.start();
  struct state {
    explicit state(event_loop& its) : loop(its) {}
    event_loop& loop;
    uv_timer_t timer{};
    uv_pipe_t pipe{};
    uv_timer_t from_callback{};
    std::string read;
    int ticks = 0;
    bool kj_done = false;
    bool second_kj = false;
    int pair[2] = {-1, -1};
    char buffer[16]{};
    latch got_ticks, got_read, got_kj, got_inner;
  } s(loop);
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, s.pair) == 0);

  loop.run([&] {
    uv_timer_init(loop.uv(), &s.timer);
    s.timer.data = &s;
    uv_timer_start(
        &s.timer,
        [](uv_timer_t* timer) {
          auto& st = *static_cast<state*>(timer->data);
          if (++st.ticks == 10) st.got_ticks.set();
        },
        1, 1);
    uv_pipe_init(loop.uv(), &s.pipe, 0);
    uv_pipe_open(&s.pipe, s.pair[0]);
    s.pipe.data = &s;
    uv_read_start(
        reinterpret_cast<uv_stream_t*>(&s.pipe),
        [](uv_handle_t* handle, size_t, uv_buf_t* buffer) {
          *buffer = uv_buf_init(static_cast<state*>(handle->data)->buffer, 16);
        },
        [](uv_stream_t* stream, ssize_t n, const uv_buf_t* buffer) {
          auto& st = *static_cast<state*>(stream->data);
          if (n > 0) st.read.append(buffer->base, static_cast<std::size_t>(n));
          // A handle added in a libuv callback, and a promise made in one.
          uv_timer_init(stream->loop, &st.from_callback);
          st.from_callback.data = &st;
          uv_timer_start(
              &st.from_callback, [](uv_timer_t* timer) { static_cast<state*>(timer->data)->got_inner.set(); },
              1, 0);
          st.loop.detach(kj::evalLater([&st] { st.second_kj = true; }));
          uv_read_stop(stream);
          st.got_read.set();
        });
    loop.detach(loop.kj_timer().afterDelay(5 * kj::MILLISECONDS).then([&] {
      s.kj_done = true;
      s.got_kj.set();
    }));
  });
  // The loop sleeps now; nothing but the descriptor wakes libuv.
  REQUIRE(::write(s.pair[1], "hello", 5) == 5);
  REQUIRE(s.got_read.wait());
  REQUIRE(s.got_ticks.wait());
  REQUIRE(s.got_kj.wait());
  REQUIRE(s.got_inner.wait());
  loop.run([&] {
    CHECK(s.read == "hello");
    CHECK(s.kj_done);
    CHECK(s.second_kj);
  });
  loop.stop();
  ::close(s.pair[1]);
}

#ifndef MIGRATE_TSAN // which does not see the locks inside the KJ library
TEST_CASE("a promise can be fulfilled from another thread through KJ's executor") {
  event_loop loop;
  loop.start();
  const kj::Executor* executor = nullptr;
  loop.run([&] { executor = &kj::getCurrentThreadExecutor(); });
  for (int i = 0; i < 1000; ++i) {
    int value = 0;
    executor->executeSync([&] { value = i + 1; });
    REQUIRE(value == i + 1);
  }
}
#endif

TEST_CASE("child processes and signals work as libuv handles") {
  event_loop loop;
  loop.start();
  struct state {
    uv_process_t process{};
    uv_signal_t signal{};
    std::int64_t status = -1;
    latch exited, signalled;
  } s;
  loop.run([&] {
    static char name[] = "/bin/sh", flag[] = "-c", command[] = "exit 7";
    char* arguments[] = {name, flag, command, nullptr};
    uv_process_options_t options{};
    options.file = name;
    options.args = arguments;
    options.exit_cb = [](uv_process_t* process, std::int64_t status, int) {
      auto& st = *static_cast<state*>(process->data);
      st.status = status;
      st.exited.set();
    };
    s.process.data = &s;
    REQUIRE(uv_spawn(loop.uv(), &s.process, &options) == 0);
    s.signal.data = &s;
    uv_signal_init(loop.uv(), &s.signal);
    uv_signal_start(
        &s.signal, [](uv_signal_t* signal, int) { static_cast<state*>(signal->data)->signalled.set(); },
        SIGUSR1);
  });
  REQUIRE(s.exited.wait());
  CHECK(s.status == 7);
  ::kill(::getpid(), SIGUSR1);
  CHECK(s.signalled.wait());
  loop.stop();
}

TEST_CASE("a watcher may remove others that are ready in the same turn") {
  event_loop loop;
  loop.start();
  struct eraser final : event_loop::watcher {
    void on_ready(std::uint32_t) noexcept override {
      ++calls;
      for (auto* each : *all) loop->unwatch(each->fd, *each);
      done->set();
    }
    event_loop* loop = nullptr;
    std::vector<eraser*>* all = nullptr;
    latch* done = nullptr;
    int fd = -1;
    int calls = 0;
  };
  latch done;
  std::vector<eraser> watchers(3);
  std::vector<eraser*> all;
  for (auto& each : watchers) {
    each.fd = ::eventfd(1, EFD_CLOEXEC);
    each.loop = &loop;
    each.all = &all;
    each.done = &done;
    all.push_back(&each);
  }
  loop.run([&] {
    for (auto& each : watchers) loop.watch(each.fd, EPOLLIN, each);
  });
  REQUIRE(done.wait());
  loop.stop();
  CHECK(watchers[0].calls + watchers[1].calls + watchers[2].calls == 1);
  for (auto& each : watchers) ::close(each.fd);
}
