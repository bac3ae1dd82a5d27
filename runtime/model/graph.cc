#include "model/graph.h"

#include "acorn_schema/layout_xnnpack.h"

namespace acorn {

uint64_t PartBytes(const Weight &weight, uint32_t n, uint32_t k) {
  if (weight.layout == Layout::kC4) return c4::PackedBytes(weight.format, n, k);
  return XnnPackedBytes({weight.format, weight.layout, n, k, weight.k_panel < k ? weight.k_panel : k});
}

StepInputs InputsOf(const Step &step) {
  switch (step.kind) {
    case OpKind::kEmbedding: return {{}, 0};
    case OpKind::kRmsNorm: return {{step.rms_norm.in}, 1};
    case OpKind::kLinear: return {{step.linear.in}, 1};
    case OpKind::kRotate: return {{step.rotate.in}, 1};
    case OpKind::kAppend: return {{step.append.k, step.append.v}, 2};
    case OpKind::kAttention: return {{step.attention.q, step.attention.sink_q}, 1u + (step.attention.sink_q.width != 0)};
    case OpKind::kGlu: return {{step.glu.gate, step.glu.up}, 2};
    case OpKind::kHadamard: return {{step.hadamard.in}, 1};
    case OpKind::kAdd: return {{step.add.a, step.add.b}, 2};
    case OpKind::kLayerNorm: return {{step.layer_norm.in}, 1};
    case OpKind::kExperts: {
      const ExpertsOp &op = step.experts;  // a gate comes with a shared expert only
      return {{op.in, op.router, op.shared, op.shared_gate}, 2u + (op.shared.width != 0) + (op.shared_gate.width != 0)};
    }
    case OpKind::kConv: return {{step.conv.in}, 1};
    case OpKind::kScan: return {{step.scan.x, step.scan.b, step.scan.c, step.scan.dt}, 4};
  }
  return {{}, 0};
}

bool CanFuse(const Step &linear, const Step &glu) {
  if (linear.kind != OpKind::kLinear || glu.kind != OpKind::kGlu) return false;
  const Slice &both = linear.linear.out, &gate = glu.glu.gate, &up = glu.glu.up, &out = glu.glu.out;
  const uint32_t half = both.width / 2;
  if (gate.value != both.value || up.value != both.value) return false;
  if (out.value == both.value || out.value == linear.linear.in.value) return false;
  if (gate.width != half || up.width != half || both.width != 2 * half) return false;
  if (gate.offset != both.offset || up.offset != both.offset + half) return false;
  const IndexRuns &rows = linear.linear.rows;
  if (rows.empty()) return half % kMostTileChannels == 0;
  if (rows.size % 2 != 0) return false;
  const uint32_t pairs = rows.size / 2;
  const IndexRun *gates = rows.runs, *ups = gates + pairs;
  if (ups->first <= gates->first) return false;
  const uint32_t distance = ups->first - gates->first;
  for (const IndexRun *run = gates; run != ups; ++run) {
    const IndexRun &other = run[pairs];
    if (other.count != run->count || other.first - run->first != distance) return false;
  }
  return true;
}

Slice OutputOf(const Step &step) {
  switch (step.kind) {
    case OpKind::kEmbedding: return step.embedding.out;
    case OpKind::kRmsNorm: return step.rms_norm.out;
    case OpKind::kLinear: return step.linear.out;
    case OpKind::kRotate: return step.rotate.out;
    case OpKind::kAttention: return step.attention.out;
    case OpKind::kGlu: return step.glu.out;
    case OpKind::kHadamard: return step.hadamard.out;
    case OpKind::kAdd: return step.add.out;
    case OpKind::kLayerNorm: return step.layer_norm.out;
    case OpKind::kExperts: return step.experts.out;
    case OpKind::kConv: return step.conv.out;
    case OpKind::kScan: return step.scan.out;
    case OpKind::kAppend: break;
  }
  return {0, 0, 0};
}

StepEdges EdgesOf(const Step &step) {
  const StepInputs inputs = InputsOf(step);
  const Slice out = OutputOf(step);
  StepEdges edges = {0, out.width == 0 ? 0 : uint64_t{1} << out.value};
  for (uint32_t i = 0; i < inputs.count; ++i) edges.reads |= uint64_t{1} << inputs.slices[i].value;
  return edges;
}

uint32_t StateOf(const Step &step) {
  return step.kind == OpKind::kConv ? step.conv.state : step.kind == OpKind::kScan ? step.scan.state : kNoState;
}

}  // namespace acorn
