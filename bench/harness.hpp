// What the benchmarks share: timing two things in turn, medians, and the rows they print.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <string>
#include <vector>

#include <time.h>

namespace bench {

using clock = std::chrono::steady_clock;

struct thread_clock {
  // The processor's time that the calling thread has used: for work that never leaves it, on a machine that others use.
  using duration = std::chrono::nanoseconds;
  using time_point = std::chrono::time_point<thread_clock>;
  static time_point now() {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time_point(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
  }
};

inline double nanoseconds(std::chrono::nanoseconds time) { return std::chrono::duration<double, std::nano>(time).count(); }

inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

inline double percentile(std::vector<double> values, double percent) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(percent / 100 * static_cast<double>(values.size() - 1))];
}

struct spread {
  double median = 0;
  double least = 0;
  double most = 0;
};

inline spread spread_of(const std::vector<double>& values) {
  if (values.empty()) return {};
  return {median(values), *std::min_element(values.begin(), values.end()),
          *std::max_element(values.begin(), values.end())};
}

struct comparison {
  spread mine, theirs, ratio;
};

template <class A, class B> comparison compare(int rounds, A&& mine, B&& theirs) {
  // Each returns its cost in any unit; the two run in turn and are divided round by round.
  std::vector<double> ours, others, ratios;
  mine();
  theirs();
  for (int i = 0; i < rounds; ++i) {
    ours.push_back(mine());
    others.push_back(theirs());
    ratios.push_back(ours.back() / others.back());
  }
  return {spread_of(ours), spread_of(others), spread_of(ratios)};
}

[[gnu::format(printf, 1, 2)]] inline std::string text(const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  return line;
}

inline bool row(const std::string& what, const std::string& measured, const std::string& to_reach, bool reached) {
  std::printf("%s | %s | %s | %s\n", what.c_str(), measured.c_str(), to_reach.c_str(), reached ? "ok" : "short");
  std::fflush(stdout);
  return reached;
}

inline void shown(const std::string& what, const std::string& measured) {
  std::printf("%s | %s | show | -\n", what.c_str(), measured.c_str());
  std::fflush(stdout);
}

inline bool ratio_row(const std::string& what, const comparison& result, double most, const char* unit,
                      double scale = 1) {
  return row(what,
             text("%.2f x (%.2f-%.2f; %.4g against %.4g %s)", result.ratio.median, result.ratio.least,
                  result.ratio.most, result.mine.median * scale, result.theirs.median * scale, unit),
             text("<= %.1f x", most), result.ratio.median <= most);
}

} // namespace bench
