// The reader's part for state-space layers: states, Conv, Scan.
#include "acorn_schema/acorn_generated.h"
#include "model/reader.h"

namespace acorn {

Status ModelReader::ReadState(uint32_t index, State *out) {
  section_ = "states";
  index_ = index;
  const schema::State *state = model_->states()->Get(index);
  *out = {static_cast<DType>(state->dtype()), state->rows(), state->columns(), nullptr};
  if ((out->dtype != DType::kS16 && out->dtype != DType::kS32) || out->rows == 0 || out->rows > kMaxWidth || out->columns == 0 ||
      out->columns > kMaxWidth || uint64_t{out->rows} * out->columns > kMaxStateElems) {
    return Invalid();
  }
  if (model_->prefix_tokens() == nullptr || model_->prefix_tokens()->size() == 0) {
    return state->prefix() == nullptr ? Status::kOk : Invalid();
  }
  ACORN_TRY(ResolveConstants(state->prefix(), StateBytes(*out), &out->prefix));
  if (out->dtype == DType::kS16) return Status::kOk;
  return CheckMultipliers(reinterpret_cast<const int32_t *>(out->prefix), uint64_t{out->rows} * out->columns, -kStateLimit,
                          kStateLimit);
}

Status ModelReader::FindState(uint32_t index, DType type, const schema::State **out) {
  if (model_->states() == nullptr || index >= model_->states()->size()) return Invalid();
  *out = model_->states()->Get(index);
  return static_cast<DType>((*out)->dtype()) == type ? Status::kOk : Invalid();
}

Status ModelReader::Read(const void *table, ConvOp *out) {
  const auto &op = *static_cast<const schema::Conv *>(table);
  DType in, result;
  ACORN_TRY(ReadSlice(op.input(), &out->in, &in));
  ACORN_TRY(ReadSlice(op.out(), &out->out, &result));
  out->state = op.state();
  out->taps = op.taps();
  out->shift = op.shift();
  out->index_shift = op.index_shift();
  const uint32_t width = out->in.width;
  if (in != DType::kS16 || result != DType::kS16 || out->out.width != width || out->taps < kMinTaps || out->taps > kMaxTaps) {
    return Invalid();
  }
  const schema::State *state = nullptr;
  ACORN_TRY(FindState(out->state, DType::kS16, &state));
  if (state->rows() != out->taps - 1) return Invalid();
  ACORN_TRY(ReadRuns(op.columns(), width, state->columns(), 1, &out->columns));
  uint64_t end = 0;
  for (const IndexRun &run : out->columns) {
    if (run.first < end) return Invalid();
    end = uint64_t{run.first} + run.count;
  }
  ACORN_TRY(ResolveArray(op.weights(), uint64_t{out->taps} * width, &out->weights));
  ACORN_TRY(ResolveArray(op.bias(), width, &out->bias));
  ACORN_TRY(ResolveArray(op.multipliers(), width, &out->multipliers));
  ACORN_TRY(ResolveArray(op.index_multipliers(), width, &out->index_multipliers));
  ACORN_TRY(ResolveArray(op.factor_table(), 514, &out->table));
  ACORN_TRY(CheckMultipliers(out->multipliers, width, 0, INT32_MAX));
  ACORN_TRY(CheckMultipliers(out->index_multipliers, width, 0, INT32_MAX));
  ACORN_TRY(CheckShift(op.shift()));
  ACORN_TRY(CheckShift(op.index_shift()));
  // The sum with its bias fits s32, for any input.
  for (uint32_t c = 0; c < width; ++c) {
    int64_t sum = out->bias[c] < 0 ? -int64_t{out->bias[c]} : out->bias[c];
    for (uint32_t tap = 0; tap < out->taps; ++tap) {
      const int64_t weight = out->weights[uint64_t{tap} * width + c];
      sum += (weight < 0 ? -weight : weight) << 15;
    }
    if (sum > INT32_MAX) return Invalid();
  }
  return Status::kOk;
}

Status ModelReader::Read(const void *table, ScanOp *out) {
  const auto &op = *static_cast<const schema::Scan *>(table);
  DType x, b, c, dt, result;
  ACORN_TRY(ReadSlice(op.x(), &out->x, &x));
  ACORN_TRY(ReadSlice(op.b(), &out->b, &b));
  ACORN_TRY(ReadSlice(op.c(), &out->c, &c));
  ACORN_TRY(ReadSlice(op.dt(), &out->dt, &dt));
  ACORN_TRY(ReadSlice(op.out(), &out->out, &result));
  out->state = op.state();
  out->heads = op.heads();
  out->groups = op.groups();
  for (const DType type : {x, b, c, dt, result}) {
    if (type != DType::kS16) return Invalid();
  }
  if (out->heads == 0 || out->groups == 0 || out->heads % out->groups != 0 || out->x.width % out->heads != 0 ||
      out->out.width != out->x.width || out->dt.width != out->heads || out->b.width % out->groups != 0 ||
      out->c.width != out->b.width || out->b.width / out->groups > kMaxStateColumns || op.dt_least() > op.dt_most() ||
      op.dt_most() > INT32_MAX) {
    return Invalid();
  }
  const uint32_t channels = out->x.width / out->heads;
  out->run = op.run() == 0 ? channels : op.run();
  const schema::State *state = nullptr;
  ACORN_TRY(FindState(out->state, DType::kS32, &state));
  if (channels % out->run != 0 || state->rows() % out->heads != 0 || channels > state->rows() / out->heads ||
      out->b.width / out->groups > state->columns()) {
    return Invalid();
  }
  out->dt_least = static_cast<int32_t>(op.dt_least());
  out->dt_most = static_cast<int32_t>(op.dt_most());
  ACORN_TRY(ResolveArray(op.dt_multipliers(), out->heads, &out->dt_multipliers));
  ACORN_TRY(ResolveArray(op.dt_bias(), out->heads, &out->dt_bias));
  ACORN_TRY(ResolveArray(op.softplus_table(), 1025, &out->softplus_table));
  ACORN_TRY(ResolveArray(op.decay_multipliers(), out->heads, &out->decay_multipliers));
  ACORN_TRY(ResolveArray(op.input_multipliers(), out->heads, &out->input_multipliers));
  ACORN_TRY(ResolveArray(op.skip(), out->heads, &out->skip));
  ACORN_TRY(ResolveArray(op.out_shifts(), out->heads, &out->out_shifts));
  for (const int32_t *multipliers : {out->dt_multipliers, out->decay_multipliers, out->input_multipliers}) {
    ACORN_TRY(CheckMultipliers(multipliers, out->heads, 0, INT32_MAX));
  }
  for (const uint8_t shift : {op.dt_shift(), op.decay_shift(), op.input_shift()}) ACORN_TRY(CheckShift(shift));
  out->dt_shift = op.dt_shift();
  out->decay_shift = op.decay_shift();
  out->input_shift = op.input_shift();
  constexpr int64_t kMaxSkip = int64_t{1} << 46;
  for (uint32_t head = 0; head < out->heads; ++head) {
    if (out->skip[head] < -kMaxSkip || out->skip[head] > kMaxSkip) return Invalid();
    ACORN_TRY(CheckShift(out->out_shifts[head]));
  }
  return Status::kOk;
}

}  // namespace acorn
