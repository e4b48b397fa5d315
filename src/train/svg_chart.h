#pragma once
// Charts as inline SVG: what they look like is the page's style sheet, which knows the classes.

#include <string>
#include <string_view>
#include <vector>

#include "train/curve.h"

namespace kogia {

/// Text as HTML shows it.
std::string html(std::string_view text);

struct ChartLine {
  enum class Kind {
    kFaint,   // every step, behind the others
    kStrong,  // what the eye should follow
    kDots     // measured now and then
  };
  std::string name;
  Curve curve;
  int color = 0;  // of 0..5
  Kind kind = Kind::kStrong;
  bool dashed = false;
};

struct Chart {
  enum class Unit { kNumber, kBytes, kPercent };
  std::string title = {}, note = {};  // the note is HTML
  std::vector<ChartLine> lines = {};
  Unit unit = Unit::kNumber;
  bool from_zero = false;
  bool log = false;         // of positive values
  bool skip_first = false;  // the first twentieth of the steps has no say in the scale
};

/// A <figure>; empty where no line has a point. However long the lines are, it stays some tens of
/// kilobytes.
std::string chart_html(const Chart& chart);

/// Loads of experts relative to an even share, in rows, as a picture of squares.
struct HeatMap {
  std::string title, note;                // the note is HTML
  std::vector<std::string> row_labels;    // of every row, may be empty
  std::vector<std::vector<double>> rows;  // all of one length
  std::string first_column, last_column;
  bool values = false;  // the page can tell the value under the pointer: for small ones
};

std::string heat_map_html(const HeatMap& map);

}  // namespace kogia
