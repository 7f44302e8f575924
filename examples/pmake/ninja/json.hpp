// Text inside JSON's quotes.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

namespace pmake {

inline std::string json_escaped(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    switch (c) {
    case '\b': escaped += "\\b"; break;
    case '\f': escaped += "\\f"; break;
    case '\n': escaped += "\\n"; break;
    case '\r': escaped += "\\r"; break;
    case '\t': escaped += "\\t"; break;
    case '"': escaped += "\\\""; break;
    case '\\': escaped += "\\\\"; break;
    default:
      if (static_cast<unsigned char>(c) < 0x20) {
        char code[8];
        std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
        escaped += code;
      } else {
        escaped.push_back(c);
      }
    }
  }
  return escaped;
}

} // namespace pmake
