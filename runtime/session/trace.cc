#include "session/trace.h"

#include "acorn_schema/file.h"
#include "kernels/kv_cache.h"

namespace acorn {
namespace {

template <typename T>
uint64_t DigestRows(uint64_t digest, const Slice &slice, const RunContext &context) {
  const T *row = Elements<T>(context, slice);
  for (size_t r = 0; r < context.m; ++r, row += Stride<T>(context, slice)) {
    for (uint32_t i = 0; i < slice.width; ++i) digest = Digest(digest, row[i]);
  }
  return digest;
}

// What attention will read: each new row's keys, then its values, head by head.
uint64_t DigestAppended(uint64_t digest, const AppendOp &op, const RunContext &context) {
  const Cache &cache = context.graph->caches[op.cache];
  const CachePlace &place = context.caches[op.cache];
  const size_t dims = cache.head_dim, bits = cache.bits;  // dims: from row to row
  const kv_cache::TokenRows rows = TokenRowsOf(context, cache);
  const size_t head_bytes = kv_cache::HeadBytes(rows.all(), dims, bits);
  for (size_t i = 0; i < context.m; ++i) {
    const size_t row = rows.RowOf(context.first_token + i);
    for (uint32_t head = 0; head < cache.kv_heads; ++head) {
      const uint8_t *k = place.k + head * head_bytes;
      for (size_t d = 0; d < op.k_dim; ++d) digest = Digest(digest, kv_cache::KeyAt(k, row, d, dims, bits));
    }
    for (uint32_t head = 0; head < cache.kv_heads; ++head) {
      const int8_t *v = place.v + head * head_bytes;
      for (size_t d = 0; d < op.v_dim; ++d) digest = Digest(digest, kv_cache::ValueAt(v, row, d, dims, bits));
    }
  }
  return digest;
}

}  // namespace

void ResetTrace(Model *model) {
  for (uint64_t &digest : model->trace) digest = kFnvBasis;
}

uint64_t DigestOutput(uint64_t digest, const Step &step, const RunContext &context) {
  if (step.kind == OpKind::kAppend) return DigestAppended(digest, step.append, context);
  const Slice out = OutputOf(step);
  switch (context.graph->values[out.value].dtype) {
    case DType::kS8: return DigestRows<int8_t>(digest, out, context);
    case DType::kS15:
    case DType::kS16: return DigestRows<int16_t>(digest, out, context);
    case DType::kS32: return DigestRows<int32_t>(digest, out, context);
  }
  return digest;
}

int32_t LayerOf(const Graph &graph, size_t index) {
  if (index >= graph.body.size()) return -1;
  // A layer mixes tokens once: with an Append and what follows it, or with a Scan. It starts behind the embedding or the residual
  // addition that this comes after.
  int32_t layer = -1;
  size_t start = 0;
  for (size_t i = 0; i < graph.body.size(); ++i) {
    const Step &step = graph.body[i];
    if (step.kind == OpKind::kEmbedding || step.kind == OpKind::kAdd) start = i + 1;
    if (step.kind != OpKind::kAppend && step.kind != OpKind::kScan) continue;
    if (start > index) break;
    ++layer;
  }
  return layer;
}

uint32_t LayersOf(const Graph &graph) { return static_cast<uint32_t>(LayerOf(graph, graph.body.size() - 1) + 1); }

const char *OpName(OpKind kind) {
  switch (kind) {
    case OpKind::kEmbedding: return "Embedding";
    case OpKind::kRmsNorm: return "RmsNorm";
    case OpKind::kLinear: return "Linear";
    case OpKind::kRotate: return "Rotate";
    case OpKind::kAppend: return "Append";
    case OpKind::kAttention: return "Attention";
    case OpKind::kGlu: return "Glu";
    case OpKind::kHadamard: return "Hadamard";
    case OpKind::kAdd: return "Add";
    case OpKind::kLayerNorm: return "LayerNorm";
    case OpKind::kExperts: return "Experts";
    case OpKind::kConv: return "Conv";
    case OpKind::kScan: return "Scan";
  }
  return "";
}

}  // namespace acorn
