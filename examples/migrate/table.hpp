// Tables for terminals of any width.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace migrate_command {

inline std::size_t width_of(std::string_view text) {
  // In columns, for text without wide or combining characters.
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

inline std::string printable(std::string_view text) {
  // What a name holds must not steer the terminal.
  std::string made;
  for (char c : text) made += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return made;
}

inline std::string cut(const std::string& text, std::size_t width) {
  if (width_of(text) <= width) return text;
  if (width == 0) return "";
  std::size_t at = 0;
  for (std::size_t columns = 0; at < text.size(); ++at)
    if ((text[at] & 0xc0) != 0x80 && ++columns == width) break;
  return text.substr(0, at) + "~";
}

struct column {
  std::string title;
  enum class kind { words, number } what = kind::words;
  std::size_t least = 0; // columns that it keeps when room is short; 0: it is never cut
};

class table {
public:
  explicit table(std::vector<column> columns) : columns_(std::move(columns)) {}

  void add(std::vector<std::string> row) {
    for (std::string& each : row) each = printable(each);
    rows_.push_back(std::move(row));
  }
  std::size_t size() const noexcept { return rows_.size(); }

  std::vector<std::string> lines(std::size_t width) const {
    // The titles, then the rows, none wider than `width`; 0: as wide as need be. Columns without an entry are left out.
    std::vector<std::size_t> shown, widths;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      bool empty = std::all_of(rows_.begin(), rows_.end(), [&](const auto& row) { return row[i].empty(); });
      if (!empty) shown.push_back(i);
    }
    for (std::size_t i : shown) {
      std::size_t widest = columns_[i].title.size();
      for (const auto& row : rows_) widest = std::max(widest, width_of(row[i]));
      widths.push_back(widest);
    }
    shrink(shown, widths, width);
    std::vector<std::string> made;
    auto put = [&](auto&& cell) {
      std::string line;
      for (std::size_t k = 0; k < shown.size(); ++k) {
        std::string text = cut(cell(shown[k]), widths[k]);
        std::string gap(widths[k] - width_of(text), ' ');
        line += k > 0 ? "  " : "";
        line += columns_[shown[k]].what == column::kind::number ? gap + text : text + gap;
      }
      line.erase(line.find_last_not_of(' ') + 1);
      made.push_back(width > 0 ? cut(line, width) : line);
    };
    put([&](std::size_t i) -> const std::string& { return columns_[i].title; });
    for (const auto& row : rows_) put([&](std::size_t i) -> const std::string& { return row[i]; });
    return made;
  }

private:
  void shrink(const std::vector<std::size_t>& shown, std::vector<std::size_t>& widths,
              std::size_t width) const {
    // The widest column that may be cut is cut first.
    if (width == 0) return;
    std::size_t gaps = shown.empty() ? 0 : 2 * (shown.size() - 1);
    while (std::accumulate(widths.begin(), widths.end(), gaps) > width) {
      std::size_t widest = shown.size();
      for (std::size_t k = 0; k < shown.size(); ++k) {
        std::size_t least = columns_[shown[k]].least;
        if (least > 0 && widths[k] > least && (widest == shown.size() || widths[k] > widths[widest]))
          widest = k;
      }
      if (widest == shown.size()) return;
      --widths[widest];
    }
  }

  std::vector<column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

inline std::string size_text(std::uint64_t bytes) {
  static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(units); ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
  return text;
}

inline std::string time_text(std::uint64_t milliseconds) {
  std::uint64_t seconds = milliseconds / 1000;
  char text[32];
  if (seconds < 60)
    std::snprintf(text, sizeof text, "%u s", static_cast<unsigned>(seconds));
  else if (seconds < 3600)
    std::snprintf(text, sizeof text, "%u:%02u min", static_cast<unsigned>(seconds / 60),
                  static_cast<unsigned>(seconds % 60));
  else if (seconds < 86'400)
    std::snprintf(text, sizeof text, "%u:%02u h", static_cast<unsigned>(seconds / 3600),
                  static_cast<unsigned>(seconds / 60 % 60));
  else
    std::snprintf(text, sizeof text, "%llu d", static_cast<unsigned long long>(seconds / 86'400));
  return text;
}

inline std::string load_text(double load) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", load);
  return text;
}

} // namespace migrate_command
