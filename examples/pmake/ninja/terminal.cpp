#include "terminal.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <sys/ioctl.h>
#include <unistd.h>

namespace pmake {

terminal::terminal() {
  const char* kind = std::getenv("TERM");
  smart_ = ::isatty(STDOUT_FILENO) != 0 && kind != nullptr && std::strcmp(kind, "dumb") != 0;
  const char* forced = std::getenv("CLICOLOR_FORCE");
  color_ = smart_ || (forced != nullptr && std::strcmp(forced, "0") != 0);
}

void terminal::put(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void terminal::status(const std::string& text, bool whole) {
  if (lent_) {
    if (!smart_ && !held_status_.empty()) held_ += held_status_ + "\n"; // nothing writes over it
    held_status_ = text;
    held_whole_ = whole;
    return;
  }
  if (line_ == line::text) end_line();
  if (!smart_) {
    put(text + "\n");
    return;
  }
  winsize size = {};
  std::string shown = text;
  if (!whole && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    shown = shortened(text, size.ws_col);
  put("\r" + shown + "\x1B[K");
  if (whole) put("\n");
  line_ = whole ? line::blank : line::status;
}

void terminal::lines(std::string_view text) {
  if (lent_) {
    if (!held_status_.empty()) held_ += std::exchange(held_status_, {}) + "\n";
    held_ += text;
    return;
  }
  end_line();
  put(text);
  if (!text.empty() && text.back() != '\n') line_ = line::text;
}

void terminal::end_line() {
  if (std::exchange(line_, line::blank) != line::blank) put("\n");
}

void terminal::lend(bool lent) {
  if (lent == lent_) return;
  if (lent) {
    end_line();
    lent_ = true;
    return;
  }
  lent_ = false;
  if (!held_.empty()) lines(std::exchange(held_, {}));
  if (!held_status_.empty()) status(std::exchange(held_status_, {}), held_whole_);
}

std::string without_escapes(std::string_view text) {
  if (text.find('\x1B') == text.npos) return std::string(text);
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\x1B') {
      plain.push_back(text[i]);
      continue;
    }
    // Escape, bracket, parameters, a letter; other sequences go as far as their introducer.
    if (i + 1 >= text.size() || text[i + 1] != '[') continue;
    i += 2;
    while (i < text.size() && !((text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z')))
      ++i;
  }
  return plain;
}

std::string shortened(const std::string& text, std::size_t width) {
  static constexpr std::size_t dots = 3;
  if (text.size() <= width) return text;
  if (width <= dots) return std::string(width, '.');
  std::size_t half = (width - dots) / 2;
  return text.substr(0, half) + "..." + text.substr(text.size() - half);
}

} // namespace pmake
