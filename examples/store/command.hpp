// migrate-store: looks into a store, verifies what is in it, and removes it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <ostream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include <migrate/store.hpp>

namespace migrate_store {

inline std::string size_text(std::uint64_t bytes) {
  static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(units); ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
  return text;
}

inline void print_table(std::ostream& out, const std::vector<migrate::stored_task>& tasks) {
  std::vector<std::vector<std::string>> rows{
      {"task", "newest", "generations", "files", "on disk", "image", "state"}};
  for (const migrate::stored_task& one : tasks)
    rows.push_back(
        {to_string(one.task), one.generations.empty() ? "-" : std::to_string(one.generations.back()),
         std::to_string(one.generations.size()), std::to_string(one.files), size_text(one.file_bytes),
         size_text(one.image_bytes), one.problem.empty() ? "good" : "damaged"});
  std::vector<std::size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      std::string gap(widths[i] - row[i].size(), ' ');
      bool words = i == 0 || i + 1 == row.size();
      line += (i > 0 ? "  " : "") + (words ? row[i] + gap : gap + row[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << '\n';
  }
}

inline int look(std::ostream& out, std::ostream& err, const std::string& path, const std::string& name,
                bool verify) {
  migrate::store_options options;
  options.read_only = true;
  migrate::store store = migrate::store::open(path, options);
  std::vector<migrate::stored_task> tasks;
  if (name.empty()) {
    tasks = store.list(verify);
  } else {
    migrate::task_id task = *migrate::detail::parse_task_id(name);
    tasks.push_back(store.examine(task, verify));
    if (tasks[0].files == 0) {
      err << "migrate-store: task " << name << " has no image in the store " << path << '\n';
      return 1;
    }
  }
  std::size_t damaged = 0;
  std::uint64_t bytes = 0;
  print_table(out, tasks);
  for (const migrate::stored_task& one : tasks) {
    bytes += one.file_bytes;
    if (one.problem.empty()) continue;
    ++damaged;
    err << "migrate-store: task " << to_string(one.task) << ": " << one.problem << '\n';
  }
  out << "store " << to_string(store.id()) << ": " << tasks.size()
      << (tasks.size() == 1 ? " task, " : " tasks, ") << size_text(bytes) << ", "
      << (verify ? "every page read, " : "") << damaged << " damaged\n";
  return damaged > 0 ? 1 : 0;
}

inline int remove(std::ostream& out, std::ostream& err, const std::string& path, const std::string& name) {
  migrate::store store = migrate::store::open(path);
  migrate::task_id task = *migrate::detail::parse_task_id(name);
  migrate::stored_task there = store.examine(task);
  if (there.files == 0) {
    err << "migrate-store: task " << name << " has no image in the store " << path << '\n';
    return 1;
  }
  store.remove(task);
  out << "removed task " << name << ": " << there.files << (there.files == 1 ? " file, " : " files, ")
      << size_text(there.file_bytes) << '\n';
  return 0;
}

inline int run(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err) {
  CLI::App app("Looks into a store of task images, verifies and removes them.\n"
               "Exit status: 0 all is well, 1 something is damaged or failed, 2 wrong usage.",
               "migrate-store");
  app.require_subcommand(1);
  std::string path, name;
  CLI::Validator is_task(
      [](std::string& text) -> std::string {
        return migrate::detail::parse_task_id(text)
                   ? ""
                   : text + " is no task id, which looks like 3.42 or 3.42.7";
      },
      "TASK");
  auto add = [&](const char* verb, const char* what) {
    CLI::App* command = app.add_subcommand(verb, what);
    command->add_option("DIR", path, "the store's directory")->required();
    return command;
  };
  CLI::App* list = add("list", "list the tasks that have images");
  list->add_option("TASK", name, "only this task")->check(is_task);
  CLI::App* verify = add("verify", "read and check every page of the newest images");
  verify->add_option("TASK", name, "only this task")->check(is_task);
  CLI::App* erase = add("remove", "remove every image of a task");
  erase->add_option("TASK", name, "the task")->required()->check(is_task);
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend()); // as CLI11 takes them
    app.parse(reversed);
  } catch (const CLI::ParseError& problem) {
    return app.exit(problem, out, err) == 0 ? 0 : 2;
  }
  try {
    if (erase->parsed()) return remove(out, err, path, name);
    return look(out, err, path, name, verify->parsed());
  } catch (const std::exception& problem) {
    err << "migrate-store: " << problem.what() << '\n';
    return 1;
  }
}

} // namespace migrate_store
