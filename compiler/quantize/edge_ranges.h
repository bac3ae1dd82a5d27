// The static ranges of a layer as rows of the report.
#pragma once

#include <cstdint>
#include <vector>

#include "quantize/activations.h"
#include "report/report.h"
#include "write/model_writer.h"

namespace acorn::compiler {

/// A row for each static edge of a layer, and for each head of q8, k8 and v8, in the order of the graph. The range of
/// the scales is both closed_form and in_file: rows after training are for TakeFinalRanges(). kv_bits: of cached keys and values.
/// ranges: what calibration saw; null: rows without it.
std::vector<RangeReport> LayerRanges(int64_t layer, const QuantizedLayer &quantized, int kv_bits, const ModelConfig &config,
                                     const RangeObserver *ranges);

/// A row for one edge whose unit has the real size `scale`.
RangeReport EdgeRange(int64_t layer, const char *edge, const char *meaning, EdgeType type, double scale, int32_t zero_point,
                      double largest);

}  // namespace acorn::compiler
