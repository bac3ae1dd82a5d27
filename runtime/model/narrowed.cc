// The reader's part for what a profile narrows: Linear, Rotate, Append, Attention. (State-space layers: state_space.cc.)
#include "acorn_schema/acorn_generated.h"
#include "acorn_schema/pairs.h"
#include "model/reader.h"

namespace acorn {

Status ModelReader::ReadRuns(const flatbuffers::Vector<const schema::Run *> *runs, uint64_t count, uint64_t limit, uint32_t unit,
                             IndexRuns *out) {
  static_assert(sizeof(IndexRun) == sizeof(schema::Run));
  *out = {};
  if (runs == nullptr) return count == limit ? Status::kOk : Invalid();
  const uint8_t *elements = runs->Data();
  if (reinterpret_cast<uintptr_t>(elements) % alignof(IndexRun) != 0) return Invalid();
  *out = {reinterpret_cast<const IndexRun *>(elements), runs->size()};
  ACORN_TRY(Walk(uint64_t{runs->size()} * sizeof(IndexRun)));
  uint64_t sum = 0;
  for (const IndexRun &run : *out) {
    if (run.count == 0 || run.first % unit != 0 || !RangeInside(run.first, run.count, limit)) return Invalid();
    sum += run.count;
  }
  return sum == count ? Status::kOk : Invalid();
}

Status ModelReader::Read(const void *table, LinearOp *out) {
  const auto &op = *static_cast<const schema::Linear *>(table);
  DType in, result;
  ACORN_TRY(ReadSlice(op.input(), &out->in, &in));
  ACORN_TRY(ReadSlice(op.out(), &out->out, &result));
  out->weight = op.weight();
  out->shift = op.shift();
  out->zero_point = op.zero_point();
  out->glu = nullptr;
  if ((in != DType::kS8 && in != DType::kS15) || result == DType::kS15 || model_->weights() == nullptr ||
      out->weight >= model_->weights()->size()) {
    return Invalid();
  }
  const schema::Weight *weight = model_->weights()->Get(out->weight);
  const uint32_t n = out->out.width;
  // Whole groups or panels of k; whole tiles before each run of rows.
  const uint32_t group = GroupSize(static_cast<WeightFormat>(weight->format()));
  const uint32_t unit = group != 0 ? group : weight->k_panel();
  if (out->in.width > weight->k() || (out->in.width < weight->k() && (unit == 0 || out->in.width % unit != 0))) return Invalid();
  ACORN_TRY(ReadRuns(op.rows(), n, weight->n(), kMostTileChannels, &out->rows));
  ACORN_TRY(ResolveArray(op.bias(), n, &out->bias));
  ACORN_TRY(ResolveArray(op.multipliers(), n, &out->multipliers));
  // The sum with its bias fits s32 (one row of input) or 39 bits (two), and its product with any multiplier 62 bits.
  // What bounds the sums of a whole row bounds those of its beginning.
  const uint64_t bound = weight->acc_bound();
  if (bound >> (in == DType::kS8 ? 31 : 38) != 0) return Invalid();
  ACORN_TRY(CheckMultipliers(out->bias, n, -INT32_MAX, INT32_MAX));
  uint64_t largest_bias = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const uint64_t bias = static_cast<uint64_t>(out->bias[i] < 0 ? -int64_t{out->bias[i]} : int64_t{out->bias[i]});
    if (bias > largest_bias) largest_bias = bias;
  }
  const uint64_t sum = bound + largest_bias;
  if (in == DType::kS8 && sum >> 31 != 0) return Invalid();
  const uint64_t most = sum == 0 ? INT32_MAX : (uint64_t{1} << 62) / sum;
  ACORN_TRY(CheckMultipliers(out->multipliers, n, 0, most < INT32_MAX ? static_cast<int64_t>(most) : INT32_MAX));
  ACORN_TRY(CheckShift(op.shift()));
  return CheckZeroPoint(out->zero_point, result);
}

Status ModelReader::Read(const void *table, RotateOp *out) {
  const auto &op = *static_cast<const schema::Rotate *>(table);
  DType in, result;
  ACORN_TRY(ReadSlice(op.input(), &out->in, &in));
  ACORN_TRY(ReadSlice(op.out(), &out->out, &result));
  out->heads = op.heads();
  out->rope = op.rope();
  out->shift = op.shift();
  out->pairs = nullptr;
  out->key_heads = 1;
  if (in != DType::kS16 || (result != DType::kS8 && result != DType::kS16)) return Invalid();
  if (out->in.width != out->out.width || out->heads == 0 || out->in.width % out->heads != 0 || model_->ropes() == nullptr ||
      out->rope >= model_->ropes()->size()) {
    return Invalid();
  }
  const uint32_t head_dim = out->in.width / out->heads, rotary_dims = model_->ropes()->Get(out->rope)->rotary_dims();
  if (head_dim > kMaxHeadDim) return Invalid();
  if (op.pairs() != nullptr) {
    const uint32_t pairs = head_dim / 2;
    const uint64_t key_heads = pairs == 0 ? 0 : op.pairs()->bytes() / pairs;
    if (head_dim % kPairBlock != 0 || key_heads == 0 || key_heads > out->heads || out->heads % key_heads != 0) return Invalid();
    out->key_heads = static_cast<uint32_t>(key_heads);
    ACORN_TRY(ResolveArray(op.pairs(), key_heads * pairs, &out->pairs));
    for (uint64_t i = 0; i < key_heads * pairs; ++i) {
      if (out->pairs[i] != kNoFrequency && out->pairs[i] >= rotary_dims / 2) return Invalid();
    }
  } else if (rotary_dims > head_dim) {
    return Invalid();
  }
  ACORN_TRY(ResolveArray(op.multipliers(), out->heads, &out->multipliers));
  ACORN_TRY(CheckMultipliers(out->multipliers, out->heads, 0, INT32_MAX));
  return CheckShift(op.shift());
}

Status ModelReader::Read(const void *table, AppendOp *out) {
  const auto &op = *static_cast<const schema::Append *>(table);
  DType k, v;
  ACORN_TRY(ReadSlice(op.k(), &out->k, &k));
  ACORN_TRY(ReadSlice(op.v(), &out->v, &v));
  out->cache = op.cache();
  out->v_shift = op.v_shift();
  if (k != DType::kS8 || v != DType::kS16 || model_->caches() == nullptr || out->cache >= model_->caches()->size()) return Invalid();
  const schema::Cache *cache = model_->caches()->Get(out->cache);
  const uint32_t kv_heads = cache->kv_heads();
  if (kv_heads == 0 || out->k.width % kv_heads != 0 || out->v.width % kv_heads != 0) return Invalid();
  out->k_dim = out->k.width / kv_heads;
  out->v_dim = out->v.width / kv_heads;
  if (out->k_dim > cache->head_dim() || out->v_dim > cache->head_dim() || out->k_dim % 2 != 0 || out->v_dim % 2 != 0) {
    return Invalid();
  }
  ACORN_TRY(ResolveArray(op.v_multipliers(), kv_heads, &out->v_multipliers));
  ACORN_TRY(CheckMultipliers(out->v_multipliers, kv_heads, 0, INT32_MAX));
  return CheckShift(op.v_shift());
}

Status ModelReader::Read(const void *table, AttentionOp *out) {
  const auto &op = *static_cast<const schema::Attention *>(table);
  DType in, result;
  ACORN_TRY(ReadSlice(op.q(), &out->q, &in));
  ACORN_TRY(ReadSlice(op.out(), &out->out, &result));
  out->cache = op.cache();
  out->heads = op.heads();
  out->exp_shift = op.exp_shift();
  out->out_shift = op.out_shift();
  out->zero_point = op.zero_point();
  if (in != DType::kS8 || result != DType::kS8 || model_->caches() == nullptr || out->cache >= model_->caches()->size()) return Invalid();
  const schema::Cache *cache = model_->caches()->Get(out->cache);
  if (out->heads == 0 || cache->kv_heads() == 0 || out->heads % cache->kv_heads() != 0 || out->q.width % out->heads != 0) {
    return Invalid();
  }
  out->k_dim = out->q.width / out->heads;
  out->v_dim = op.v_dim() == 0 ? cache->head_dim() : op.v_dim();
  out->run = op.run() == 0 ? out->v_dim : op.run();
  if (out->k_dim > cache->head_dim() || out->v_dim > cache->head_dim() || out->k_dim % 2 != 0 || out->v_dim % 2 != 0 ||
      out->v_dim == 0 || out->v_dim % out->run != 0) {
    return Invalid();
  }
  const uint64_t width = uint64_t{out->heads} * out->v_dim;
  if (op.run() == 0 ? out->out.width != width : out->out.width < width) return Invalid();
  out->sink_q = {};
  if (op.sink_q() != nullptr) {
    DType sinks;
    ACORN_TRY(ReadSlice(op.sink_q(), &out->sink_q, &sinks));
    const bool has_sinks = cache->window() != 0 && model_->prefix_tokens() != nullptr && model_->prefix_tokens()->size() != 0;
    if (!has_sinks || sinks != DType::kS8 || out->sink_q.width != out->q.width) return Invalid();
  }
  ACORN_TRY(ResolveArray(op.exp_multipliers(), out->heads, &out->exp_multipliers));
  ACORN_TRY(ResolveArray(op.out_multipliers(), out->heads, &out->out_multipliers));
  ACORN_TRY(CheckMultipliers(out->exp_multipliers, out->heads, 0, INT32_MAX));
  ACORN_TRY(CheckMultipliers(out->out_multipliers, out->heads, 1 << 30, INT32_MAX));
  ACORN_TRY(CheckShift(op.exp_shift()));
  ACORN_TRY(CheckShift(op.out_shift(), 1, 38));
  return CheckZeroPoint(out->zero_point, result);
}

}  // namespace acorn
