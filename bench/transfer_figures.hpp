// Figures as SVG: lines with names, on linear or logarithmic axes.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace figures {

struct line {
  std::vector<std::pair<double, double>> points;
};

class axis {
public:
  axis(double least, double most, bool logarithmic, double from, double to)
      : logarithmic_(logarithmic), from_(from), to_(to) {
    if (logarithmic_) {
      low_ = std::floor(std::log10(std::max(least, 1e-3)));
      high_ = std::ceil(std::log10(std::max(most, 1e-3)));
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

inline std::string draw(const std::string& title, const std::string& across, const std::string& up,
                        const std::map<std::string, line>& lines, bool log_across, bool log_up) {
  static constexpr const char* colours[] = {"#1b6ca8", "#c8553d", "#588b3a", "#7a4b94", "#b8860b"};
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
  std::size_t number = 0;
  for (const auto& [name, each] : lines) {
    const char* colour = colours[number % std::size(colours)];
    if (each.points.size() > 1) {
      svg << "<path fill=\"none\" stroke-width=\"2\" stroke=\"" << colour << "\" d=\"";
      for (std::size_t i = 0; i < each.points.size(); ++i)
        svg << (i == 0 ? 'M' : 'L') << x_axis.place(each.points[i].first) << " "
            << y_axis.place(each.points[i].second);
      svg << "\"/>\n";
    }
    if (each.points.size() < 20)
      for (auto [x, y] : each.points)
        svg << "<circle cx=\"" << x_axis.place(x) << "\" cy=\"" << y_axis.place(y) << "\" r=\"4\" fill=\""
            << colour << "\"/>\n";
    double y = top + 10 + 22 * static_cast<double>(number++);
    svg << "<rect x=\"660\" y=\"" << y << "\" width=\"14\" height=\"14\" fill=\"" << colour
        << "\"/><text x=\"682\" y=\"" << y + 12 << "\">" << name << "</text>\n";
  }
  svg << "</svg>\n";
  return svg.str();
}

} // namespace figures
