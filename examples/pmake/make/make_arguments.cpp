#include "make_arguments.hpp"

#include <algorithm>
#include <cstdlib>
#include <sstream>

namespace pmake {

namespace {

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

unsigned number_of(const std::string& text) {
  return static_cast<unsigned>(std::strtoul(text.c_str(), nullptr, 10));
}

} // namespace

make_arguments split_make_arguments(const std::vector<std::string>& given) {
  make_arguments result;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const std::string& each = given[i];
    bool has_next = i + 1 < given.size();
    if (each == "--") {
      result.rest.insert(result.rest.end(), given.begin() + static_cast<std::ptrdiff_t>(i), given.end());
      break;
    }
    if (each.rfind("--jobs", 0) == 0 && (each.size() == 6 || each[6] == '=')) {
      result.jobs = each.size() > 7 ? number_of(each.substr(7)) : 0;
      if (each.size() == 6 && has_next && is_number(given[i + 1])) result.jobs = number_of(given[++i]);
      continue;
    }
    if (each.size() < 2 || each[0] != '-' || each[1] == '-') {
      result.rest.push_back(each);
      continue;
    }
    // A cluster of letters, up to one that takes what follows.
    std::string kept = "-";
    for (std::size_t at = 1; at < each.size(); ++at) {
      char letter = each[at];
      std::string tail = each.substr(at + 1);
      if (letter == 'j') {
        std::size_t digits = std::min(tail.find_first_not_of("0123456789"), tail.size());
        result.jobs = digits > 0 ? number_of(tail.substr(0, digits)) : 0;
        if (tail.empty() && has_next && is_number(given[i + 1])) result.jobs = number_of(given[++i]);
        at += digits;
        continue;
      }
      kept.push_back(letter);
      if (std::string("CfIoW").find(letter) != std::string::npos) {
        if (tail.empty() && has_next) {
          result.rest.push_back(kept);
          kept = given[++i];
        } else {
          kept += tail;
        }
        break;
      }
      if (letter == 'l' || letter == 'O') {
        kept += tail;
        break;
      }
    }
    if (kept != "-") result.rest.push_back(kept);
  }
  return result;
}

std::string make_flags(const std::string& outer, const std::string& ours) {
  std::string flags, variables;
  std::istringstream words(outer);
  bool first = true;
  for (std::string word; words >> word; first = false) {
    if (word == "--") {
      std::getline(words, variables);
      variables = " --" + variables;
      break;
    }
    bool theirs = word.rfind("-j", 0) == 0 || word.rfind("--jobserver", 0) == 0;
    if (!theirs) flags += (first && word[0] != '-' ? "" : " ") + word;
  }
  return flags + " " + ours + variables;
}

} // namespace pmake
