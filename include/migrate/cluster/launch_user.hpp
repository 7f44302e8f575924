// As whom nodes are run.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <vector>

#include <grp.h>
#include <pwd.h>
#include <sys/types.h>
#include <unistd.h>

#include <migrate/error.hpp>

namespace migrate::detail {

struct launch_user {
  uid_t id = 0;
  gid_t group = 0;
  std::vector<gid_t> groups;
  std::string name, home, shell;

  static launch_user own() {
    launch_user made;
    made.id = ::geteuid();
    made.group = ::getegid();
    std::vector<gid_t> groups(static_cast<std::size_t>(std::max(0, ::getgroups(0, nullptr))));
    int count = ::getgroups(static_cast<int>(groups.size()), groups.data());
    groups.resize(static_cast<std::size_t>(std::max(0, count)));
    made.groups = std::move(groups);
    if (const passwd* entry = ::getpwuid(made.id)) made.take_names(*entry);
    return made;
  }

  static launch_user named(const std::string& name) {
    // Throws when there is no such user.
    errno = 0;
    const passwd* entry = ::getpwnam(name.c_str());
    if (entry == nullptr)
      throw error(std::make_error_code(std::errc::invalid_argument),
                  "there is no user " + name + " on this machine" +
                      (errno != 0 ? std::string(": ") + std::strerror(errno) : "") +
                      "; name one to run nodes as");
    launch_user made;
    made.id = entry->pw_uid;
    made.group = entry->pw_gid;
    made.take_names(*entry);
    int count = 64;
    made.groups.resize(static_cast<std::size_t>(count));
    if (::getgrouplist(made.name.c_str(), made.group, made.groups.data(), &count) < 0) {
      made.groups.resize(static_cast<std::size_t>(count));
      ::getgrouplist(made.name.c_str(), made.group, made.groups.data(), &count);
    }
    made.groups.resize(static_cast<std::size_t>(std::max(0, count)));
    return made;
  }

  bool other_than_this_process() const { return id != ::geteuid() || ::geteuid() != ::getuid(); }

  void become() const {
    // For good. Throws when that is not allowed.
    if (::geteuid() == id && ::getuid() == id) return;
    if (::setgroups(groups.size(), groups.data()) != 0 || ::setresgid(group, group, group) != 0 ||
        ::setresuid(id, id, id) != 0)
      throw error(std::error_code(errno, std::system_category()),
                  "this process may not run nodes as user " + (name.empty() ? std::to_string(id) : name) +
                      ": " + std::strerror(errno) + "; start the agent as that user or as root");
  }

private:
  void take_names(const passwd& entry) {
    name = entry.pw_name;
    home = entry.pw_dir;
    shell = entry.pw_shell;
  }
};

} // namespace migrate::detail
