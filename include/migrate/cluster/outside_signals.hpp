// Signals that reach this process from outside, such as Ctrl-C at its terminal: they go to the tasks in the foreground.
#pragma once

#include <array>
#include <csignal>

#include <signal.h>
#include <uv.h>

#include <migrate/home/signals.hpp>
#include <migrate/rpc/event_loop.hpp>

namespace migrate::detail {

class outside_signals {
public:
  explicit outside_signals(event_loop& loop) : loop_(loop) {}
  outside_signals(const outside_signals&) = delete;
  outside_signals& operator=(const outside_signals&) = delete;

  void forward() {
    loop_.run([this] {
      for (std::size_t i = 0; i < watched.size(); ++i) {
        ::uv_signal_init(loop_.uv(), &handles_[i]);
        ::uv_signal_start(&handles_[i], came, watched[i]);
      }
    });
  }
  // From now on, until the loop stops. When no group is in the foreground, or has no member any more, the signal does
  // what it does to any process.

  static void leave_to_first_node() noexcept {
    // For a node that was started by another: a terminal signals all processes of its foreground group alike.
    for (int each : watched) std::signal(each, SIG_IGN);
  }

private:
  static void came(uv_signal_t* handle, int number) {
    if (this_signals != nullptr && this_signals->forward(number)) return;
    ::uv_signal_stop(handle); // the default action is there again
    sigset_t only, before;
    ::sigemptyset(&only);
    ::sigaddset(&only, number);
    ::pthread_sigmask(SIG_UNBLOCK, &only, &before); // the I/O thread blocks signals
    ::raise(number);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    ::uv_signal_start(handle, came, number); // it was stopped and continued, or the default is to do nothing
  }

  static constexpr std::array watched{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};

  event_loop& loop_;
  std::array<uv_signal_t, watched.size()> handles_{}; // on the I/O thread
};

} // namespace migrate::detail
