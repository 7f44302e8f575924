#include "lexer.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace pmake {

namespace {

enum : unsigned char { in_identifier = 1, in_simple = 2, ends_text = 4 };

constexpr auto kinds = [] {
  std::array<unsigned char, 256> table{};
  auto mark = [&](std::string_view characters, unsigned char bits) {
    for (char c : characters) table[static_cast<unsigned char>(c)] |= bits;
  };
  mark("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-", in_identifier | in_simple);
  mark(".", in_identifier);
  mark(std::string_view("$ :\r\n|\0", 7), ends_text);
  return table;
}();

bool is(char c, unsigned char kind) noexcept { return (kinds[static_cast<unsigned char>(c)] & kind) != 0; }

token keyword(std::string_view word) noexcept {
  switch (word[0]) {
  case 'b': return word == "build" ? token::build : token::identifier;
  case 'd': return word == "default" ? token::default_targets : token::identifier;
  case 'i': return word == "include" ? token::include : token::identifier;
  case 'p': return word == "pool" ? token::pool : token::identifier;
  case 'r': return word == "rule" ? token::rule : token::identifier;
  case 's': return word == "subninja" ? token::subninja : token::identifier;
  default: return token::identifier;
  }
}

} // namespace

const char* name_of(token what) noexcept {
  switch (what) {
  case token::error: return "lexing error";
  case token::build: return "'build'";
  case token::colon: return "':'";
  case token::default_targets: return "'default'";
  case token::equals: return "'='";
  case token::identifier: return "identifier";
  case token::include: return "'include'";
  case token::indent: return "indent";
  case token::newline: return "newline";
  case token::bar: return "'|'";
  case token::double_bar: return "'||'";
  case token::bar_at: return "'|@'";
  case token::pool: return "'pool'";
  case token::rule: return "'rule'";
  case token::subninja: return "'subninja'";
  case token::end: return "eof";
  }
  return "";
}

lexer::lexer(std::string_view file_name, std::string_view text) noexcept
    : file_name_(file_name), begin_(text.data()), end_(text.data() + text.size()), at_(begin_) {}

token lexer::next() {
  const char* p = at_;
  token found = token::error;
  for (;;) {
    last_ = p;
    const char* word = p;
    while (*word == ' ') ++word;
    if (*word == '#') { // a comment, when its line has an end
      const char* end = word + std::strcspn(word, "\n");
      if (*end == '\n') {
        p = end + 1;
        continue;
      }
    }
    if (*word == '\n' || (*word == '\r' && word[1] == '\n')) {
      at_ = word + (*word == '\r' ? 2 : 1);
      return token::newline;
    }
    if (word != p) {
      found = token::indent;
      p = word;
      break;
    }
    switch (*p) {
    case '\0': return token::end;
    case '=': found = token::equals, ++p; break;
    case ':': found = token::colon, ++p; break;
    case '|':
      ++p;
      found = *p == '@' ? token::bar_at : *p == '|' ? token::double_bar : token::bar;
      if (found != token::bar) ++p;
      break;
    default:
      if (is(*p, in_identifier)) {
        while (is(*p, in_identifier)) ++p;
        found = keyword({word, static_cast<std::size_t>(p - word)});
      } else {
        ++p;
      }
    }
    break;
  }
  at_ = p;
  skip_space();
  return found;
}

void lexer::skip_space() noexcept {
  for (;;) {
    if (*at_ == ' ')
      ++at_;
    else if (at_[0] == '$' && at_[1] == '\n')
      at_ += 2;
    else if (at_[0] == '$' && at_[1] == '\r' && at_[2] == '\n')
      at_ += 3;
    else
      return;
  }
}

bool lexer::peek(token wanted) {
  if (next() == wanted) return true;
  put_back();
  return false;
}

void lexer::expect(token wanted) {
  token found = next();
  if (found == wanted) return;
  std::string what = std::string("expected ") + name_of(wanted) + ", got " + name_of(found);
  if (wanted == token::colon) what += " ($ also escapes ':')";
  throw problem(what);
}

bool lexer::identifier(std::string_view& name) {
  last_ = at_;
  const char* end = at_;
  while (is(*end, in_identifier)) ++end;
  if (end == at_) return false;
  name = {at_, static_cast<std::size_t>(end - at_)};
  at_ = end;
  skip_space();
  return true;
}

raw_text lexer::path() { return read(true); }
raw_text lexer::value() { return read(false); }

raw_text lexer::read(bool as_path) {
  const char* p = at_;
  bool plain = true;
  const char* start = p;
  const char* end = p;
  for (;;) {
    start = p;
    while (!is(*p, ends_text)) ++p;
    if (p != start) continue;
    if (*p == '$') {
      plain = false;
      char c = p[1];
      if (c == '$' || c == ' ' || c == ':') {
        p += 2;
        continue;
      }
      if (c == '\n' || (c == '\r' && p[2] == '\n')) {
        p += c == '\n' ? 2 : 3;
        while (*p == ' ') ++p;
        continue;
      }
      if (is(c, in_simple)) {
        ++p;
        while (is(*p, in_simple)) ++p;
        continue;
      }
      const char* name = p + 2;
      if (c == '{') {
        while (is(*name, in_identifier)) ++name;
        if (name != p + 2 && *name == '}') {
          p = name + 1;
          continue;
        }
      }
      last_ = start;
      throw problem("bad $-escape (literal $ must be written as $$)");
    }
    if (*p == '\0') {
      last_ = start;
      throw problem("unexpected EOF");
    }
    bool line_ends = *p == '\n' || (*p == '\r' && p[1] == '\n');
    if (*p == '\r' && !line_ends) {
      last_ = start;
      throw word_problem();
    }
    end = p;
    if (line_ends || as_path) break;
    ++p; // ' ', ':' and '|' are as any other in a value
  }
  raw_text found{{at_, static_cast<std::size_t>(end - at_)}, plain};
  last_ = start;
  at_ = end;
  if (as_path)
    skip_space();
  else
    at_ += *end == '\r' ? 2 : 1;
  return found;
}

build_error lexer::word_problem() const {
  bool tab = last_ != nullptr && *last_ == '\t';
  return problem(tab ? "tabs are not allowed, use spaces" : "lexing error");
}

build_error lexer::problem(const std::string& what) const {
  static constexpr int most_columns = 72;
  const char* where = last_ != nullptr ? last_ : begin_;
  int line = 1;
  const char* line_start = begin_;
  for (const char* p = begin_; p < where; ++p) {
    if (*p != '\n') continue;
    ++line;
    line_start = p + 1;
  }
  std::string text = std::string(file_name_) + ":" + std::to_string(line) + ": " + what + "\n";
  auto column = static_cast<int>(where - line_start);
  if (column > 0 && column < most_columns) {
    int length = 0;
    while (length < most_columns && line_start[length] != '\0' && line_start[length] != '\n') ++length;
    text.append(line_start, static_cast<std::size_t>(length));
    if (length == most_columns) text += "...";
    text += "\n" + std::string(static_cast<std::size_t>(column), ' ') + "^ near here";
  }
  return build_error(text);
}

} // namespace pmake
