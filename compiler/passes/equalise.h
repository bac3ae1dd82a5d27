// Equivalent scaling: factors that a layer's weights take from one another without changing what it computes, chosen so
// that rounding changes less. Each pair is scaled only where the measured error of its output falls.
#pragma once

#include <cstdint>
#include <string>

#include "acorn_schema/layout.h"
#include "graph/float_model.h"
#include "quantize/activations.h"
#include "quantize/sparse_layer.h"

namespace acorn::compiler {

enum class ScalingPair : uint8_t {
  kNormQkv,     // attention norm's gain and bias -> columns of q, k, v, or of a state-space layer's gate, conv_in and step
  kNormGateUp,  // FFN norm's gain and bias -> columns of gate and up
  kUpDown,      // rows of up -> columns of down: always refused, the transform before down does more
  kValueOut,    // rows of v -> columns of o, repeated for the query heads of a KV head; always, for a cache of 4 bits
  kQueryKey,    // rows of q <-> rows of k, one factor for each rotated pair
};
inline constexpr int kScalingPairs = 5;
const char *ScalingPairName(ScalingPair pair);

/// Null where a model allows the pair, else why it is refused. docs/COMPILER.md shows the table for all families.
const char *RefusalOf(const ModelConfig &config, ScalingPair pair);

struct Equalisation {
  double strength[kScalingPairs] = {};  // exponent of the chosen factors, 0: none
  bool any() const;
};

/// Scales `weights`, which will be stored in `format`, in place; down and up are left alone. `ranges` were measured with
/// these weights and are out of date when any() is true. kv_limit: of cached integers, 127 or 7.
/// experts: of a sparse layer, scaled too; null or empty: a dense one.
Equalisation EqualiseLayer(const ModelConfig &config, LayerWeights *weights, const RangeObserver &ranges, WeightFormat format,
                           double kv_limit, ExpertList *experts = nullptr);

}  // namespace acorn::compiler
