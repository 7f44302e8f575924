// chdir(2), getcwd(3), umask(2).
#pragma once

#include <cstdlib>
#include <cstring>

#include <migrate/directory.hpp>
#include <migrate/posix/call.hpp>

namespace migrate::posix {

inline int chdir(const char* path) noexcept {
  return detail::call(-1, [&] {
    if (path == nullptr || *path == 0) throw std::system_error(ENOENT, std::generic_category());
    std::error_code code;
    change_directory(path, code);
    if (code) throw std::system_error(code);
    return 0;
  });
}

inline char* getcwd(char* buffer, std::size_t size) noexcept {
  return detail::call<char*>(nullptr, [&]() -> char* {
    const std::string& mine = migrate::detail::my_surroundings().directory;
    std::size_t needed = mine.size() + 1;
    if (buffer != nullptr && size == 0) throw std::system_error(EINVAL, std::generic_category());
    if (size != 0 && size < needed) throw std::system_error(ERANGE, std::generic_category());
    if (buffer == nullptr) buffer = static_cast<char*>(std::malloc(size != 0 ? size : needed));
    if (buffer == nullptr) throw std::bad_alloc();
    std::memcpy(buffer, mine.c_str(), needed);
    return buffer;
  });
}
// With a null buffer it allocates one by malloc, as in glibc; it moves with the task when the program includes
// migrate/malloc.hpp.

inline mode_t umask(mode_t taken_away) noexcept {
  return detail::call<mode_t>(0, [&] {
    return static_cast<mode_t>(file_mask(static_cast<std::filesystem::perms>(taken_away)));
  });
}
// umask(2) has no way to fail: on a thread that runs no task it returns 0 with errno set to ENOSYS, and does nothing.

} // namespace migrate::posix
