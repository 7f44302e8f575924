// How long nobody has used this machine: the minimum over all that can tell.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <migrate/cluster/idle_source.hpp>
#include <migrate/cluster/owner_word.hpp>

namespace migrate::detail {

struct idleness {
  idle_time idle{};                 // at least
  std::string decided_by;           // the source with the least
  bool seat_unwatched = false;      // a graphical seat, and nothing that sees whether somebody sits there
  std::vector<idle_answer> answers; // of every source
};

inline bool has_graphical_seat(const std::string& proc = "/proc") {
  // Whether a display server listens: every one of X11 has a socket /tmp/.X11-unix/X<n>, every one of Wayland a
  // wayland-<n> in somebody's runtime directory. Yes when that cannot be found out.
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen((proc + "/net/unix").c_str(), "re"),
                                                       &std::fclose);
  if (!file) return true;
  char line[512];
  while (std::fgets(line, sizeof line, file.get()) != nullptr) {
    std::string_view text(line);
    if (text.find("/.X11-unix/X") != text.npos || text.find("/wayland-") != text.npos) return true;
  }
  return false;
}

class idle_watch {
  // Thread safety: none.

public:
  explicit idle_watch(std::string proc = "/proc") : proc_(std::move(proc)) {}

  void add(std::shared_ptr<idle_source> source) { sources_.push_back({std::move(source), {}}); }

  owner_word& owner() { return *word_; }

  idleness look(const moment& now) {
    idleness made;
    std::vector<idle_answer> counted, hints;
    bool watched = false;
    for (watched_source& each : sources_) {
      idle_answer answer = each.source->look(now);
      bool hint = each.source->only_a_hint();
      if (answer.idle) {
        answer.idle = std::clamp(*answer.idle, idle_time::zero(), since_start(now));
        each.answered_as = answer.name;
        watched = watched || each.source->watches_seat();
        (hint ? hints : counted).push_back(answer);
      } else if (!each.answered_as.empty()) {
        // It may be a keyboard that was pulled out: somebody was there.
        if (!hint && each.source != word_)
          vanished_.note(now, each.answered_as + ", vanished", idle_time::zero());
        each.answered_as.clear();
      }
      made.answers.push_back(std::move(answer));
    }
    if (vanished_) counted.push_back({vanished_.name(), vanished_.ago(now), {}});
    bool unwatched = !watched && has_graphical_seat(proc_);
    made.seat_unwatched = unwatched && hints.empty();
    if (unwatched) counted.insert(counted.end(), hints.begin(), hints.end());

    made.idle = since_start(now);
    made.decided_by = counted.empty() ? "nothing that could tell" : "";
    for (const idle_answer& each : counted) {
      auto idle =
          word_->gone() && now.steady - *each.idle <= *word_->gone() + grace ? since_start(now) : *each.idle;
      if (!made.decided_by.empty() && idle >= made.idle) continue;
      made.idle = idle;
      made.decided_by = idle == *each.idle ? each.name : "the owner says free";
    }
    return made;
  }

  std::vector<int> awaited() const {
    std::vector<int> all;
    for (const watched_source& each : sources_) {
      auto some = each.source->awaited();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
  // Look again when one of them is readable.

private:
  struct watched_source {
    std::shared_ptr<idle_source> source;
    std::string answered_as; // empty: it has not, the last time
  };

  static constexpr std::chrono::seconds grace{2}; // for letting go of the key that ended `migrate free`

  static idle_time since_start(const moment& now) {
    return std::max(idle_time::zero(), now.steady.time_since_epoch());
  }

  std::string proc_;
  std::shared_ptr<owner_word> word_ = std::make_shared<owner_word>();
  std::vector<watched_source> sources_{{word_, {}}};
  last_activity vanished_;
};

} // namespace migrate::detail
