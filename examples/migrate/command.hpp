// migrate: looks at hosts, programs and their tasks, moves a task, and tells this host's agent whether the host is in use.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "json.hpp"
#include "report.hpp"
#include "screen.hpp"
#include "sources.hpp"

namespace migrate_command {

struct settings {
  where_to_ask where;
  bool watch = false, json = false;
  double interval = 1;
  std::string task;
  unsigned node = 0;
  std::int64_t process = 0;
};

inline void complain(const std::string& text) { std::cerr << "migrate: " << printable(text) << '\n'; }

inline std::vector<std::string> status_text(const overview& all, terminal_size room, std::size_t rows) {
  std::vector<section> sections = sections_of(all, room.columns);
  if (rows > 0) fit(sections, rows);
  std::vector<std::string> lines = text_of(sections, room.columns > 0);
  if (all.empty()) {
    lines.push_back("No program with tasks, agent or host database of this user runs here.");
    lines.push_back("Others are named with --database and --agent.");
  }
  return lines;
}

inline int watch(sources& from, const settings& how) {
  const auto pause = std::chrono::milliseconds(static_cast<long>(how.interval * 1000));
  const bool terminal = size_of_output().columns > 0 && !how.json;
  quit_keys keys;
  std::optional<other_screen> screen;
  if (terminal) screen.emplace();
  for (;;) {
    overview all = from.look();
    auto due = std::chrono::steady_clock::now() + pause;
    bool again = true;
    while (again) {
      again = false;
      if (how.json) {
        std::cout << to_json(all).dump() << std::endl;
      } else if (terminal) {
        terminal_size room = size_of_output();
        std::vector<std::string> lines =
            status_text(all, room, room.rows - 1 - std::min(room.rows - 1, all.problems.size()));
        for (const std::string& each : all.problems) lines.push_back("! " + printable(each));
        for (std::string& each : lines)
          if (each.find('\033') == std::string::npos) each = cut(each, room.columns);
        lines.resize(std::min(lines.size(), room.rows - 1));
        lines.resize(room.rows - 1);
        lines.push_back("q quits");
        draw(lines);
      } else {
        for (const std::string& each : status_text(all, {}, 0)) std::cout << each << '\n';
        for (const std::string& each : all.problems) complain(each);
        std::cout << std::endl;
      }
      for (;;) {
        auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(due - std::chrono::steady_clock::now());
        auto came = keys.wait(std::max(left, std::chrono::milliseconds(0)));
        if (came == quit_keys::came::quit || !std::cout) return 0;
        if (came == quit_keys::came::redraw && terminal) again = true;
        if (came == quit_keys::came::nothing || again) break;
      }
    }
  }
}

inline int status(const settings& how) {
  sources from(how.where);
  if (how.watch) return watch(from, how);
  overview all = from.look();
  if (how.json) {
    std::cout << to_json(all).dump(2) << '\n';
  } else {
    for (const std::string& each : status_text(all, size_of_output(), 0)) std::cout << each << '\n';
    for (const std::string& each : all.problems) complain(each);
  }
  return all.problems.empty() ? 0 : 1;
}

// --- move --------------------------------------------------------------------------------------------

inline const task* find_task(const program& its, const std::string& wanted, std::string& why) {
  // By its number or, when one only has it, by its name.
  const task* found = nullptr;
  std::size_t named = 0;
  for (const task& each : its.tasks) {
    if (to_string(each.id) == wanted) return &each;
    if (each.name != wanted) continue;
    ++named;
    found = &each;
  }
  if (named > 1)
    why = std::to_string(named) + " tasks of " + its.title() + " are called " + wanted +
          "; give the number that `migrate status` shows";
  return named == 1 ? found : nullptr;
}

inline int move(const settings& how) {
  const std::string asked = "cannot move task " + how.task + " to node " + std::to_string(how.node) + ": ";
  sources from(how.where);
  overview all = from.look();
  struct candidate {
    const program* its;
    const task* what;
  };
  std::vector<candidate> found;
  std::string why;
  for (const program& each : all.programs) {
    if (how.process != 0 && each.process != how.process) continue;
    if (const task* one = find_task(each, how.task, why)) found.push_back({&each, one});
  }
  if (found.size() > 1) {
    std::string names;
    for (const candidate& each : found) names += (names.empty() ? "" : ", ") + each.its->title();
    complain(asked + "there is such a task in " + names + "; say which with --process");
    return 1;
  }
  if (found.empty()) {
    for (const std::string& each : all.problems) complain(each);
    if (why.empty())
      why = all.programs.empty() ? "no program with tasks of this user runs on this host"
            : how.process != 0
                ? "process " + std::to_string(how.process) + " has no such task; see `migrate status`"
                : "there is no such task; `migrate status` lists those there are";
    complain(asked + why);
    return 1;
  }
  const program& its = *found.front().its;
  const task& what = *found.front().what;
  for (const sources::answerer& each : from.reach(all.problems)) {
    if (each.over->peer().process != its.process || each.over->peer().role != HostRole::APPLICATION) continue;
    try {
      sources::ask(each, [&](migrate::protocol::HostMessage::Builder out) {
        auto order = out.initMoveTask();
        order.setTask(what.id.bits());
        order.setNode(static_cast<std::uint16_t>(how.node));
      });
    } catch (const migrate::error& problem) {
      complain(problem.what());
      return 1;
    }
    std::cout << "task " << to_string(what.id) << (what.name.empty() ? "" : " (" + printable(what.name) + ")")
              << " of " << printable(its.title()) << " is on node " << how.node << '\n';
    return 0;
  }
  complain(asked + its.title() + " has ended meanwhile");
  return 1;
}

// --- busy, free --------------------------------------------------------------------------------------

inline int tell_agent(const settings& how, bool busy) {
  const std::string asked =
      std::string("cannot tell the agent that this host is ") + (busy ? "busy" : "free") + ": ";
  sources from(how.where);
  std::vector<std::string> problems;
  std::size_t told = 0;
  for (const sources::answerer& each : from.reach(problems)) {
    if (each.over->peer().role != HostRole::AGENT) continue;
    if (!how.where.agent.empty() && each.address != how.where.agent) continue;
    try {
      sources::ask(each, [&](migrate::protocol::HostMessage::Builder out) {
        if (busy)
          out.setBusy();
        else
          out.setFree();
      });
      ++told;
      std::cout << "the agent of " << printable(each.over->peer().host) << " knows that it is "
                << (busy ? "busy" : "free") << '\n';
    } catch (const migrate::error& problem) {
      complain(asked + problem.what());
    }
  }
  if (told > 0) return 0;
  for (const std::string& each : problems) complain(asked + each);
  if (problems.empty())
    complain(
        asked +
        "no agent (migrate-hostd) of this user runs on this host; if it runs as root, so must this command");
  return 1;
}

inline int run(int argc, char** argv) {
  CLI::App app("Looks at hosts, programs and their tasks, and moves a task.", "migrate");
  settings how;
  if (const char* hosts = std::getenv("MIGRATE_HOSTS"))
    how.where.database = std::string(hosts, std::strcspn(hosts, ","));
  if (const char* keys = std::getenv("MIGRATE_CREDENTIALS")) how.where.credentials = keys;
  app.require_subcommand(1);
  app.add_option("--database", how.where.database,
                 "where a host database listens, HOST:PORT or unix:PATH (MIGRATE_HOSTS)");
  app.add_option("--agent", how.where.agent, "where an agent listens, the same");
  app.add_option("--credentials", how.where.credentials,
                 "directory made by migrate-credentials, for other machines (MIGRATE_CREDENTIALS)");
  app.fallthrough();
  app.footer("Programs, agents and databases of the same user on this host are found without being named.\n");

  auto* look =
      app.add_subcommand("status", "shows hosts, who holds them, nodes, tasks and what has happened");
  look->add_flag("--watch", how.watch, "again and again; q quits");
  look->add_option("--interval", how.interval, "seconds in between")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str();
  look->add_flag("--json", how.json, "for programs");

  auto* go = app.add_subcommand("move", "moves a task to a node");
  go->add_option("TASK", how.task, "its number or name, as `migrate status` shows them")->required();
  go->add_option("NODE", how.node, "the node's number")->required()->check(CLI::Range(1u, 65'535u));
  go->add_option("--process", how.process, "of the program whose task it is, when several have one");

  auto* busy = app.add_subcommand("busy", "takes this host back: what was lent to others leaves at once");
  app.add_subcommand("free", "lets this host be lent again");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    return app.exit(problem) == 0 ? 0 : 2;
  }
  ::signal(SIGPIPE, SIG_IGN);
  try {
    if (look->parsed()) return status(how);
    if (go->parsed()) return move(how);
    return tell_agent(how, busy->parsed());
  } catch (const std::exception& problem) {
    complain(problem.what());
    return 1;
  }
}

} // namespace migrate_command
