// How long nobody has used this machine, as one thing that an owner touches can tell.
#pragma once

#include <algorithm>
#include <chrono>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace migrate::detail {

struct moment {
  std::chrono::steady_clock::time_point steady;
  std::chrono::system_clock::time_point wall;

  static moment now() { return {std::chrono::steady_clock::now(), std::chrono::system_clock::now()}; }
};
// The same instant on both clocks. Time stamps of files are on the second, which may be set; all that is remembered
// is on the first, which starts with the machine.

using idle_time = std::chrono::steady_clock::duration;

struct idle_answer {
  std::string name;              // of the source, and of what decided within it: "terminal pts/3"
  std::optional<idle_time> idle; // none: the source cannot tell
  std::string problem;           // why it cannot, or what in its answer made no sense
};

class idle_source {
  // Thread safety: none; an agent asks all its sources on one thread.

public:
  virtual ~idle_source() = default;

  virtual idle_answer look(const moment& now) = 0;
  // Never throws and never blocks. A source that is not sure answers with less idle time rather than more.

  virtual bool watches_seat() const { return false; }
  // Whether it sees all that a person at the machine's own keyboard and screen does, as of the last look.

  virtual bool only_a_hint() const { return false; }
  // It counts only where a graphical seat has no source that watches it.

  virtual std::vector<int> awaited() const { return {}; }
  // Descriptors that become readable when it has news, as of the last look.
};

class last_activity {
  // The last time that something was touched, from the stamps that a source shows. It never goes back: what vanishes
  // was in use until then, and what is set back was in use when that was seen.

public:
  void note(const moment& now, std::string_view name, idle_time ago) {
    // Nothing was touched before the machine started, nor will be in future.
    ago = std::clamp(ago, idle_time::zero(), std::max(idle_time::zero(), now.steady.time_since_epoch()));
    auto when = now.steady - ago;
    if (when_ && when <= *when_) return;
    when_ = when;
    name_ = name;
  }

  void note_stamp(const moment& now, std::string_view name, const timespec& stamp,
                  std::optional<idle_time> changed_within = {}) {
    using namespace std::chrono;
    auto wall = floor<seconds>(now.wall.time_since_epoch());
    auto ago = idle_time::zero(); // of a stamp in the future
    if (stamp.tv_sec < wall.count() - longest.count())
      ago = longest;
    else if (stamp.tv_sec <= wall.count())
      ago = now.wall.time_since_epoch() - seconds(stamp.tv_sec) - nanoseconds(stamp.tv_nsec);
    if (changed_within) ago = std::min(ago, *changed_within);
    note(now, name, ago);
  }
  // A stamp that was another one `changed_within` ago was set since, whatever it says.

  explicit operator bool() const { return when_.has_value(); }
  idle_time ago(const moment& now) const { return std::max(idle_time::zero(), now.steady - *when_); }
  const std::string& name() const { return name_; }

private:
  static constexpr std::chrono::seconds longest = std::chrono::hours(24 * 365);

  std::optional<std::chrono::steady_clock::time_point> when_;
  std::string name_;
};

} // namespace migrate::detail
