#include "leaves_home.hpp"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <initializer_list>
#include <sstream>

#include <fnmatch.h>

#include "../ninja/disk.hpp"
#include "../ninja/error.hpp"

namespace pmake {

namespace {

constexpr const char* compilers[] = {"cc",
                                     "gcc",
                                     "g++",
                                     "c++",
                                     "clang",
                                     "clang++",
                                     "*-gcc",
                                     "*-g++",
                                     "gcc-[0-9]*",
                                     "g++-[0-9]*",
                                     "*-clang",
                                     "*-clang++",
                                     "*-gcc-*",
                                     "*-g++-*",
                                     "clang-[0-9]*",
                                     "clang++-[0-9]*",
                                     "gfortran",
                                     "*-gfortran",
                                     "gfortran-[0-9]*"};
constexpr const char* before_a_compiler[] = {"ccache", "env", "nice", "time", "libtool", "*-libtool"};
// Nothing in them is worth a move, and nothing is against it.
constexpr const char* beside_a_compiler[] = {
    ":",  "cd",    "echo", "printf", "true",   "false", "test", "[",   "mkdir", "mv",       "rm",     "cp",
    "ln", "touch", "set",  "unset",  "export", "umask", "sed",  "cat", "exit",  "basename", "dirname"};

template <class Patterns> bool matches(const Patterns& patterns, const std::string& name) {
  return std::any_of(std::begin(patterns), std::end(patterns),
                     [&](const auto& each) { return ::fnmatch(&each[0], name.c_str(), 0) == 0; });
}

std::string name_of(const std::string& word) { return word.substr(word.rfind('/') + 1); }

class line_reader {
public:
  explicit line_reader(std::string_view line) : line_(line) {}

  bool read(std::vector<std::vector<std::string>>& to) {
    commands_ = &to;
    while (at_ < line_.size() && understood_) step();
    end_command();
    return understood_;
  }

private:
  void step() {
    char c = line_[at_];
    if (c == ' ' || c == '\t') {
      end_word();
      ++at_;
    } else if (c == '\\' && at_ + 1 < line_.size()) {
      if (line_[at_ + 1] != '\n') take(line_[at_ + 1]);
      at_ += 2;
    } else if (c == '\'') {
      std::size_t close = line_.find('\'', at_ + 1);
      understood_ = close != line_.npos;
      if (understood_) take_text(line_.substr(at_ + 1, close - at_ - 1));
      at_ = close + 1;
    } else if (c == '"') {
      read_double_quotes();
    } else if (c == '`' || (c == '$' && next() == '(')) {
      read_substitution();
    } else if (c == '#' && !in_word_) {
      at_ = std::min(line_.find('\n', at_), line_.size());
    } else if (c == '<' || c == '>') {
      read_redirection();
    } else if (c == ';' || c == '&' || c == '|' || c == '\n' || c == '(' || c == ')') {
      end_command();
      ++at_;
    } else {
      take(c);
      ++at_;
    }
  }

  void read_double_quotes() {
    in_word_ = true;
    for (++at_; at_ < line_.size() && line_[at_] != '"';) {
      if (line_[at_] == '\\' && at_ + 1 < line_.size()) {
        take(line_[at_ + 1]);
        at_ += 2;
      } else if (line_[at_] == '`' || (line_[at_] == '$' && next() == '(')) {
        read_substitution();
      } else {
        take(line_[at_++]);
      }
    }
    understood_ = understood_ && at_ < line_.size();
    ++at_;
  }

  void read_substitution() {
    bool quotes = line_[at_] == '`';
    std::size_t begin = at_ + (quotes ? 1 : 2), end = begin;
    for (int open = 1; end < line_.size(); ++end) {
      if (quotes ? line_[end] == '`' : line_[end] == ')' && --open == 0) break;
      if (!quotes && line_[end] == '(') ++open;
    }
    understood_ = end < line_.size() && line_reader(line_.substr(begin, end - begin)).read(*commands_);
    in_word_ = true;
    at_ = end + 1;
  }

  void read_redirection() {
    if (line_.substr(at_, 2) == "<<" || next() == '(') {
      understood_ = false;
      return;
    }
    // A number before it is the descriptor's.
    if (in_word_ && std::all_of(word_.begin(), word_.end(), [](char c) { return c >= '0' && c <= '9'; }))
      word_.clear(), in_word_ = false;
    end_word();
    while (at_ < line_.size() &&
           (line_[at_] == '<' || line_[at_] == '>' || line_[at_] == '&' || line_[at_] == '|'))
      ++at_;
    while (at_ < line_.size() && line_[at_] == ' ') ++at_;
    redirected_ = true;
  }

  void take(char c) {
    in_word_ = true;
    word_.push_back(c);
  }
  void take_text(std::string_view text) {
    in_word_ = true;
    word_.append(text);
  }

  void end_word() {
    if (!in_word_) return;
    in_word_ = false;
    std::string word;
    word.swap(word_);
    if (redirected_) {
      redirected_ = false;
      return;
    }
    if (words_.empty()) {
      static constexpr const char* skipped[] = {"if", "then", "else", "elif", "fi", "!", "{", "}"};
      static constexpr const char* too_much[] = {"for",    "while", "until",    "case", "do",
                                                 "done",   "esac",  "function", "eval", ".",
                                                 "source", "exec",  "trap"};
      for (const char* each : too_much) understood_ = understood_ && word != each;
      for (const char* each : skipped)
        if (word == each) return;
      std::size_t equals = word.find('=');
      bool assignment =
          equals != word.npos && equals > 0 &&
          word.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == equals;
      if (assignment) return;
    }
    words_.push_back(std::move(word));
  }

  void end_command() {
    end_word();
    if (!words_.empty()) commands_->push_back(std::move(words_));
    words_.clear();
  }

  char next() const noexcept { return at_ + 1 < line_.size() ? line_[at_ + 1] : '\0'; }

  std::string_view line_;
  std::size_t at_ = 0;
  bool understood_ = true;
  bool in_word_ = false, redirected_ = false;
  std::string word_;
  std::vector<std::string> words_;
  std::vector<std::vector<std::string>>* commands_ = nullptr;
};

bool only_compiles(const std::vector<std::string>& words, std::size_t from) {
  return std::any_of(words.begin() + static_cast<std::ptrdiff_t>(from), words.end(),
                     [](const std::string& word) { return word == "-c" || word == "-S"; });
}

} // namespace

std::vector<std::vector<std::string>> simple_commands(std::string_view line, bool& understood) {
  std::vector<std::vector<std::string>> found;
  understood = line_reader(line).read(found);
  return found;
}

std::vector<std::string> outputs_named(std::string_view line) {
  bool understood = true;
  std::vector<std::string> found;
  for (const auto& words : simple_commands(line, understood)) {
    if (name_of(words[0]) == "cd") return {};
    for (std::size_t i = 1; i < words.size(); ++i) {
      if (words[i] == "-o" && i + 1 < words.size())
        found.push_back(words[++i]);
      else if (words[i].size() > 2 && words[i].rfind("-o", 0) == 0 && matches(compilers, name_of(words[0])))
        found.push_back(words[i].substr(2));
    }
  }
  if (!understood) return {};
  return found;
}

leaving_rules::leaving_rules() = default;

void leaving_rules::read(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw build_error("opening '" + path + "': " + reason_text(errno));
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string what, pattern, more;
    if (!(words >> what)) continue;
    bool leaves = what == "leave";
    if ((!leaves && what != "keep") || !(words >> pattern) || words >> more)
      throw build_error(path + ":" + std::to_string(number) + ": expected 'leave PATTERN' or 'keep PATTERN'");
    leaves ? let_leave(pattern) : keep(pattern);
  }
}

bool leaving_rules::may_leave(std::string_view line) const {
  bool understood = true, worth = false;
  for (const auto& words : simple_commands(line, understood)) {
    std::size_t at = 0;
    // Options and assignments of what stands before a compiler are passed over.
    while (at < words.size() &&
           (matches(before_a_compiler, name_of(words[at])) ||
            (at > 0 && (words[at][0] == '-' || words[at].find('=') != std::string::npos))))
      ++at;
    if (at == words.size()) return false;
    std::string name = name_of(words[at]);
    if (matches(kept_, name)) return false;
    if (matches(others_, name) || (matches(compilers, name) && only_compiles(words, at + 1)))
      worth = true;
    else if (!matches(beside_a_compiler, name))
      return false;
  }
  return understood && worth;
}

} // namespace pmake
