#include "model/graph.h"

namespace acorn {

StepEdges EdgesOf(const Step &step) {
  const auto bit = [](const Slice &slice) { return uint64_t{1} << slice.value; };
  switch (step.kind) {
    case OpKind::kEmbedding: return {0, bit(step.embedding.out)};
    case OpKind::kRmsNorm: return {bit(step.rms_norm.in), bit(step.rms_norm.out)};
    case OpKind::kLinear: return {bit(step.linear.in), bit(step.linear.out)};
    case OpKind::kRotate: return {bit(step.rotate.in), bit(step.rotate.out)};
    case OpKind::kAppend: return {bit(step.append.k) | bit(step.append.v), 0};
    case OpKind::kAttention: return {bit(step.attention.q), bit(step.attention.out)};
    case OpKind::kGlu: return {bit(step.glu.gate) | bit(step.glu.up), bit(step.glu.out)};
    case OpKind::kHadamard: return {bit(step.hadamard.in), bit(step.hadamard.out)};
    case OpKind::kAdd: return {bit(step.add.a) | bit(step.add.b), bit(step.add.out)};
    case OpKind::kLayerNorm: return {bit(step.layer_norm.in), bit(step.layer_norm.out)};
    case OpKind::kExperts: {
      uint64_t reads = bit(step.experts.in) | bit(step.experts.router);
      if (step.experts.shared.width != 0) reads |= bit(step.experts.shared);
      if (step.experts.shared_gate.width != 0) reads |= bit(step.experts.shared_gate);
      return {reads, bit(step.experts.out)};
    }
    case OpKind::kConv: return {bit(step.conv.in), bit(step.conv.out)};
    case OpKind::kScan: return {bit(step.scan.x) | bit(step.scan.b) | bit(step.scan.c) | bit(step.scan.dt), bit(step.scan.out)};
  }
  return {0, 0};
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

uint32_t StateOf(const Step &step) {
  return step.kind == OpKind::kConv ? step.conv.state : step.kind == OpKind::kScan ? step.scan.state : kNoState;
}

}  // namespace acorn
