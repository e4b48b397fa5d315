#include "train/report_chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace kogia {
namespace {

constexpr double kWidth = 640, kHeight = 240;
constexpr double kLeft = 64, kRight = 12, kTop = 12, kBottom = 28;
constexpr std::size_t kStretches = 1000;

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void add(double v) { low = std::min(low, v), high = std::max(high, v); }
  bool empty() const { return low > high; }
};

/// Where values stand on the page.
struct Axes {
  Range x, y;
  bool log_y = false;

  double to_x(double v) const {
    const double width = x.high > x.low ? x.high - x.low : 1;
    return kLeft + (v - x.low) / width * (kWidth - kLeft - kRight);
  }
  double to_y(double v) const {
    const double from = scaled(y.low), height = std::max(scaled(y.high) - from, 1e-300);
    return kHeight - kBottom - (scaled(v) - from) / height * (kHeight - kTop - kBottom);
  }
  double scaled(double v) const { return log_y ? std::log10(v) : v; }
};

bool drawn(const ChartPoint& p, bool log_y) { return std::isfinite(p.y) && (!log_y || p.y > 0); }

/// Of each stretch the smallest and the largest, in their order.
std::vector<ChartPoint> thinned(const std::vector<ChartPoint>& points, bool log_y) {
  std::vector<ChartPoint> all, out;
  std::ranges::copy_if(points, std::back_inserter(all),
                       [&](const ChartPoint& p) { return drawn(p, log_y); });
  if (all.size() <= 2 * kStretches) return all;
  for (std::size_t s = 0; s < kStretches; ++s) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(s * all.size() / kStretches);
    const auto end = all.begin() + static_cast<std::ptrdiff_t>((s + 1) * all.size() / kStretches);
    auto [low, high] = std::minmax_element(
        begin, end, [](const ChartPoint& a, const ChartPoint& b) { return a.y < b.y; });
    if (high < low) std::swap(low, high);
    out.push_back(*low);
    if (high != low) out.push_back(*high);
  }
  return out;
}

/// 1, 2 or 5 times a power of ten: some five of them fit into the width.
double tick_step(double width) {
  const double rough = width / 5, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double m : {1.0, 2.0, 5.0}) {
    if (m * power >= rough) return m * power;
  }
  return 10 * power;
}

std::vector<double> ticks(const Range& range, bool log_scale) {
  if (range.high - range.low <= std::abs(range.high) * 1e-9) return {range.low};
  std::vector<double> out;
  if (log_scale) {
    const int low = static_cast<int>(std::ceil(std::log10(range.low) - 1e-9));
    const int high = static_cast<int>(std::floor(std::log10(range.high) + 1e-9));
    for (int e = low; e <= high; ++e) out.push_back(std::pow(10, e));
    if (out.size() > 1) return out;
    out.clear();
  }
  const double step = tick_step(range.high - range.low);
  for (double at = std::ceil(range.low / step) * step; at <= range.high + step * 1e-6; at += step) {
    out.push_back(std::abs(at) < step * 1e-6 ? 0 : at);
  }
  return out;
}

std::string number(double v) {
  for (const auto& [limit, unit] : {std::pair(1e9, "G"), {1e6, "M"}, {1e4, "k"}}) {
    const double of = unit[0] == 'k' ? 1e3 : limit;
    if (std::abs(v) >= limit) return fmt::format("{:.4g}{}", v / of, unit);
  }
  return fmt::format("{:.4g}", v);
}

Axes axes_of(const Chart& chart, const std::vector<std::vector<ChartPoint>>& points) {
  Axes axes;
  for (const auto& line : points) {
    for (const ChartPoint& p : line) axes.x.add(p.x), axes.y.add(p.y);
  }
  if (axes.x.empty()) axes.x = axes.y = {0, 1};
  axes.log_y = chart.log_y && axes.y.low > 0;
  if (!axes.log_y) {
    const double margin = std::max((axes.y.high - axes.y.low) * 0.05, std::abs(axes.y.high) * 1e-3);
    axes.y = {axes.y.low - margin, axes.y.high + margin};
    if (axes.y.high == axes.y.low) axes.y.high += 1;
  }
  return axes;
}

std::string grid(const Axes& axes) {
  std::string out;
  for (const double v : ticks(axes.y, axes.log_y)) {
    const double y = axes.to_y(v);
    out += fmt::format(
        "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>"
        "<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n",
        kLeft, kWidth - kRight, y, y, kLeft - 6, y + 4, number(v));
  }
  for (const double v : ticks(axes.x, false)) {
    out += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                       axes.to_x(v), kHeight - 8, number(v));
  }
  return out;
}

std::string curve(const ChartLine& line, const std::vector<ChartPoint>& points, const Axes& axes) {
  std::string at, values;
  for (const ChartPoint& p : points) {
    at += fmt::format("{:.1f},{:.1f} ", axes.to_x(p.x), axes.to_y(p.y));
    values += fmt::format("{:.6g},{:.6g} ", p.x, p.y);
  }
  return fmt::format(
      "<polyline class=\"c{}{}{}\" points=\"{}\" data-label=\"{}\" data-values=\"{}\"/>\n",
      line.colour % kChartColours, line.dashed ? " dashed" : "", line.faint ? " faint" : "", at,
      html_text(line.label), values);
}

std::string legend(const Chart& chart) {
  std::string out;
  for (const ChartLine& line : chart.lines) {
    if (line.label.empty()) continue;
    out += fmt::format(
        "<span><svg width=\"22\" height=\"8\"><line x1=\"0\" x2=\"22\" y1=\"4\" y2=\"4\" "
        "class=\"c{}{}{}\"/></svg>{}</span>",
        line.colour % kChartColours, line.dashed ? " dashed" : "", line.faint ? " faint" : "",
        html_text(line.label));
  }
  return out;
}

}  // namespace

std::string html_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string chart_svg(const Chart& chart) {
  std::vector<std::vector<ChartPoint>> points;
  for (const ChartLine& line : chart.lines) points.push_back(thinned(line.points, chart.log_y));
  const Axes axes = axes_of(chart, points);
  std::string out = fmt::format(
      "<figure><figcaption>{}{}</figcaption><svg class=\"chart\" viewBox=\"0 0 {} {}\" "
      "role=\"img\" aria-label=\"{}\">\n",
      html_text(chart.title),
      chart.unit.empty() ? "" : fmt::format(" <small>{}</small>", html_text(chart.unit)), kWidth,
      kHeight, html_text(chart.title));
  out += grid(axes);
  for (std::size_t i = 0; i < points.size(); ++i) out += curve(chart.lines[i], points[i], axes);
  return out + "</svg><div class=\"legend\">" + legend(chart) + "</div></figure>\n";
}

std::string heat_map_svg(const HeatMap& map) {
  constexpr double kRow = 14, kMostPowers = 2;
  const std::size_t columns = map.rows.empty() ? 0 : map.rows.front().size();
  const double cell = columns == 0 ? 0 : (kWidth - kLeft - kRight) / static_cast<double>(columns);
  const double height = static_cast<double>(map.rows.size()) * kRow + 20;
  std::string out = fmt::format(
      "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {} {}\" role=\"img\" "
      "aria-label=\"{}\">\n",
      html_text(map.title), kWidth, height, html_text(map.title));
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    const double y = static_cast<double>(r) * kRow;
    out += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", kLeft - 6,
                       y + 11, html_text(map.row_labels[r]));
    for (std::size_t c = 0; c < columns; ++c) {
      const double v = map.rows[r][c];
      const double powers =
          v > 0 ? std::clamp(std::log2(v), -kMostPowers, kMostPowers) : -kMostPowers;
      out += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\" class=\"{}\" "
          "fill-opacity=\"{:.2f}\"><title>{:.2f}</title></rect>",
          kLeft + static_cast<double>(c) * cell, y, cell, kRow - 1, powers < 0 ? "less" : "more",
          std::abs(powers) / kMostPowers, v);
    }
    out += '\n';
  }
  for (std::size_t i = 0; i < map.column_labels.size(); ++i) {
    out += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n",
                       i == 0 ? kLeft : kWidth - kRight, height - 6, i == 0 ? "start" : "end",
                       html_text(map.column_labels[i]));
  }
  return out + "</svg></figure>\n";
}

}  // namespace kogia
