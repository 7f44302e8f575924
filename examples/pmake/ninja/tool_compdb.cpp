// -t compdb: how each file is compiled, for other tools.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include <unistd.h>

#include "disk.hpp"
#include "error.hpp"
#include "json.hpp"
#include "tool_functions.hpp"

namespace pmake {

namespace {

std::string with_response_file_expanded(const edge& of) {
  std::string command = value_of(of, symbol::command);
  std::string path = value_of(of, symbol::rspfile, quoting::none);
  if (path.empty()) return command;
  std::size_t at = command.find(path);
  if (at == command.npos || at == 0 || command[at - 1] != '@') return command;
  std::string content = value_of(of, symbol::rspfile_content);
  std::replace(content.begin(), content.end(), '\n', ' ');
  return command.replace(at - 1, path.size() + 1, content);
}

} // namespace

int tool_compdb(session& with) {
  bool expand = false;
  std::vector<std::string> rules;
  for (const std::string& each : with.line.tool_arguments) {
    if (each == "-x") {
      expand = true;
    } else if (each.size() > 1 && each[0] == '-') {
      std::printf("usage: ninja -t compdb [options] [rules]\n\noptions:\n"
                  "  -x     expand @rspfile style response file invocations\n");
      return 1;
    } else {
      rules.push_back(each);
    }
  }
  char* folder = ::getcwd(nullptr, 0);
  if (folder == nullptr) throw build_error("cannot determine working directory: " + reason_text(errno));
  std::string directory = json_escaped(folder);
  std::free(folder);
  std::printf("[");
  const char* between = "";
  for (const edge* each : with.files.edges) {
    if (each->inputs.empty()) continue;
    if (!rules.empty() && std::find(rules.begin(), rules.end(), each->how->name) == rules.end()) continue;
    std::string command = each->phony() ? ""
                          : expand      ? with_response_file_expanded(*each)
                                        : value_of(*each, symbol::command);
    std::printf("%s\n  {\n    \"directory\": \"%s\",\n    \"command\": \"%s\",\n    \"file\": \"%s\",\n"
                "    \"output\": \"%s\"\n  }",
                between, directory.c_str(), json_escaped(command).c_str(),
                json_escaped(each->inputs[0]->path()).c_str(),
                json_escaped(each->outputs[0]->path()).c_str());
    between = ",";
  }
  std::printf("\n]\n");
  return 0;
}

} // namespace pmake
