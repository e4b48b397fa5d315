#include "train/svg_chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace kogia {
namespace {

// Of the picture, in its own units.
constexpr double kWidth = 640, kHeight = 260, kLeft = 58, kRight = 12, kTop = 10, kBottom = 26;
constexpr std::size_t kSpans = 500;  // of a curve, at most four points each

/// What of an axis is shown.
struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void include(double v) { low = std::min(low, v), high = std::max(high, v); }
  bool empty() const { return low > high; }
};

/// 1, 2 or 5 times a power of ten, so that about n steps make the range.
double nice_step(double range, int n) {
  const double rough = range / n, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * 0.999) return factor * power;
  }
  return 10 * power;
}

/// "200", "1.5k", "0.002"
std::string short_number(double v) {
  const double size = std::abs(v);
  if (size >= 1e9) return fmt::format("{:.4g}G", v / 1e9);
  if (size >= 1e6) return fmt::format("{:.4g}M", v / 1e6);
  if (size >= 1e4) return fmt::format("{:.4g}k", v / 1e3);
  return fmt::format("{:.4g}", size < 1e-12 ? 0.0 : v);
}

class Plot {
 public:
  explicit Plot(const Chart& chart) : chart_(chart) {
    for (const ChartLine& line : chart.lines) {
      for (const double x : line.curve.x) x_.include(x);
    }
    if (x_.empty()) return;
    const double first = chart.skip_first ? x_.low + (x_.high - x_.low) / 20 : x_.low;
    for (const ChartLine& line : chart.lines) {
      for (std::size_t i = 0; i < line.curve.size(); ++i) {
        if (line.curve.x[i] >= first && shown(line.curve.y[i])) y_.include(line.curve.y[i]);
      }
    }
    if (chart.from_zero) y_.include(0);
    widen();
  }

  bool empty() const { return x_.empty() || y_.empty(); }

  std::string svg() const {
    std::string out = fmt::format(
        "<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" "
        "data-x=\"{:g},{:g}\" "
        "data-y=\"{:.9g},{:.9g}\" data-box=\"{},{},{},{}\"{}>",
        kWidth, kHeight, html(chart_.title), x_.low, x_.high, y_.low, y_.high, kLeft, kTop,
        kWidth - kRight, kHeight - kBottom, chart_.log ? " data-log" : "");
    out += x_axis() + y_axis();
    // Nested, so that what lies beyond the scale is cut off.
    out += fmt::format(
        "<svg x=\"{0}\" y=\"{1}\" width=\"{2}\" height=\"{3}\" viewBox=\"{0} {1} {2} {3}\">", kLeft,
        kTop, kWidth - kLeft - kRight, kHeight - kTop - kBottom);
    for (const ChartLine& line : chart_.lines) out += line_svg(line);
    return out + "</svg></svg>";
  }

 private:
  bool shown(double v) const { return std::isfinite(v) && (!chart_.log || v > 0); }

  void widen() {
    if (x_.low == x_.high) x_.low -= 1, x_.high += 1;
    if (y_.empty()) return;
    if (y_.low == y_.high) {
      const double some = y_.low == 0 ? 1 : std::abs(y_.low) / 10;
      y_.low -= chart_.from_zero && y_.low == 0 ? 0 : some;
      y_.high += some;
    } else if (!chart_.log) {
      const double margin = (y_.high - y_.low) / 25;
      y_.high += margin;
      if (!chart_.from_zero || y_.low < 0) y_.low -= margin;
    }
  }

  double x_of(double x) const {
    return kLeft + (x - x_.low) / (x_.high - x_.low) * (kWidth - kLeft - kRight);
  }
  double y_of(double y) const {
    const double share = chart_.log ? std::log(y / y_.low) / std::log(y_.high / y_.low)
                                    : (y - y_.low) / (y_.high - y_.low);
    return kHeight - kBottom - share * (kHeight - kTop - kBottom);
  }

  std::string y_label(double v, double unit) const {
    if (chart_.unit == Chart::Unit::kPercent) return short_number(100 * v) + " %";
    return short_number(v / unit);
  }

  std::string x_axis() const {
    std::string out;
    const double step = std::max(1.0, nice_step(x_.high - x_.low, 6));
    for (double x = std::ceil(x_.low / step) * step; x <= x_.high; x += step) {
      out += fmt::format("<text class=\"xt\" x=\"{:.1f}\" y=\"{}\">{}</text>", x_of(x), kHeight - 8,
                         short_number(x));
    }
    return out;
  }

  std::string y_axis() const {
    std::string out;
    const auto mark = [&](double v, double unit) {
      out += fmt::format(
          "<path class=\"grid\" d=\"M{} {:.1f}H{}\"/><text class=\"yt\" x=\"{}\" "
          "y=\"{:.1f}\">{}</text>",
          kLeft, y_of(v), kWidth - kRight, kLeft - 6, y_of(v) + 4, y_label(v, unit));
    };
    if (chart_.log && y_.high / y_.low > 20) {
      for (double v = std::pow(10, std::ceil(std::log10(y_.low))); v <= y_.high; v *= 10)
        mark(v, 1);
      return out;
    }
    const double unit = chart_.unit == Chart::Unit::kBytes ? 1 << 20 : 1;
    const double step = nice_step((y_.high - y_.low) / unit, 5) * unit;
    for (double v = std::ceil(y_.low / step) * step; v <= y_.high; v += step) mark(v, unit);
    return out;
  }

  std::string line_svg(const ChartLine& line) const {
    static constexpr const char* kKinds[] = {"faint", "strong", "dots"};
    std::string points;
    const Curve few = thinned(line.curve, kSpans);
    const bool dots = line.kind == ChartLine::Kind::kDots;
    for (std::size_t i = 0; i < few.size(); ++i) {
      if (!shown(few.y[i])) continue;
      const double x = x_of(few.x[i]), y = y_of(few.y[i]);
      points += dots ? fmt::format("M{:.1f} {:.1f}h0", x, y) : fmt::format("{:.1f},{:.1f} ", x, y);
    }
    if (points.empty()) return {};
    return fmt::format("<{} class=\"c{} {}{}\" data-name=\"{}\" {}=\"{}\"/>",
                       dots ? "path" : "polyline", line.color,
                       kKinds[static_cast<std::size_t>(line.kind)], line.dashed ? " dashed" : "",
                       html(line.name), dots ? "d" : "points", points);
  }

  const Chart& chart_;
  Range x_, y_;
};

std::string legend(const Chart& chart) {
  std::string out = "<ul class=\"legend\">";
  for (const ChartLine& line : chart.lines) {
    if (line.curve.empty()) continue;
    const char* kind = line.kind == ChartLine::Kind::kFaint  ? "faint"
                       : line.kind == ChartLine::Kind::kDots ? "dots"
                                                             : "strong";
    out += fmt::format("<li><i class=\"c{} {}{}\"></i>{}</li>", line.color, kind,
                       line.dashed ? " dashed" : "", html(line.name));
  }
  return out + "</ul>";
}

std::string figure(std::string_view title, std::string_view inside, std::string_view note) {
  return fmt::format("<figure><h3>{}</h3>{}{}</figure>\n", html(title), inside,
                     note.empty() ? "" : fmt::format("<figcaption>{}</figcaption>", note));
}

}  // namespace

std::string html(std::string_view text) {
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

std::string chart_html(const Chart& chart) {
  const Plot plot(chart);
  if (plot.empty()) return {};
  return figure(chart.title, legend(chart) + plot.svg(), chart.note);
}

// --- heat maps ----------------------------------------------------------------------------------

namespace {

// Levels of colour: quarters of a factor of two, from a quarter of the even share to four times it.
constexpr int kMiddle = 8, kLevels = 2 * kMiddle + 1, kDead = kLevels;

int level_of(double ratio) {
  if (ratio <= 0) return kDead;
  return kMiddle + static_cast<int>(std::lround(4 * std::clamp(std::log2(ratio), -2.0, 2.0)));
}

/// Squares of a level as one path, those beside each other joined.
std::string level_path(const HeatMap& map, int level) {
  std::string d;
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    const std::vector<double>& row = map.rows[r];
    for (std::size_t c = 0; c < row.size();) {
      std::size_t end = c;
      while (end < row.size() && level_of(row[end]) == level) ++end;
      if (end > c) d += fmt::format("M{} {}h{}v1h-{}z", c, r, end - c, end - c);
      c = std::max(end, c + 1);
    }
  }
  if (d.empty()) return {};
  if (level == kDead) return fmt::format("<path class=\"dead\" d=\"{}\"/>", d);
  return fmt::format("<path class=\"{}\" fill-opacity=\"{:.3g}\" d=\"{}\"/>",
                     level < kMiddle ? "low" : "high",
                     std::abs(level - kMiddle) / static_cast<double>(kMiddle), d);
}

std::string heat_values(const HeatMap& map) {
  std::string out = " data-v=\"";
  for (const auto& row : map.rows) {
    for (const double v : row) out += fmt::format("{:.2f},", v);
    out.back() = ';';
  }
  out += "\" data-rows=\"";
  for (const std::string& label : map.row_labels) out += html(label) + ";";
  return out + "\"";
}

/// Labels beside the rows, as many as there is room for.
std::string row_labels(const HeatMap& map, double height) {
  std::string out;
  double free_from = 0;
  for (std::size_t r = 0; r < map.row_labels.size(); ++r) {
    const double y =
        kTop + height * (static_cast<double>(r) + 0.5) / static_cast<double>(map.row_labels.size());
    if (map.row_labels[r].empty() || y < free_from) continue;
    out += fmt::format("<text class=\"yt\" x=\"{}\" y=\"{:.1f}\">{}</text>", kLeft - 6, y + 4,
                       html(map.row_labels[r]));
    free_from = y + 13;
  }
  return out;
}

constexpr std::string_view kHeatLegend =
    "<p class=\"scale\"><i class=\"dead\"></i>nothing <i class=\"low\"></i>a quarter or less "
    "<i class=\"even\"></i>an even share <i class=\"high\"></i>four times or more</p>";

}  // namespace

std::string heat_map_html(const HeatMap& map) {
  if (map.rows.empty() || map.rows[0].empty()) return {};
  const auto n_rows = static_cast<double>(map.rows.size());
  const double width = kWidth - kLeft - kRight, height = std::clamp(18 * n_rows, 40.0, 480.0);
  std::string svg =
      fmt::format("<svg class=\"heat\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">{}",
                  kWidth, height + kTop + kBottom, html(map.title), row_labels(map, height));
  svg += fmt::format(
      "<text class=\"x0\" x=\"{}\" y=\"{}\">{}</text><text class=\"x1\" x=\"{}\" "
      "y=\"{}\">{}</text>",
      kLeft, height + kTop + 17, html(map.first_column), kWidth - kRight, height + kTop + 17,
      html(map.last_column));
  svg += fmt::format(
      "<svg class=\"cells\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\" "
      "preserveAspectRatio=\"none\"{}><rect class=\"even\" width=\"100%\" height=\"100%\"/>",
      kLeft, kTop, width, height, map.rows[0].size(), map.rows.size(),
      map.values ? heat_values(map) : std::string());
  for (int level = 0; level <= kDead; ++level) {
    if (level != kMiddle) svg += level_path(map, level);
  }
  return figure(map.title, std::string(kHeatLegend) + svg + "</svg></svg>", map.note);
}

}  // namespace kogia
