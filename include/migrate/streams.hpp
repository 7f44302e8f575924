// Standard streams of the running task: what it prints appears at its home, what is typed there reaches it.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <iosfwd>
#include <istream>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>

#include <migrate/file/streams.hpp>

namespace migrate {

// A task's output appears on its home's standard output or error, in the order in which it was written, once, and whole
// line by line, wherever the task is and however often it moves meanwhile; all of it before the task's join() returns.
// Lines without an end are kept until they have one, or until flush() or the task's end, or until there are 4 KiB.
// std::cout, std::cerr, std::clog and std::cin lead to the same streams when a task uses them, and so does what printf
// and the like write to stdout.
//
// In a task only: others get migrate::error (errc::not_in_task). The task may have moved when any of these returns.

inline std::ostream& cout() { return detail::my_streams().cout; }
inline std::ostream& cerr() { return detail::my_streams().cerr; }
inline std::istream& cin() { return detail::my_streams().cin; }
// The task's own, which move with it, with their formatting. They stay valid until the task's end.

class output_stream {
public:
  explicit constexpr output_stream(bool error) noexcept : error_(error) {}

  template <class T> std::ostream& operator<<(const T& value) const { return stream() << value; }
  std::ostream& operator<<(std::ostream& (*manipulate)(std::ostream&)) const { return stream() << manipulate; }

  [[gnu::format(printf, 2, 3)]] void print(const char* format, ...) const {
    std::va_list arguments;
    va_start(arguments, format);
    vprint(format, arguments);
    va_end(arguments);
  }
  void vprint(const char* format, std::va_list arguments) const {
    std::va_list again;
    va_copy(again, arguments);
    char small[256];
    int size = std::vsnprintf(small, sizeof small, format, arguments);
    if (size < static_cast<int>(sizeof small)) {
      write({small, static_cast<std::size_t>(size < 0 ? 0 : size)});
    } else {
      std::string large(static_cast<std::size_t>(size), 0);
      std::vsnprintf(large.data(), large.size() + 1, format, again);
      write(large);
    }
    va_end(again);
  }
  // As printf(3).

  void write(std::string_view text) const {
    if (!stream().write(text.data(), static_cast<std::streamsize>(text.size())))
      throw error(errc::home_unreachable, "the task's output: its home cannot be reached, or cannot write it");
  }
  void flush() const { stream().flush(); }

private:
  std::ostream& stream() const { return error_ ? cerr() : cout(); }

  bool error_;
};
inline constexpr output_stream out{false};
inline constexpr output_stream err{true};
// The same streams, as objects that every task may use. What fails throws migrate::error (errc::home_unreachable) or,
// with <<, is seen in the stream's state.

[[gnu::format(printf, 1, 2)]] inline void print(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  out.vprint(format, arguments);
  va_end(arguments);
}

struct input_stream {
  std::optional<std::string> line() const {
    std::string text;
    if (!std::getline(cin(), text)) return std::nullopt;
    return text;
  }
  // Without its end; nothing at the end of the input.
};
inline constexpr input_stream in{};

} // namespace migrate
