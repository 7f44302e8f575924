// Words of the manifest language.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "error.hpp"

namespace pmake {

enum class token : std::uint8_t {
  error,
  build,
  colon,
  default_targets,
  equals,
  identifier,
  include,
  indent,
  newline,
  bar,
  double_bar,
  bar_at,
  pool,
  rule,
  subninja,
  end
};

const char* name_of(token what) noexcept;

struct raw_text {
  std::string_view text; // as it stands in the file
  bool plain = true;     // it has no $: what stands there is what is meant
  bool empty() const noexcept { return text.empty(); }
};

class lexer {
public:
  lexer(std::string_view file_name, std::string_view text) noexcept;
  // The text is followed by a zero byte, where it ends.

  token next();
  bool peek(token wanted);
  // Takes it when it comes next.
  void put_back() noexcept { at_ = last_; }
  // The token that next() returned last.
  void expect(token wanted);
  // Throws build_error when something else comes.

  bool identifier(std::string_view& name);

  raw_text path();
  // One of a list: empty at the list's end.
  raw_text value();
  // To the end of the line, which is taken too.

  build_error problem(const std::string& what) const;
  // "FILE:LINE: what", and beneath it the line and where in it the last token begins.
  build_error word_problem() const;
  // What is wrong with the token that next() called an error.

private:
  raw_text read(bool as_path);
  void skip_space() noexcept;

  std::string_view file_name_;
  const char* begin_;
  const char* end_;
  const char* at_;
  const char* last_ = nullptr;
};

template <class Text, class Variable>
void for_each_piece(std::string_view raw, Text&& text, Variable&& variable) {
  // Calls text(std::string_view) and variable(std::string_view name) for the pieces of what a lexer has read. What
  // follows a $ has been checked by it.
  auto is_simple = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  for (std::size_t at = 0; at < raw.size();) {
    std::size_t dollar = raw.find('$', at);
    if (dollar != at) text(raw.substr(at, dollar - at));
    if (dollar == raw.npos) return;
    at = dollar + 1;
    char c = raw[at];
    if (c == '\r' || c == '\n') {
      at = raw.find_first_not_of(' ', at + (c == '\r' ? 2 : 1));
    } else if (c == '{') {
      std::size_t close = raw.find('}', at);
      variable(raw.substr(at + 1, close - at - 1));
      at = close + 1;
    } else if (is_simple(c)) {
      std::size_t end = at;
      while (end < raw.size() && is_simple(raw[end])) ++end;
      variable(raw.substr(at, end - at));
      at = end;
    } else { // $$, $: and an escaped space
      text(raw.substr(at, 1));
      ++at;
    }
  }
}

} // namespace pmake
