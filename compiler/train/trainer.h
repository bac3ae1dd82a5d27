#pragma once
#include "import/source_model.h"
#include "quantize/quantized_model.h"
#include "quantize/recipe.h"
namespace acorn::compiler {
struct TrainOptions { int64_t steps = 100; double rate = 2e-3; int64_t held_out = 8; int64_t batch = 1; uint64_t seed = 0; };
void Train(const SourceModel &source, const CalibrationWindows &windows, const TrainOptions &options, QuantizedModel *model);
}
