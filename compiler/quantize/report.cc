#include "quantize/report.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/error.h"

namespace acorn::compiler {
namespace {

constexpr int kWidth = 960, kHeight = 420, kLeft = 70, kRight = 120, kTop = 40, kBottom = 50;
const char *const kColours[] = {"#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#9c6b4e"};

class TextFile {
 public:
  explicit TextFile(const std::string &path) : path_(path), stream_(path, std::ios::binary) { Check(); }
  void Write(const std::string &text) {
    stream_ << text;
    Check();
  }
  void Close() {
    stream_.close();
    Check();
  }

 private:
  void Check() const {
    if (!stream_) throw Error(ExitCode::kIo, "cannot write " + path_ + ": " + std::strerror(errno));
  }
  std::string path_;
  std::ofstream stream_;
};

std::string Format(const char *format, double a, double b = 0, double c = 0, double d = 0) {
  char text[200];
  std::snprintf(text, sizeof text, format, a, b, c, d);
  return text;
}

/// One line a weight over the layers, logarithmic upwards.
std::string Picture(const LayerReport &report, const char *title, double WeightReport::*member) {
  std::map<std::string, std::vector<std::pair<double, double>>> lines;
  double low = INFINITY, high = 0, last = 1;
  for (const WeightReport &line : report.weights) {
    const double value = line.*member;
    if (!(value > 0)) continue;
    lines[line.weight].emplace_back(static_cast<double>(line.layer), value);
    low = std::min(low, value);
    high = std::max(high, value);
    last = std::max(last, static_cast<double>(line.layer));
  }
  const double bottom = std::floor(std::log10(std::isfinite(low) ? low : 0.1));
  const double top = std::max(bottom + 1, std::ceil(std::log10(high > 0 ? high : 1.0)));
  const auto x = [&](double layer) { return kLeft + layer / last * (kWidth - kLeft - kRight); };
  const auto y = [&](double value) {
    return kHeight - kBottom - (std::log10(value) - bottom) / (top - bottom) * (kHeight - kTop - kBottom);
  };
  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + std::to_string(kWidth) + " " +
                    std::to_string(kHeight) +
                    "\" font-family=\"sans-serif\" font-size=\"13\">\n"
                    "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  svg += "<text x=\"" + std::to_string(kLeft) + "\" y=\"22\" font-size=\"16\">" + title + "</text>\n";
  for (double decade = bottom; decade <= top; ++decade) {
    const double at = y(std::pow(10.0, decade));
    svg += Format("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", kLeft, kWidth - kRight, at, at);
    svg += Format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">1e%.0f</text>\n", kLeft - 8, at + 4, decade);
  }
  const double step = std::max(1.0, std::ceil(last / 15));
  for (double layer = 0; layer <= last; layer += step) {
    svg += Format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.0f</text>\n", x(layer), kHeight - kBottom + 20, layer);
  }
  svg += Format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">layer</text>\n", (kLeft + kWidth - kRight) / 2.0,
                kHeight - 10);
  size_t index = 0;
  for (const auto &[name, points] : lines) {
    const std::string colour = kColours[index % (sizeof kColours / sizeof *kColours)];
    svg += "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"" + colour + "\" points=\"";
    for (const auto &[layer, value] : points) svg += Format("%.1f,%.1f ", x(layer), y(value));
    svg += "\"/>\n";
    for (const auto &[layer, value] : points) {
      svg += Format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"", x(layer), y(value)) + colour + "\"/>\n";
    }
    svg += Format("<text x=\"%.1f\" y=\"%.1f\" fill=\"", kWidth - kRight + 12, kTop + 10 + 20.0 * static_cast<double>(index)) +
           colour + "\">" + name + "</text>\n";
    ++index;
  }
  return svg + "</svg>\n";
}

}  // namespace

void WriteReport(const std::string &folder, const LayerReport &report) {
  std::error_code fault;
  std::filesystem::create_directories(folder, fault);
  if (fault) throw Error(ExitCode::kIo, "cannot create " + folder + ": " + fault.message());
  TextFile csv(folder + "/layers.csv");
  csv.Write("layer,weight,format,weight_error,input_error,input_step,input_clip,scaling\n");
  for (const WeightReport &line : report.weights) {
    csv.Write(std::to_string(line.layer) + "," + line.weight + "," + line.format + "," +
              Format("%.6g,%.6g,%.6g,%.4f", line.weight_error, line.input_error, line.input_step, line.input_clip) +
              Format(",%.2f\n", line.scaling));
  }
  csv.Close();
  TextFile weights(folder + "/weight_error.svg");
  weights.Write(Picture(report, "Relative squared error of the output from rounding the weight", &WeightReport::weight_error));
  weights.Close();
  TextFile inputs(folder + "/input_error.svg");
  inputs.Write(Picture(report, "Relative squared error of the output from rounding the input", &WeightReport::input_error));
  inputs.Close();
}

}  // namespace acorn::compiler
