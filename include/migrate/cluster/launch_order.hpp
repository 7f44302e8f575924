// What is to be started for a grant, and what becomes of it, as an agent and the wardens of its grants tell each other.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <migrate/cluster/executable.hpp>

namespace migrate::detail {

struct launch_limits {
  std::uint64_t memory_bytes = 0;  // of all processes of the grant; 0: none
  std::uint64_t scratch_bytes = 0; // of the files in its folder; 0: none
  unsigned processes = 0;          // and threads; 0: none
  int nice = 19;
  bool idle_only = true; // SCHED_IDLE: it runs when nothing else wants to
};

struct launch_order {
  std::uint64_t grant = 0;
  wanted_executable executable;
  std::vector<std::string> arguments;   // the program's name first
  std::vector<std::string> environment; // NAME=VALUE
  std::string directory;                // where it starts, if that is there
  launch_limits limits;
};

struct warden_report {
  enum class kind {
    started, // `process` runs; the text says how its limits are kept
    failed,  // it could not be started, and nothing is left; the text says why
    stuck,   // something does not die; the text says what
    gone,    // nothing is left; the text says how it ended
  };
  kind what = kind::gone;
  int process = 0;
  int status = 0; // as from waitpid, of what is gone
  std::string text;
  std::string last_words; // the end of what was printed
};

class text_fields {
  // A message as a row of texts, each with its length before it.

public:
  text_fields() = default;
  explicit text_fields(std::string bytes) : bytes_(std::move(bytes)) {}

  text_fields& put(std::string_view text) {
    bytes_ += std::to_string(text.size()) + ":";
    bytes_ += text;
    return *this;
  }
  text_fields& put(std::uint64_t number) { return put(std::string_view(std::to_string(number))); }
  text_fields& put(const std::vector<std::string>& list) {
    put(list.size());
    for (const std::string& each : list) put(each);
    return *this;
  }

  std::string text() {
    std::size_t size = 0;
    const char* end = bytes_.data() + bytes_.size();
    auto [colon, problem] = std::from_chars(bytes_.data() + at_, end, size);
    if (problem != std::errc() || colon == end || *colon != ':' ||
        size > static_cast<std::size_t>(end - colon - 1)) {
      good_ = false;
      return {};
    }
    at_ = static_cast<std::size_t>(colon + 1 - bytes_.data()) + size;
    return std::string(colon + 1, size);
  }
  std::uint64_t number() {
    std::string digits = text();
    std::uint64_t value = 0;
    auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (problem != std::errc() || end != digits.data() + digits.size()) good_ = false;
    return value;
  }
  std::vector<std::string> list() {
    std::vector<std::string> made;
    for (std::uint64_t left = number(); good_ && left > 0; --left) made.push_back(text());
    return made;
  }

  bool good() const { return good_; }
  // Whether all that was taken out was there.

  const std::string& bytes() const { return bytes_; }

private:
  std::string bytes_;
  std::size_t at_ = 0;
  bool good_ = true;
};

inline std::string encode(const launch_order& order) {
  text_fields out;
  out.put(order.grant)
      .put(to_string(order.executable.address))
      .put(order.executable.path)
      .put(order.executable.store);
  out.put(order.arguments).put(order.environment).put(order.directory);
  out.put(order.limits.memory_bytes).put(order.limits.scratch_bytes).put(order.limits.processes);
  out.put(static_cast<std::uint64_t>(order.limits.nice + 20)).put(order.limits.idle_only);
  return out.bytes();
}

inline std::optional<launch_order> decode_order(std::string bytes) {
  text_fields in(std::move(bytes));
  launch_order made;
  made.grant = in.number();
  auto address = parse_content_address(in.text());
  if (address) made.executable.address = *address;
  made.executable.path = in.text();
  made.executable.store = in.text();
  made.arguments = in.list();
  made.environment = in.list();
  made.directory = in.text();
  made.limits.memory_bytes = in.number();
  made.limits.scratch_bytes = in.number();
  made.limits.processes = static_cast<unsigned>(in.number());
  std::uint64_t nice = in.number();
  made.limits.nice = static_cast<int>(nice & 0x3f) - 20;
  made.limits.idle_only = in.number() != 0;
  return in.good() && address && nice < 40 ? std::optional(std::move(made)) : std::nullopt;
}

inline std::string encode(const warden_report& report) {
  text_fields out;
  out.put(static_cast<std::uint64_t>(report.what)).put(static_cast<std::uint64_t>(report.process));
  out.put(static_cast<std::uint64_t>(report.status)).put(report.text).put(report.last_words);
  return out.bytes();
}

inline std::optional<warden_report> decode_report(std::string bytes) {
  text_fields in(std::move(bytes));
  warden_report made;
  std::uint64_t what = in.number();
  made.what = static_cast<warden_report::kind>(what);
  made.process = static_cast<int>(in.number());
  made.status = static_cast<int>(in.number());
  made.text = in.text();
  made.last_words = in.text();
  return in.good() && what <= 3 ? std::optional(std::move(made)) : std::nullopt;
}

} // namespace migrate::detail
