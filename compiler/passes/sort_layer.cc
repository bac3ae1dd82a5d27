#include "passes/sort_layer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <Eigen/Eigenvalues>

#include "passes/importance.h"

namespace acorn::compiler {
namespace {

using Indices = std::vector<int32_t>;

constexpr double kSmallestEigenvalue = 1e-6;  // of the largest one

Indices Unsorted(int64_t count) {
  Indices order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

double At(const RowVector &v, int64_t i) { return static_cast<double>(v[i]); }

/// Two rows of a head that are kept or dropped together.
struct Pair {
  int32_t first = 0, second = 0;
  uint8_t frequency = LayerOrder::kNotRotated;
  double score = 0;
};

/// The pairs of a KV head in the source's order. A rotated pair turns by all angles, so its members share their squares: their
/// score q . k has the variance |q|^2 |k|^2 / 2. What is not rotated is paired by importance.
std::vector<Pair> PairsOfHead(const ModelConfig &config, const LayerMoments &moments, int64_t kv_head, bool sort) {
  const int64_t dim = config.head_dim, group = config.heads / config.kv_heads, rotated = config.rotary_dims / 2;
  const auto q = [&](int64_t i) {
    double sum = 0;
    for (int64_t g = 0; g < group; ++g) sum += At(moments.queries(), (kv_head * group + g) * dim + i);
    return sum;
  };
  const auto k = [&](int64_t i) { return At(moments.keys(), kv_head * dim + i); };
  std::vector<Pair> pairs;
  for (int64_t i = 0; i < rotated; ++i) {
    const int64_t j = i + rotated;
    pairs.push_back({static_cast<int32_t>(i), static_cast<int32_t>(j), static_cast<uint8_t>(i), (q(i) + q(j)) * (k(i) + k(j)) / 2});
  }
  std::vector<double> rest;
  for (int64_t i = 2 * rotated; i < dim; ++i) rest.push_back(sort ? q(i) * k(i) : 0);
  const Indices order = ByFallingScore(rest);
  for (size_t i = 0; i < order.size(); i += 2) {
    const auto base = static_cast<int32_t>(2 * rotated);
    const double score = rest[static_cast<size_t>(order[i])] + rest[static_cast<size_t>(order[i + 1])];
    pairs.push_back({base + order[i], base + order[i + 1], LayerOrder::kNotRotated, score});
  }
  if (sort) std::stable_sort(pairs.begin(), pairs.end(), [](const Pair &a, const Pair &b) { return a.score > b.score; });
  return pairs;
}

void PlanPairs(const ModelConfig &config, const LayerMoments &moments, bool sort, LayerPlan *plan) {
  const int64_t dim = config.head_dim, block = LayerOrder::kPairBlock;
  if (dim % (2 * block) != 0 || config.qk_norm || config.rotary_dims / 2 > LayerOrder::kNotRotated) return;
  plan->pair_rows.resize(static_cast<size_t>(config.kv_heads * dim));
  for (int64_t kv_head = 0; kv_head < config.kv_heads; ++kv_head) {
    const std::vector<Pair> pairs = PairsOfHead(config, moments, kv_head, sort);
    for (int64_t i = 0; i < dim / 2; ++i) {
      const Pair &pair = pairs[static_cast<size_t>(i)];
      const auto row = static_cast<size_t>(kv_head * dim + i / block * 2 * block + i % block);
      plan->pair_rows[row] = pair.first;
      plan->pair_rows[row + block] = pair.second;
      plan->order.pairs.push_back(pair.frequency);
    }
  }
}

/// Sum over the query heads of a KV head of O_h^T O_h.
Matrix GramOfOutputs(const ModelConfig &config, const Matrix &o, int64_t kv_head) {
  const int64_t dim = config.head_dim, group = config.heads / config.kv_heads;
  Matrix gram = Matrix::Zero(dim, dim);
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    gram.noalias() += o.middleCols(head * dim, dim).transpose() * o.middleCols(head * dim, dim);
  }
  return gram;
}

void PlanValues(const ModelConfig &config, const LayerWeights &weights, const LayerMoments &moments, const SortParts &parts,
                LayerPlan *plan) {
  const int64_t dim = config.head_dim;
  if (dim % LayerOrder::kRankBlock != 0) return;
  plan->order.rank_major = true;
  for (int64_t kv_head = 0; kv_head < config.kv_heads; ++kv_head) {
    const Matrix &of_values = moments.values()[static_cast<size_t>(kv_head)];
    const Matrix gram = GramOfOutputs(config, weights.o, kv_head);
    if (parts.svd && config.qkv_limit == 0) {
      ValueBasis basis = BasisOfValues(of_values, gram);
      plan->values.push_back(std::move(basis.values));
      plan->outputs.push_back(std::move(basis.outputs));
    } else {
      std::vector<double> scores;
      for (int64_t i = 0; i < dim; ++i) scores.push_back(static_cast<double>(of_values(i, i)) * static_cast<double>(gram(i, i)));
      const Indices order = parts.sort ? ByFallingScore(scores) : Unsorted(dim);
      const Matrix identity = Matrix::Identity(dim, dim);
      plan->values.push_back(identity(order, Eigen::all));
      plan->outputs.push_back(identity(Eigen::all, order));
    }
  }
}

/// What an expert's channels are without tokens: squares of a channel are those of its weights, and no two go together.
Matrix MomentsOfWeights(const ExpertWeights &expert) {
  const RowVector squares = expert.gate.rowwise().squaredNorm().cwiseProduct(expert.up.rowwise().squaredNorm()).transpose();
  return squares.asDiagonal();
}

void PlanFfn(const LayerWeights &weights, const LayerMoments &moments, LayerPlan *plan) {
  if (!weights.experts) {
    if (moments.glu().size() != 0) plan->ffn = ByOutputLoss(moments.glu(), weights.down);
    return;
  }
  for (size_t i = 0; i < moments.expert_glu().size(); ++i) {
    const std::shared_ptr<const ExpertWeights> expert = weights.experts(static_cast<int64_t>(i));
    const bool enough = moments.expert_tokens()[i] >= expert->gate.rows();
    plan->experts.push_back(ByOutputLoss(enough ? moments.expert_glu()[i] : MomentsOfWeights(*expert), expert->down));
  }
}

void PlanStateSpace(const ModelConfig &config, const LayerMoments &moments, bool sort, LayerPlan *plan) {
  const StateSpaceConfig &ssm = config.ssm;
  if (sort) {
    for (int64_t group = 0; group < ssm.groups; ++group) {
      std::vector<double> scores;
      for (int64_t i = group * ssm.state; i < (group + 1) * ssm.state; ++i) {
        scores.push_back(At(moments.inputs_b(), i) * At(moments.outputs_c(), i));
      }
      for (const int32_t i : ByFallingScore(scores)) plan->states.push_back(static_cast<int32_t>(group * ssm.state) + i);
    }
  }
  const int64_t block = LayerOrder::kChannelBlock;
  if (ssm.groups != 1 || ssm.head_dim % block != 0) return;
  plan->order.channel_major = true;
  plan->channels.resize(static_cast<size_t>(ssm.inner()));
  for (int64_t head = 0; head < ssm.heads; ++head) {
    const Indices order =
        sort ? ByFallingScore(RidgeLeverage(moments.states()[static_cast<size_t>(head)], 1)) : Unsorted(ssm.head_dim);
    for (int64_t i = 0; i < ssm.head_dim; ++i) {
      plan->channels[static_cast<size_t>((i / block * ssm.heads + head) * block + i % block)] =
          static_cast<int32_t>(head * ssm.head_dim) + order[static_cast<size_t>(i)];
    }
  }
}

}  // namespace

ValueBasis BasisOfValues(const Matrix &moments, const Matrix &gram) {
  const auto clamped = [](const Eigen::VectorXd &values) {
    return values.cwiseMax(std::max(values.maxCoeff() * kSmallestEigenvalue, 1e-30)).eval();
  };
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> of_values(moments.cast<double>());
  const Eigen::VectorXd roots = clamped(of_values.eigenvalues()).cwiseSqrt();
  const Eigen::MatrixXd root = of_values.eigenvectors() * roots.asDiagonal() * of_values.eigenvectors().transpose();
  const Eigen::MatrixXd inverse_root =
      of_values.eigenvectors() * roots.cwiseInverse().asDiagonal() * of_values.eigenvectors().transpose();
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> both(root * gram.cast<double>() * root);
  const Eigen::VectorXd sigma = clamped(both.eigenvalues()).cwiseSqrt().reverse();
  const Eigen::MatrixXd u = both.eigenvectors().rowwise().reverse();
  return {(sigma.asDiagonal() * u.transpose() * inverse_root).cast<float>(),
          (root * u * sigma.cwiseInverse().asDiagonal()).cast<float>()};
}

LayerPlan PlanLayer(const ModelConfig &config, const LayerWeights &weights, const LayerMoments &moments, const SortParts &parts) {
  LayerPlan plan;
  if (weights.ssm.out.size() != 0) {
    PlanStateSpace(config, moments, parts.sort, &plan);
  } else {
    PlanPairs(config, moments, parts.sort, &plan);
    PlanValues(config, weights, moments, parts, &plan);
  }
  if (parts.sort) PlanFfn(weights, moments, &plan);
  return plan;
}

}  // namespace acorn::compiler
