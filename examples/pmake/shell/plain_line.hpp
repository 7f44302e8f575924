// A line of a recipe that needs no shell: one command of words that mean themselves.
#pragma once

#include <cstddef>
#include <cstring>

namespace pmake {

// By which characters and first words GNU make tells that it needs one (its manual, 5.3.1 and 5.3): such a line it starts itself.
inline bool needs_a_shell(const char* line) {
  static constexpr const char* words_of_the_shell[] = {
      ".",     ":",      "alias",  "bg",       "break",  "case", "cd",      "command", "continue", "eval",
      "exec",  "exit",   "export", "fc",       "fg",     "for",  "getopts", "hash",    "if",       "jobs",
      "login", "logout", "read",   "readonly", "return", "set",  "shift",   "test",    "times",    "trap",
      "type",  "ulimit", "umask",  "unalias",  "unset",  "wait", "while",   "until",   "!",        "{"};
  if (std::strpbrk(line, "#;\"'\\*?[]&|<>(){}$`^~!\n") != nullptr) return true;
  line += std::strspn(line, " \t");
  std::size_t size = std::strcspn(line, " \t");
  if (size == 0 || std::memchr(line, '=', size) != nullptr) return true;
  for (const char* each : words_of_the_shell)
    if (std::strlen(each) == size && std::memcmp(each, line, size) == 0) return true;
  return false;
}

// Ends each word of `line` by a zero byte and lists them, with a null pointer behind the last. False, with `line` as it
// was, when it needs a shell or has more than `most - 1` words.
inline bool split_plain_line(char* line, char** words, std::size_t most) {
  if (needs_a_shell(line)) return false;
  std::size_t count = 0;
  for (const char* at = line + std::strspn(line, " \t"); *at != '\0'; at += std::strspn(at, " \t")) {
    ++count;
    at += std::strcspn(at, " \t");
  }
  if (count >= most) return false;
  char* at = line + std::strspn(line, " \t");
  for (std::size_t i = 0; i < count; ++i) {
    words[i] = at;
    at += std::strcspn(at, " \t");
    std::size_t blanks = std::strspn(at, " \t");
    if (blanks > 0) *at = '\0';
    at += blanks;
  }
  words[count] = nullptr;
  return true;
}

} // namespace pmake
