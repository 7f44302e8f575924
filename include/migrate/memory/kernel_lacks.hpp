// What this process does without, although its kernel has it: for tests of what older kernels, and sandboxes, leave.
#pragma once

#include <cstdlib>
#include <string_view>

namespace migrate::detail {

inline bool kernel_lacks(std::string_view what) noexcept {
  const char* all = std::getenv("MIGRATE_KERNEL_LACKS");
  return all != nullptr && std::string_view(all).find(what) != std::string_view::npos;
}
// "async-wp": userfaultfd's asynchronous write protection, and PAGEMAP_SCAN's categories for it. "missing-pages":
// userfaultfd for pages that are not there.

} // namespace migrate::detail
