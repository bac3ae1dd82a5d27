// The model of the golden file of format version 0. For make_golden.cc; the file itself is the contract afterwards.
// Its tokenizer is that of tests/data/text.
#pragma once

#include "tests/support/talking_model.h"

namespace acorn::test {

inline ModelSpec GoldenSpec() {
  ModelSpec spec = TalkingSpec();
  spec.name = "golden-v0";
  spec.seed = 20240;
  spec.linear = {WeightFormat::kW4G32, Layout::kC4};
  spec.head = {WeightFormat::kW8, Layout::kX16C8};
  spec.prefix_rows = 1;
  spec.qk_norm = true;
  spec.bias = true;
  spec.rotary_dims = 12;
  spec.layers = 1;
  spec.max_context = 32;
  return spec;
}

}  // namespace acorn::test
