#include "passes/layer_moments.h"

#include <algorithm>
#include <cmath>

#include "base/parallel.h"
#include "quantize/activations.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kChunkTokens = 64;  // a state is looked at behind so many tokens: between two it is much the same

void AddSquares(RowVector *sum, ConstMatrixRef values) {
  if (sum->size() == 0) *sum = RowVector::Zero(values.cols());
  *sum += values.colwise().squaredNorm();
}

}  // namespace

LayerMoments::LayerMoments(const ModelConfig &config, const LayerWeights &weights, int64_t window)
    : config_(config), weights_(weights), window_(window) {
  if (weights.experts) {
    expert_glu_.resize(static_cast<size_t>(config.experts));
    expert_tokens_.resize(static_cast<size_t>(config.experts));
  }
}

bool LayerMoments::Wants(Edge edge) const {
  switch (edge) {
    case Edge::kResidualIn:
    case Edge::kQRotated:
    case Edge::kKRotated:
    case Edge::kV:
    case Edge::kSsmConvOut:
    case Edge::kSsmTime:
    case Edge::kGlu:
    case Edge::kResidualOut:
      return true;
    default:
      return false;
  }
}

void LayerMoments::OnEdge(Edge edge, int64_t, int64_t, MatrixRef values) {
  switch (edge) {
    case Edge::kResidualIn:
      in_ = values;
      return;
    case Edge::kQRotated:
      return AddSquares(&queries_, values);
    case Edge::kKRotated:
      return AddKeys(values);
    case Edge::kV:
      return AddValues(values);
    case Edge::kSsmConvOut:
      convolved_ = values;
      return;
    case Edge::kSsmTime:
      return AddStates(values);
    case Edge::kGlu:
      return AddSecondMoments(&glu_, values);
    case Edge::kResidualOut:
      for (int64_t t = 0; t < values.rows(); ++t) {
        const double norms = static_cast<double>(in_.row(t).norm()) * static_cast<double>(values.row(t).norm());
        if (norms > 0) turned_ += 1 - static_cast<double>(in_.row(t).dot(values.row(t))) / norms;
      }
      tokens_ += values.rows();
      return;
    default:
      return;
  }
}

void LayerMoments::OnExpertEdge(Edge edge, int64_t, int64_t expert, const std::vector<int64_t> &tokens, MatrixRef values) {
  if (edge != Edge::kGlu || expert == kSharedExpert) return;
  AddSecondMoments(&expert_glu_[static_cast<size_t>(expert)], values);
  expert_tokens_[static_cast<size_t>(expert)] += static_cast<int64_t>(tokens.size());
}

void LayerMoments::AddKeys(MatrixRef keys) {
  for (int64_t first = 0; first < keys.rows(); first += window_) {
    const auto rows = keys.middleRows(first, std::min(window_, keys.rows() - first));
    AddSquares(&keys_, Matrix(rows.rowwise() - rows.colwise().mean()));
  }
}

void LayerMoments::AddValues(MatrixRef values) {
  const int64_t dim = config_.head_dim;
  values_.resize(static_cast<size_t>(config_.kv_heads));
  for (int64_t head = 0; head < config_.kv_heads; ++head) {
    Matrix rows = values.middleCols(head * dim, dim);
    if (weights_.v_bias.size() != 0) rows.rowwise() -= weights_.v_bias.segment(head * dim, dim);
    AddSecondMoments(&values_[static_cast<size_t>(head)], rows);
  }
}

void LayerMoments::AddStates(MatrixRef steps) {
  const StateSpaceConfig &ssm = config_.ssm;
  const int64_t heads_per_group = ssm.heads / ssm.groups, states = ssm.groups * ssm.state;
  Matrix b = convolved_.middleCols(ssm.inner(), states);
  AddSquares(&outputs_c_, convolved_.middleCols(ssm.inner() + states, states));
  for (int64_t group = 0; group < ssm.groups; ++group) {
    const auto of_heads = steps.middleCols(group * heads_per_group, heads_per_group).rowwise().norm().eval();
    b.middleCols(group * ssm.state, ssm.state).array().colwise() *= of_heads.array();
  }
  AddSquares(&inputs_b_, b);
  states_.resize(static_cast<size_t>(ssm.heads));
  ParallelFor(ssm.heads, [&](int64_t head) {
    Matrix &sum = states_[static_cast<size_t>(head)];
    if (sum.size() == 0) sum = Matrix::Zero(ssm.head_dim, ssm.head_dim);
    Matrix h(ssm.head_dim, ssm.state);
    for (int64_t t = 0; t < steps.rows(); ++t) {
      if (t % window_ == 0) h.setZero();
      const auto x = convolved_.row(t).segment(head * ssm.head_dim, ssm.head_dim);
      h *= std::exp(weights_.ssm.decay(head) * steps(t, head));
      h.noalias() += (steps(t, head) * x).transpose() *
                     convolved_.row(t).segment(ssm.inner() + head / heads_per_group * ssm.state, ssm.state);
      if ((t + 1) % kChunkTokens == 0) sum.noalias() += h * h.transpose();
    }
  });
}

}  // namespace acorn::compiler
