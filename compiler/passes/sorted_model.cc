#include "passes/sorted_model.h"

#include <algorithm>

namespace acorn::compiler {
namespace {

using Indices = std::vector<int32_t>;

void TakeRows(Matrix *m, const Indices &order) {
  if (!order.empty()) *m = Matrix((*m)(order, Eigen::all));
}

void TakeColumns(Matrix *m, const Indices &order) {
  if (!order.empty()) *m = Matrix((*m)(Eigen::all, order));
}

/// Of every head that comes from KV head h / (heads / kv_heads); `order` [kv_heads * dim] counts within a head.
Indices OfHeads(const Indices &order, int64_t heads, int64_t kv_heads) {
  Indices all;
  const int64_t dim = static_cast<int64_t>(order.size()) / kv_heads;
  for (int64_t row = 0; !order.empty() && row < heads * dim; ++row) {
    const int64_t kv_head = row / dim / (heads / kv_heads);
    all.push_back(static_cast<int32_t>(row / dim * dim) + order[static_cast<size_t>(kv_head * dim + row % dim)]);
  }
  return all;
}

/// Columns of O: [heads, dim] as [dim / 16, heads, 16].
Indices RankMajor(int64_t heads, int64_t dim) {
  const int64_t block = LayerOrder::kRankBlock;
  Indices all;
  for (int64_t rank = 0; rank < dim; rank += block) {
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t i = 0; i < block; ++i) all.push_back(static_cast<int32_t>(head * dim + rank + i));
    }
  }
  return all;
}

/// Rows of the convolution's input: x, B of each group, C of each group.
Indices ConvRows(const StateSpaceConfig &config, const LayerPlan &plan) {
  Indices all;
  const auto append = [&](const Indices &order, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      all.push_back(static_cast<int32_t>(first) + (order.empty() ? static_cast<int32_t>(i) : order[static_cast<size_t>(i)]));
    }
  };
  const int64_t states = config.groups * config.state;
  append(plan.channels, 0, config.inner());
  append(plan.states, config.inner(), states);
  append(plan.states, config.inner() + states, states);
  return all;
}

ModelConfig SortedConfig(ModelConfig config, const std::vector<LayerPlan> &layers) {
  const auto is_turned = [](const LayerPlan &plan) { return !plan.values.empty(); };
  // Clipped values keep what they are clipped with.
  if (config.v_bias && config.qkv_limit == 0 && std::any_of(layers.begin(), layers.end(), is_turned)) {
    config.v_bias = false;
    config.o_bias = true;
  }
  return config;
}

}  // namespace

SortedModel::SortedModel(const SourceModel &source, std::vector<LayerPlan> layers)
    : SourceModel(source, SortedConfig(source.config(), layers)), source_(source), layers_(std::move(layers)) {}

LayerOrder SortedModel::Order(int64_t layer) const { return layers_[static_cast<size_t>(layer)].order; }

Matrix SortedModel::LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const {
  if (!IsLayerRole(role)) return source_.LoadRows(role, layer, first, count);
  if (IsExpertRole(role)) return Experts(role, layer, first, count);
  return Whole(role, layer).middleRows(first, count);
}

Matrix SortedModel::Whole(TensorRole role, int64_t layer) const {
  const LayerPlan &plan = layers_[static_cast<size_t>(layer)];
  const int64_t heads = source_.config().heads, kv_heads = source_.config().kv_heads, dim = source_.config().head_dim;
  if (role == TensorRole::kOBias) return OutBias(layer);
  Matrix tensor = source_.Load(role, layer);
  switch (role) {
    case TensorRole::kQ:
      TakeRows(&tensor, OfHeads(plan.pair_rows, heads, kv_heads));
      break;
    case TensorRole::kK:
      TakeRows(&tensor, OfHeads(plan.pair_rows, kv_heads, kv_heads));
      break;
    case TensorRole::kQBias:
      TakeColumns(&tensor, OfHeads(plan.pair_rows, heads, kv_heads));
      break;
    case TensorRole::kKBias:
      TakeColumns(&tensor, OfHeads(plan.pair_rows, kv_heads, kv_heads));
      break;
    case TensorRole::kV:
      for (size_t head = 0; head < plan.values.size(); ++head) {
        auto rows = tensor.middleRows(static_cast<int64_t>(head) * dim, dim);
        rows = (plan.values[head] * rows).eval();
      }
      break;
    case TensorRole::kVBias:
      for (size_t head = 0; head < plan.values.size(); ++head) {
        auto part = tensor.middleCols(static_cast<int64_t>(head) * dim, dim);
        part = (part * plan.values[head].transpose()).eval();
      }
      break;
    case TensorRole::kO:
      for (int64_t head = 0; !plan.outputs.empty() && head < heads; ++head) {
        auto columns = tensor.middleCols(head * dim, dim);
        columns = (columns * plan.outputs[static_cast<size_t>(head / (heads / kv_heads))]).eval();
      }
      if (plan.order.rank_major) TakeColumns(&tensor, RankMajor(heads, dim));
      break;
    case TensorRole::kGate:
    case TensorRole::kUp:
      TakeRows(&tensor, plan.ffn);
      break;
    case TensorRole::kGateBias:
    case TensorRole::kUpBias:
    case TensorRole::kDown:
      TakeColumns(&tensor, plan.ffn);
      break;
    case TensorRole::kSsmConvIn:
    case TensorRole::kSsmConv:
      TakeRows(&tensor, ConvRows(source_.config().ssm, plan));
      break;
    case TensorRole::kSsmConvBias:
      TakeColumns(&tensor, ConvRows(source_.config().ssm, plan));
      break;
    case TensorRole::kSsmGate:
      TakeRows(&tensor, plan.channels);
      break;
    case TensorRole::kSsmNorm:
    case TensorRole::kSsmOut:
      TakeColumns(&tensor, plan.channels);
      break;
    default:
      break;
  }
  return tensor;
}

Matrix SortedModel::OutBias(int64_t layer) const {
  const ModelConfig &from = source_.config();
  Matrix bias = from.o_bias ? source_.Load(TensorRole::kOBias, layer) : Matrix::Zero(1, from.hidden);
  if (from.v_bias == config().v_bias) return bias;
  const Matrix values = source_.Load(TensorRole::kVBias, layer), out = source_.Load(TensorRole::kO, layer);
  for (int64_t head = 0; head < from.heads; ++head) {
    const auto of_head = values.middleCols(head / (from.heads / from.kv_heads) * from.head_dim, from.head_dim);
    bias += of_head * out.middleCols(head * from.head_dim, from.head_dim).transpose();
  }
  return bias;
}

Matrix SortedModel::Experts(TensorRole role, int64_t layer, int64_t first, int64_t count) const {
  const LayerPlan &plan = layers_[static_cast<size_t>(layer)];
  if (plan.experts.empty()) return source_.LoadRows(role, layer, first, count);
  const int64_t rows = RoleShape(config(), role).n / config().experts;
  Matrix out(count, RoleShape(config(), role).k);
  for (int64_t row = first; row < first + count;) {
    const int64_t expert = row / rows, end = std::min(first + count, (expert + 1) * rows);
    Matrix part = source_.LoadExpert(role, layer, expert);
    const Indices &order = plan.experts[static_cast<size_t>(expert)];
    role == TensorRole::kExpertDown ? TakeColumns(&part, order) : TakeRows(&part, order);
    out.middleRows(row - first, end - row) = part.middleRows(row - expert * rows, end - row);
    row = end;
  }
  return out;
}

}  // namespace acorn::compiler
