// How the engine reports what ends a build.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace pmake {

class build_error : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};
// Printed as "ninja: error: " and what(), with exit status 1.

class fatal_error : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};
// The same as "ninja: fatal: ".

[[gnu::format(printf, 1, 2)]] inline std::string formatted(const char* format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  int size = std::vsnprintf(nullptr, 0, format, arguments);
  va_end(arguments);
  std::string text(static_cast<std::size_t>(size > 0 ? size : 0), '\0');
  if (size > 0) std::vsnprintf(text.data(), text.size() + 1, format, again);
  va_end(again);
  return text;
}

} // namespace pmake
