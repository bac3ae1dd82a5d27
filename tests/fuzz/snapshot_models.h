// The models whose snapshots are fuzzed: one for each way of keeping a conversation. For snapshot_target.cc and the seeds.
#pragma once

#include <vector>

#include "tests/support/model_builder.h"

namespace acorn::fuzz {

inline std::vector<test::ModelSpec> SnapshotSpecs() {
  std::vector<test::ModelSpec> specs(5);
  for (test::ModelSpec &spec : specs) {
    spec.hidden = 32, spec.layers = 1, spec.heads = 2, spec.kv_heads = 1, spec.ffn = 32, spec.max_context = 40;
    spec.linear = spec.head = {WeightFormat::kW8, Layout::kX16C8};
  }
  specs[0].name = "keys of 8 bits", specs[0].prefix_rows = 2;
  specs[1].name = "keys of 4 bits", specs[1].kv_bits = 4;
  specs[2].name = "states", specs[2].mixers = {test::Mixer::kStateSpace};
  specs[3] = test::ElasticSpecs().front();
  specs[4].name = "rings", specs[4].windows = {5}, specs[4].prefix_rows = 1;
  return specs;
}

/// Tokens of the session; 0: of rings, which have no end.
inline uint32_t SnapshotContext(const test::ModelSpec &spec) { return spec.windows.empty() ? 24 : 0; }

}  // namespace acorn::fuzz
