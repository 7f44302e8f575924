// Control groups of Linux: limits on what a grant's processes use together, and their end all at once.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/store/descriptor.hpp>

namespace migrate::detail {

inline bool write_file(const std::string& path, const std::string& text) {
  descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct control_group_places {
  // Folders in which this process may make groups; empty: there is none. Version 1 has one for each of what is
  // limited, version 2 one for all; both may be there, with the limits in version 1.
  std::string unified;
  bool unified_limits = false; // memory and pids are in it
  std::string memory, pids, freezer;

  static control_group_places find(const std::string& proc = "/proc");
  // Beside this process's own groups, where its user may write. Moves this process into a group of its own when
  // version 2 has the limits, since a group with processes cannot hand them on. Follows cgroups(7).
};

class control_groups {
  // Of one grant. Not copied.

public:
  control_groups() = default;
  control_groups(const control_group_places& places, const std::string& name) {
    for (std::string control_group_places::*each :
         {&control_group_places::unified, &control_group_places::memory, &control_group_places::pids,
          &control_group_places::freezer}) {
      if ((places.*each).empty()) continue;
      std::string path = places.*each + "/" + name;
      if (::mkdir(path.c_str(), 0755) == 0 || errno == EEXIST) made_.*each = path;
    }
    made_.unified_limits = places.unified_limits;
  }
  // Makes its groups where that can be done.

  bool limit_memory(std::uint64_t bytes) const {
    std::string most = std::to_string(bytes);
    if (made_.unified_limits && write_file(made_.unified + "/memory.max", most)) {
      write_file(made_.unified + "/memory.swap.max", "0");
      write_file(made_.unified + "/memory.oom.group", "1");
      return true;
    }
    if (made_.memory.empty() || !write_file(made_.memory + "/memory.limit_in_bytes", most)) return false;
    write_file(made_.memory + "/memory.memsw.limit_in_bytes", most);
    return true;
  }
  bool limit_processes(unsigned most) const {
    for (const std::string& place : {made_.unified_limits ? made_.unified : std::string(), made_.pids})
      if (!place.empty() && write_file(place + "/pids.max", std::to_string(most))) return true;
    return false;
  }
  // False: not possible here.

  bool join() const {
    bool any = false;
    for (const std::string& path : all()) any = write_file(path + "/cgroup.procs", "0") || any;
    return any;
  }
  // Puts the calling process there.

  std::vector<pid_t> processes() const {
    std::vector<pid_t> found;
    for (const std::string& path : all()) {
      std::istringstream list(read_file(path + "/cgroup.procs"));
      for (pid_t id; list >> id;)
        if (id > 0 && std::find(found.begin(), found.end(), id) == found.end()) found.push_back(id);
    }
    return found;
  }

  bool freeze(bool still) const {
    if (!made_.unified.empty() && write_file(made_.unified + "/cgroup.freeze", still ? "1" : "0"))
      return true;
    return !made_.freezer.empty() &&
           write_file(made_.freezer + "/freezer.state", still ? "FROZEN" : "THAWED");
  }

  void kill() const {
    // Of a group that keeps forking some may be left; call it until processes() is empty.
    if (made_.unified.empty() || !write_file(made_.unified + "/cgroup.kill", "1"))
      for (pid_t id : processes()) ::kill(id, SIGKILL);
    freeze(false); // version 1's frozen ones do not die
  }

  bool out_of_memory() const {
    std::string events =
        read_file(made_.unified + "/memory.events") + read_file(made_.memory + "/memory.oom_control");
    std::istringstream lines(events);
    std::string word;
    std::uint64_t count;
    while (lines >> word >> count)
      if (word == "oom_kill" && count > 0) return true;
    return false;
  }
  // Whether one of its processes was killed over its limit.

  bool remove() const {
    bool gone = true;
    for (const std::string& path : all()) gone = (::rmdir(path.c_str()) == 0 || errno == ENOENT) && gone;
    return gone;
  }
  // False: something is left in it.

private:
  std::vector<std::string> all() const {
    std::vector<std::string> paths;
    for (const std::string& each : {made_.unified, made_.memory, made_.pids, made_.freezer})
      if (!each.empty()) paths.push_back(each);
    return paths;
  }

  control_group_places made_;
};

inline control_group_places control_group_places::find(const std::string& proc) {
  struct hierarchy {
    std::string root, mount, type, options;
  };
  std::vector<hierarchy> mounts;
  std::ifstream info(proc + "/self/mountinfo");
  for (std::string line; std::getline(info, line);) {
    std::size_t dash = line.find(" - ");
    if (dash == line.npos) continue;
    std::istringstream front(line.substr(0, dash)), back(line.substr(dash + 3));
    std::string skip;
    hierarchy one;
    front >> skip >> skip >> skip >> one.root >> one.mount;
    back >> one.type >> skip >> one.options;
    if (one.type == "cgroup" || one.type == "cgroup2") mounts.push_back(one);
  }
  std::string own = read_file(proc + "/self/cgroup");
  auto has = [](std::string_view list, std::string_view word) {
    while (!list.empty()) {
      std::size_t end = std::min(list.find_first_of(", \n"), list.size());
      if (list.substr(0, end) == word) return true;
      list.remove_prefix(std::min(end + 1, list.size()));
    }
    return false;
  };
  auto place = [&](std::string_view controller) -> std::string {
    // The own group's folder in the hierarchy of that controller of version 1; in version 2's when it is empty.
    std::string group;
    std::istringstream lines(own);
    for (std::string line; std::getline(lines, line);) {
      std::size_t first = line.find(':'), second = line.find(':', first + 1);
      if (second == line.npos) continue;
      std::string_view named = std::string_view(line).substr(first + 1, second - first - 1);
      if (controller.empty() ? line.starts_with("0:") && named.empty() : has(named, controller))
        group = line.substr(second + 1);
    }
    for (const hierarchy& each : mounts) {
      if (controller.empty() ? each.type != "cgroup2"
                             : each.type != "cgroup" || !has(each.options, controller))
        continue;
      if (group.empty() || (each.root != "/" && !group.starts_with(each.root))) continue;
      std::string below = each.root == "/" ? group : group.substr(each.root.size());
      std::string path = each.mount + (below == "/" ? "" : below);
      return ::access(path.c_str(), W_OK) == 0 && ::access((path + "/cgroup.procs").c_str(), W_OK) == 0 ? path
                                                                                                        : "";
    }
    return {};
  };
  control_group_places made;
  made.unified = place("");
  made.memory = place("memory");
  made.pids = place("pids");
  if (made.unified.empty()) made.freezer = place("freezer");
  if (made.unified.empty()) return made;
  std::string controllers = read_file(made.unified + "/cgroup.controllers");
  if (!has(controllers, "memory") || !has(controllers, "pids")) return made;
  auto enable = [&] { return write_file(made.unified + "/cgroup.subtree_control", "+memory +pids"); };
  made.unified_limits = enable();
  if (!made.unified_limits && errno == EBUSY) {
    std::string leaf = made.unified + "/migrate-agent";
    ::mkdir(leaf.c_str(), 0755);
    if (write_file(leaf + "/cgroup.procs", "0")) made.unified_limits = enable();
  }
  return made;
}

} // namespace migrate::detail
