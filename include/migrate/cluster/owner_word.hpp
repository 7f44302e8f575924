// What the owner says himself, by `migrate busy` and `migrate free`, or in a file.
#pragma once

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <migrate/cluster/idle_source.hpp>

namespace migrate::detail {

class owner_word final : public idle_source {
public:
  void say_busy(const moment&) {
    busy_ = true;
    gone_.reset();
  }
  // The machine is in use until he says that it is free.

  void say_free(const moment& now) {
    busy_ = false;
    gone_ = now.steady;
  }
  // He is going: what was touched until now does not count. What is touched later does.

  bool busy() const { return busy_; }
  std::optional<std::chrono::steady_clock::time_point> gone() const { return gone_; }

  idle_answer look(const moment&) override {
    if (busy_) return {"the owner says busy", idle_time::zero(), {}};
    return {"the owner's word", {}, "he has said nothing"};
  }

private:
  bool busy_ = false;
  std::optional<std::chrono::steady_clock::time_point> gone_;
};

class file_idle final : public idle_source {
  // A file that holds "busy", "free", or for how many seconds nobody has used the machine. One that makes no sense
  // means busy; one that is not there says nothing.

public:
  explicit file_idle(std::string path) : path_(std::move(path)) {}

  idle_answer look(const moment& now) override {
    std::string name = "file " + path_;
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path_.c_str(), "re"), &std::fclose);
    if (!file) return {name, {}, errno == ENOENT ? "it is not there" : "it cannot be read"};
    char bytes[64];
    std::string_view text(bytes, std::fread(bytes, 1, sizeof bytes, file.get()));
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
    if (text == "busy") return {name, idle_time::zero(), {}};
    if (text == "free") return {name, now.steady.time_since_epoch(), {}};
    long seconds = -1;
    auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    if (problem != std::errc() || end != text.data() + text.size() || seconds < 0)
      return {name, idle_time::zero(),
              "'" + std::string(text) + "' is none of busy, free and a number of seconds"};
    constexpr long longest = 10L * 365 * 86'400;
    return {name, std::chrono::seconds(seconds < longest ? seconds : longest), {}};
  }

private:
  std::string path_;
};

} // namespace migrate::detail
