#include "status.hpp"

#include <algorithm>
#include <cstdlib>

#include "error.hpp"

namespace pmake {

namespace {

using clock = std::chrono::steady_clock;

constexpr const char* plain_format = "[%f/%t] ";
constexpr const char* shared_format = "[%f/%t, %r running, %H hosts, %F foreign] ";

} // namespace

status::status(terminal& to, verbosity how) : terminal_(to), how_(how), begin_(clock::now()) {
  const char* format = std::getenv("NINJA_STATUS");
  default_format_ = format == nullptr;
  format_ = default_format_ ? plain_format : format;
  progress(begin_);
}

void status::begin(unsigned parallel) {
  begin_ = clock::now();
  started_ = finished_ = running_ = 0;
  ends_.clear();
  window_ = std::max(1u, parallel);
}

void status::started(const edge& what) {
  ++started_;
  ++running_;
  if (what.on_console() || terminal_.smart()) print(what, clock::now());
  if (what.on_console()) terminal_.lend(true);
}

void status::finished(const finished_job& what, const capacity& others) {
  others_ = others;
  ++finished_;
  const edge& of = *what.what;
  if (of.on_console()) terminal_.lend(false);
  if (!of.on_console()) print(of, what.end);
  --running_;
  if (what.how != outcome::succeeded) {
    std::string names;
    for (const node* output : of.outputs) names += std::string(output->path()) + " ";
    terminal_.lines((terminal_.color() ? "\x1B[31mFAILED: \x1B[0m" : "FAILED: ") + names + "\n");
    terminal_.lines(value_of(of, symbol::command) + "\n");
  }
  if (!what.output.empty()) terminal_.lines(terminal_.color() ? what.output : without_escapes(what.output));
}

void status::end() {
  terminal_.lend(false);
  terminal_.lines("");
}

void status::print(const edge& what, clock::time_point when) {
  if (how_ == verbosity::quiet) return;
  bool whole = how_ == verbosity::verbose;
  std::string text = whole ? std::string() : value_of(what, symbol::description);
  if (text.empty()) text = value_of(what, symbol::command);
  terminal_.status(progress(when) + text, whole);
}

std::string status::progress(clock::time_point when) {
  if (default_format_ && others_.hosts > 0) format_ = shared_format;
  double seconds = std::chrono::duration<double>(when - begin_).count();
  auto rate = [](double count, double time) {
    return time > 0 ? formatted("%.1f", count / time) : std::string("?");
  };
  std::string text;
  for (std::size_t i = 0; i < format_.size(); ++i) {
    if (format_[i] != '%') {
      text.push_back(format_[i]);
      continue;
    }
    char what = i + 1 < format_.size() ? format_[++i] : '\0';
    switch (what) {
    case '%': text.push_back('%'); break;
    case 's': text += std::to_string(started_); break;
    case 't': text += std::to_string(total_); break;
    case 'r': text += std::to_string(running_); break;
    case 'u': text += std::to_string(total_ - std::min(total_, started_)); break;
    case 'f': text += std::to_string(finished_); break;
    case 'p': text += formatted("%3zu%%", total_ > 0 ? 100 * finished_ / total_ : 0); break;
    case 'e': text += formatted("%.3f", seconds); break;
    case 'o': text += rate(static_cast<double>(finished_), seconds); break;
    case 'c':
      if (ends_.empty() || ends_.back() != seconds) ends_.push_back(seconds);
      while (ends_.size() > window_) ends_.pop_front();
      text += rate(static_cast<double>(ends_.size()), ends_.back() - ends_.front());
      break;
    case 'H': text += std::to_string(others_.hosts); break;
    case 'F': text += std::to_string(others_.foreign); break;
    default: throw fatal_error(formatted("unknown placeholder '%%%c' in $NINJA_STATUS", what));
    }
  }
  return text;
}

} // namespace pmake
