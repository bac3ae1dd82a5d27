// The models whose snapshots are fuzzed: one for each way of keeping a conversation. For snapshot_target.cc and the seeds.
#pragma once

#include <vector>

#include "tests/support/model_builder.h"

namespace acorn::fuzz {

inline std::vector<test::ModelSpec> SnapshotSpecs() {
  std::vector<test::ModelSpec> specs(4);
  for (test::ModelSpec &spec : specs) {
    spec.hidden = 32, spec.layers = 1, spec.heads = 2, spec.kv_heads = 1, spec.ffn = 32, spec.max_context = 40;
    spec.linear = spec.head = {WeightFormat::kW8, Layout::kX16C8};
  }
  specs[0].name = "keys of 8 bits", specs[0].prefix_rows = 2;
  specs[1].name = "keys of 4 bits", specs[1].kv_bits = 4;
  specs[2].name = "states", specs[2].mixers = {test::Mixer::kStateSpace};
  specs[3] = test::ElasticSpecs().front();
  return specs;
}

constexpr uint32_t kSnapshotContext = 24;

}  // namespace acorn::fuzz
