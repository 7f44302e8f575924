#include "make_arguments.hpp"

#include <algorithm>
#include <cstdlib>
#include <sstream>

namespace pmake {

namespace {

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool take_jobs(make_arguments& result, const std::string& value) {
  // False for what make does not take for a number of jobs: it then says so itself.
  bool counts = is_number(value) && value.find_first_not_of('0') != value.npos;
  if (!value.empty() && !counts) return false;
  result.jobs = static_cast<unsigned>(std::min(std::strtoul(value.c_str(), nullptr, 10), 1'000'000ul));
  return true;
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
    auto number_after = [&] { return has_next && is_number(given[i + 1]) ? given[++i] : std::string(); };
    if (each == "--jobs") {
      if (std::string value = number_after(); !take_jobs(result, value))
        result.rest.push_back(each + "=" + value);
      continue;
    }
    if (each.rfind("--jobs=", 0) == 0) {
      if (each.size() == 7 || !take_jobs(result, each.substr(7))) result.rest.push_back(each);
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
        std::string value = tail.empty() ? number_after() : tail;
        if (!take_jobs(result, value)) kept += letter + value;
        break;
      }
      kept.push_back(letter);
      if (std::string("CfIoW").find(letter) != std::string::npos) {
        if (tail.empty() && has_next) {
          result.rest.insert(result.rest.end(), {kept, given[++i]});
          kept = "-";
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
