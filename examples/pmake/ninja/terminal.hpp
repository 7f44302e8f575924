// What is printed while a build runs: on a terminal one line that changes, elsewhere line after line.
#pragma once

#include <string>
#include <string_view>

namespace pmake {

class terminal {
public:
  terminal();
  terminal(const terminal&) = delete;
  terminal& operator=(const terminal&) = delete;

  bool smart() const noexcept { return smart_; }
  // Its line can be written over.
  bool color() const noexcept { return color_; }

  void status(const std::string& text, bool whole);
  // In place of the last status; shortened in the middle to the terminal's width, unless it is to be whole.
  void lines(std::string_view text);
  // Beginning on a line of its own.

  void lend(bool lent);
  // While the console is lent to a command, what is to be printed waits.

private:
  void put(std::string_view text);
  void end_line();

  bool smart_ = false, color_ = false;
  enum class line { blank, status, text } line_ = line::blank; // what the cursor stands behind
  bool lent_ = false;
  std::string held_; // printed when the console comes back
  std::string held_status_;
  bool held_whole_ = false;
};

std::string without_escapes(std::string_view text);
// Without what tells a terminal to change colours.

std::string shortened(const std::string& text, std::size_t width);

} // namespace pmake
