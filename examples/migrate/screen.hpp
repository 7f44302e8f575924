// A terminal that a table is drawn on again and again.
#pragma once

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

namespace migrate_command {

struct terminal_size {
  std::size_t columns = 0, rows = 0; // 0: it is no terminal
};

inline terminal_size size_of_output() {
  winsize size{};
  if (::isatty(1) == 0) return {};
  if (::ioctl(1, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return {80, 24};
  return {size.ws_col, size.ws_row};
}

class quit_keys {
  // Keys without return, and signals, as things to wait for; the terminal is as it was when it goes. On a thread whose
  // process has no other that takes the signals.

public:
  quit_keys() {
    sigset_t set;
    sigemptyset(&set);
    for (int each : {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGCONT}) sigaddset(&set, each);
    ::sigprocmask(SIG_BLOCK, &set, &before_);
    signals_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    keys_ = ::isatty(0) != 0 && ::tcgetattr(0, &shown_) == 0;
    take_keys();
  }
  ~quit_keys() {
    if (keys_) ::tcsetattr(0, TCSANOW, &shown_);
    ::close(signals_);
    ::sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  quit_keys(const quit_keys&) = delete;
  quit_keys& operator=(const quit_keys&) = delete;

  enum class came { nothing, redraw, quit };

  came wait(std::chrono::milliseconds limit) {
    pollfd what[2] = {{signals_, POLLIN, 0}, {keys_ ? 0 : -1, POLLIN, 0}};
    if (::poll(what, 2, static_cast<int>(limit.count())) <= 0) return came::nothing;
    signalfd_siginfo signal{};
    if (::read(signals_, &signal, sizeof signal) == sizeof signal) {
      if (signal.ssi_signo != SIGWINCH && signal.ssi_signo != SIGCONT) return came::quit;
      take_keys(); // the shell has had the terminal meanwhile
      return came::redraw;
    }
    char key = 0;
    if (what[1].revents != 0 && ::read(0, &key, 1) <= 0) keys_ = false;
    return key == 'q' || key == 'Q' || key == 3 ? came::quit : came::redraw;
  }

private:
  void take_keys() const {
    if (!keys_) return;
    termios raw = shown_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    ::tcsetattr(0, TCSANOW, &raw);
  }

  sigset_t before_{};
  int signals_ = -1;
  bool keys_ = false;
  termios shown_{};
};

inline void draw(const std::vector<std::string>& lines) {
  // Over what is there, without clearing first, so that nothing flickers.
  std::string out = "\033[H";
  for (std::size_t i = 0; i < lines.size(); ++i) out += (i > 0 ? "\r\n" : "") + lines[i] + "\033[K";
  out += "\033[J";
  std::fwrite(out.data(), 1, out.size(), stdout);
  std::fflush(stdout);
}

class other_screen {
public:
  other_screen() { put("\033[?1049h\033[?25l"); }
  ~other_screen() { put("\033[?25h\033[?1049l"); }
  other_screen(const other_screen&) = delete;
  other_screen& operator=(const other_screen&) = delete;

private:
  static void put(const char* text) {
    std::fputs(text, stdout);
    std::fflush(stdout);
  }
};
// What was on the terminal before is there again when it goes.

} // namespace migrate_command
