// The status as a person reads it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "overview.hpp"
#include "table.hpp"

namespace migrate_command {

struct section {
  std::string title;
  std::vector<std::string> lines; // the first one has the columns' titles
  bool newest_last = false;       // which end is kept when there is no room for all
  std::string more;               // what is not listed at all
};

inline section hosts_section(const overview& all, std::size_t width) {
  using enum column::kind;
  table made({{"HOST", words, 8},
              {"STATE", words},
              {"IDLE", number},
              {"DECIDED BY", words, 10},
              {"OWN", number},
              {"LENT", number},
              {"PRESSURE", number},
              {"HELD", number},
              {"HELD BY", words, 7},
              {"WHY", words, 8}});
  std::size_t lendable = 0;
  for (const host& each : all.hosts) {
    std::string holders;
    for (const holder& one : each.holders)
      holders +=
          (holders.empty() ? "" : ", ") + one.application + (one.user.empty() ? "" : " of ") + one.user;
    lendable += each.lendable;
    constexpr std::uint64_t stale_ms = 180'000;
    made.add({each.name,
              each.age_ms > stale_ms ? "silent"
              : each.lendable        ? "lendable"
                                     : "not lent",
              time_text(each.idle_ms), each.source, load_text(each.load_own), load_text(each.load_foreign),
              each.pressure > 0 ? load_text(each.pressure) : "",
              std::to_string(each.holders.size()) + "/" + std::to_string(each.slots), holders, each.reason});
  }
  return {"Hosts: " + std::to_string(all.hosts.size()) + ", " + std::to_string(lendable) + " lendable",
          made.lines(width), false, ""};
}

inline section applications_section(const overview& all, std::size_t width) {
  using enum column::kind;
  table made({{"APPLICATION", words, 8},
              {"USER", words, 6},
              {"ON", words, 6},
              {"HOLDS", number},
              {"WANTS", number},
              {"AT LEAST", number},
              {"PRIORITY", number},
              {"", words}});
  for (const application& each : all.applications)
    made.add({each.name, each.user, each.host, std::to_string(each.held), std::to_string(each.wanted),
              each.least > 0 ? std::to_string(each.least) : "",
              each.priority != 0 ? std::to_string(each.priority) : "",
              each.long_running ? "long-running" : ""});
  return {"Applications that ask for hosts: " + std::to_string(all.applications.size()), made.lines(width),
          false, ""};
}

inline section nodes_section(const program& its, std::size_t width) {
  using enum column::kind;
  table made({{"NODE", number},
              {"HOST", words, 8},
              {"PROCESS", number},
              {"ADDRESS", words, 9},
              {"WORKERS", number},
              {"TASKS", number},
              {"STATE", words, 10}});
  for (const node& each : its.nodes)
    made.add({to_string(each.id), each.host, each.process != 0 ? std::to_string(each.process) : "",
              each.address, each.workers != 0 ? std::to_string(each.workers) : "", std::to_string(each.tasks),
              each.state});
  return {its.title() + " of " + its.user + ": " + std::to_string(its.nodes.size()) +
              (its.nodes.size() == 1 ? " node" : " nodes"),
          made.lines(width), false, ""};
}

inline section tasks_section(const program& its, std::size_t width) {
  using enum column::kind;
  table made({{"TASK", words},
              {"NAME", words, 6},
              {"HOME", number},
              {"ON", number},
              {"STATE", words, 8},
              {"MOVES", number},
              {"SIZE", number}});
  std::uint64_t in_all = 0;
  for (const node& each : its.nodes) in_all += each.tasks;
  for (const task& each : its.tasks)
    made.add({to_string(each.id), each.name, to_string(each.id.home()), to_string(each.place), each.state,
              std::to_string(each.moves), size_text(each.bytes)});
  std::size_t unlisted = in_all > its.tasks.size() ? in_all - its.tasks.size() : 0;
  return {"Its tasks: " + std::to_string(std::max<std::uint64_t>(in_all, its.tasks.size())),
          made.lines(width), false, unlisted > 0 ? "and " + std::to_string(unlisted) + " smaller ones" : ""};
}

inline section events_section(const overview& all, std::size_t width) {
  using enum column::kind;
  table made({{"AGO", number}, {"FROM", words, 12}, {"WHAT", words, 24}, {"REASON", words, 12}});
  bool several = std::any_of(all.events.begin(), all.events.end(),
                             [&](const event& each) { return each.origin != all.events.front().origin; });
  for (const event& each : all.events)
    made.add({time_text(each.age_ms), several ? each.origin : "", each.what, each.reason});
  return {"Events", made.lines(width), true, ""};
}

inline std::vector<section> sections_of(const overview& all, std::size_t width) {
  std::vector<section> made;
  if (!all.hosts.empty()) made.push_back(hosts_section(all, width));
  if (!all.applications.empty()) made.push_back(applications_section(all, width));
  for (const program& each : all.programs) {
    made.push_back(nodes_section(each, width));
    made.push_back(tasks_section(each, width));
  }
  if (!all.events.empty()) made.push_back(events_section(all, width));
  if (width > 0)
    for (section& each : made) each.title = cut(printable(each.title), width);
  return made;
}

inline void shorten(section& one, std::size_t rows) {
  // To so many rows below the columns' titles, of which the last may say how many are missing.
  std::size_t there = one.lines.empty() ? 0 : one.lines.size() - 1;
  if (there <= rows) return;
  std::size_t kept = rows > 0 ? rows - 1 : 0;
  std::string missing = std::to_string(there - kept) + (one.newest_last ? " older ones" : " more");
  auto first = one.lines.begin() + 1;
  if (one.newest_last)
    one.lines.erase(first, one.lines.end() - static_cast<std::ptrdiff_t>(kept));
  else
    one.lines.erase(first + static_cast<std::ptrdiff_t>(kept), one.lines.end());
  if (rows > 0) one.lines.insert(one.newest_last ? one.lines.begin() + 1 : one.lines.end(), "... " + missing);
}

inline void fit(std::vector<section>& all, std::size_t height) {
  // The longest give way first, none below a few rows.
  constexpr std::size_t few = 3;
  auto lines = [&] {
    std::size_t sum = 0;
    for (const section& each : all) sum += each.lines.size() + 2 + (each.more.empty() ? 0 : 1);
    return sum;
  };
  std::vector<std::size_t> rows;
  for (const section& each : all) rows.push_back(each.lines.empty() ? 0 : each.lines.size() - 1);
  std::size_t over = lines() > height ? lines() - height : 0;
  while (over > 0) {
    auto longest = std::max_element(rows.begin(), rows.end());
    if (longest == rows.end() || *longest <= few) break;
    --*longest;
    --over;
  }
  for (std::size_t i = 0; i < all.size(); ++i) shorten(all[i], rows[i]);
}

inline std::vector<std::string> text_of(const std::vector<section>& all, bool bold) {
  std::vector<std::string> made;
  for (const section& each : all) {
    if (!made.empty()) made.emplace_back();
    made.push_back(bold ? "\033[1m" + printable(each.title) + "\033[0m" : printable(each.title));
    made.insert(made.end(), each.lines.begin(), each.lines.end());
    if (!each.more.empty()) made.push_back(each.more);
  }
  return made;
}

} // namespace migrate_command
