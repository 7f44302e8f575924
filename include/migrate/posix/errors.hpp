// From results that are negative errno to errno.
#pragma once

#include <migrate/posix/call.hpp>
#include <migrate/task/services.hpp>
#include <migrate/task/this_task.hpp>

namespace migrate::posix::detail {

template <class T = int, class Call> T posix_call(Call&& body) {
  // body() returns the result, or a negative errno. On a thread that runs no task: ENOSYS.
  return call(T{-1}, [&] {
    long got = -ENOSYS;
    if (migrate::detail::the_services != nullptr && migrate::detail::current_task() != nullptr) got = body();
    if (got >= 0) return static_cast<T>(got);
    set_error(static_cast<int>(-got));
    return T{-1};
  });
}

} // namespace migrate::posix::detail
