#include "show_includes.hpp"

#include <algorithm>
#include <unordered_set>

namespace pmake {

namespace {

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

bool is_of_system(std::string_view path) {
  std::string lower = lower_case(path);
  return lower.find("program files") != lower.npos || lower.find("microsoft visual studio") != lower.npos;
}

bool names_source(std::string_view line) {
  std::string lower = lower_case(line);
  for (std::string_view ending : {".c", ".cc", ".cxx", ".cpp", ".c++"})
    if (lower.ends_with(ending)) return true;
  return false;
}

} // namespace

shown_includes filter_includes(std::string_view output, std::string_view prefix) {
  static constexpr std::string_view english = "Note: including file: ";
  if (prefix.empty()) prefix = english;
  shown_includes result;
  std::unordered_set<std::string> seen;
  bool any = false;
  while (!output.empty()) {
    std::size_t end = std::min(output.find_first_of("\r\n"), output.size());
    std::string_view line = output.substr(0, end);
    if (line.starts_with(prefix)) {
      any = true;
      line.remove_prefix(std::min(line.find_first_not_of(' ', prefix.size()), line.size()));
      if (!is_of_system(line) && seen.emplace(line).second) result.files.emplace_back(line);
    } else if (any || !names_source(line)) {
      result.rest.append(line).push_back('\n');
    }
    if (end < output.size() && output[end] == '\r') ++end;
    if (end < output.size() && output[end] == '\n') ++end;
    output.remove_prefix(end);
  }
  return result;
}

} // namespace pmake
