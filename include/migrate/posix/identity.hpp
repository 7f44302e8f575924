// getuid(2), getgid(2), getgroups(2), gethostname(2), uname(2).
#pragma once

#include <algorithm>
#include <cstring>

#include <sys/types.h>
#include <sys/utsname.h>

#include <migrate/identity.hpp>
#include <migrate/posix/call.hpp>

namespace migrate::posix {

// On a thread that runs no task these return -1 with errno ENOSYS, also where the manual page knows no error.

namespace detail {
inline const migrate::detail::identity_of_home& identity() { return migrate::detail::my_surroundings().identity; }
} // namespace detail

inline uid_t getuid() noexcept {
  return detail::call<uid_t>(static_cast<uid_t>(-1), [] { return detail::identity().user; });
}
inline uid_t geteuid() noexcept {
  return detail::call<uid_t>(static_cast<uid_t>(-1), [] { return detail::identity().effective_user; });
}
inline gid_t getgid() noexcept {
  return detail::call<gid_t>(static_cast<gid_t>(-1), [] { return detail::identity().group; });
}
inline gid_t getegid() noexcept {
  return detail::call<gid_t>(static_cast<gid_t>(-1), [] { return detail::identity().effective_group; });
}

inline int getgroups(int size, gid_t* list) noexcept {
  return detail::call(-1, [&] {
    const auto& groups = detail::identity().groups;
    int count = static_cast<int>(groups.size());
    if (size == 0) return count;
    if (size < count) throw std::system_error(EINVAL, std::generic_category());
    std::copy(groups.begin(), groups.end(), list);
    return count;
  });
}

inline int gethostname(char* name, std::size_t size) noexcept {
  return detail::call(-1, [&] {
    const std::string& host = migrate::detail::my_surroundings().names.host;
    std::memcpy(name, host.c_str(), std::min(size, host.size() + 1));
    if (host.size() + 1 > size) throw std::system_error(ENAMETOOLONG, std::generic_category());
    return 0;
  });
}

inline int uname(utsname* into) noexcept {
  return detail::call(-1, [&] {
    const auto& names = migrate::detail::my_surroundings().names;
    auto put = [](auto& field, const std::string& text) {
      std::memset(field, 0, sizeof field);
      text.copy(field, sizeof field - 1);
    };
    put(into->sysname, names.system);
    put(into->nodename, names.host);
    put(into->release, names.release);
    put(into->version, names.version);
    put(into->machine, names.machine);
    return 0;
  });
}

} // namespace migrate::posix
