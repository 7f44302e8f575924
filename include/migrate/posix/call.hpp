// From exceptions to errno.
#pragma once

#include <new>
#include <system_error>

#include <migrate/error.hpp>
#include <migrate/posix/errno.hpp>

namespace migrate::posix::detail {

inline int error_number(const std::error_code& code) noexcept {
  if (code.category() == std::generic_category() || code.category() == std::system_category()) return code.value();
  if (code == errc::not_in_task || code == errc::node_missing) return ENOSYS;
  if (code == errc::no_such_task) return ESRCH;
  if (code == errc::timed_out) return ETIMEDOUT;
  if (code == errc::region_exhausted) return ENOMEM;
  return EIO;
}
// EIO stands for what a manual page has no word for: home cannot be reached.

inline void set_error(int number) noexcept { errno = number; }

template <class R, class F> R call(R failed, F&& body) noexcept {
  try {
    return body();
  } catch (const std::system_error& refused) {
    set_error(error_number(refused.code()));
  } catch (const std::bad_alloc&) {
    set_error(ENOMEM);
  }
  return failed;
}
// What body() returns, or `failed` with errno set to the reason of what it throws.

} // namespace migrate::posix::detail
