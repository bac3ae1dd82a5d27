#include "report/report.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <tuple>

#include "base/error.h"
#include "base/temporary_file.h"
#include "report/page.h"

namespace acorn::compiler {
namespace {

std::string LayersCsv(const std::vector<WeightReport> &weights) {
  std::string csv = "layer,weight,format,weight_error,input_error,input_step,input_clip,scaling,n,k,bytes\n";
  for (const WeightReport &line : weights) {
    char numbers[160];
    std::snprintf(numbers, sizeof numbers, "%.6g,%.6g,%.6g,%.4f,%.2f,%lld,%lld,%llu\n", line.weight_error, line.input_error,
                  line.input_step, line.input_clip, line.scaling, static_cast<long long>(line.n),
                  static_cast<long long>(line.k), static_cast<unsigned long long>(line.bytes));
    csv += std::to_string(line.layer) + "," + line.weight + "," + line.format + "," + numbers;
  }
  return csv;
}

void WriteText(const std::string &path, const std::string &text) {
  TemporaryFile file(path);
  file.Write(text.data(), text.size());
  file.Commit();
}

}  // namespace

void TakeFinalRanges(const std::vector<RangeReport> &rows, ConversionReport *report) {
  std::map<std::tuple<int64_t, std::string, int64_t>, RangeReport *> known;
  for (RangeReport &row : report->ranges) known[{row.layer, row.edge, row.head}] = &row;
  for (const RangeReport &row : rows) {
    const auto found = known.find({row.layer, row.edge, row.head});
    if (found == known.end()) continue;
    found->second->in_file = row.in_file;
    found->second->zero_point = row.zero_point;
  }
}

void CreateReportFolder(const std::string &folder) {
  std::error_code fault;
  std::filesystem::create_directories(folder, fault);
  if (fault) throw Error(ExitCode::kIo, "cannot create " + folder + ": " + fault.message());
  if (access(folder.c_str(), W_OK | X_OK) != 0) throw Error(ExitCode::kIo, folder + ": " + std::strerror(errno));
}

void WriteReport(const std::string &folder, const ConversionReport &report) {
  CreateReportFolder(folder);
  WriteText(folder + "/layers.csv", LayersCsv(report.weights));
  WriteText(folder + "/report.html", ReportPage(report));
}

std::string TrainingEndText(const TrainingReport &training) {
  const int64_t last = training.points.empty() ? 0 : training.points.back().step;
  const std::string after = " after " + std::to_string(last) + " steps";
  switch (training.end) {
    case TrainingEnd::kAllSteps:
      return "all of its " + std::to_string(last) + " steps done";
    case TrainingEnd::kTimeLimit:
      return "stopped by the time limit" + after;
    case TrainingEnd::kInterrupted:
      return "stopped by the user" + after;
    case TrainingEnd::kDiverged:
      return "stopped by a loss that is no number" + after;
  }
  return "";
}

}  // namespace acorn::compiler
