// The side of a channel that calls, and calls again.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include <sys/random.h>

#include <migrate/rpc/channel_group.hpp>
#include <migrate/rpc/dialer.hpp>

namespace migrate {

class channel_client final : private detail::channel_group {
  // Thread safety: start and stop from one thread that is not the I/O thread; all else from any thread.

public:
  channel_client(event_loop& its_loop, std::string address, channel_options with, channel_handler& told)
      : channel_group(its_loop, std::move(with), told), address_(std::move(address)) {
    unsigned seed = 0;
    if (::getrandom(&seed, sizeof seed, GRND_NONBLOCK) == sizeof seed) random_.seed(seed);
  }
  // Of the server at host:port or unix:PATH.
  ~channel_client() { stop(); }

  void start();
  // Begins to connect. Throws errc::not_authenticated when the credentials are not good.

  void stop();
  // Sends what is queued, says goodbye, and returns when the channel is closed. Before the loop is stopped.

  std::shared_ptr<channel> current() const {
    std::lock_guard lock(mutex_);
    return current_;
  }
  // The open channel; null while there is none.

  std::shared_ptr<channel> wait_open(std::chrono::milliseconds limit = std::chrono::seconds(10));
  // The open channel, once there is one. Throws the reason of the last failure when there is none in time, or when this client does not connect
  // again. Blocks the calling thread, so neither from a task nor on the I/O thread.

  const std::string& address() const noexcept { return address_; }

private:
  void opened(channel& which) override;
  void closed(channel& which, const error& reason, bool was_open) override;
  void dial();
  void dial_later();
  void failed(const error& reason);

  const std::string address_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<channel> current_;  // under mutex_
  std::optional<error> last_failure_; // under mutex_
  bool given_up_ = false;             // under mutex_

  // On the I/O thread.
  std::shared_ptr<detail::dialer> dialer_;
  event_loop::timer pause_timer_;
  std::chrono::milliseconds pause_{0};
  event_loop::clock::time_point opened_at_{};
  std::minstd_rand random_;
};

inline void channel_client::start() {
  if (options.security) tls::check(*options.security);
  loop.run([&] {
    if (options.security) security = std::make_unique<tls>(*options.security);
    pause_ = options.least_pause;
    dial();
  });
}

inline void channel_client::stop() {
  stop_all([&] {
    loop.cancel(pause_timer_);
    if (auto dialling = std::exchange(dialer_, nullptr)) dialling->cancel();
    failed(error(errc::shutting_down, "the channel to " + address_ + " is not wanted any more"));
  });
}

inline std::shared_ptr<channel> channel_client::wait_open(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, limit, [&] { return current_ != nullptr || given_up_; });
  if (current_) return current_;
  if (last_failure_) throw *last_failure_;
  throw error(errc::timed_out,
              address_ + " has not answered within " + std::to_string(limit.count()) + " ms");
}

inline void channel_client::dial() {
  dialer_ = detail::dialer::make(loop, address_, options.security.has_value(),
                                 event_loop::clock::now() + options.handshake,
                                 [this](detail::dial_result, int socket, const error* reason) {
                                   auto keep = std::exchange(dialer_, nullptr);
                                   if (reason != nullptr)
                                     failed(*reason);
                                   else
                                     add(socket, true, address_);
                                 });
  auto begun = dialer_;
  begun->begin();
}

inline void channel_client::dial_later() {
  // Many clients lose one server at the same time, and should not all come back at the same time.
  std::uniform_int_distribution<long> part(pause_.count() / 2, pause_.count());
  pause_timer_ = loop.after(std::chrono::milliseconds(part(random_)), [this] { dial(); });
  pause_ = std::min(pause_ * 2, options.most_pause);
}

inline void channel_client::failed(const error& reason) {
  const bool again = options.reconnect && !stopping;
  {
    std::lock_guard lock(mutex_);
    last_failure_ = reason;
    given_up_ = !again;
  }
  changed_.notify_all();
  if (again) dial_later();
  if (!stopping) handler.on_unreachable(reason);
}

inline void channel_client::opened(channel& which) {
  opened_at_ = event_loop::clock::now();
  {
    std::lock_guard lock(mutex_);
    current_ = which.shared_from_this();
  }
  changed_.notify_all();
}

inline void channel_client::closed(channel& which, const error& reason, bool was_open) {
  if (!was_open) {
    if (reason.code() == errc::node_unreachable)
      failed(error(errc::node_unreachable,
                   std::string(reason.what()) + " before it said hello; perhaps it wants credentials"));
    else
      failed(reason);
    return;
  }
  const bool again = options.reconnect && !stopping;
  {
    std::lock_guard lock(mutex_);
    current_.reset();
    last_failure_ = reason;
    given_up_ = !again;
  }
  changed_.notify_all();
  // Whoever accepts and at once closes is not called in a tight loop.
  if (event_loop::clock::now() - opened_at_ > options.most_pause) pause_ = options.least_pause;
  if (again) dial_later();
  handler.on_closed(which, reason);
}

} // namespace migrate
