#include "shell_of_makefile.hpp"

#include <fstream>
#include <map>
#include <sstream>

#include <unistd.h>

#include "../ninja/disk.hpp"
#include "../ninja/path.hpp"

namespace pmake {

namespace {

constexpr const char* usual = "/bin/sh";

std::string trimmed(const std::string& text) {
  std::size_t first = text.find_first_not_of(" \t"), last = text.find_last_not_of(" \t\r");
  return first == text.npos ? "" : text.substr(first, last - first + 1);
}

class makefile_reader {
public:
  void read(const std::string& path, int depth) {
    static constexpr int most_depth = 8;
    std::ifstream file(path);
    for (std::string line, more; depth < most_depth && std::getline(file, line);) {
      while (!line.empty() && line.back() == '\\' && std::getline(file, more)) {
        line.back() = ' ';
        line += more;
      }
      if (line.empty() || line[0] == '\t') continue;
      take(trimmed(line.substr(0, line.find('#'))), path, depth);
    }
  }
  const std::string& shell() const noexcept { return shell_; }

private:
  void take(std::string line, const std::string& path, int depth) {
    for (const char* word : {"-include ", "sinclude ", "include "})
      if (line.rfind(word, 0) == 0) {
        std::istringstream names(expanded(line.substr(std::string(word).size())));
        for (std::string name; names >> name;)
          read(name[0] == '/' || folder_of(path).empty() ? name : folder_of(path) + "/" + name, depth + 1);
        return;
      }
    for (const char* word : {"override ", "export "})
      if (line.rfind(word, 0) == 0) line = trimmed(line.substr(std::string(word).size()));
    std::size_t equals = line.find('=');
    if (equals == line.npos) return;
    std::string name = line.substr(0, equals), value = expanded(trimmed(line.substr(equals + 1)));
    while (!name.empty() && std::string(":?!+ \t").find(name.back()) != std::string::npos) name.pop_back();
    if (name.empty() || name.find_first_of(" \t:") != name.npos) return;
    if (name == "SHELL")
      take_shell(value);
    else
      values_[name] = value;
  }

  void take_shell(const std::string& value) {
    std::istringstream words(value);
    std::string first, option;
    if (value.find("$(") == value.npos && words >> first) {
      if (first.find('/') != first.npos && ::access(first.c_str(), X_OK) != 0)
        return; // one that is not there belongs to another system
      shell_ = first;
      while (words >> option) shell_ += " " + option;
      return;
    }
    if (value.find("bash") != value.npos) shell_ = "bash"; // $(shell which bash) and its like
  }

  std::string expanded(const std::string& text) const {
    std::string result;
    for (std::size_t at = 0; at < text.size();) {
      std::size_t close = text.find_first_of(")}", at);
      bool reference =
          text[at] == '$' && at + 1 < text.size() && (text[at + 1] == '(' || text[at + 1] == '{');
      auto known =
          reference && close != text.npos ? values_.find(text.substr(at + 2, close - at - 2)) : values_.end();
      if (known == values_.end()) {
        result.push_back(text[at++]);
      } else {
        result += known->second;
        at = close + 1;
      }
    }
    return result;
  }

  std::string shell_ = usual;
  std::map<std::string, std::string> values_;
};

} // namespace

std::string shell_in_makefile(const std::string& path) {
  makefile_reader reader;
  reader.read(path, 0);
  return reader.shell();
}

std::vector<std::string> makefiles_of(const std::vector<std::string>& command, const std::string& folder) {
  std::vector<std::string> found;
  auto add = [&](const std::string& name) { found.push_back(name[0] == '/' ? name : folder + "/" + name); };
  for (std::size_t i = 1; i < command.size(); ++i) {
    const std::string& each = command[i];
    if (each == "--") break;
    if ((each == "-f" || each == "--file" || each == "--makefile") && i + 1 < command.size())
      add(command[++i]);
    else if (each.rfind("-f", 0) == 0 && each.size() > 2)
      add(each.substr(2));
    else if (each.rfind("--file=", 0) == 0 || each.rfind("--makefile=", 0) == 0)
      add(each.substr(each.find('=') + 1));
  }
  for (const char* name : {"GNUmakefile", "makefile", "Makefile"})
    if (found.empty() && ::access((folder + "/" + name).c_str(), R_OK) == 0) add(name);
  return found;
}

std::string shell_for_make(pid_t make) {
  std::string process = "/proc/" + std::to_string(make);
  std::ifstream file(process + "/cmdline");
  std::vector<std::string> command;
  for (std::string word; std::getline(file, word, '\0');) command.push_back(word);
  char folder[4096];
  auto size = ::readlink((process + "/cwd").c_str(), folder, sizeof folder);
  if (size <= 0) return usual;
  std::string shell = usual;
  for (const std::string& each : makefiles_of(command, std::string(folder, static_cast<std::size_t>(size)))) {
    std::string wanted = shell_in_makefile(each);
    if (wanted != usual) shell = wanted;
  }
  return shell;
}

} // namespace pmake
