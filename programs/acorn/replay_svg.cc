#include "replay_svg.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "svg.h"

namespace acorn::program {
namespace {

constexpr double kWidth = 720, kLeft = 60, kRight = 590, kPanel = 210, kTop = 70, kGap = 50;
constexpr const char *kColours[] = {"#4c6f91", "#c2803d", "#7c9a5b", "#8a5a83"};

/// printf into a string; short pieces only.
template <typename... Values>
std::string Format(const char *format, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

/// The smallest of 1, 2, 5 times a power of ten that makes at most five steps to `high`.
double StepOf(double high) {
  const double decade = std::pow(10, std::floor(std::log10(high / 5)));
  for (const double digit : {1.0, 2.0, 5.0}) {
    if (high / (digit * decade) <= 5.0001) return digit * decade;
  }
  return 10 * decade;
}

class Panel {
 public:
  Panel(const ReplayPicture &picture, double top, double high) : picture_(picture), top_(top) {
    step_ = StepOf(high > 0 ? high : 1);
    high_ = step_ * std::ceil(high / step_ - 1e-9);
    if (!(high_ > 0)) high_ = step_;
  }

  std::string Axes(const char *label) const {
    std::string out;
    const double shade = std::min(picture_.useful_percent, 100.0);
    out += Format("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"#f0ece4\"/>\n", kLeft, top_, X(shade) - kLeft, kPanel);
    for (int i = 0; i * step_ <= high_ * 1.0001; ++i) {
      const double tick = i * step_;
      out += Format("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", kLeft, kRight, Y(tick), Y(tick));
      out += SvgText(kLeft - 8, Y(tick) + 4, "text-anchor=\"end\" fill=\"#333\"", Format("%g", tick));
    }
    for (int tick = 0; tick <= 100; tick += 20) {
      out += SvgText(X(tick), top_ + kPanel + 18, "text-anchor=\"middle\" fill=\"#333\"", std::to_string(tick));
    }
    return out + SvgText(kLeft, top_ - 8, "fill=\"#333\"", label);
  }

  std::string Curve(const std::vector<double> &values, double scale, size_t colour, const ReplayCurve &curve) const {
    std::string points, dots;
    const char *paint = kColours[colour % (sizeof kColours / sizeof kColours[0])];
    for (size_t i = 0; i < values.size(); ++i) {
      const double x = X(picture_.percent[i]), y = Y(values[i] * scale);
      points += Format("%.1f,%.1f ", x, y);
      dots += Format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"><title>%s, %.4g %%: %.4g</title></circle>\n", x, y, paint,
                     curve.name.c_str(), picture_.percent[i], values[i] * scale);
    }
    return Format("<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"%s points=\"", paint,
                  curve.dashed ? " stroke-dasharray=\"5 4\"" : "") +
           points + "\"/>\n" + dots;
  }

 private:
  double X(double percent) const { return kLeft + percent / 100 * (kRight - kLeft); }
  double Y(double value) const { return top_ + kPanel * (1 - value / high_); }

  const ReplayPicture &picture_;
  const double top_;
  double step_, high_;
};

std::string Draw(const ReplayPicture &picture) {
  const double second = kTop + kPanel + kGap, bottom = second + kPanel;
  std::string svg = SvgHead(static_cast<int>(kWidth), static_cast<int>(bottom + 44));
  svg += SvgText(20, 30, "font-size=\"16\"", picture.title);
  double fastest = 0;
  for (const ReplayCurve &curve : picture.curves) {
    for (const double speed : curve.per_second) fastest = std::max(fastest, speed);
  }
  const Panel hits(picture, kTop, 100), speed(picture, second, fastest);
  svg += hits.Axes("hit rate, %") + speed.Axes("tokens/s");
  for (size_t i = 0; i < picture.curves.size(); ++i) {
    const ReplayCurve &curve = picture.curves[i];
    svg += hits.Curve(curve.hit_rate, 100, i, curve) + speed.Curve(curve.per_second, 1, i, curve);
    const double y = kTop + 16 + 20 * static_cast<double>(i);
    svg += Format("<rect x=\"%.1f\" y=\"%.1f\" width=\"10\" height=\"10\" fill=\"%s\"/>\n", kRight + 24, y - 9,
                  kColours[i % (sizeof kColours / sizeof kColours[0])]);
    svg += SvgText(kRight + 40, y, "", curve.name);
  }
  svg += SvgText(kRight + 24, kTop + 26 + 20 * static_cast<double>(picture.curves.size()), "fill=\"#8a7a5c\" font-size=\"11\"",
                 "shaded: too small");
  svg += SvgText((kLeft + kRight) / 2, bottom + 36, "text-anchor=\"middle\" fill=\"#333\"", "cache, % of all experts");
  return svg + "</svg>\n";
}

}  // namespace

void WriteReplaySvg(const std::string &path, const ReplayPicture &picture) { WriteSvg(path, Draw(picture)); }

}  // namespace acorn::program
