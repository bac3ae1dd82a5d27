// The report of a conversion: a page that any browser shows without a network, with nothing in it that has no data.
#include "report/report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "report/chart.h"
#include "report/markup.h"
#include "report/page.h"
#include "tests/compiler/expect_error.h"
#include "tests/support/temp_folder.h"

namespace acorn::compiler {
namespace {

bool Contains(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

size_t CountOf(const std::string &text, const std::string &part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

/// Empty when every element is closed in its turn and every attribute is quoted, else what is wrong where.
std::string FaultOf(const std::string &page) {
  std::vector<std::string> open;
  for (size_t at = page.find('<'); at != std::string::npos; at = page.find('<', at)) {
    const std::string where = " at \"" + page.substr(at, 60) + "\"";
    if (page.compare(at, 9, "<!DOCTYPE") == 0) {
      at = page.find('>', at);
      continue;
    }
    // The end of the tag is outside quotes.
    size_t end = at + 1;
    for (bool quoted = false; end < page.size() && (quoted || page[end] != '>'); ++end) {
      if (page[end] == '"') quoted = !quoted;
      if (page[end] == '<') return "a tag within a tag" + where;
    }
    if (end >= page.size()) return "a tag without an end" + where;
    const bool closes = page[at + 1] == '/', empty = page[end - 1] == '/';
    const size_t name_at = at + 1 + (closes ? 1 : 0);
    const std::string name = page.substr(name_at, page.find_first_of(" />", name_at) - name_at);
    if (closes) {
      if (open.empty() || open.back() != name) return "closes " + name + where;
      open.pop_back();
    } else if (!empty) {
      open.push_back(name);
    }
    at = end;
  }
  return open.empty() ? "" : "never closed: " + open.back();
}

ConversionReport WithWeights() {
  ConversionReport report;
  report.model = "small";
  report.file_bytes = 12345678;
  report.facts = {{"recipe", "fast"}, {"prefix", "none"}};
  report.layers = 3;
  for (int64_t layer = 0; layer < 3; ++layer) {
    for (const char *weight : {"qkv", "o"}) {
      report.weights.push_back({layer, weight, "w4g32", 1e-3, 1e-4, 0.5, 0.75, 0.25, 64, 32, 64 * 17});
    }
  }
  report.weights.push_back({3, "head", "w8", 2e-5, 0, 0.1, 1, 0, 100, 32, 3200});
  return report;
}

ConversionReport WithEverything() {
  ConversionReport report = WithWeights();
  report.perplexity = {"8 windows", 20.0, 21.0, 22.5};
  for (int64_t layer = 0; layer < 3; ++layer) {
    report.ranges.push_back({layer, "attn_in", "input of q, k, v", "s8", -1, 4.0, 3.0, 3.0, 0});
    for (int64_t head = 0; head < 2; ++head) {
      const double range = 1.0 + static_cast<double>(head);
      report.ranges.push_back({layer, "k8", "cached keys, each head", "s8", head, range, range, range, 0});
    }
  }
  for (int64_t step = 1; step <= 300; ++step) {
    TrainingPoint point;
    point.stage = step <= 200 ? "everything" : "scales";
    point.step = step;
    point.training_loss = 1.0 / static_cast<double>(step) + 0.1;
    if (step % 100 == 0) point.held_out_loss = 0.5 - static_cast<double>(step) * 1e-3;
    point.learning_rate = 1e-3;
    report.training.points.push_back(point);
  }
  report.training.end = TrainingEnd::kTimeLimit;
  report.rates = {{0, 0, 9000, 21, 100, 0, 0.005}, {25, 0.248, 7000, 24.5, 120, 0.4, 0.3125}};
  for (int64_t layer = 0; layer < 3; ++layer) {
    for (int64_t expert = 0; expert < 4; ++expert) {
      const bool two_bits = layer > 0 && expert < 2;
      report.experts.push_back({layer, expert, two_bits ? "w2g32" : "w4g32", two_bits ? 2.25 : 4.25, layer == 2 ? NAN : 1e-3});
    }
    report.sensitivities.push_back({layer, "o", "w4g32", layer == 1 ? "w8" : "w4g32", 0.01 * static_cast<double>(layer), 960});
  }
  return report;
}

TEST(Report, PageIsWellFormedAndNeedsNoNetwork) {
  for (const ConversionReport &report : {ConversionReport(), WithWeights(), WithEverything()}) {
    const std::string page = ReportPage(report);
    EXPECT_EQ(FaultOf(page), "");
    EXPECT_EQ(page.compare(0, 15, "<!DOCTYPE html>"), 0);
    for (const char *outside : {"http", "//", "<script", "@import", "url(", "<link", "src="}) {
      EXPECT_FALSE(Contains(page, outside)) << outside;
    }
    EXPECT_FALSE(Contains(page, "nan")) << page.substr(page.find("nan") - 60, 120);
    EXPECT_FALSE(Contains(page, "inf\""));
  }
}

TEST(Report, EveryExpertHasACellInTheHeatMap) {
  const std::string page = ReportPage(WithEverything());
  EXPECT_TRUE(Contains(page, "Bits of each expert"));
  EXPECT_TRUE(Contains(page, "3.583 bits a weight on average"));  // 4 of 12 in 2.25 bits, 8 in 4.25
  for (int expert = 0; expert < 4; ++expert) {
    const std::string name = "expert " + std::to_string(expert) + ", " + (expert < 2 ? "w2g32" : "w4g32");
    EXPECT_TRUE(Contains(page, name + ", importance 0.001\"")) << name;
    EXPECT_TRUE(Contains(page, name + "\"")) << name << " without an importance";
  }
  EXPECT_FALSE(Contains(ReportPage(WithWeights()), "Bits of each expert"));
}

TEST(Report, RatesSayWhatHealingBroughtWhereThereWasAny) {
  ConversionReport report = WithEverything();
  const std::string healed = ReportPage(report);
  for (const char *part : {"<td class=\"number\">24.8</td><td class=\"number\">24.500</td>", "divergence before healing",
                           "<td class=\"number\">0.4</td><td class=\"number\">0.3125</td>"}) {
    EXPECT_TRUE(Contains(healed, part)) << part;
  }
  for (RateReport &row : report.rates) row.loss_before_healing = row.loss_after_healing = NAN;
  const std::string page = ReportPage(report);
  EXPECT_TRUE(Contains(page, "<td class=\"number\">24.500</td>"));
  EXPECT_FALSE(Contains(page, "healing"));
}

TEST(Report, CheckerSeesFaults) {
  EXPECT_EQ(FaultOf("<p class=\"a>b\">x<br/></p>"), "");
  for (const char *bad : {"<p>", "</p>", "<p><b></p></b>", "<p <b></b></p>", "<p"}) EXPECT_NE(FaultOf(bad), "") << bad;
}

TEST(Report, NamesFromAFileCannotBreakThePage) {
  const std::string hostile = "</title><script>alert(\"1\")</script>&<b a='\x01";
  ConversionReport report = WithEverything();
  report.model = hostile;
  report.facts.emplace_back(hostile, hostile);
  report.perplexity.text = hostile;
  for (WeightReport &row : report.weights) row.weight += hostile, row.format += hostile;
  for (RangeReport &row : report.ranges) row.edge += hostile, row.meaning += hostile;
  for (TrainingPoint &point : report.training.points) point.stage += hostile;
  for (SensitivityReport &row : report.sensitivities) row.weight += hostile, row.chosen += hostile;
  const std::string page = ReportPage(report);
  EXPECT_EQ(FaultOf(page), "");
  EXPECT_FALSE(Contains(page, "<script"));
  EXPECT_FALSE(Contains(page, "\x01"));
  EXPECT_TRUE(Contains(page, "<h1>&lt;/title&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&lt;b a='\xef\xbf\xbd</h1>"));
}

TEST(Report, SectionsWithoutDataLeaveNoTrace) {
  const struct {
    const char *id;
    std::vector<const char *> words;
  } optional[] = {{"perplexity", {"erplexity"}},
                  {"training", {"raining", "learning"}},
                  {"ranges", {"magnitude", "ero point"}},
                  {"sensitivities", {"ensitiv"}}};
  const std::string few = ReportPage(WithWeights()), all = ReportPage(WithEverything()), none = ReportPage({});
  for (const auto &section : optional) {
    const std::string anchor = std::string("id=\"") + section.id + "\"", link = std::string("href=\"#") + section.id + "\"";
    EXPECT_FALSE(Contains(few, anchor)) << section.id;
    EXPECT_FALSE(Contains(few, link)) << section.id;
    EXPECT_TRUE(Contains(all, anchor)) << section.id;
    EXPECT_TRUE(Contains(all, link)) << section.id;
    for (const char *word : section.words) EXPECT_FALSE(Contains(few, word)) << word;
  }
  for (const char *id : {"bits", "errors"}) {
    EXPECT_TRUE(Contains(few, std::string("id=\"") + id + "\""));
    EXPECT_FALSE(Contains(none, std::string("id=\"") + id + "\""));
  }
}

TEST(Report, ShowsTheNumbers) {
  const std::string page = ReportPage(WithEverything());
  EXPECT_TRUE(Contains(page, "<b>12.35 MB</b>"));
  EXPECT_TRUE(Contains(page, "<b>1.125 ×</b>"));                // the device's perplexity counts
  EXPECT_TRUE(Contains(page, "22.500  (1.125 × float)"));
  EXPECT_TRUE(Contains(page, "<b>15,488</b>"));                 // 6 * 64 * 32 + 100 * 32 weights
  EXPECT_TRUE(Contains(page, "<b>5.02</b>"));                   // 8 * (6 * 1088 + 3200) / 15488
  EXPECT_TRUE(Contains(page, "stopped by the time limit after 300 steps"));
  EXPECT_TRUE(Contains(page, "from 0.4 to 0.2 (−50.0 %)"));
  EXPECT_TRUE(Contains(page, "Losses as a table (300 rows)"));
  EXPECT_TRUE(Contains(page, "Outside the layers: head 2×10⁻⁵."));
  EXPECT_EQ(CountOf(page, "title=\"w4g32, 64 × 32, 4.25 bits a weight\""), 6u);
  // The most sensitive one comes first.
  EXPECT_LT(page.find(">layer 2 o<"), page.find(">layer 1 o<"));
}

TEST(Report, TrainingEndsAreToldApart) {
  ConversionReport report = WithEverything();
  std::set<std::string> pages;
  for (const TrainingEnd end :
       {TrainingEnd::kAllSteps, TrainingEnd::kTimeLimit, TrainingEnd::kInterrupted, TrainingEnd::kDiverged}) {
    report.training.end = end;
    pages.insert(ReportPage(report));
  }
  EXPECT_EQ(pages.size(), 4u);
}

TEST(Report, FinalRangesGoToTheirEdgesAndHeads) {
  ConversionReport report = WithEverything();
  EXPECT_FALSE(Contains(ReportPage(report), "closed form</li>"));
  TakeFinalRanges({{1, "attn_in", "", "s8", -1, NAN, 9.0, 3.3, -7}, {2, "k8", "", "s8", 1, NAN, 9.0, 2.5, 0},
                   {2, "k8", "", "s8", 5, NAN, 9.0, 9.0, 9}, {2, "other", "", "s8", -1, NAN, 9.0, 9.0, 9}},
                  &report);
  for (const RangeReport &row : report.ranges) {
    const bool attn = row.layer == 1 && row.edge == "attn_in", head = row.layer == 2 && row.head == 1;
    EXPECT_EQ(row.in_file, attn ? 3.3 : head ? 2.5 : row.closed_form);
    EXPECT_EQ(row.zero_point, attn ? -7 : 0);
    EXPECT_NE(row.closed_form, 9.0);
  }
  const std::string page = ReportPage(report);
  EXPECT_EQ(FaultOf(page), "");
  EXPECT_TRUE(Contains(page, "Training moved 2 of 9 ranges, by 25.0 % at most."));
  EXPECT_TRUE(Contains(page, "<h3>Zero points</h3>"));
}

TEST(Report, WritesAPageAndATableOrSaysWhyNot) {
  const test::TempFolder folder;
  WriteReport(folder.File("a/report"), WithWeights());
  std::set<std::string> names;
  for (const auto &entry : std::filesystem::directory_iterator(folder.File("a/report"))) {
    names.insert(entry.path().filename().string());
  }
  EXPECT_EQ(names, (std::set<std::string>{"layers.csv", "report.html"}));
  const std::string csv = test::ReadFile(folder.File("a/report/layers.csv"));
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 8);
  EXPECT_TRUE(Contains(csv, "2,o,w4g32,0.001,0.0001,0.5,0.7500,0.25,64,32,1088\n")) << csv;
  EXPECT_EQ(test::ReadFile(folder.File("a/report/report.html")), ReportPage(WithWeights()));
  EXPECT_ERROR(WriteReport(folder.Write("file", "x") + "/report", WithWeights()), ExitCode::kIo, "file/report");
  std::filesystem::create_directories(folder.File("b/report.html/x"));
  EXPECT_ERROR(WriteReport(folder.File("b"), WithWeights()), ExitCode::kIo, "b/report.html");
}

TEST(Chart, SurvivesWhatItCannotDraw) {
  LineChart chart;
  chart.title = "t";
  chart.x_label = "x";
  chart.y_label = "y";
  for (const bool logarithmic : {false, true}) {
    chart.logarithmic = logarithmic;
    for (const std::vector<ChartPoint> &points :
         std::vector<std::vector<ChartPoint>>{{},
                                              {{0, NAN}},
                                              {{0, 0}},
                                              {{5, 3}},
                                              {{0, -1}, {1, INFINITY}, {2, 4}},
                                              {{0, 1e-300}, {1, 1e300}},
                                              {{0, 7}, {1, 7}},
                                              {{0, 1}, {1000000, 2}}}) {
      chart.series = {{"s", 0, ChartSeries::Style::kLine, points}};
      Markup out;
      Draw(chart, &out);
      EXPECT_EQ(FaultOf(out.text()), "");
      EXPECT_FALSE(Contains(out.text(), "nan")) << out.text();
      EXPECT_FALSE(Contains(out.text(), "inf")) << out.text();
      EXPECT_LT(CountOf(out.text(), "<text"), 60u);
    }
  }
}

TEST(Chart, ReadableNumbers) {
  EXPECT_EQ(Readable(0), "0");
  EXPECT_EQ(Readable(12.5), "12.5");
  EXPECT_EQ(Readable(2000), "2000");
  EXPECT_EQ(Readable(0.0005), "0.0005");
  EXPECT_EQ(Readable(1e-5), "10⁻⁵");
  EXPECT_EQ(Readable(2e6), "2×10⁶");
  EXPECT_EQ(Readable(-2.5e-6), "−2.5×10⁻⁶");
}

}  // namespace
}  // namespace acorn::compiler
