// An owner's policy: when his machine may be lent, and when what runs there has to stop, may go on, and must leave.
#pragma once

#include <charconv>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <migrate/error.hpp>

namespace migrate::detail {

struct host_figures {
  double idle = 0;      // seconds since somebody last touched the machine
  double load1 = 0;     // of the owner's programs, for each processor, over 1 minute
  double load5 = 0;     //   5 minutes
  double load15 = 0;    //   15 minutes
  double busy = 0;      // seconds for which load1 has been above 0.5
  double memory = 0;    // percent of the last 10 seconds in which some program waited for memory
  double io = 0;        // for the disk
  double suspended = 0; // seconds for which foreign work has stood still here
};

struct figure_name {
  std::string_view name;
  double host_figures::*value;
};
inline constexpr figure_name figure_names[] = {
    {"idle", &host_figures::idle},   {"load1", &host_figures::load1},
    {"load5", &host_figures::load5}, {"load15", &host_figures::load15},
    {"busy", &host_figures::busy},   {"memory", &host_figures::memory},
    {"io", &host_figures::io},       {"suspended", &host_figures::suspended}};

class condition {
  // "idle>900,load1<0.3": comparisons of a figure with a number.

public:
  static condition parse(std::string_view text);
  // Throws std::errc::invalid_argument naming what is wrong. The empty text has no comparisons.

  bool all(const host_figures& now) const {
    for (const comparison& each : comparisons_)
      if (!each.holds(now)) return false;
    return true;
  }
  std::string first(const host_figures& now) const {
    for (const comparison& each : comparisons_)
      if (each.holds(now)) return each.text;
    return {};
  }
  // The first comparison that holds, as it was written; empty when none does.

  std::string first_not(const host_figures& now) const {
    for (const comparison& each : comparisons_)
      if (!each.holds(now)) return each.text;
    return {};
  }
  // The first that does not.

private:
  struct comparison {
    double host_figures::*figure;
    bool above, equal;
    double limit;
    std::string text;

    bool holds(const host_figures& now) const {
      double value = now.*figure;
      return (above ? value > limit : value < limit) || (equal && value == limit);
    }
  };
  std::vector<comparison> comparisons_;
};

inline condition condition::parse(std::string_view text) {
  auto fail = [&](std::string_view part) {
    std::string names;
    for (const figure_name& each : figure_names)
      names += (names.empty() ? "" : ", ") + std::string(each.name);
    return error(std::make_error_code(std::errc::invalid_argument),
                 "'" + std::string(part) + "' is no comparison; write as idle>900,load1<=0.3, with " + names);
  };
  condition made;
  while (!text.empty()) {
    std::string_view part = text.substr(0, text.find(','));
    text.remove_prefix(part.size() == text.size() ? part.size() : part.size() + 1);
    std::size_t sign = part.find_first_of("<>");
    if (sign == part.npos) throw fail(part);
    comparison one{nullptr, part[sign] == '>', part.substr(sign + 1).starts_with('='), 0, std::string(part)};
    for (const figure_name& each : figure_names)
      if (each.name == part.substr(0, sign)) one.figure = each.value;
    std::string_view limit = part.substr(sign + (one.equal ? 2 : 1));
    auto [end, problem] = std::from_chars(limit.data(), limit.data() + limit.size(), one.limit);
    if (one.figure == nullptr || problem != std::errc() || end != limit.data() + limit.size())
      throw fail(part);
    made.comparisons_.push_back(std::move(one));
  }
  return made;
}

struct owner_policy {
  // HTCondor's four words (Administrator's Manual, Policy Configuration for Execution Points).
  condition start;   // all hold: the machine may be lent
  condition suspend; // one holds: what runs here stands still
  condition go_on;   // all hold: it may go on ("continue")
  condition preempt; // one holds: it must leave

  static owner_policy desktop() {
    // HTCondor's for desktops: KeyboardIdle 15 minutes, load 0.3; CPU busy for 2 minutes; ContinueIdleTime 5 minutes.
    // But what stands still leaves at once, where HTCondor keeps it for 10 minutes: a move costs less than the memory.
    return {condition::parse("idle>900,load1<=0.3"), condition::parse("idle<60,busy>120,memory>20"),
            condition::parse("idle>300,load1<=0.3"), condition::parse("suspended>=0")};
  }
  static owner_policy sprite() {
    // Sprite's: nobody has touched it for 30 seconds. The load's limits are in load_limits.
    return {condition::parse("idle>=30"), condition::parse("idle<30,memory>20"), condition::parse("idle>=30"),
            condition::parse("suspended>=0")};
  }
};

class owner_decisions {
  // What follows from a policy as time passes. Thread safety: none.

public:
  enum class foreign_work {
    runs,    // or there is none
    stopped, // it stands still
    leaves,  // it must be gone soon; so it stays until all of it is
  };

  explicit owner_decisions(owner_policy policy) : policy_(std::move(policy)) {}

  struct circumstances {
    host_figures figures;     // but for `suspended`, which is counted here
    bool load_accepts = true; // see host_load
    bool seat_unwatched = false;
    bool lent = false; // foreign work is here
  };

  void look(std::chrono::steady_clock::time_point now, circumstances seen) {
    if (!seen.lent) work_ = foreign_work::runs;
    if (work_ == foreign_work::runs && seen.lent) {
      if (std::string why = seen.seat_unwatched ? unwatched : policy_.suspend.first(seen.figures);
          !why.empty()) {
        work_ = foreign_work::stopped;
        since_ = now;
        reason_ = why;
      }
    }
    if (work_ == foreign_work::stopped) {
      seen.figures.suspended = std::chrono::duration<double>(now - since_).count();
      if (seen.seat_unwatched || !policy_.preempt.first(seen.figures).empty())
        work_ = foreign_work::leaves;
      else if (policy_.go_on.all(seen.figures))
        work_ = foreign_work::runs;
    }
    std::string missing = policy_.start.first_not(seen.figures);
    std::string ending = seen.lent ? "" : policy_.suspend.first(seen.figures); // what came would stand still at once
    obstacle_ = work_ != foreign_work::runs ? reason_
                : seen.seat_unwatched       ? unwatched
                : !missing.empty()          ? "not " + missing
                : !ending.empty()           ? ending
                : !seen.load_accepts        ? "the load is too high"
                                            : "";
  }

  foreign_work work() const { return work_; }
  bool lendable() const { return obstacle_.empty(); }
  const std::string& obstacle() const { return obstacle_; }
  // Why it is not lendable: the comparison that decided, as the policy has it.

private:
  static constexpr const char* unwatched = "a graphical seat that nothing watches";

  owner_policy policy_;
  foreign_work work_ = foreign_work::runs;
  std::chrono::steady_clock::time_point since_{};
  std::string reason_, obstacle_ = "not looked at yet";
};

} // namespace migrate::detail
