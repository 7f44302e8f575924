// As whom, and under what system's name, the running task acts.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

#include <migrate/file/surroundings.hpp>

namespace migrate {

// These are home's, wherever the task is. Nodes that run as another user or in other groups refuse each other when they
// connect, so what a task opens away from home is opened as the same identity. Where the task really is, is asked by
// this_task::node(). All throw migrate::error (errc::not_in_task, home_unreachable).

struct user_identity {
  uid_t user, effective_user;
  gid_t group, effective_group;
  std::vector<gid_t> groups; // supplementary
};

inline user_identity identity_of_task() {
  const auto& mine = detail::my_surroundings().identity;
  return {mine.user, mine.effective_user, mine.group, mine.effective_group, mine.groups};
}

inline std::string host_name() { return detail::my_surroundings().names.host; }

struct system_description {
  std::string system, host, release, version, machine;
};

inline system_description describe_system() {
  const auto& mine = detail::my_surroundings().names;
  return {mine.system, mine.host, mine.release, mine.version, mine.machine};
}
// As uname(2) gives it at home.

} // namespace migrate
