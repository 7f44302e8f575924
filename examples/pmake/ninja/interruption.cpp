#include "interruption.hpp"

#include <iterator>

namespace pmake {

namespace {

constexpr int signals[] = {SIGINT, SIGTERM, SIGHUP};
volatile std::sig_atomic_t came = 0;

void on_signal(int which) { came = which; }

} // namespace

interruption::interruption() {
  came = 0;
  sigset_t ours;
  ::sigemptyset(&ours);
  for (int each : signals) ::sigaddset(&ours, each);
  ::sigprocmask(SIG_BLOCK, &ours, &outer_);
  struct sigaction action = {};
  action.sa_handler = on_signal;
  for (std::size_t i = 0; i < std::size(signals); ++i) {
    ::sigaction(signals[i], nullptr, &before_[i]);
    // What the caller ignores (nohup) stays ignored.
    if (before_[i].sa_handler != SIG_IGN) ::sigaction(signals[i], &action, nullptr);
    ::sigdelset(&outer_, signals[i]);
  }
}

interruption::~interruption() {
  for (std::size_t i = 0; i < std::size(signals); ++i) ::sigaction(signals[i], &before_[i], nullptr);
  ::sigprocmask(SIG_SETMASK, &outer_, nullptr);
}

int interruption::signal() const noexcept { return came; }
void interruption::forget() noexcept { came = 0; }

void interruption::look() noexcept {
  timespec none = {};
  poll(nullptr, 0, &none);
}

int interruption::poll(pollfd* what, nfds_t count, const timespec* limit) noexcept {
  return ::ppoll(what, count, limit, &outer_);
}

} // namespace pmake
