// A quantised model of the small source in tests/data, and windows of tokens for it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/progress.h"
#include "import/source_model.h"
#include "quantize/quantized_model.h"

namespace acorn::compiler {

inline CalibrationWindows SomeWindows(const ModelConfig &config, int64_t windows = 4, int64_t window = 64) {
  CalibrationWindows result;
  result.window = window;
  uint32_t state = 1;
  for (int64_t i = 0; i < windows * window; ++i) {
    state = state * 1664525u + 1013904223u;
    result.ids.push_back(static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(config.vocab)));
  }
  result.prefix_candidates = {0, 1};
  return result;
}

inline QuantizedModel QuantizeSmall(const SourceModel &source, const RecipeOptions &options,
                                    std::vector<LayerWeights> *unrounded = nullptr) {
  Progress::Silence();
  QuantizedModel model;
  KeepingSink sink(&model, unrounded);
  QuantizeModel(source, SomeWindows(source.config()), options, &sink);
  return model;
}

}  // namespace acorn::compiler
