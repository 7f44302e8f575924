#include "recipe_call.hpp"

namespace pmake {

std::vector<std::string> recipe_words(std::string_view command) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  auto end_word = [&] {
    if (in_word) words.push_back(std::move(word));
    word.clear();
    in_word = false;
    return words.empty() || words.front() == recipe_program;
  };
  for (std::size_t at = 0; at < command.size(); ++at) {
    char c = command[at];
    if (c == ' ' || c == '\t') {
      if (!end_word()) return {};
      continue;
    }
    in_word = true;
    if (c == '\'' || c == '"') {
      std::size_t close = command.find(c, at + 1);
      if (close == command.npos) return {};
      std::string_view text = command.substr(at + 1, close - at - 1);
      if (c == '"' && text.find_first_of("\\$`") != text.npos) return {};
      word.append(text);
      at = close;
    } else if (c == '\\' && at + 1 < command.size()) {
      word.push_back(command[++at]);
    } else if (std::string_view("\n;&|<>()$`*?[#~\\").find(c) != std::string_view::npos) {
      return {};
    } else {
      word.push_back(c);
    }
  }
  end_word();
  if (words.size() < 2 || words.front() != recipe_program) return {};
  words.erase(words.begin());
  return words;
}

std::vector<std::string> command_words(const std::string& command) {
  std::vector<std::string> words = recipe_words(command);
  if (words.empty()) return {"/bin/sh", "-c", command};
  words.insert(words.begin(), {"/proc/self/exe", std::string("--") + recipe_program});
  return words;
}

} // namespace pmake
