// Equivalent scaling: factors that a layer's weights take from one another without changing what it computes, chosen so
// that rounding changes less. Each pair is scaled only where the measured error of its output falls.
#pragma once

#include <cstdint>
#include <string>

#include "graph/float_model.h"
#include "quantize/activations.h"
#include "write/graph_builder.h"

namespace acorn::compiler {

enum class ScalingPair : uint8_t {
  kNormQkv,     // attention norm's gain -> columns of q, k, v
  kNormGateUp,  // FFN norm's gain -> columns of gate and up
  kUpDown,      // rows of up -> columns of down, before the Hadamard transform
  kValueOut,    // rows of v -> columns of o, repeated for the query heads of a KV head
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

struct EqualiseOptions {
  WeightFormat format = WeightFormat::kW4G32;
  int64_t hadamard_block = 1;
  EdgeType down_in_type = EdgeType::kS8;
};

/// Scales `weights` in place. down's columns are transformed (hadamard_block) before and after; `ranges` were measured
/// with these weights and are out of date when any() is true.
Equalisation EqualiseLayer(const ModelConfig &config, LayerWeights *weights, const RangeObserver &ranges,
                           const EqualiseOptions &options);

}  // namespace acorn::compiler
