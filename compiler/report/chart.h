// Charts as inline SVG. Colours, fonts and dashes are classes of the page's style sheet, so that they follow its light and dark
// theme; every point says its numbers when pointed at.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "report/markup.h"

namespace acorn::compiler {

/// Colours of the style sheet, told apart without sight of colour by the shape of their points.
inline constexpr int kColours = 6;

struct ChartPoint {
  double x = 0;
  double y = 0;      // not finite: a gap in the line
  double low = NAN;  // finite: a bar from here to y
};

struct ChartSeries {
  enum class Style { kLine, kDashes, kDots, kHaze };

  std::string name;
  int colour = 0;  // below kColours
  Style style = Style::kLine;
  std::vector<ChartPoint> points;  // x ascending
};

/// A stretch of the x axis with a name, shaded every other time.
struct ChartBand {
  std::string name;
  double from = 0, to = 0;
};

/// Lines over a whole-numbered x axis.
struct LineChart {
  std::string title;  // for screen readers; the page writes its own headings
  std::string x_label, y_label;
  int width = 920, height = 340;  // in units of the page's pixels where there is room
  bool logarithmic = false;       // upwards; values of 0 and below are left out
  std::vector<ChartSeries> series;
  std::vector<ChartBand> bands;
};
void Draw(const LineChart &chart, Markup *out);
/// Names of series beside a sample of each.
void DrawLegend(const std::vector<ChartSeries> &series, Markup *out);

struct ChartBar {
  std::string name;
  double value = 0;    // negative ones are drawn as nothing
  std::string number;  // as written behind the bar
  int colour = 0;
};
/// Horizontal bars from 0.
void DrawBars(const std::string &title, const std::vector<ChartBar> &bars, Markup *out);

/// A number for people: four digits, and powers of ten where zeros would have to be counted.
std::string Readable(double value);

}  // namespace acorn::compiler
