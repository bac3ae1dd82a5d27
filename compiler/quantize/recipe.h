// The closed-form recipes: from a source model and calibration windows to the layers of a model file, one layer's weights
// in memory at a time. rtn: rounding and minimum-to-maximum ranges. fast: prefix, equivalent scaling, measured ranges, GPTQ.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "import/source_model.h"
#include "quantize/report.h"
#include "write/model_writer.h"

namespace acorn::compiler {

enum class Recipe { kRtn, kFast };
enum class DownInput { kHadamard, kS15 };

struct RecipeOptions {
  Recipe recipe = Recipe::kFast;
  WeightFormat body_format = WeightFormat::kW4G32;
  WeightFormat head_format = WeightFormat::kW8;
  DownInput down_input = DownInput::kHadamard;
  int kv_bits = 8;  // of a session's keys and values: 8 or 4
  ChannelLayouts channel_layouts;
};

/// Calibration tokens: windows of equal length, one after the other.
struct CalibrationWindows {
  std::vector<int32_t> ids;
  int64_t window = 0;
  std::vector<int32_t> prefix_candidates;
};

struct ConvertResult {
  std::string path;
  uint64_t file_bytes = 0;
  std::vector<int32_t> prefix_tokens;
  double simulated_perplexity = 0;  // of the rounded layers in float, on the first calibration windows
  double perplexity_with_8_bit_kv = 0;  // of the same weights; equal where keys and values have 8 bits
  LayerReport report;
};

/// Converts and writes `path`. `facts` come with everything but the prefix.
ConvertResult ConvertModel(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &options,
                           ModelFacts facts, const std::string &path);

}  // namespace acorn::compiler
