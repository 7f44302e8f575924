// What tests of faults share: a file in which tasks write down what they do, whichever process they are in and whoever dies.
// Two runners of one task would both be seen there.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace migrate_test {

inline void touch(const std::string& text) {
  // The system's own calls do not fetch what is not there yet, for a user without rights: see docs/design.md.
  const volatile char* bytes = text.c_str();
  for (std::size_t i = 0; i <= text.size(); ++i) static_cast<void>(bytes[i]);
}

inline void note(const std::string& file, const std::string& line) {
  std::string text = line + "\n";
  touch(file), touch(text);
  int to = ::open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (to < 0 || ::write(to, text.data(), text.size()) < 0) std::abort();
  ::close(to);
}

inline bool is_there(const std::string& file) {
  touch(file);
  return ::access(file.c_str(), F_OK) == 0;
}

inline std::string wanted(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

inline std::vector<std::string> lines_of(const std::string& file) {
  std::vector<std::string> all;
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) all.push_back(line);
  return all;
}

inline std::string all_of(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& each : lines) text += each + "\n";
  return text;
}

inline std::string line_with(const std::vector<std::string>& lines, std::string_view beginning) {
  auto found = std::find_if(lines.begin(), lines.end(),
                            [&](const std::string& each) { return each.starts_with(beginning); });
  return found == lines.end() ? std::string() : *found;
}

inline bool becomes_true(const std::function<bool()>& condition,
                         std::chrono::seconds limit = std::chrono::seconds(30)) {
  // For files, which nobody tells a test of.
  for (auto until = std::chrono::steady_clock::now() + limit; !condition();) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

class written_words {
  // Memory that its task writes all the time, and of which it knows what must be there.
public:
  explicit written_words(std::size_t count) : words_(count) {
    for (std::size_t i = 0; i < count; ++i) words_[i] = i;
  }
  void write() {
    for (std::size_t i = turns_ % 7; i < words_.size(); i += 512 * 7) ++words_[i];
    ++turns_;
  }
  // One page in seven, others the next time.

  std::uint64_t wrong() {
    for (; turns_ > 0; --turns_)
      for (std::size_t i = (turns_ - 1) % 7; i < words_.size(); i += 512 * 7) --words_[i];
    std::uint64_t count = 0;
    for (std::size_t i = 0; i < words_.size(); ++i) count += words_[i] != i;
    return count;
  }
  // How many are not as they must be, once all that was written has been undone.

private:
  std::vector<std::uint64_t> words_;
  std::uint64_t turns_ = 0;
};

inline std::string said_twice(const std::vector<std::string>& lines) {
  std::map<std::string, int> count;
  for (const std::string& each : lines)
    if (++count[each] > 1) return each;
  return {};
}

} // namespace migrate_test
