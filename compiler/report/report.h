// The report of a conversion: rows that the passes fill while they work, written as one page that opens without a network and
// as a table for other programs. Knows nothing of how the numbers came about.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace acorn::compiler {

/// Row of what stands before the layers (embedding, residual stream that enters layer 0); the head's is the number of layers.
inline constexpr int64_t kBeforeLayers = -1;

/// One weight of the file. An error of 0 was not measured.
struct WeightReport {
  int64_t layer = 0;
  std::string weight;  // "qkv", "o", "gate_up", "down"; "embedding", "head"
  std::string format;
  double weight_error = 0;  // relative squared error of the output from rounding the weight
  double input_error = 0;   // the same from rounding the input, over a sample
  double input_step = 0;    // real size of one unit of the input
  double input_clip = 0;    // share of the largest magnitude that the range covers
  double scaling = 0;       // exponent of the equivalent scaling of the weight's columns, 0: none
  int64_t n = 0, k = 0;
  uint64_t bytes = 0;  // of integers and group multipliers, without the layout's padding
};

/// The static range of one edge, or of one head of an edge: the largest magnitude that its grid holds around the zero point.
struct RangeReport {
  int64_t layer = 0;
  std::string edge;        // "attn_in", "q8", ...
  std::string meaning;     // what flows there, for people
  std::string type;        // "s8", "s15", "s16"
  int64_t head = -1;       // -1: one range for the whole edge
  double largest = NAN;    // magnitude that calibration saw; NaN: not measured
  double closed_form = 0;  // chosen before any training
  double in_file = 0;      // the same unless training moved it
  int32_t zero_point = 0;  // in the file
};

/// One step of training. Steps count through all stages, upwards.
struct TrainingPoint {
  std::string stage;
  int64_t step = 0;
  double training_loss = NAN;  // NaN: not measured at this step
  double held_out_loss = NAN;  // NaN: not measured at this step
  double learning_rate = NAN;  // NaN: not known
};

enum class TrainingEnd { kAllSteps, kTimeLimit, kInterrupted, kDiverged };

/// Empty without training.
struct TrainingReport {
  std::vector<TrainingPoint> points;
  TrainingEnd end = TrainingEnd::kAllSteps;
};

/// How training ended, after its last step: "all of its 4,000 steps done", "stopped by the time limit after 310 steps", ...
std::string TrainingEndText(const TrainingReport &training);

/// How much worse the model becomes when one weight alone is stored in a narrower format.
struct SensitivityReport {
  int64_t layer = 0;
  std::string weight;
  std::string tried;          // the narrower format
  std::string chosen;         // the format in the file
  double loss_increase = 0;   // of the loss on calibration tokens, natural logarithm
  uint64_t bytes_saved = 0;   // by the narrower format
};

/// One routed expert of the file.
struct ExpertReport {
  int64_t layer = 0, expert = 0;
  std::string format;       // of gate and up
  double bits = 0;          // of a weight, group multipliers included
  double importance = NAN;  // by which bits were chosen; NaN: they were not
};

/// One of the file's pruning rates.
struct RateReport {
  int rate = 0;
  double left_out = 0;           // part of the prunable bytes
  uint64_t weight_bytes = 0;     // that a token reads
  double perplexity = NAN;       // of the file, by the integer runtime
  double tokens_per_second = 0;  // decoding on the machine that converted
  // Divergence from the whole model on text that healing never saw, nats a token, before and after it; NaN: not healed.
  double loss_before_healing = NAN, loss_after_healing = NAN;
};

/// Perplexities of the same tokens; NaN: not measured.
struct PerplexityReport {
  std::string text;        // what they were measured on
  double source = NAN;     // the source model in float
  double simulator = NAN;  // the rounded model, before the file
  double device = NAN;     // the file, by the integer runtime
};

struct ConversionReport {
  std::string model;
  uint64_t file_bytes = 0;
  std::vector<std::pair<std::string, std::string>> facts;  // recipe, formats, prefix and the like, in the order shown
  int64_t layers = 0;
  PerplexityReport perplexity;
  std::vector<RateReport> rates;  // empty: 0 is all there is
  std::vector<WeightReport> weights;
  std::vector<ExpertReport> experts;
  std::vector<RangeReport> ranges;
  TrainingReport training;
  std::vector<SensitivityReport> sensitivities;
};

/// Takes the ranges and zero points that the file has from `rows`, for the edges and heads that `report` knows by closed form.
void TakeFinalRanges(const std::vector<RangeReport> &rows, ConversionReport *report);

/// Creates `folder` where it is missing: before the work of a conversion. Throws Error(kIo) where nothing can be written into it.
void CreateReportFolder(const std::string &folder);

/// Writes layers.csv and report.html into `folder`, which is created; each file whole or not at all. Throws Error(kIo).
void WriteReport(const std::string &folder, const ConversionReport &report);

}  // namespace acorn::compiler
