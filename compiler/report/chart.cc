#include "report/chart.h"

#include <algorithm>
#include <cstdio>

namespace acorn::compiler {
namespace {

constexpr int kTop = 10, kRight = 24, kBottom = 40, kLeft = 78;
constexpr int kLeftUnnamed = 50;         // of a y axis without a label
constexpr int kBandTop = 16;             // room for the names of bands
constexpr double kLetter = 7.5;          // width of one of a band's name, about
constexpr double kHazeBeyond = 0.02;     // of a haze, on either side, may lie outside the axis
constexpr size_t kMostPoints = 80;       // of a line that marks each of them
constexpr double kPixelsPerTick = 30.0;  // upwards; labels are 12 high

std::string Format(const char *format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

/// The value below which `share` of the others lie.
double Percentile(std::vector<double> values, double share) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

/// A coordinate: a tenth of a pixel is fine enough.
std::string At(double value) { return Format("%.1f", value); }

std::string Superscript(int exponent) {
  static const char *const kDigits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string out = exponent < 0 ? "⁻" : "";
  for (const char digit : std::to_string(std::abs(exponent))) out += kDigits[digit - '0'];
  return out;
}

class Axis {
 public:
  /// Bounds are moved outwards to ticks. whole: only whole numbers.
  static Axis Linear(double low, double high, double ticks, bool whole) {
    Axis axis;
    if (!(high > low)) high = low + (low == 0 || whole ? 1 : std::abs(low) * 0.1);
    const double rough = (high - low) / std::max(ticks, 1.0);
    const double decade = std::pow(10.0, std::floor(std::log10(rough)));
    double step = decade * (rough <= decade ? 1 : rough <= 2 * decade ? 2 : rough <= 5 * decade ? 5 : 10);
    if (whole) step = std::max(step, 1.0);
    axis.low_ = whole ? low : std::floor(low / step) * step;
    axis.high_ = whole ? high : std::ceil(high / step) * step;
    const double first = std::ceil(axis.low_ / step);
    for (double i = first; i * step <= axis.high_ * (1 + 1e-9) + step * 1e-6; ++i) axis.ticks_.push_back(i * step);
    return axis;
  }

  /// Ticks at 1, 2 and 5 of each decade, or at powers of ten where those are too many.
  static Axis Logarithmic(double low, double high, double ticks) {
    Axis axis;
    axis.logarithmic_ = true;
    const int first = static_cast<int>(std::floor(std::log10(low)));
    const int last = static_cast<int>(std::ceil(std::log10(high) + 1e-9));
    std::vector<double> fine, decades;
    for (int e = first; e <= last; ++e) {
      for (const double digit : {1.0, 2.0, 5.0}) fine.push_back(digit * std::pow(10.0, e));
    }
    const auto at_most = [&](double value) { return value <= low * (1 + 1e-9); };
    const auto lower = std::find_if_not(fine.begin(), fine.end(), at_most) - 1;
    const auto upper = std::find_if(lower + 1, fine.end(), [&](double value) { return value >= high * (1 - 1e-9); });
    fine = {lower, upper == fine.end() ? upper : upper + 1};
    axis.low_ = fine.front();
    axis.high_ = fine.back();
    if (static_cast<double>(fine.size()) > ticks) {
      const int stride = std::max(1, static_cast<int>(std::ceil((last - first) / ticks)));
      for (int e = first; e <= last; e += stride) {
        const double value = std::pow(10.0, e);
        if (value >= axis.low_ * (1 - 1e-9) && value <= axis.high_ * (1 + 1e-9)) decades.push_back(value);
      }
    }
    axis.ticks_ = decades.size() >= 2 ? decades : fine;
    return axis;
  }

  /// Where a value stands between the bounds, 0 to 1.
  double Place(double value) const {
    const double place = logarithmic_ ? (std::log(value) - std::log(low_)) / (std::log(high_) - std::log(low_)) : (value - low_) / (high_ - low_);
    return std::min(std::max(place, 0.0), 1.0);
  }
  const std::vector<double> &ticks() const { return ticks_; }

 private:
  double low_ = 0, high_ = 1;
  bool logarithmic_ = false;
  std::vector<double> ticks_;
};

std::string Class(const char *name, int colour) { return std::string(name) + " c" + std::to_string(colour); }

/// A shape for each colour, about 7 across.
std::string Shape(int colour, double x, double y) {
  const auto path = [&](std::initializer_list<std::pair<double, double>> corners) {
    std::string d;
    for (const auto &[dx, dy] : corners) d += (d.empty() ? "M" : "L") + At(x + dx) + " " + At(y + dy);
    return d + "Z";
  };
  switch (colour % kColours) {
    case 0:
      return "M" + At(x - 3) + " " + At(y) + "a3 3 0 1 0 6 0a3 3 0 1 0 -6 0Z";
    case 1:
      return path({{-2.8, -2.8}, {2.8, -2.8}, {2.8, 2.8}, {-2.8, 2.8}});
    case 2:
      return path({{0, -3.8}, {3.6, 2.8}, {-3.6, 2.8}});
    case 3:
      return path({{0, -4}, {4, 0}, {0, 4}, {-4, 0}});
    case 4:
      return path({{0, 3.8}, {3.6, -2.8}, {-3.6, -2.8}});
    default:
      return path({{-3.6, -1.2}, {3.6, -1.2}, {3.6, 1.2}, {-3.6, 1.2}});
  }
}

/// Too many points would hide their line.
bool MarksPoints(const ChartSeries &series) {
  if (series.style == ChartSeries::Style::kDots) return true;
  return series.style != ChartSeries::Style::kHaze && series.points.size() <= kMostPoints;
}

const char *LineClass(ChartSeries::Style style) {
  switch (style) {
    case ChartSeries::Style::kDashes:
      return "line dashes";
    case ChartSeries::Style::kHaze:
      return "line haze";
    default:
      return "line";
  }
}

class LineDrawing {
 public:
  LineDrawing(const LineChart &chart, Markup *out) : chart_(chart), out_(out) {
    left_ = chart.y_label.empty() ? kLeftUnnamed : kLeft;
    top_ = chart.bands.empty() ? kTop : kTop + kBandTop;
    double x_low = INFINITY, x_high = -INFINITY, y_low = INFINITY, y_high = -INFINITY;
    for (const ChartSeries &series : chart.series) {
      std::vector<double> values;
      for (const ChartPoint &point : series.points) {
        x_low = std::min(x_low, point.x);
        x_high = std::max(x_high, point.x);
        for (const double value : {point.y, point.low}) {
          if (Shown(value)) values.push_back(value);
        }
      }
      if (values.empty()) continue;
      const double share = series.style == ChartSeries::Style::kHaze ? kHazeBeyond : 0;
      y_low = std::min(y_low, Percentile(values, share));
      y_high = std::max(y_high, Percentile(values, 1 - share));
    }
    empty_ = !(y_low <= y_high);
    if (empty_) return;
    const double ticks = (chart.height - top_ - kBottom) / kPixelsPerTick;
    x_ = Axis::Linear(x_low, x_high, (chart.width - left_ - kRight) / 60.0, true);
    y_ = chart.logarithmic ? Axis::Logarithmic(y_low, y_high, ticks) : Axis::Linear(y_low, y_high, ticks, false);
  }

  void Draw() {
    out_->Open("svg", {{"viewBox", "0 0 " + std::to_string(chart_.width) + " " + std::to_string(chart_.height)},
                       {"role", "img"},
                       {"aria-label", chart_.title}});
    if (!empty_) {
      Bands();
      Axes();
      for (const ChartSeries &series : chart_.series) Line(series);
    }
    out_->Close();
  }

 private:
  bool Shown(double value) const { return std::isfinite(value) && (!chart_.logarithmic || value > 0); }
  double X(double value) const { return left_ + x_.Place(value) * (chart_.width - left_ - kRight); }
  double Y(double value) const { return chart_.height - kBottom - y_.Place(value) * (chart_.height - top_ - kBottom); }

  void Bands() {
    bool shaded = false;
    for (const ChartBand &band : chart_.bands) {
      const double from = X(band.from), to = X(band.to);
      if (shaded) {
        out_->Empty("rect", {{"class", "band"},
                             {"x", At(from)},
                             {"y", At(kTop)},
                             {"width", At(to - from)},
                             {"height", std::to_string(chart_.height - kBottom - kTop)}});
      }
      shaded = !shaded;
      // The name of a narrow last band ends with it, so as not to leave the picture.
      const bool ends = from + kLetter * static_cast<double>(band.name.size()) > chart_.width;
      out_->Element("text", band.name,
                    {{"class", ends ? "stage end" : "stage"}, {"x", At(ends ? to - 5 : from + 5)}, {"y", At(kTop + 11)}});
    }
  }

  void Axes() {
    const double left = left_, right = chart_.width - kRight, bottom = chart_.height - kBottom;
    for (const double tick : y_.ticks()) {
      const double y = Y(tick);
      out_->Empty("line", {{"class", "rule"}, {"x1", At(left)}, {"x2", At(right)}, {"y1", At(y)}, {"y2", At(y)}});
      out_->Element("text", Readable(tick), {{"class", "end"}, {"x", At(left - 8)}, {"y", At(y + 4)}});
    }
    out_->Empty("line", {{"class", "axis"}, {"x1", At(left)}, {"x2", At(right)}, {"y1", At(bottom)}, {"y2", At(bottom)}});
    for (const double tick : x_.ticks()) {
      out_->Element("text", Readable(tick), {{"class", "middle"}, {"x", At(X(tick))}, {"y", At(bottom + 17)}});
    }
    out_->Element("text", chart_.x_label,
                  {{"class", "middle label"}, {"x", At((left + right) / 2)}, {"y", std::to_string(chart_.height - 6)}});
    if (chart_.y_label.empty()) return;
    const std::string middle = At((top_ + bottom) / 2);
    out_->Element("text", chart_.y_label,
                  {{"class", "middle label"}, {"transform", "translate(14 " + middle + ") rotate(-90)"}});
  }

  void Line(const ChartSeries &series) {
    std::string path;
    bool pen_down = false;
    size_t shown = 0;
    for (const ChartPoint &point : series.points) {
      if (!Shown(point.y)) {
        pen_down = false;
        continue;
      }
      if (Shown(point.low) && point.low < point.y) {
        out_->Empty("path", {{"class", Class("bar", series.colour)},
                             {"d", "M" + At(X(point.x)) + " " + At(Y(point.low)) + "V" + At(Y(point.y))}});
      }
      path += (pen_down ? "L" : "M") + At(X(point.x)) + " " + At(Y(point.y));
      pen_down = true;
      ++shown;
    }
    const bool dots = series.style == ChartSeries::Style::kDots;
    if (!dots && shown > 1) out_->Empty("path", {{"class", Class(LineClass(series.style), series.colour)}, {"d", path}});
    if (!MarksPoints(series)) return;
    for (const ChartPoint &point : series.points) {
      if (!Shown(point.y)) continue;
      out_->Open("path", {{"class", Class(dots ? "hollow" : "dot", series.colour)},
                          {"d", Shape(series.colour, X(point.x), Y(point.y))}});
      out_->Element("title", series.name + ", " + chart_.x_label + " " + Readable(point.x) + ": " + Readable(point.y));
      out_->Close();
    }
  }

  const LineChart &chart_;
  Markup *out_;
  int left_, top_;
  bool empty_;
  Axis x_, y_;
};

}  // namespace

std::string Readable(double value) {
  if (value == 0) return "0";
  if (value < 0) return "−" + Readable(-value);
  // Whole numbers keep all their digits.
  if (value >= 0.9999e-4 && value < 1e5) return Format(value >= 1000 ? "%.0f" : "%.4g", value);
  const int exponent = static_cast<int>(std::floor(std::log10(value) + 1e-12));
  const std::string digits = Format("%.3g", value / std::pow(10.0, exponent));
  return (digits == "1" ? "" : digits + "×") + "10" + Superscript(exponent);
}

void Draw(const LineChart &chart, Markup *out) { LineDrawing(chart, out).Draw(); }

void DrawLegend(const std::vector<ChartSeries> &series, Markup *out) {
  out->Open("ul", {{"class", "legend"}});
  for (const ChartSeries &line : series) {
    out->Open("li");
    out->Open("svg", {{"viewBox", "0 0 28 12"}, {"width", "28"}, {"height", "12"}, {"aria-hidden", "true"}});
    const bool dots = line.style == ChartSeries::Style::kDots;
    if (!dots) out->Empty("path", {{"class", Class(LineClass(line.style), line.colour)}, {"d", "M1 6H27"}});
    if (MarksPoints(line)) {
      out->Empty("path", {{"class", Class(dots ? "hollow" : "dot", line.colour)}, {"d", Shape(line.colour, 14, 6)}});
    }
    out->Close();
    out->Text(line.name);
    out->Close();
  }
  out->Close();
}

void DrawBars(const std::string &title, const std::vector<ChartBar> &bars, Markup *out) {
  constexpr int kWidth = 920, kRow = 24, kNames = 190, kNumbers = 200;
  double largest = 0;
  for (const ChartBar &bar : bars) largest = std::max(largest, std::isfinite(bar.value) ? bar.value : 0);
  const size_t height = bars.size() * kRow + 6;
  out->Open("svg", {{"viewBox", "0 0 " + std::to_string(kWidth) + " " + std::to_string(height)},
                    {"role", "img"},
                    {"aria-label", title}});
  double y = 3;
  for (const ChartBar &bar : bars) {
    const double share = largest > 0 && bar.value > 0 ? std::min(bar.value / largest, 1.0) : 0;
    const double width = share * (kWidth - kNames - kNumbers);
    out->Element("text", bar.name, {{"class", "end"}, {"x", At(kNames - 10)}, {"y", At(y + 16)}});
    out->Empty("rect", {{"class", Class("fill", bar.colour)},
                        {"x", At(kNames)},
                        {"y", At(y + 4)},
                        {"width", At(std::max(width, 1.0))},
                        {"height", At(kRow - 8)},
                        {"rx", "2"}});
    out->Element("text", bar.number, {{"x", At(kNames + width + 8)}, {"y", At(y + 16)}});
    y += kRow;
  }
  out->Close();
}

}  // namespace acorn::compiler
