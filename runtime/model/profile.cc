// What one profile may have in common with the next.
#include "model/graph.h"

namespace acorn {
namespace {

bool IsInside(const Slice &narrow, const Slice &wide) { return narrow.value == wide.value && narrow.width <= wide.width; }

}  // namespace

bool IsNarrower(const Step &narrow, const Step &wide) {
  if (narrow.kind != wide.kind || !IsInside(OutputOf(narrow), OutputOf(wide))) return false;
  const StepInputs inputs = InputsOf(narrow), wide_inputs = InputsOf(wide);
  if (inputs.count != wide_inputs.count) return false;
  for (uint32_t i = 0; i < inputs.count; ++i) {
    if (!IsInside(inputs.slices[i], wide_inputs.slices[i])) return false;
  }
  switch (narrow.kind) {
    case OpKind::kEmbedding: return narrow.embedding.weight == wide.embedding.weight;
    case OpKind::kRmsNorm: return narrow.rms_norm.groups == wide.rms_norm.groups;
    case OpKind::kLinear: return narrow.linear.weight == wide.linear.weight;
    case OpKind::kRotate: return narrow.rotate.heads == wide.rotate.heads && narrow.rotate.rope == wide.rotate.rope;
    case OpKind::kAppend: return narrow.append.cache == wide.append.cache;
    case OpKind::kAttention:
      return narrow.attention.cache == wide.attention.cache && narrow.attention.heads == wide.attention.heads;
    case OpKind::kLayerNorm: return narrow.layer_norm.groups == wide.layer_norm.groups;
    case OpKind::kExperts:
      return narrow.experts.set == wide.experts.set && narrow.experts.top_k == wide.experts.top_k &&
             narrow.experts.slices <= wide.experts.slices;
    case OpKind::kConv: {
      const ConvOp &op = narrow.conv;
      return op.state == wide.conv.state && op.taps == wide.conv.taps &&
             ForStretches(op.columns, wide.conv.columns, wide.conv.in.width, [](uint32_t, uint32_t, uint32_t) {});
    }
    case OpKind::kScan:
      return narrow.scan.state == wide.scan.state && narrow.scan.heads == wide.scan.heads && narrow.scan.groups == wide.scan.groups;
    case OpKind::kGlu:
    case OpKind::kHadamard:
    case OpKind::kAdd: return true;
  }
  return false;
}

}  // namespace acorn
