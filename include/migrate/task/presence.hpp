// Memory that the kernel is about to touch for the running task.
#pragma once

#include <cstddef>
#include <cstdint>

#include <sys/uio.h>

#include <migrate/memory/address_plan.hpp>
#include <migrate/task/scheduler.hpp>

namespace migrate::detail {

[[gnu::cold, gnu::noinline]] inline void touch_pages(const void* from, std::size_t bytes) noexcept {
  if (bytes == 0 || !in_plan(from)) return;
  const volatile char* at = static_cast<const char*>(from);
  const volatile char* const end = at + bytes;
  for (; at < end; at += page_size - reinterpret_cast<std::uintptr_t>(at) % page_size) static_cast<void>(*at);
}

inline void make_present(const void* from, std::size_t bytes) noexcept {
  if (resident* task = current_task(); task != nullptr && task->hides_pages.load(std::memory_order_relaxed)) [[unlikely]]
    touch_pages(from, bytes);
}
inline void make_present(const iovec* parts, int count) noexcept {
  if (resident* task = current_task(); task != nullptr && task->hides_pages.load(std::memory_order_relaxed)) [[unlikely]]
    for (int i = 0; i < count; ++i) touch_pages(parts[i].iov_base, parts[i].iov_len);
}
// Before a system call that reads or writes them. A task that was moved by reference may have pages elsewhere, and where
// userfaultfd serves programs only (see missing_pages) the call would fail with EFAULT.

} // namespace migrate::detail
