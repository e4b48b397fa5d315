#pragma once
// Curves and heat maps as inline SVG, for pages that stand alone.

#include <string>
#include <vector>

#include "base/index.h"

namespace kogia {

struct ChartPoint {
  double x = 0, y = 0;
};

/// A curve. Points come in the order of x; those whose y is not finite are left out.
struct ChartLine {
  std::string label;
  std::vector<ChartPoint> points;
  int colour = 0;       // of the page's palette: kChartColours
  bool dashed = false;  // another run's
  bool faint = false;   // behind the others
};
inline constexpr int kChartColours = 6;

struct Chart {
  std::string title, unit;  // unit of y, may be empty
  std::vector<ChartLine> lines;
  bool log_y = false;
};

/// A <figure>. Of long curves at most some thousand points are drawn: of each stretch the smallest
/// and the largest.
std::string chart_svg(const Chart& chart);

/// Rows of cells, each as dark as its value is far from 1 on a scale of powers of two: below 1 in
/// one colour, above in the other.
struct HeatMap {
  std::string title;
  std::vector<std::string> row_labels;
  std::vector<std::vector<double>> rows;   // all of the same length
  std::vector<std::string> column_labels;  // of the first and of the last
};
std::string heat_map_svg(const HeatMap& map);

/// &, < and > as HTML writes them, and quotes.
std::string html_text(std::string_view text);

}  // namespace kogia
