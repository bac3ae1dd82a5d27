#include "report/page.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "report/chart.h"
#include "report/markup.h"
#include "resources/resources.h"

namespace acorn::compiler {
namespace {

constexpr int kPanelWidth = 310, kPanelHeight = 180;
constexpr size_t kMostBars = 40;         // of the sensitivities that are drawn; the table has all
constexpr size_t kCurvePoints = 1000;    // of a loss curve, more cannot be told apart
constexpr double kSmoothShare = 1.0 / 30;  // of a stage's steps that are averaged
constexpr double kLogRatio = 20;         // of the largest loss to the smallest that asks for a logarithmic axis

std::string Plain(double value) {
  if (!std::isfinite(value)) return "";
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

std::string Fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string Bytes(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes < 10000) return std::to_string(bytes) + " B";
  if (bytes < 1000000) return Fixed(value / 1e3, 1) + " kB";
  return Fixed(value / 1e6, value < 1e9 ? 2 : 1) + " MB";
}

std::string Count(uint64_t value) {
  std::string digits = std::to_string(value);
  for (int64_t at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3) digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

double BitsPerWeight(uint64_t bytes, uint64_t weights) {
  return weights == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
}

/// "layer 3 down", or the weight alone where it belongs to no layer.
std::string Place(const ConversionReport &report, int64_t layer, const std::string &weight) {
  return layer >= 0 && layer < report.layers ? "layer " + std::to_string(layer) + " " + weight : weight;
}

std::string LayerCell(const ConversionReport &report, int64_t layer) {
  return layer >= 0 && layer < report.layers ? std::to_string(layer) : "";
}

/// The different values of a member, in the order of their first row.
template <typename Row>
std::vector<std::string> NamesOf(const std::vector<Row> &rows, std::string Row::*member) {
  std::vector<std::string> names;
  for (const Row &row : rows) {
    if (std::find(names.begin(), names.end(), row.*member) == names.end()) names.push_back(row.*member);
  }
  return names;
}

struct Column {
  const char *name;
  bool number;
};

/// Rows of numbers that a reader can open and copy.
void Numbers(const char *what, const std::vector<Column> &columns, const std::vector<std::vector<std::string>> &rows,
             Markup *out) {
  out->Open("details");
  out->Element("summary", std::string(what) + " as a table (" + Count(rows.size()) + (rows.size() == 1 ? " row)" : " rows)"));
  out->Open("div", {{"class", "table"}}).Open("table").Open("thead").Open("tr");
  const auto attributes = [&](size_t i) {
    return columns[i].number ? Markup::Attributes{{"class", "number"}} : Markup::Attributes{};
  };
  for (size_t i = 0; i < columns.size(); ++i) out->Element("th", columns[i].name, attributes(i));
  out->Close().Close().Open("tbody");
  for (const std::vector<std::string> &row : rows) {
    out->Open("tr");
    for (size_t i = 0; i < row.size(); ++i) out->Element("td", row[i], attributes(i));
    out->Close();
  }
  out->Close().Close().Close().Close();
}

class Page {
 public:
  explicit Page(const ConversionReport &report) : report_(report) {}

  std::string Write();

 private:
  struct Section {
    const char *id;
    const char *title;
    bool (Page::*has_data)() const;
    void (Page::*write)();
  };
  static const Section kSections[];

  bool HasPerplexity() const {
    const PerplexityReport &p = report_.perplexity;
    return std::isfinite(p.source) || std::isfinite(p.simulator) || std::isfinite(p.device);
  }
  bool HasRates() const { return !report_.rates.empty(); }
  bool HasTraining() const { return !report_.training.points.empty(); }
  bool HasWeights() const { return !report_.weights.empty(); }
  bool HasExperts() const { return !report_.experts.empty(); }
  bool HasRanges() const { return !report_.ranges.empty(); }
  bool HasSensitivities() const { return !report_.sensitivities.empty(); }

  void Paragraph(const std::string &text, const char *kind = "") {
    out_.Element("p", text, *kind == 0 ? Markup::Attributes{} : Markup::Attributes{{"class", kind}});
  }

  void Card(const std::string &value, const std::string &what) {
    out_.Open("li").Element("b", value).Element("span", what).Close();
  }

  void Head();
  void Perplexities();
  void Rates();
  void RateChart(const char *title, int colour, const std::vector<ChartPoint> &points);
  void Training();
  void LearningRate(const std::vector<ChartBand> &bands);
  void Bits();
  void BitsGrid(const std::vector<std::string> &formats);
  void Experts();
  void Errors();
  void ErrorChart(const char *title, double WeightReport::*member);
  void Ranges();
  void RangePanel(const std::string &edge, bool trained);
  void ZeroPoints();
  void Sensitivities();

  const ConversionReport &report_;
  Markup out_;
};

const Page::Section Page::kSections[] = {
    {"perplexity", "Perplexity", &Page::HasPerplexity, &Page::Perplexities},
    {"rates", "Pruning rates", &Page::HasRates, &Page::Rates},
    {"training", "Training", &Page::HasTraining, &Page::Training},
    {"bits", "Bits of each tensor", &Page::HasWeights, &Page::Bits},
    {"experts", "Bits of each expert", &Page::HasExperts, &Page::Experts},
    {"errors", "Error by layer", &Page::HasWeights, &Page::Errors},
    {"ranges", "Activation ranges", &Page::HasRanges, &Page::Ranges},
    {"sensitivities", "Sensitivity of the tensors", &Page::HasSensitivities, &Page::Sensitivities},
};

std::string Page::Write() {
  out_.Verbatim("<!DOCTYPE html>\n");
  out_.Open("html", {{"lang", "en"}}).Open("head");
  out_.Empty("meta", {{"charset", "utf-8"}});
  out_.Empty("meta", {{"name", "viewport"}, {"content", "width=device-width, initial-scale=1"}});
  out_.Element("title", report_.model + ": conversion report");
  out_.Open("style").Verbatim(ReportStyle()).Close();
  out_.Close().Open("body");
  Head();
  for (const Section &section : kSections) {
    if (!(this->*section.has_data)()) continue;
    out_.Open("section", {{"id", section.id}});
    out_.Element("h2", section.title);
    (this->*section.write)();
    out_.Close();
  }
  out_.Close().Close();
  return out_.text();
}

void Page::Head() {
  out_.Open("header");
  Paragraph("Conversion report", "kicker");
  out_.Element("h1", report_.model);
  out_.Open("ul", {{"class", "cards"}});
  if (report_.file_bytes != 0) Card(Bytes(report_.file_bytes), "size of the file");
  uint64_t bytes = 0, weights = 0;
  for (const WeightReport &line : report_.weights) {
    bytes += line.bytes;
    weights += static_cast<uint64_t>(line.n * line.k);
  }
  if (weights != 0) {
    Card(Count(weights), "weights");
    Card(Fixed(BitsPerWeight(bytes, weights), 2), "bits a weight");
  }
  const PerplexityReport &p = report_.perplexity;
  const double best = std::isfinite(p.device) ? p.device : p.simulator;
  if (std::isfinite(best) && std::isfinite(p.source)) Card(Fixed(best / p.source, 3) + " ×", "perplexity of the float model");
  out_.Close();
  out_.Open("dl", {{"class", "facts"}});
  for (const auto &[key, value] : report_.facts) {
    out_.Open("div").Element("dt", key).Element("dd", value).Close();
  }
  if (HasTraining()) out_.Open("div").Element("dt", "training").Element("dd", TrainingEndText(report_.training)).Close();
  out_.Close();
  out_.Open("nav");
  for (const Section &section : kSections) {
    if ((this->*section.has_data)()) out_.Element("a", section.title, {{"href", std::string("#") + section.id}}).Text("\n");
  }
  out_.Close().Close();
}

void Page::Perplexities() {
  const PerplexityReport &p = report_.perplexity;
  const struct {
    const char *name;
    double value;
  } all[] = {{"source, float", p.source}, {"simulated, rounded", p.simulator}, {"file, on integers", p.device}};
  Paragraph("Lower is better" + (p.text.empty() ? std::string() : "; measured on " + p.text) + ".", "note");
  std::vector<ChartBar> bars;
  for (const auto &one : all) {
    if (!std::isfinite(one.value)) continue;
    std::string number = Fixed(one.value, 3);
    if (&one != all && std::isfinite(p.source)) number += "  (" + Fixed(one.value / p.source, 3) + " × float)";
    bars.push_back({one.name, one.value, number, &one == all ? 5 : 0});
  }
  out_.Open("figure");
  DrawBars("Perplexities", bars, &out_);
  out_.Close();
}

void Page::RateChart(const char *title, int colour, const std::vector<ChartPoint> &points) {
  LineChart chart;
  chart.title = std::string(title) + " over the pruning rate";
  chart.x_label = "rate, %";
  chart.y_label = title;
  chart.width = 440;
  chart.height = 240;
  chart.series = {{title, colour, ChartSeries::Style::kLine, points}};
  out_.Open("figure");
  Draw(chart, &out_);
  out_.Close();
}

void Page::Rates() {
  Paragraph(
      "What each rate that the device can choose costs: perplexity on the tokens above, the weights that a token reads, and how fast "
      "the machine that converted decodes.",
      "note");
  const bool healed = std::isfinite(report_.rates.back().loss_after_healing);
  if (healed) {
    Paragraph("Divergence, in nats a token: of the float model at this rate from the whole one, on text that healing never saw.", "note");
  }
  std::vector<ChartPoint> losses, bytes, speeds;
  std::vector<std::vector<std::string>> rows;
  for (const RateReport &row : report_.rates) {
    const double x = row.rate;
    losses.push_back({x, row.perplexity});
    bytes.push_back({x, static_cast<double>(row.weight_bytes) / 1e6});
    speeds.push_back({x, row.tokens_per_second});
    rows.push_back({std::to_string(row.rate), Fixed(100 * row.left_out, 1), Fixed(row.perplexity, 3),
                    std::to_string(row.weight_bytes), Fixed(row.tokens_per_second, 1)});
    if (!healed) continue;
    rows.back().push_back(Plain(row.loss_before_healing));
    rows.back().push_back(Plain(row.loss_after_healing));
  }
  out_.Open("div", {{"class", "panels"}});
  RateChart("perplexity", 0, losses);
  RateChart("MB that a token reads", 1, bytes);
  RateChart("tokens a second", 2, speeds);
  out_.Close();
  std::vector<Column> columns = {
      {"rate, %", true}, {"left out, %", true}, {"perplexity", true}, {"bytes a token reads", true}, {"tokens a second", true}};
  if (healed) {
    columns.push_back({"divergence before healing", true});
    columns.push_back({"after", true});
  }
  Numbers("Rates", columns, rows, &out_);
}

/// The mean of the finite values within `reach` of each point, inside its stage.
std::vector<ChartPoint> Smoothed(const std::vector<TrainingPoint> &points) {
  std::vector<ChartPoint> smooth;
  for (size_t begin = 0; begin < points.size();) {
    size_t end = begin;
    while (end < points.size() && points[end].stage == points[begin].stage) ++end;
    const auto reach = static_cast<size_t>(static_cast<double>(end - begin) * kSmoothShare / 2);
    std::vector<double> sums = {0}, counts = {0};
    for (size_t i = begin; i < end; ++i) {
      const bool finite = std::isfinite(points[i].training_loss);
      sums.push_back(sums.back() + (finite ? points[i].training_loss : 0));
      counts.push_back(counts.back() + (finite ? 1 : 0));
    }
    for (size_t i = begin; i < end; ++i) {
      const size_t from = i - begin - std::min(i - begin, reach), to = std::min(end - begin, i - begin + reach + 1);
      if (counts[to] == counts[from]) continue;
      smooth.push_back({static_cast<double>(points[i].step), (sums[to] - sums[from]) / (counts[to] - counts[from])});
    }
    smooth.push_back({static_cast<double>(points[end - 1].step), NAN});  // a stage may begin on another level
    begin = end;
  }
  return smooth;
}

std::vector<ChartPoint> PointsOf(const std::vector<TrainingPoint> &points, double TrainingPoint::*member) {
  std::vector<ChartPoint> out;
  for (const TrainingPoint &point : points) {
    if (std::isfinite(point.*member)) out.push_back({static_cast<double>(point.step), point.*member});
  }
  return out;
}

/// Every n-th point, so that few enough are left; gaps stay.
std::vector<ChartPoint> Thinned(const std::vector<ChartPoint> &points) {
  const size_t stride = points.size() / kCurvePoints + 1;
  std::vector<ChartPoint> out;
  for (size_t i = 0; i < points.size(); ++i) {
    if (i % stride == 0 || i + 1 == points.size() || !std::isfinite(points[i].y)) out.push_back(points[i]);
  }
  return out;
}

std::vector<ChartBand> StagesOf(const std::vector<TrainingPoint> &points) {
  std::vector<ChartBand> bands;
  for (const TrainingPoint &point : points) {
    const auto step = static_cast<double>(point.step);
    if (bands.empty() || bands.back().name != point.stage) bands.push_back({point.stage, step, step});
    bands.back().to = step;
    if (bands.size() > 1) bands[bands.size() - 2].to = bands.back().from;
  }
  return bands;
}

void Page::Training() {
  const std::vector<TrainingPoint> &points = report_.training.points;
  const std::vector<ChartPoint> held_out = PointsOf(points, &TrainingPoint::held_out_loss);
  std::string text = "Training " + TrainingEndText(report_.training);
  if (held_out.size() > 1) {
    const double first = held_out.front().y, last = held_out.back().y;
    text += "; the held-out loss went from " + Readable(first) + " to " + Readable(last);
    if (first > 0) text += " (" + std::string(last < first ? "−" : "+") + Fixed(std::abs(last / first - 1) * 100, 1) + " %)";
  }
  Paragraph(text + ".", "note");
  LineChart chart;
  chart.title = "Loss over the steps of training";
  chart.x_label = "step";
  chart.y_label = "loss";
  chart.bands = StagesOf(points);
  chart.series = {
      {"training, each step", 0, ChartSeries::Style::kHaze, Thinned(PointsOf(points, &TrainingPoint::training_loss))},
      {"training, smoothed", 0, ChartSeries::Style::kLine, Thinned(Smoothed(points))},
      {"held out", 1, ChartSeries::Style::kLine, held_out}};
  double low = INFINITY, high = -INFINITY;
  for (const ChartSeries &series : chart.series) {
    if (series.style == ChartSeries::Style::kHaze) continue;
    for (const ChartPoint &point : series.points) {
      if (!std::isfinite(point.y)) continue;
      low = std::min(low, point.y);
      high = std::max(high, point.y);
    }
  }
  chart.logarithmic = low > 0 && high / low > kLogRatio;
  DrawLegend(chart.series, &out_);
  out_.Open("figure");
  Draw(chart, &out_);
  out_.Close();
  LearningRate(chart.bands);
  std::vector<std::vector<std::string>> rows;
  rows.reserve(points.size());
  for (const TrainingPoint &point : points) {
    rows.push_back({point.stage, std::to_string(point.step), Plain(point.training_loss), Plain(point.held_out_loss),
                    Plain(point.learning_rate)});
  }
  Numbers("Losses",
          {{"stage", false}, {"step", true}, {"training loss", true}, {"held-out loss", true}, {"learning rate", true}}, rows,
          &out_);
}

void Page::LearningRate(const std::vector<ChartBand> &bands) {
  const std::vector<ChartPoint> rates = PointsOf(report_.training.points, &TrainingPoint::learning_rate);
  if (rates.empty()) return;
  LineChart chart;
  chart.title = "Learning rate over the steps of training";
  chart.x_label = "step";
  chart.y_label = "learning rate";
  chart.height = 170;
  chart.bands = bands;
  chart.series = {{"learning rate", 2, ChartSeries::Style::kLine, Thinned(rates)}};
  out_.Element("h3", "Learning rate");
  out_.Open("figure");
  Draw(chart, &out_);
  out_.Close();
}

void Page::Bits() {
  struct Sum {
    uint64_t tensors = 0, weights = 0, bytes = 0;
    void Add(const WeightReport &line) {
      ++tensors;
      weights += static_cast<uint64_t>(line.n * line.k);
      bytes += line.bytes;
    }
  };
  std::map<std::string, Sum> sums;
  Sum all;
  for (const WeightReport &line : report_.weights) {
    sums[line.format].Add(line);
    all.Add(line);
  }
  std::vector<std::string> formats = NamesOf(report_.weights, &WeightReport::format);
  std::sort(formats.begin(), formats.end(), [&](const std::string &a, const std::string &b) {
    return BitsPerWeight(sums[a].bytes, sums[a].weights) < BitsPerWeight(sums[b].bytes, sums[b].weights);
  });
  Paragraph("Bytes of the integers and of the multipliers of groups; a layout's padding and what a channel has once come on top.",
            "note");
  out_.Open("div", {{"class", "table"}}).Open("table", {{"class", "plain"}}).Open("thead").Open("tr");
  out_.Element("th", "format");
  for (const char *name : {"tensors", "weights", "bytes", "share of bytes", "bits a weight"}) {
    out_.Element("th", name, {{"class", "number"}});
  }
  out_.Close().Close().Open("tbody");
  const auto row = [&](const std::string &name, int colour, const Sum &sum) {
    out_.Open("tr").Open("td");
    if (colour >= 0) out_.Element("span", "", {{"class", "swatch c" + std::to_string(colour)}});
    out_.Text(name).Close();
    const double share = all.bytes == 0 ? 0 : 100 * static_cast<double>(sum.bytes) / static_cast<double>(all.bytes);
    for (const std::string &cell : {Count(sum.tensors), Count(sum.weights), Count(sum.bytes), Fixed(share, 1) + " %",
                                    Fixed(BitsPerWeight(sum.bytes, sum.weights), 2)}) {
      out_.Element("td", cell, {{"class", "number"}});
    }
    out_.Close();
  };
  for (size_t i = 0; i < formats.size(); ++i) row(formats[i], static_cast<int>(i) % kColours, sums[formats[i]]);
  row("all", -1, all);
  out_.Close().Close().Close();
  BitsGrid(formats);
}

void Page::BitsGrid(const std::vector<std::string> &formats) {
  std::vector<std::string> weights;
  std::map<std::pair<int64_t, std::string>, const WeightReport *> lines;
  std::set<int64_t> layers;
  for (const WeightReport &line : report_.weights) {
    lines[{line.layer, line.weight}] = &line;
    layers.insert(line.layer);
    const bool in_layer = !LayerCell(report_, line.layer).empty();
    if (in_layer && std::find(weights.begin(), weights.end(), line.weight) == weights.end()) weights.push_back(line.weight);
  }
  const auto cell = [&](const WeightReport &line, size_t columns) {
    const auto format = std::find(formats.begin(), formats.end(), line.format) - formats.begin();
    const auto count = static_cast<uint64_t>(line.n * line.k);
    out_.Element("td", Bytes(line.bytes),
                 {{"class", "c" + std::to_string(format % kColours)},
                  {"colspan", std::to_string(columns)},
                  {"title", line.format + ", " + std::to_string(line.n) + " × " + std::to_string(line.k) + ", " +
                                Fixed(BitsPerWeight(line.bytes, count), 2) + " bits a weight"}});
  };
  out_.Open("div", {{"class", "table"}}).Open("table", {{"class", "bits"}}).Open("thead").Open("tr");
  out_.Element("th", "layer");
  for (const std::string &weight : weights) out_.Element("th", weight);
  out_.Close().Close().Open("tbody");
  for (const int64_t layer : layers) {
    const std::string name = LayerCell(report_, layer);
    if (name.empty()) {  // embedding or head: one weight over the whole width
      for (const WeightReport &line : report_.weights) {
        if (line.layer != layer) continue;
        out_.Open("tr").Element("th", line.weight);
        cell(line, std::max<size_t>(weights.size(), 1));
        out_.Close();
      }
      continue;
    }
    out_.Open("tr").Element("th", name);
    for (const std::string &weight : weights) {
      const auto found = lines.find({layer, weight});
      if (found != lines.end()) {
        cell(*found->second, 1);
      } else {
        out_.Element("td", "");
      }
    }
    out_.Close();
  }
  out_.Close().Close().Close();
}

/// A heat map, layers downwards and experts across: the colour is the format, and where bits were chosen by importance the words
/// of a cell say how it compares.
void Page::Experts() {
  const std::vector<std::string> formats = NamesOf(report_.experts, &ExpertReport::format);
  std::map<int64_t, std::vector<const ExpertReport *>> layers;
  double bits = 0;
  for (const ExpertReport &row : report_.experts) {
    layers[row.layer].push_back(&row);
    bits += row.bits / static_cast<double>(report_.experts.size());
  }
  Paragraph("A line for each layer, a column for each expert, and the whole bits of a weight in the cell. " + Fixed(bits, 3) +
                " bits a weight on average, group multipliers included.",
            "note");
  out_.Open("ul", {{"class", "legend"}});
  for (size_t i = 0; i < formats.size(); ++i) {
    out_.Open("li").Element("span", "", {{"class", "swatch solid c" + std::to_string(i % kColours)}}).Text(formats[i]).Close();
  }
  out_.Close();
  out_.Open("div", {{"class", "table"}}).Open("table", {{"class", "bits"}}).Open("tbody");
  std::vector<std::vector<std::string>> rows;
  for (const auto &[layer, experts] : layers) {
    out_.Open("tr").Element("th", LayerCell(report_, layer));
    for (const ExpertReport *expert : experts) {
      const auto format = std::find(formats.begin(), formats.end(), expert->format) - formats.begin();
      const std::string importance = std::isfinite(expert->importance) ? ", importance " + Readable(expert->importance) : "";
      out_.Element("td", Fixed(std::floor(expert->bits), 0),
                   {{"class", "c" + std::to_string(format % kColours)},
                    {"title", "expert " + std::to_string(expert->expert) + ", " + expert->format + importance}});
      rows.push_back({LayerCell(report_, layer), std::to_string(expert->expert), expert->format, Plain(expert->bits),
                      Plain(expert->importance)});
    }
    out_.Close();
  }
  out_.Close().Close().Close();
  Numbers("Experts", {{"layer", true}, {"expert", true}, {"format", false}, {"bits a weight", true}, {"importance", true}}, rows,
          &out_);
}

void Page::ErrorChart(const char *title, double WeightReport::*member) {
  LineChart chart;
  chart.title = title;
  chart.x_label = "layer";
  chart.y_label = "relative squared error";
  chart.logarithmic = true;
  std::string outside;
  for (const std::string &weight : NamesOf(report_.weights, &WeightReport::weight)) {
    ChartSeries series;
    series.name = weight;
    series.colour = static_cast<int>(chart.series.size()) % kColours;
    for (const WeightReport &line : report_.weights) {
      if (line.weight != weight || !(line.*member > 0)) continue;
      if (LayerCell(report_, line.layer).empty()) {
        outside += (outside.empty() ? "" : ", ") + weight + " " + Readable(line.*member);
      } else {
        series.points.push_back({static_cast<double>(line.layer), line.*member});
      }
    }
    if (!series.points.empty()) chart.series.push_back(series);
  }
  if (chart.series.empty()) return;
  out_.Element("h3", title);
  DrawLegend(chart.series, &out_);
  out_.Open("figure");
  Draw(chart, &out_);
  out_.Close();
  if (!outside.empty()) Paragraph("Outside the layers: " + outside + ".", "note");
}

void Page::Errors() {
  const std::string before = HasTraining() ? " Errors are those of the closed form, which training began with." : "";
  Paragraph("How much the output of each linear layer changes, relative to its size: squared, averaged over calibration tokens." + before,
            "note");
  ErrorChart("From rounding the weight", &WeightReport::weight_error);
  ErrorChart("From rounding the input", &WeightReport::input_error);
  std::vector<std::vector<std::string>> rows;
  for (const WeightReport &line : report_.weights) {
    rows.push_back({LayerCell(report_, line.layer), line.weight, line.format, Plain(line.weight_error),
                    line.input_error > 0 ? Plain(line.input_error) : "", line.input_step > 0 ? Plain(line.input_step) : "",
                    line.input_step > 0 ? Fixed(line.input_clip, 4) : "", Fixed(line.scaling, 2), std::to_string(line.n),
                    std::to_string(line.k), std::to_string(line.bytes)});
  }
  Numbers("Weights",
          {{"layer", true},
           {"weight", false},
           {"format", false},
           {"weight error", true},
           {"input error", true},
           {"input step", true},
           {"input clip", true},
           {"scaling", true},
           {"n", true},
           {"k", true},
           {"bytes", true}},
          rows, &out_);
}

/// The widest range of a layer's heads, and the narrowest where there are several.
ChartPoint PointOf(const ChartPoint *before, double layer, double value) {
  if (before == nullptr || before->x != layer) return {layer, value, NAN};
  const double low = std::isfinite(before->low) ? before->low : before->y;
  return {layer, std::max(before->y, value), std::min(low, value)};
}

void AddPoint(std::vector<ChartPoint> *points, double layer, double value) {
  const ChartPoint *before = points->empty() ? nullptr : &points->back();
  const ChartPoint point = PointOf(before, layer, value);
  if (before != nullptr && before->x == layer) points->pop_back();
  points->push_back(point);
}

std::vector<ChartSeries> RangeSeries(bool trained) {
  std::vector<ChartSeries> series = {{"largest magnitude seen", 5, ChartSeries::Style::kDots, {}}};
  if (trained) series.push_back({"range by closed form", 1, ChartSeries::Style::kDashes, {}});
  series.push_back({"range in the file", 0, ChartSeries::Style::kLine, {}});
  return series;
}

void Page::RangePanel(const std::string &edge, bool trained) {
  std::vector<ChartSeries> series = RangeSeries(trained);
  const RangeReport *first = nullptr;
  for (const RangeReport &row : report_.ranges) {
    if (row.edge != edge || LayerCell(report_, row.layer).empty()) continue;
    if (first == nullptr) first = &row;
    const auto layer = static_cast<double>(row.layer);
    if (std::isfinite(row.largest)) AddPoint(&series.front().points, layer, row.largest);
    if (trained) AddPoint(&series[1].points, layer, row.closed_form);
    AddPoint(&series.back().points, layer, row.in_file);
  }
  if (first == nullptr) return;
  // Only the range of the file shows how far its heads lie apart.
  for (size_t i = 0; i + 1 < series.size(); ++i) {
    for (ChartPoint &point : series[i].points) point.low = NAN;
  }
  LineChart chart;
  chart.title = "Range of " + edge + " over the layers";
  chart.x_label = "layer";
  chart.width = kPanelWidth;
  chart.height = kPanelHeight;
  chart.logarithmic = true;
  chart.series = series;
  out_.Open("figure").Open("figcaption").Element("b", edge).Text(" ");
  out_.Element("span", first->meaning + ", " + first->type).Close();
  Draw(chart, &out_);
  out_.Close();
}

void Page::ZeroPoints() {
  LineChart chart;
  chart.title = "Zero points over the layers";
  chart.x_label = "layer";
  chart.y_label = "zero point";
  chart.height = 240;
  for (const std::string &edge : NamesOf(report_.ranges, &RangeReport::edge)) {
    ChartSeries series;
    series.name = edge;
    series.colour = static_cast<int>(chart.series.size()) % kColours;
    bool any = false;
    for (const RangeReport &row : report_.ranges) {
      if (row.edge != edge || LayerCell(report_, row.layer).empty()) continue;
      series.points.push_back({static_cast<double>(row.layer), static_cast<double>(row.zero_point)});
      any = any || row.zero_point != 0;
    }
    if (any) chart.series.push_back(series);
  }
  if (chart.series.empty()) return;
  out_.Element("h3", "Zero points");
  Paragraph("The integer that stands for 0 on the edges that have one: the range above lies around it.", "note");
  DrawLegend(chart.series, &out_);
  out_.Open("figure");
  Draw(chart, &out_);
  out_.Close();
}

void Page::Ranges() {
  size_t moved = 0;
  double furthest = 0;
  for (const RangeReport &row : report_.ranges) {
    if (row.in_file == row.closed_form && row.zero_point == 0) continue;
    ++moved;
    if (row.closed_form > 0) furthest = std::max(furthest, std::abs(row.in_file / row.closed_form - 1));
  }
  std::string text =
      "The largest magnitude that each static edge holds, beside the largest one that calibration saw. A range below the marks "
      "saturates on purpose; 16-bit edges reach twice as far as an ordinary token. Bars reach from the narrowest head to the "
      "widest.";
  if (moved != 0) {
    text += " Training moved " + Count(moved) + " of " + Count(report_.ranges.size()) + " ranges, by " +
            Fixed(furthest * 100, 1) + " % at most.";
  }
  Paragraph(text, "note");
  DrawLegend(RangeSeries(moved != 0), &out_);
  out_.Open("div", {{"class", "panels"}});
  for (const std::string &edge : NamesOf(report_.ranges, &RangeReport::edge)) RangePanel(edge, moved != 0);
  out_.Close();
  ZeroPoints();
  std::vector<std::vector<std::string>> rows;
  for (const RangeReport &row : report_.ranges) {
    rows.push_back({LayerCell(report_, row.layer), row.edge, row.head < 0 ? "" : std::to_string(row.head), row.type,
                    Plain(row.largest), Plain(row.closed_form), Plain(row.in_file), std::to_string(row.zero_point)});
  }
  Numbers("Ranges",
          {{"layer", true},
           {"edge", false},
           {"head", true},
           {"type", false},
           {"largest seen", true},
           {"closed form", true},
           {"in the file", true},
           {"zero point", true}},
          rows, &out_);
}

void Page::Sensitivities() {
  std::vector<const SensitivityReport *> order;
  for (const SensitivityReport &row : report_.sensitivities) order.push_back(&row);
  std::stable_sort(order.begin(), order.end(),
                   [](const SensitivityReport *a, const SensitivityReport *b) { return a->loss_increase > b->loss_increase; });
  const std::vector<std::string> formats = NamesOf(report_.sensitivities, &SensitivityReport::chosen);
  const std::vector<std::string> tried = NamesOf(report_.sensitivities, &SensitivityReport::tried);
  std::string text = "By how much the loss rises when one tensor alone is stored as ";
  text += tried.size() == 1 ? tried.front() : "the narrower format beside the bar";
  if (order.size() > kMostBars) text += "; the " + std::to_string(kMostBars) + " most sensitive ones are drawn";
  Paragraph(text + ". The colour is the format in the file.", "note");
  out_.Open("ul", {{"class", "legend"}});
  for (size_t i = 0; i < formats.size(); ++i) {
    out_.Open("li").Element("span", "", {{"class", "swatch solid c" + std::to_string(i % kColours)}}).Text(formats[i]).Close();
  }
  out_.Close();
  std::vector<ChartBar> bars;
  for (size_t i = 0; i < order.size() && i < kMostBars; ++i) {
    const SensitivityReport &row = *order[i];
    const auto colour = std::find(formats.begin(), formats.end(), row.chosen) - formats.begin();
    bars.push_back({Place(report_, row.layer, row.weight), row.loss_increase,
                    Readable(row.loss_increase) + (tried.size() == 1 ? "" : "  as " + row.tried),
                    static_cast<int>(colour) % kColours});
  }
  out_.Open("figure");
  DrawBars("Rise of the loss by tensor", bars, &out_);
  out_.Close();
  std::vector<std::vector<std::string>> rows;
  rows.reserve(order.size());
  for (const SensitivityReport *row : order) {
    rows.push_back({LayerCell(report_, row->layer), row->weight, row->tried, Plain(row->loss_increase),
                    std::to_string(row->bytes_saved), row->chosen});
  }
  Numbers("Sensitivities",
          {{"layer", true},
           {"weight", false},
           {"tried", false},
           {"rise of the loss", true},
           {"bytes saved", true},
           {"in the file", false}},
          rows, &out_);
}

}  // namespace

std::string ReportPage(const ConversionReport &report) { return Page(report).Write(); }

}  // namespace acorn::compiler
