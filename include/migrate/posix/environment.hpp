// getenv(3), setenv(3), putenv(3), clearenv(3), environ(7).
#pragma once

#include <cstring>

#include <migrate/environment.hpp>
#include <migrate/posix/call.hpp>

namespace migrate::posix {

inline char* getenv(const char* name) noexcept {
  return detail::call<char*>(nullptr, [&] {
    return const_cast<char*>(migrate::detail::my_surroundings().environment.find(name));
  });
}

inline int setenv(const char* name, const char* value, int overwrite) noexcept {
  return detail::call(-1, [&] {
    migrate::detail::check_variable(name != nullptr ? name : "");
    auto& mine = migrate::detail::my_surroundings().environment;
    if (overwrite != 0 || mine.find(name) == nullptr) mine.set(name, value);
    return 0;
  });
}

inline int unsetenv(const char* name) noexcept {
  return detail::call(-1, [&] {
    unset_environment(name != nullptr ? name : "");
    return 0;
  });
}

inline int putenv(char* entry) noexcept {
  // As in glibc, an entry without '=' takes the variable away.
  return detail::call(-1, [&] {
    const char* equals = std::strchr(entry, '=');
    if (equals == nullptr) return unsetenv(entry);
    std::string_view name(entry, static_cast<std::size_t>(equals - entry));
    migrate::detail::check_variable(name);
    migrate::detail::my_surroundings().environment.put(name, entry, false);
    return 0;
  });
}
// The string becomes part of the environment: it must lie in the task's own memory, or be a constant of the program.

inline int clearenv() noexcept {
  return detail::call(-1, [] {
    migrate::detail::my_surroundings().environment.clear();
    return 0;
  });
}

inline char**& environ() {
  return *migrate::detail::my_surroundings().environment.address();
}
// What a POSIX program calls `environ`, as a function, since each task has its own. May be assigned to. Throws
// migrate::error where the others set errno.

} // namespace migrate::posix
