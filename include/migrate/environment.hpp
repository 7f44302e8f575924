// The running task's environment and arguments.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <migrate/file/surroundings.hpp>

namespace migrate {

namespace detail {
inline void check_variable(std::string_view name) {
  if (name.empty() || name.find('=') != name.npos || name.find('\0') != name.npos)
    throw std::system_error(std::make_error_code(std::errc::invalid_argument),
                            "an environment variable's name is not empty and has no '='");
}
} // namespace detail

// A task's environment is its own: a child task begins with a copy of its parent's, and a task without a parent with
// its home's as it was when the home node started. std::getenv and ::environ are the node's own, and mean another
// environment on each node.
//
// All of these throw migrate::error (errc::not_in_task; errc::home_unreachable, which only a task's first such call
// can), and the task may have moved when they return.

inline std::optional<std::string> get_environment(std::string_view name) {
  const char* value = detail::my_surroundings().environment.find(name);
  return value != nullptr ? std::optional<std::string>(value) : std::nullopt;
}

inline void set_environment(std::string_view name, std::string_view value) {
  detail::check_variable(name);
  detail::my_surroundings().environment.set(name, value);
}
// Throws std::system_error (invalid_argument) for an empty name or one with a '='.

inline void unset_environment(std::string_view name) {
  detail::check_variable(name);
  detail::my_surroundings().environment.erase(name);
}

inline const std::vector<std::string>& arguments() { return detail::my_surroundings().arguments; }
// Of the program, its name first, as the task's home node was started; without the node's own options.

} // namespace migrate
