// The part of a state-space layer that is not linear, on its way to integers. layer_quantizer.h does the rest of the layer.
#pragma once

#include "graph/float_model.h"
#include "quantize/activations.h"
#include "write/model_writer.h"

namespace acorn::compiler {

/// gate, conv_in and step, one below the other: [inner + conv_channels + heads, hidden].
Matrix StackInputs(const StateSpaceWeights &weights);

/// weights: everything but the linear layers is taken from them. The ranges leave room for what calibration did not see. prefix:
/// empty, or covered by the scales and replaced by what its integers stand for.
QuantizedStateSpace QuantizeStateSpace(const StateSpaceConfig &config, const StateSpaceWeights &weights,
                                       const LayerOrder &order, const RangeObserver &ranges, LayerPrefix *prefix);

/// in, out: what the integers stand for, in StackInputs()' order.
void ReplaceLinears(const Matrix &in, Matrix out, StateSpaceWeights *weights);

}  // namespace acorn::compiler
