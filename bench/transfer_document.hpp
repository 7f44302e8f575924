// Tables inside a document that people write.
#pragma once

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

namespace document {

inline std::string first_cell(const std::string& row) {
  std::size_t end = row.find('|', 1);
  return row.substr(0, end);
}

inline void put_table(const std::string& path, const std::vector<std::string>& table,
                      bool keeps_others = false) {
  // In the place of the table with the same first line, if the file has one. keeps_others: of whose rows those stay that the new one
  // has nothing about, since another program printed them.
  std::ifstream in(path);
  if (!in || table.size() < 3) return;
  std::vector<std::string> lines, made;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  for (std::size_t at = 0; at < lines.size(); ++at) {
    if (lines[at] != table.front()) {
      made.push_back(lines[at]);
      continue;
    }
    made.insert(made.end(), table.begin(), table.end());
    for (; at < lines.size() && lines[at].starts_with('|'); ++at) {
      auto same = [&](const std::string& row) { return first_cell(row) == first_cell(lines[at]); };
      if (keeps_others && std::none_of(table.begin(), table.end(), same)) made.push_back(lines[at]);
    }
    --at;
  }
  in.close();
  std::ofstream out(path);
  for (const std::string& line : made) out << line << '\n';
}

} // namespace document
