#include "passes/equalise.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "passes/layer_order.h"
#include "quantize/cached.h"
#include "quantize/grid.h"
#include "quantize/state_space_layer.h"

namespace acorn::compiler {
namespace {

constexpr double kStrengths[] = {0.25, 0.5};
constexpr double kQueryKeyStrengths[] = {0.25, 0.5, 0.75, 1.0};
constexpr double kWorthwhile = 0.9;  // of the error without scaling: rounding to nearest only stands in for GPTQ here
constexpr float kSmallest = 1e-3f;   // factors are chosen from magnitudes of at least this share of the largest
constexpr double kLimit = 127;

/// (magnitude ^ strength), geometric mean 1.
RowVector Factors(const RowVector &magnitudes, double strength) {
  const float floor = std::max(magnitudes.maxCoeff() * kSmallest, 1e-12f);
  RowVector logs = magnitudes.cwiseMax(floor).array().log().matrix() * static_cast<float>(strength);
  logs.array() -= logs.mean();
  return logs.array().exp().matrix();
}

Matrix StackRows(std::initializer_list<const Matrix *> parts) {
  int64_t rows = 0;
  for (const Matrix *part : parts) rows += part->rows();
  Matrix all(rows, (*parts.begin())->cols());
  int64_t row = 0;
  for (const Matrix *part : parts) {
    all.middleRows(row, part->rows()) = *part;
    row += part->rows();
  }
  return all;
}

void ScaleColumns(Matrix *m, const RowVector &factors) { m->array().rowwise() *= factors.array(); }

void ScaleRows(Matrix *m, RowVector *bias, const RowVector &factors) {
  m->array().colwise() *= factors.transpose().array();
  if (bias->size() != 0) bias->array() *= factors.array();
}

/// Error of a layer's output over the samples when input and weight are rounded, relative for each token.
double RoundedError(const Matrix &x, const Matrix &weight, WeightFormat format) {
  Matrix rounded = x;
  RoundToStep(rounded, BestActivationStep(x, weight, static_cast<double>(x.cwiseAbs().maxCoeff())), kLimit);
  const RowVector importance = x.array().square().colwise().mean().matrix();
  const Matrix back = Dequantize(RoundToGrid(weight, format, ScaleRule::kWeightedMse, importance));
  Matrix want(x.rows(), weight.rows()), got(x.rows(), weight.rows());
  Linear(want, x, weight, {});
  Linear(got, rounded, back, {});
  const Eigen::VectorXf energy = want.rowwise().squaredNorm();
  const float floor = 0.1f * energy.mean() + 1e-20f;
  return static_cast<double>(((got - want).rowwise().squaredNorm().array() / (energy.array() + floor)).sum());
}

/// Strength for a pair whose second weight reads `samples`; magnitudes: of each input column.
double ChooseStrength(const Matrix &samples, const Matrix &weight, const RowVector &magnitudes, WeightFormat format) {
  double best_strength = 0;
  double best = RoundedError(samples, weight, format) * kWorthwhile;
  for (const double strength : kStrengths) {
    const RowVector factors = Factors(magnitudes, strength);
    Matrix x = samples, w = weight;
    ScaleColumns(&w, factors);
    ScaleColumns(&x, factors.cwiseInverse());
    const double error = RoundedError(x, w, format);
    if (error < best) {
      best = error;
      best_strength = strength;
    }
  }
  return best_strength;
}

double EqualiseNorm(RowVector *gain, RowVector *bias, std::initializer_list<Matrix *> weights, const Matrix &stacked,
                    const RangeObserver &ranges, LinearInput input, WeightFormat format) {
  const RowVector &magnitudes = ranges.ColumnLargest(input);
  const double strength = ChooseStrength(ranges.Samples(input), stacked, magnitudes, format);
  if (strength == 0) return 0;
  const RowVector factors = Factors(magnitudes, strength);
  gain->array() /= factors.array();
  if (bias->size() != 0) bias->array() /= factors.array();
  for (Matrix *weight : weights) ScaleColumns(weight, factors);
  return strength;
}

/// The same in front of a sparse layer's experts.
double EqualiseSparseNorm(LayerWeights *w, const RangeObserver &ranges, WeightFormat format, ExpertList *experts) {
  const RowVector &magnitudes = ranges.ColumnLargest(LinearInput::kGateUp);
  const double strength = ChooseStrength(ranges.Samples(LinearInput::kGateUp), ProbeOfInputs(*experts, *w), magnitudes, format);
  if (strength == 0) return 0;
  const RowVector factors = Factors(magnitudes, strength);
  w->ffn_norm.array() /= factors.array();
  if (w->ffn_norm_bias.size() != 0) w->ffn_norm_bias.array() /= factors.array();
  ScaleInputs(factors, experts, w);
  return strength;
}

/// For each column of o, the value of its channel of its KV head: channels [kv_heads * head_dim].
RowVector OfOutColumns(const ModelConfig &config, const LayerOrder &order, const RowVector &channels) {
  const int64_t dim = config.head_dim, group = config.heads / config.kv_heads;
  RowVector repeated(config.heads * dim);
  for (int64_t head = 0; head < config.heads; ++head) {
    for (int64_t d = 0; d < dim; ++d) repeated[OutColumn(config, order, head, d)] = channels[head / group * dim + d];
  }
  return repeated;
}

/// v / factors, columns of o * factors: one for each channel of each KV head.
void ScaleValueOut(const ModelConfig &config, LayerWeights *w, const RowVector &factors) {
  ScaleColumns(&w->o, OfOutColumns(config, w->order, factors));
  ScaleRows(&w->v, &w->v_bias, factors.cwiseInverse());
}

double EqualiseValueOut(const ModelConfig &config, LayerWeights *w, const RangeObserver &ranges, WeightFormat format) {
  const int64_t dim = config.head_dim, group = config.heads / config.kv_heads;
  const RowVector &columns = ranges.ColumnLargest(LinearInput::kO);
  RowVector shared = RowVector::Zero(config.kv_heads * dim);
  for (int64_t head = 0; head < config.heads; ++head) {
    for (int64_t d = 0; d < dim; ++d) {
      float &largest = shared[head / group * dim + d];
      largest = std::max(largest, columns[OutColumn(config, w->order, head, d)]);
    }
  }
  const RowVector repeated = OfOutColumns(config, w->order, shared);
  const double strength = ChooseStrength(ranges.Samples(LinearInput::kO), w->o, repeated, format);
  if (strength == 0) return 0;
  ScaleValueOut(config, w, Factors(shared, strength));
  return strength;
}

/// Expected squared error of the scores of a KV head's queries when q and k are rounded to 127 steps of their ranges.
struct QueryKeyError {
  int64_t dim, group;
  const RowVector &q_largest, &k_largest;
  const RowVector &q_energy, &k_energy;

  double operator()(int64_t kv_head, const RowVector &factors) const {  // q * factor, k / factor
    const auto k = [&](const RowVector &v) { return v.segment(kv_head * dim, dim).array(); };
    const double k_step = static_cast<double>((k(k_largest) / factors.array()).maxCoeff()) / kLimit;
    const double k_sum = static_cast<double>((k(k_energy) / factors.array().square()).sum());
    double error = 0;
    for (int64_t g = 0; g < group; ++g) {
      const int64_t first = (kv_head * group + g) * dim;
      const double q_step = static_cast<double>((q_largest.segment(first, dim).array() * factors.array()).maxCoeff()) / kLimit;
      const double q_sum = static_cast<double>((q_energy.segment(first, dim).array() * factors.array().square()).sum());
      error += k_step * k_step * q_sum + q_step * q_step * k_sum;
    }
    return error;
  }
};

double EqualiseQueryKey(const ModelConfig &config, LayerWeights *w, const RangeObserver &ranges) {
  const int64_t dim = config.head_dim, group = config.heads / config.kv_heads;
  const QueryKeyError error_of{dim,
                               group,
                               ranges.RotatedLargest(Edge::kQRotated),
                               ranges.RotatedLargest(Edge::kKRotated),
                               ranges.RotatedEnergy(Edge::kQRotated),
                               ranges.RotatedEnergy(Edge::kKRotated)};
  double strongest = 0;
  for (int64_t kv_head = 0; kv_head < config.kv_heads; ++kv_head) {
    RowVector ratio(dim);  // of a dimension's reach in k to that in q
    for (int64_t d = 0; d < dim; ++d) {
      // A rotation mixes the two members of a pair, so they share a factor.
      const int64_t partner = RotaryPartner(config, w->order, kv_head, d);
      float q = 1e-6f;
      for (int64_t g = 0; g < group; ++g) {
        const int64_t first = (kv_head * group + g) * dim;
        q = std::max({q, error_of.q_largest[first + d], error_of.q_largest[first + partner]});
      }
      const float k = std::max({1e-6f, error_of.k_largest[kv_head * dim + d], error_of.k_largest[kv_head * dim + partner]});
      ratio[d] = k / q;
    }
    double best = error_of(kv_head, RowVector::Ones(dim)) * kWorthwhile, strength = 0;
    for (const double candidate : kQueryKeyStrengths) {
      const double error = error_of(kv_head, Factors(ratio, candidate));
      if (error < best) {
        best = error;
        strength = candidate;
      }
    }
    if (strength == 0) continue;
    strongest = std::max(strongest, strength);
    const RowVector factors = Factors(ratio, strength);
    const auto scale = [&](Matrix *weight, RowVector *bias, int64_t head, const RowVector &by) {
      weight->middleRows(head * dim, dim).array().colwise() *= by.transpose().array();
      if (bias->size() != 0) bias->segment(head * dim, dim).array() *= by.array();
    };
    for (int64_t g = 0; g < group; ++g) scale(&w->q, &w->q_bias, kv_head * group + g, factors);
    scale(&w->k, &w->k_bias, kv_head, factors.cwiseInverse());
  }
  return strongest;
}

}  // namespace

const char *ScalingPairName(ScalingPair pair) {
  switch (pair) {
    case ScalingPair::kNormQkv:
      return "norm-qkv";
    case ScalingPair::kNormGateUp:
      return "norm-gate_up";
    case ScalingPair::kUpDown:
      return "up-down";
    case ScalingPair::kValueOut:
      return "v-o";
    case ScalingPair::kQueryKey:
      return "q-k";
  }
  return "?";
}

const char *RefusalOf(const ModelConfig &config, ScalingPair pair) {
  if (pair == ScalingPair::kUpDown) return "the Hadamard transform or 15 bits take care of the range already";
  if (pair == ScalingPair::kQueryKey && config.qk_norm) return "the norm of each head comes between the weights and the scores";
  return nullptr;
}

bool Equalisation::any() const {
  return std::any_of(std::begin(strength), std::end(strength), [](double value) { return value != 0; });
}

Equalisation EqualiseLayer(const ModelConfig &config, LayerWeights *weights, const RangeObserver &ranges, WeightFormat format,
                           double kv_limit, ExpertList *experts) {
  Equalisation result;
  const auto format_for = [&](int64_t k) {
    const int64_t group = GroupSize(format);
    return group != 0 && k % group != 0 ? WeightFormat::kW8 : format;
  };
  LayerWeights &w = *weights;
  const bool state_space = w.ssm.out.size() != 0;
  const auto run = [&](ScalingPair pair, const auto &scale) {
    if (RefusalOf(config, pair) == nullptr) result.strength[static_cast<size_t>(pair)] = scale();
  };
  run(ScalingPair::kNormQkv, [&] {
    if (state_space) {
      return EqualiseNorm(&w.attn_norm, &w.attn_norm_bias, {&w.ssm.gate, &w.ssm.conv_in, &w.ssm.step}, StackInputs(w.ssm), ranges,
                          LinearInput::kQkv, format_for(config.hidden));
    }
    return EqualiseNorm(&w.attn_norm, &w.attn_norm_bias, {&w.q, &w.k, &w.v}, StackRows({&w.q, &w.k, &w.v}), ranges,
                        LinearInput::kQkv, format_for(w.q.cols()));
  });
  run(ScalingPair::kNormGateUp, [&] {
    if (w.ffn_norm.size() == 0) return 0.0;  // no FFN
    if (experts != nullptr && !experts->empty()) return EqualiseSparseNorm(&w, ranges, format_for(w.router.cols()), experts);
    return EqualiseNorm(&w.ffn_norm, &w.ffn_norm_bias, {&w.gate, &w.up}, StackRows({&w.gate, &w.up}), ranges,
                        LinearInput::kGateUp, format_for(w.gate.cols()));
  });
  if (state_space) return result;
  run(ScalingPair::kValueOut, [&] {
    if (kv_limit > kNibbleLimit) return EqualiseValueOut(config, &w, ranges, format_for(w.o.cols()));
    ScaleValueOut(config, &w, ChannelFactors(ranges.HeadSamples(Edge::kV), kv_limit));
    return 1.0;
  });
  // Before a cache of 4 bits a Hadamard transform spreads what is large: factors of a dimension would undo that.
  if (kv_limit > kNibbleLimit) run(ScalingPair::kQueryKey, [&] { return EqualiseQueryKey(config, &w, ranges); });
  return result;
}

}  // namespace acorn::compiler
