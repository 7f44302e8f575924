// Figures as SVG: lines with names, on linear or logarithmic axes.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <ostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace figures {

struct line {
  std::vector<std::pair<double, double>> points;
};

struct bars {
  std::vector<double> values[2]; // one for each panel; two cases of the same
};

class axis {
public:
  axis(double least, double most, bool logarithmic, double from, double to)
      : logarithmic_(logarithmic), from_(from), to_(to) {
    if (logarithmic_) {
      low_ = std::floor(std::log10(std::max(least, 1e-3)));
      high_ = std::ceil(std::log10(std::max(most, 1e-3)) - 0.05); // 1024 is a thousand
      if (high_ <= low_) high_ = low_ + 1;
      for (double at = low_; at <= high_; ++at) ticks_.push_back(std::pow(10, at));
    } else {
      low_ = std::min(least, 0.0);
      high_ = std::max(most, low_ + 1e-9);
      double step = std::pow(10, std::floor(std::log10((high_ - low_) / 2)));
      if ((high_ - low_) / step > 10) step *= 2;
      if ((high_ - low_) / step > 10) step *= 2.5;
      for (double at = std::ceil(low_ / step) * step; at <= high_ * 1.0001; at += step) ticks_.push_back(at);
    }
  }
  double place(double value) const {
    double at = logarithmic_ ? std::log10(std::max(value, 1e-3)) : value;
    return from_ + (at - low_) / (high_ - low_) * (to_ - from_);
  }
  const std::vector<double>& ticks() const { return ticks_; }

private:
  bool logarithmic_;
  double from_, to_, low_ = 0, high_ = 1;
  std::vector<double> ticks_;
};

inline constexpr const char* colours[] = {"#1b6ca8", "#c8553d", "#588b3a", "#7a4b94",
                                          "#b8860b", "#2a9d8f", "#444444"};

inline void trace(std::ostream& svg, const line& each, const axis& across, const axis& up,
                  const char* colour) {
  svg << "<path fill=\"none\" stroke-width=\"2\" stroke=\"" << colour << "\" d=\"";
  for (std::size_t i = 0; i < each.points.size(); ++i)
    svg << (i == 0 ? 'M' : 'L') << across.place(each.points[i].first) << " "
        << up.place(each.points[i].second);
  svg << "\"/>\n";
}

inline std::string draw(const std::string& title, const std::string& across, const std::string& up,
                        const std::map<std::string, line>& lines, bool log_across, bool log_up) {
  constexpr double left = 80, right = 640, top = 60, bottom = 400;
  double least_x = 1e300, most_x = -1e300, least_y = 1e300, most_y = -1e300;
  for (const auto& [name, each] : lines)
    for (auto [x, y] : each.points) {
      least_x = std::min(least_x, x), most_x = std::max(most_x, x);
      least_y = std::min(least_y, y), most_y = std::max(most_y, y);
    }
  if (least_x > most_x) return {};
  axis x_axis(least_x, most_x, log_across, left, right), y_axis(least_y, most_y, log_up, bottom, top);
  std::ostringstream svg;
  svg << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 820 460\" font-family=\"sans-serif\" "
         "font-size=\"12\">\n"
      << "<rect width=\"820\" height=\"460\" fill=\"white\"/>\n";
  std::string first = title, second;
  if (title.size() > 95) {
    std::size_t at = title.rfind(' ', 95);
    first = title.substr(0, at);
    second = title.substr(at + 1);
  }
  svg << "<text x=\"20\" y=\"24\" font-size=\"15\">" << first << "</text>\n";
  if (!second.empty()) svg << "<text x=\"20\" y=\"42\" font-size=\"15\">" << second << "</text>\n";
  for (double at : x_axis.ticks())
    svg << "<path d=\"M" << x_axis.place(at) << " " << top << "V" << bottom
        << "\" stroke=\"#ddd\"/><text x=\"" << x_axis.place(at) << "\" y=\"" << bottom + 18
        << "\" text-anchor=\"middle\">" << at << "</text>\n";
  for (double at : y_axis.ticks())
    svg << "<path d=\"M" << left << " " << y_axis.place(at) << "H" << right
        << "\" stroke=\"#ddd\"/><text x=\"" << left - 8 << "\" y=\"" << y_axis.place(at) + 4
        << "\" text-anchor=\"end\">" << at << "</text>\n";
  svg << "<text x=\"" << (left + right) / 2 << "\" y=\"" << bottom + 42 << "\" text-anchor=\"middle\">"
      << across << "</text>\n<text transform=\"translate(24 " << (top + bottom) / 2
      << ") rotate(-90)\" text-anchor=\"middle\">" << up << "</text>\n";
  struct named {
    std::string name;
    const line& of;
    const char* colour;
  };
  std::vector<named> sorted;
  for (const auto& [name, each] : lines)
    if (!each.points.empty()) sorted.push_back({name, each, colours[sorted.size() % std::size(colours)]});
  // The names stand in the order of the lines' ends.
  std::vector<std::size_t> order(sorted.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return sorted[a].of.points.back().second > sorted[b].of.points.back().second;
  });
  double y = top + 10;
  for (std::size_t which : order) {
    const named& one = sorted[which];
    if (one.of.points.size() > 1) trace(svg, one.of, x_axis, y_axis, one.colour);
    if (one.of.points.size() < 20)
      for (auto [x, up_to] : one.of.points)
        svg << "<circle cx=\"" << x_axis.place(x) << "\" cy=\"" << y_axis.place(up_to) << "\" r=\"4\" fill=\""
            << one.colour << "\"/>\n";
    svg << "<rect x=\"660\" y=\"" << y << "\" width=\"14\" height=\"14\" fill=\"" << one.colour
        << "\"/><text x=\"682\" y=\"" << y + 12 << "\">" << one.name << "</text>\n";
    y += 22;
  }
  svg << "</svg>\n";
  return svg.str();
}

inline std::string draw_rows(const std::string& title, const std::string& across, double most_up,
                             const std::map<std::string, line>& lines) {
  // A row for each line, all on one axis across: lines that cross each other all the time cannot be told apart.
  constexpr double left = 130, right = 790, top = 50, height = 62, gap = 22;
  double least = 1e300, most = -1e300;
  for (const auto& [name, each] : lines)
    for (auto [x, y] : each.points) least = std::min(least, x), most = std::max(most, x);
  if (least > most) return {};
  double bottom = top + static_cast<double>(lines.size()) * (height + gap);
  axis x_axis(least, most, false, left, right);
  std::ostringstream svg;
  svg << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 820 " << bottom + 50
      << "\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"820\" height=\"" << bottom + 50
      << "\" fill=\"white\"/>\n<text x=\"20\" y=\"24\" font-size=\"15\">" << title << "</text>\n";
  for (double at : x_axis.ticks())
    svg << "<path d=\"M" << x_axis.place(at) << " " << top << "V" << bottom
        << "\" stroke=\"#ddd\"/><text x=\"" << x_axis.place(at) << "\" y=\"" << bottom + 16
        << "\" text-anchor=\"middle\">" << at << "</text>\n";
  svg << "<text x=\"" << (left + right) / 2 << "\" y=\"" << bottom + 38 << "\" text-anchor=\"middle\">"
      << across << "</text>\n";
  std::size_t number = 0;
  for (const auto& [name, each] : lines) {
    double up = top + static_cast<double>(number) * (height + gap), down = up + height;
    axis y_axis(0, most_up, false, down, up);
    for (double at : {0.0, 100.0})
      svg << "<path d=\"M" << left << " " << y_axis.place(at) << "H" << right
          << "\" stroke=\"#ddd\"/><text x=\"" << left - 6 << "\" y=\"" << y_axis.place(at) + 4
          << "\" text-anchor=\"end\">" << at << " %</text>\n";
    svg << "<text x=\"20\" y=\"" << (up + down) / 2 + 4 << "\">" << name << "</text>\n";
    line cut = each;
    for (auto& [x, y] : cut.points) y = std::min(y, most_up);
    trace(svg, cut, x_axis, y_axis, colours[number++ % std::size(colours)]);
  }
  svg << "</svg>\n";
  return svg.str();
}

inline std::string draw_bars(const std::string& title, const std::vector<std::string>& panels,
                             const std::vector<std::string>& cases, const std::map<std::string, bars>& rows) {
  // A row for each name, a panel for each measure, a bar for each case.
  constexpr double left = 120, top = 80, height = 46, width = 230, longest = 150, thick = 15;
  constexpr const char* shades[] = {"#9cc3de", "#1b6ca8"};
  if (rows.empty()) return {};
  std::vector<double> most(panels.size(), 0);
  for (const auto& [name, each] : rows)
    for (const auto& values : each.values)
      for (std::size_t i = 0; i < values.size(); ++i) most[i] = std::max(most[i], values[i]);
  const double bottom = top + height * static_cast<double>(rows.size());
  std::ostringstream svg;
  svg << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 820 " << bottom + 50
      << "\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"820\" height=\"" << bottom + 50
      << "\" fill=\"white\"/>\n<text x=\"20\" y=\"28\" font-size=\"15\">" << title << "</text>\n";
  for (std::size_t i = 0; i < panels.size(); ++i) {
    double from = left + width * static_cast<double>(i);
    svg << "<text x=\"" << from << "\" y=\"" << top - 16 << "\" font-weight=\"bold\">" << panels[i]
        << "</text>\n<path d=\"M" << from << " " << top - 6 << "V" << bottom - 6 << "\" stroke=\"#888\"/>\n";
  }
  double up = top;
  for (const auto& [name, each] : rows) {
    svg << "<text x=\"20\" y=\"" << up + thick + 4 << "\">" << name << "</text>\n";
    for (std::size_t which = 0; which < 2; ++which)
      for (std::size_t i = 0; i < each.values[which].size(); ++i) {
        double value = each.values[which][i], from = left + width * static_cast<double>(i);
        double length = most[i] > 0 ? value / most[i] * longest : 0;
        double y = up + static_cast<double>(which) * (thick + 2);
        std::ostringstream text;
        text.precision(value < 10 ? 2 : 0);
        text << std::fixed << value;
        svg << "<rect x=\"" << from << "\" y=\"" << y << "\" width=\""
            << std::max(length, value > 0 ? 1.0 : 0.0) << "\" height=\"" << thick << "\" fill=\""
            << shades[which] << "\"/><text x=\"" << from + length + 5 << "\" y=\"" << y + 12 << "\">"
            << (value == 0 ? "0" : text.str()) << "</text>\n";
      }
    up += height;
  }
  double along = left;
  for (std::size_t which = 0; which < cases.size(); ++which, along += width)
    svg << "<rect x=\"" << along << "\" y=\"" << bottom + 14 << "\" width=\"14\" height=\"14\" fill=\""
        << shades[which] << "\"/><text x=\"" << along + 22 << "\" y=\"" << bottom + 26 << "\">"
        << cases[which] << "</text>\n";
  svg << "</svg>\n";
  return svg.str();
}

} // namespace figures
