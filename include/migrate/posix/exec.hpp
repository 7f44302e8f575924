// execve(2), exec(3), system(3).
#pragma once

#include <cerrno>
#include <cstdarg>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <migrate/posix/errors.hpp>
#include <migrate/program/becoming.hpp>

namespace migrate::posix {

namespace detail {

inline std::vector<std::string> words_of(char* const list[]) {
  std::vector<std::string> all;
  for (; list != nullptr && *list != nullptr; ++list) all.emplace_back(*list);
  return all;
}

inline int exec(const char* file, bool search, std::vector<std::string> arguments,
                std::optional<std::vector<std::string>> environment) noexcept {
  return posix_call([&]() -> long {
    std::string path = file;
    if (path.empty()) return -ENOENT;
    if (!search) path = migrate::detail::resolve(path);
    migrate::detail::failure failed =
        migrate::detail::running::become(std::move(path), std::move(arguments), std::move(environment));
    return -error_number(failed.code);
  });
}

} // namespace detail

// The calling task becomes the program: it keeps its id, its parent and group, its descriptors but those that are closed
// at exec, directory, umask, environment, timers, what signals it ignores and its mask, and it ends as the program does;
// handlers, mail and what at_exit() was given are gone. While the program runs the task cannot be moved, and what comes
// for the task by kill() is the program's. Returns -1 with errno when the program cannot be executed.

inline int execve(const char* path, char* const argv[], char* const envp[]) noexcept {
  return detail::exec(path, false, detail::words_of(argv), detail::words_of(envp));
}
inline int execv(const char* path, char* const argv[]) noexcept {
  return detail::exec(path, false, detail::words_of(argv), std::nullopt);
}
inline int execvp(const char* file, char* const argv[]) noexcept {
  return detail::exec(file, true, detail::words_of(argv), std::nullopt);
}
inline int execvpe(const char* file, char* const argv[], char* const envp[]) noexcept {
  return detail::exec(file, true, detail::words_of(argv), detail::words_of(envp));
}
// The last two look for a name without a slash in the PATH of the program's environment.

template <class... Words> int execl(const char* path, const char* first, const Words*... more) noexcept {
  const char* const all[] = {first, more...};
  return execv(path, const_cast<char* const*>(all));
}
template <class... Words> int execlp(const char* file, const char* first, const Words*... more) noexcept {
  const char* const all[] = {first, more...};
  return execvp(file, const_cast<char* const*>(all));
}
// The words end with static_cast<char*>(nullptr), as the manual wants it.

inline int system(const char* command) noexcept {
  if (command == nullptr) return 1; // there is a shell
  return detail::posix_call([&]() -> long { return migrate::detail::running::run_shell(command); });
}
// What wait(2) says of `sh -c command`. SIGINT and SIGQUIT are the command's alone meanwhile.

} // namespace migrate::posix
