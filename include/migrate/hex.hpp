// Numbers in messages, as hexadecimal digits.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace migrate::detail {

inline std::string hex(std::uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

} // namespace migrate::detail
