// The processes of this machine, and who descends from whom.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <migrate/cluster/terminal_idle.hpp>
#include <migrate/store/directory.hpp>

namespace migrate::detail {

struct process_entry {
  pid_t id = 0, parent = 0, group = 0;
  char state = '?';
  std::uint32_t terminal = 0; // its controlling one; 0: none
  std::uint64_t threads = 0;
  std::uint64_t resident_pages = 0;
};

inline bool read_process(const std::string& proc, const std::string& id, process_entry& into) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen((proc + "/" + id + "/stat").c_str(), "re"),
                                                       &std::fclose);
  char line[1024];
  if (!file || std::fgets(line, sizeof line, file.get()) == nullptr) return false;
  const char* rest = std::strrchr(line, ')'); // the name before it may hold anything
  long long parent, group, terminal, threads, resident;
  if (rest == nullptr ||
      std::sscanf(
          rest + 1,
          " %c %lld %lld %*d %lld %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %lld %*d %*u %*u %lld",
          &into.state, &parent, &group, &terminal, &threads, &resident) != 6)
    return false;
  into.id = static_cast<pid_t>(std::strtol(line, nullptr, 10));
  into.parent = static_cast<pid_t>(parent);
  into.group = static_cast<pid_t>(group);
  into.terminal = static_cast<std::uint32_t>(terminal);
  into.threads = static_cast<std::uint64_t>(threads);
  into.resident_pages = static_cast<std::uint64_t>(resident);
  return true;
}
// Follows proc(5), /proc/PID/stat. False: it has ended.

class process_tree {
public:
  explicit process_tree(std::string proc = "/proc") : proc_(std::move(proc)) {
    for_each_name(AT_FDCWD, proc_.c_str(), [&](std::string_view name) {
      process_entry one;
      if (parse_number(name, 1u << 30) && read_process(proc_, std::string(name), one)) {
        children_.emplace(one.parent, one.id);
        all_.emplace(one.id, one);
      }
    });
  }
  // What there was while it was read: a process that begins meanwhile may be missing.

  std::vector<process_entry> descendants(pid_t of) const {
    std::vector<process_entry> found;
    std::set<pid_t> known{of}; // an id that was used again meanwhile may make a circle
    std::vector<pid_t> todo{of};
    while (!todo.empty()) {
      pid_t next = todo.back();
      todo.pop_back();
      for (auto [at, end] = children_.equal_range(next); at != end; ++at) {
        if (!known.insert(at->second).second) continue;
        found.push_back(all_.at(at->second));
        todo.push_back(at->second);
      }
    }
    return found;
  }
  // Without `of` itself.

  const std::map<pid_t, process_entry>& all() const { return all_; }

  unsigned running_threads(const process_entry& of) const {
    // In state R, as the run queue in /proc/loadavg counts them.
    if (of.threads <= 1) return of.state == 'R';
    unsigned running = 0;
    std::string tasks = proc_ + "/" + std::to_string(of.id) + "/task";
    for_each_name(AT_FDCWD, tasks.c_str(), [&](std::string_view name) {
      process_entry one;
      if (read_process(tasks, std::string(name), one)) running += one.state == 'R';
    });
    return running;
  }

private:
  std::string proc_;
  std::map<pid_t, process_entry> all_;
  std::multimap<pid_t, pid_t> children_;
};

inline std::vector<process_entry> descendants_of(pid_t root, const std::string& proc = "/proc") {
  // The same from the kernel's lists of children where it has them, so that it costs nothing for all other processes.
  // Follows proc(5), /proc/PID/task/TID/children.
  std::vector<process_entry> found;
  std::set<pid_t> known{root};
  std::vector<pid_t> todo{root};
  while (!todo.empty()) {
    std::string tasks = proc + "/" + std::to_string(todo.back()) + "/task";
    todo.pop_back();
    bool lists = true;
    for_each_name(AT_FDCWD, tasks.c_str(), [&](std::string_view name) {
      std::string path = tasks + "/" + std::string(name) + "/children";
      std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"), &std::fclose);
      if (!file) lists = lists && ::access((tasks + "/" + std::string(name)).c_str(), F_OK) != 0;
      int id;
      while (file && std::fscanf(file.get(), "%d", &id) == 1) {
        process_entry one;
        if (!known.insert(id).second || !read_process(proc, std::to_string(id), one)) continue;
        found.push_back(one);
        todo.push_back(id);
      }
    });
    if (!lists) return process_tree(proc).descendants(root);
  }
  return found;
}

struct foreign_use {
  unsigned running = 0; // threads
  std::uint64_t resident_bytes = 0;
  std::set<std::string, std::less<>> terminals; // that only borrowers' programs have
};

inline foreign_use use_of(const process_tree& tree, const std::vector<pid_t>& roots) {
  // What all descendants of these processes use.
  foreign_use made;
  std::set<pid_t> foreign;
  std::set<std::uint32_t> theirs;
  for (pid_t root : roots)
    for (const process_entry& each : tree.descendants(root)) {
      if (!foreign.insert(each.id).second) continue;
      made.running += tree.running_threads(each);
      made.resident_bytes += each.resident_pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
      theirs.insert(each.terminal);
    }
  for (const auto& [id, each] : tree.all())
    if (!foreign.contains(id)) theirs.erase(each.terminal);
  for (std::uint32_t each : theirs)
    if (std::string name = terminal_name(each); !name.empty()) made.terminals.insert(std::move(name));
  return made;
}

} // namespace migrate::detail
