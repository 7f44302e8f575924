// What a task finds around it and takes along: working directory, umask, environment, arguments, identity, names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <sys/types.h>
#include <sys/utsname.h>

#include <migrate/task/codec.hpp>
#include <migrate/task/services.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate::detail {

struct system_names {
  std::string system, host, release, version, machine;
  auto migrate_fields() { return std::tie(system, host, release, version, machine); }
};

struct identity_of_home {
  uid_t user = 0, effective_user = 0;
  gid_t group = 0, effective_group = 0;
  std::vector<gid_t> groups;
  auto migrate_fields() { return std::tie(user, effective_user, group, effective_group, groups); }
};

struct home_surroundings {
  std::string directory;
  mode_t mask = 0;
  int nice = 0;
  std::uint64_t open_files = 0; // how many a program may have that its tasks run
  std::string environment; // "NAME=value" each with a zero behind it
  std::vector<std::string> arguments;
  identity_of_home identity;
  system_names names;
  unsigned terminals = 0; // a bit for each of the standard streams

  static home_surroundings of_this_process(std::vector<std::string> arguments);
  // Not from a task. Throws std::system_error.
  auto migrate_fields() {
    return std::tie(directory, mask, nice, open_files, environment, arguments, identity, names, terminals);
  }
};
// What a task has that inherits from no other task: its home's, as they were when the home node started.

class environment_table {
public:
  explicit environment_table(std::string block) : block_(std::move(block)) {
    for (std::size_t at = 0; at < block_.size(); at += std::string_view(block_.data() + at).size() + 1)
      entries_.push_back({block_.data() + at, false});
    list();
  }
  environment_table(const environment_table& parent) : environment_table(parent.block()) {}
  environment_table& operator=(const environment_table&) = delete;
  ~environment_table() { clear(); }

  const char* find(std::string_view name) const noexcept {
    for (const char* const* at = current(); at != nullptr && *at != nullptr; ++at)
      if (names(*at, name)) return *at + name.size() + 1;
    return nullptr;
  }

  void set(std::string_view name, std::string_view value) {
    auto made = new char[name.size() + value.size() + 2];
    name.copy(made, name.size());
    made[name.size()] = '=';
    value.copy(made + name.size() + 1, value.size());
    made[name.size() + value.size() + 1] = 0;
    put(name, made, true);
  }

  void put(std::string_view name, char* entry, bool owned) {
    adopt();
    for (auto& each : entries_)
      if (names(each.text, name)) {
        discard(each);
        each = {entry, owned};
        list();
        return;
      }
    entries_.push_back({entry, owned});
    list();
  }

  void erase(std::string_view name) {
    adopt();
    std::erase_if(entries_, [&](const item& each) {
      if (!names(each.text, name)) return false;
      discard(each);
      return true;
    });
    list();
  }

  void clear() noexcept {
    for (const item& each : entries_) discard(each);
    entries_.clear();
    pointers_.assign(1, nullptr);
    exposed_ = pointers_.data();
  }

  char*** address() noexcept { return &exposed_; }
  // For `environ`: the list may be replaced there, as POSIX allows.

private:
  struct item {
    char* text;
    bool owned; // made by set()
  };

  static bool names(const char* entry, std::string_view name) noexcept {
    return std::string_view(entry).substr(0, name.size()) == name && entry[name.size()] == '=';
  }
  static void discard(const item& each) noexcept {
    if (each.owned) delete[] each.text;
  }

  const char* const* current() const noexcept { return exposed_; }

  void adopt() {
    // Somebody assigned to `environ` or to one of its entries: from now on those are the entries.
    bool same = exposed_ == pointers_.data();
    for (std::size_t i = 0; same && i < entries_.size(); ++i) same = exposed_[i] == entries_[i].text;
    if (same) return;
    std::vector<item> found;
    for (char** at = exposed_; at != nullptr && *at != nullptr; ++at) found.push_back({*at, false});
    entries_ = std::move(found);
  }

  void list() {
    pointers_.clear();
    for (const item& each : entries_) pointers_.push_back(each.text);
    pointers_.push_back(nullptr);
    exposed_ = pointers_.data();
  }

  std::string block() const {
    std::string all;
    for (const char* const* at = current(); at != nullptr && *at != nullptr; ++at) all.append(*at).push_back(0);
    return all;
  }

  std::string block_; // what was inherited, which the entries point into
  std::vector<item> entries_;
  std::vector<char*> pointers_;
  char** exposed_ = nullptr;
};
// In one task's heap; what it hands out stays valid until the same name is set again.

struct surroundings {
  std::string directory; // absolute
  mode_t mask;
  int nice;
  std::uint64_t open_files;
  environment_table environment;
  std::vector<std::string> arguments;
  identity_of_home identity;
  system_names names;
  unsigned terminals;

  explicit surroundings(const home_surroundings& home)
      : directory(home.directory), mask(home.mask), nice(home.nice), open_files(home.open_files),
        environment(home.environment), arguments(home.arguments), identity(home.identity), names(home.names),
        terminals(home.terminals) {}

  static void inherit(control_block& parent, control_block& child) {
    if (parent.process.around != nullptr) child.process.around = new surroundings(*parent.process.around);
  }
};

struct surroundings_services {
  failure (*of_home)(home_surroundings& into);
  // What the running task's home has for its tasks. May wait.
};
inline constinit const surroundings_services* the_surroundings = nullptr;

[[gnu::noinline]] inline surroundings& make_surroundings() {
  home_surroundings found;
  failure failed = the_surroundings->of_home(found);
  if (failed.code) throw error(failed.code, failed.what);
  auto* made = new surroundings(found);
  self().control->process.around = made;
  return *made;
}

inline surroundings& my_surroundings() {
  safe_point();
  surroundings* mine = self().control->process.around;
  return mine != nullptr ? *mine : make_surroundings();
}
// The running task's, which stay where they are when it moves. The first call may wait for home. Throws migrate::error:
// errc::not_in_task, home_unreachable.

} // namespace migrate::detail
