#include "quantize/activations.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/parallel.h"
#include "passes/hadamard.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kRowsPerTask = 64;
constexpr int64_t kMomentBlock = 192;     // columns of a task's tile of X^T X
constexpr float kMagic = 12582912.0f;     // 1.5 * 2^23: adding it rounds to an integer
constexpr double kOrdinaryShare = 0.999;  // of tokens; the first of 512 is still among them
constexpr double kMassiveRatio = 4.0;     // above the largest ordinary token: massive
constexpr double kClipRatio = 0.9;        // from one candidate of a clipped range to the next
constexpr int kClipCandidates = 18;

void ForRowBlocks(int64_t rows, const std::function<void(int64_t, int64_t)> &body) {
  ParallelFor((rows + kRowsPerTask - 1) / kRowsPerTask,
              [&](int64_t task) { body(task * kRowsPerTask, std::min(rows, (task + 1) * kRowsPerTask)); });
}

void RoundRow(float *x, int64_t count, float step, float limit) {
  const float inverse = 1 / step;
  for (int64_t i = 0; i < count; ++i) {
    const float scaled = std::min(std::max(x[i] * inverse, -limit), limit);
    x[i] = step * ((scaled + kMagic) - kMagic);
  }
}

/// Appends the largest magnitude of each row.
void AppendMagnitudes(std::vector<float> *all, ConstMatrixRef values) {
  const size_t before = all->size();
  all->resize(before + static_cast<size_t>(values.rows()));
  ForRowBlocks(values.rows(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) (*all)[before + static_cast<size_t>(r)] = values.row(r).cwiseAbs().maxCoeff();
  });
}

double Maximum(const std::vector<float> &magnitudes) {
  return magnitudes.empty() ? 0 : static_cast<double>(*std::max_element(magnitudes.begin(), magnitudes.end()));
}

double ReachOf(const std::vector<float> &magnitudes) {
  if (magnitudes.empty()) return 0;
  std::vector<float> sorted = magnitudes;
  const auto rank = static_cast<std::ptrdiff_t>(kOrdinaryShare * static_cast<double>(sorted.size() - 1));
  std::nth_element(sorted.begin(), sorted.begin() + rank, sorted.end());
  return std::min(Maximum(magnitudes), kMassiveRatio * static_cast<double>(sorted[static_cast<size_t>(rank)]));
}

void KeepLargest(RowVector *largest, const RowVector &values) {
  *largest = largest->size() == 0 ? values : RowVector(largest->cwiseMax(values));
}

bool HasOwnColumns(Edge edge) {
  return edge == Edge::kSsmConvIn || edge == Edge::kSsmConvOut || edge == Edge::kSsmStep || edge == Edge::kSsmState;
}

bool IsPerHead(Edge edge) { return edge == Edge::kQRotated || edge == Edge::kKRotated || edge == Edge::kV; }

}  // namespace

int64_t HeadBlock(int64_t head_dim) { return head_dim & -head_dim; }

int64_t StateBlock(const ModelConfig &config) {
  const int64_t inner = config.ssm.inner();
  return inner == 0 ? 1 : std::min<int64_t>(128, inner & -inner);
}

RangeObserver::RangeObserver(const ModelConfig &config, int64_t hadamard_block, int64_t head_block, int64_t tokens,
                             int64_t sample_rows)
    : head_dim_(config.head_dim),
      block_(hadamard_block),
      head_block_(head_block),
      stride_(std::max<int64_t>(1, tokens / sample_rows)),
      ssm_(config.ssm),
      piece_(config.ssm.head_dim),
      state_block_(StateBlock(config)) {}

void RangeObserver::ExpectOrder(const LayerOrder &order) {
  if (order.channel_major) piece_ = LayerOrder::kChannelBlock;
}

bool RangeObserver::Wants(Edge edge) const { return edge != Edge::kResidualIn && edge != Edge::kAct; }

void RangeObserver::Sample(LinearInput input, int64_t first_token, ConstMatrixRef values) {
  const auto slot = static_cast<size_t>(input);
  KeepLargest(&columns_[slot], values.cwiseAbs().colwise().maxCoeff());
  Keep(&samples_[slot], first_token, values);
}

void RangeObserver::Keep(Matrix *kept, int64_t first_token, ConstMatrixRef values) const {
  const int64_t first = (first_token + stride_ - 1) / stride_ * stride_ - first_token;
  if (first >= values.rows()) return;
  const int64_t count = (values.rows() - first + stride_ - 1) / stride_;
  const int64_t before = kept->rows();
  kept->conservativeResize(before + count, values.cols());
  for (int64_t i = 0; i < count; ++i) kept->row(before + i) = values.row(first + i * stride_);
}

void RangeObserver::OnEdge(Edge edge, int64_t, int64_t first_token, MatrixRef values) {
  const auto slot = static_cast<size_t>(edge);
  AppendMagnitudes(&magnitudes_[slot], values);
  if (edge == Edge::kQRotated || edge == Edge::kKRotated) {
    RowVector &largest = rotated_largest_[edge == Edge::kQRotated ? 0 : 1];
    RowVector &energy = rotated_energy_[edge == Edge::kQRotated ? 0 : 1];
    if (largest.size() == 0) largest = energy = RowVector::Zero(values.cols());
    largest = largest.cwiseMax(values.cwiseAbs().colwise().maxCoeff()).eval();
    energy += values.colwise().squaredNorm();
    HadamardRows(values, head_block_);
  }
  if (IsPerHead(edge)) {
    const int64_t heads = values.cols() / head_dim_;
    heads_[slot].resize(static_cast<size_t>(heads), 0.0);
    for (int64_t h = 0; h < heads; ++h) {
      double &head = heads_[slot][static_cast<size_t>(h)];
      head = std::max(head, static_cast<double>(values.middleCols(h * head_dim_, head_dim_).cwiseAbs().maxCoeff()));
    }
    Keep(&head_samples_[slot], first_token, values);
  }
  if (HasOwnColumns(edge)) KeepLargest(&edge_columns_[slot], values.cwiseAbs().colwise().maxCoeff());
  switch (edge) {
    case Edge::kSsmConvOut:
      scan_x_ = Matrix::Zero(values.rows(), ssm_.heads);
      for (int64_t first = 0; first < ssm_.inner(); first += piece_) {
        auto largest = scan_x_.col(first / piece_ % ssm_.heads);
        largest = largest.cwiseMax(values.middleCols(first, piece_).cwiseAbs().rowwise().maxCoeff());
      }
      return;
    case Edge::kSsmTime:
      return KeepLargest(&scan_input_, scan_x_.cwiseProduct(values).colwise().maxCoeff());
    case Edge::kSsmNormed:
      HadamardRows(values, state_block_);
      AppendMagnitudes(&out_input_, values);
      return Sample(LinearInput::kO, first_token, values);
    case Edge::kAttnIn:
      return Sample(LinearInput::kQkv, first_token, values);
    case Edge::kAttnOut:
      return Sample(LinearInput::kO, first_token, values);
    case Edge::kFfnIn:
      return Sample(LinearInput::kGateUp, first_token, values);
    case Edge::kGlu:
      HadamardRows(values, block_);
      AppendMagnitudes(&down_input_, values);
      return Sample(LinearInput::kDown, first_token, values);
    default:
      return;
  }
}

double RangeObserver::Largest(Edge edge) const { return Maximum(magnitudes_[static_cast<size_t>(edge)]); }
double RangeObserver::LargestDownInput() const { return Maximum(down_input_); }
double RangeObserver::Reach(Edge edge) const { return ReachOf(magnitudes_[static_cast<size_t>(edge)]); }
double RangeObserver::ReachOfDownInput() const { return ReachOf(down_input_); }
double RangeObserver::LargestOutInput() const { return Maximum(out_input_); }
double RangeObserver::ReachOfOutInput() const { return ReachOf(out_input_); }

void RangeObserver::ExpectExperts(int64_t count, int64_t block) {
  experts_.samples.resize(static_cast<size_t>(count));
  expert_block_ = block;
}

void RangeObserver::OnExpertEdge(Edge edge, int64_t layer, int64_t expert, const std::vector<int64_t> &tokens, MatrixRef values) {
  constexpr int64_t kSamples = 128;
  if (edge == Edge::kDownOut) return AppendMagnitudes(&experts_.down_out, values);
  if (expert == kSharedExpert) return OnEdge(edge, layer, tokens[0], values);
  if (edge == Edge::kGate) AppendMagnitudes(&experts_.gate, values);
  if (edge == Edge::kUp) AppendMagnitudes(&experts_.up, values);
  if (edge != Edge::kGlu) return;
  AppendMagnitudes(&experts_.glu, values);
  HadamardRows(values, expert_block_);
  AppendMagnitudes(&experts_.down_in, values);
  Matrix &samples = experts_.samples[static_cast<size_t>(expert)];
  const int64_t before = samples.rows(), count = std::min(kSamples - before, values.rows());
  if (count <= 0) return;
  samples.conservativeResize(before + count, values.cols());
  samples.bottomRows(count) = values.topRows(count);
}

double ExpertRanges::Reach(const std::vector<float> &magnitudes) { return ReachOf(magnitudes); }

GridObserver::GridObserver(const ModelConfig &config, const ActivationGrid &grid, int64_t hadamard_block)
    : grid_(grid),
      head_dim_(config.head_dim),
      block_(hadamard_block),
      state_block_(StateBlock(config)),
      expert_inputs_(static_cast<size_t>(config.experts)),
      expert_down_inputs_(static_cast<size_t>(config.experts)) {}

void GridObserver::CollectMoments() { collect_ = true; }

bool GridObserver::Wants(Edge edge) const {
  return IsPerHead(edge) || edge == Edge::kAttnIn || edge == Edge::kAttnOut || edge == Edge::kSsmNormed || edge == Edge::kFfnIn ||
         edge == Edge::kGlu;
}

void GridObserver::AddMoments(LinearInput input, ConstMatrixRef values) {
  if (collect_) AddSecondMoments(&moments_[static_cast<size_t>(input)], values);
}

void GridObserver::OnExpertEdge(Edge edge, int64_t layer, int64_t expert, const std::vector<int64_t> &tokens, MatrixRef values) {
  if (edge != Edge::kGlu) return;
  if (expert == kSharedExpert) return OnEdge(edge, layer, tokens[0], values);
  HadamardRows(values, grid_.expert_block);
  RoundToStep(values, grid_.expert_down_in, 127);
  if (!collect_) return;
  Matrix inputs(values.rows(), ffn_in_.cols());
  for (size_t i = 0; i < tokens.size(); ++i) inputs.row(static_cast<int64_t>(i)) = ffn_in_.row(tokens[i] - ffn_in_first_);
  AddSecondMoments(&expert_inputs_[static_cast<size_t>(expert)], inputs);
  AddSecondMoments(&expert_down_inputs_[static_cast<size_t>(expert)], values);
}

void GridObserver::OnEdge(Edge edge, int64_t, int64_t first_token, MatrixRef values) {
  switch (edge) {
    case Edge::kAttnIn:
      RoundToStep(values, grid_.attn_in, grid_.attn_in_limit);
      return AddMoments(LinearInput::kQkv, values);
    case Edge::kQRotated:
      HadamardRows(values, grid_.head_block);
      return RoundHeads(values, head_dim_, grid_.q, 127);
    case Edge::kKRotated:
      HadamardRows(values, grid_.head_block);
      return RoundHeads(values, head_dim_, grid_.k, grid_.kv_limit);
    case Edge::kV:
      return RoundHeads(values, head_dim_, grid_.v, grid_.kv_limit);
    case Edge::kSsmNormed:
      HadamardRows(values, state_block_);
      [[fallthrough]];
    case Edge::kAttnOut:
      RoundToStep(values, grid_.attn_out, 127);
      return AddMoments(LinearInput::kO, values);
    case Edge::kFfnIn:
      RoundToStep(values, grid_.ffn_in, grid_.ffn_in_limit);
      if (collect_ && grid_.expert_down_in != 0) {
        ffn_in_ = values;
        ffn_in_first_ = first_token;
      }
      return AddMoments(LinearInput::kGateUp, values);
    case Edge::kGlu:
      HadamardRows(values, block_);
      RoundToStep(values, grid_.down_in, grid_.down_in_limit);
      return AddMoments(LinearInput::kDown, values);
    default:
      return;
  }
}

void RoundToStep(MatrixRef values, double step, double limit) {
  ForRowBlocks(values.rows(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      RoundRow(values.data() + r * values.outerStride(), values.cols(), static_cast<float>(step), static_cast<float>(limit));
    }
  });
}

void RoundHeads(MatrixRef values, int64_t head_dim, const std::vector<double> &steps, double limit) {
  ForRowBlocks(values.rows(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (size_t h = 0; h < steps.size(); ++h) {
        RoundRow(values.data() + r * values.outerStride() + static_cast<int64_t>(h) * head_dim, head_dim,
                 static_cast<float>(steps[h]), static_cast<float>(limit));
      }
    }
  });
}

void AddSecondMoments(Matrix *sum, ConstMatrixRef values) {
  const int64_t k = values.cols();
  if (sum->size() == 0) *sum = Matrix::Zero(k, k);
  const int64_t blocks = (k + kMomentBlock - 1) / kMomentBlock;
  std::vector<std::pair<int64_t, int64_t>> tiles;
  for (int64_t i = 0; i < blocks; ++i) {
    for (int64_t j = i; j < blocks; ++j) tiles.emplace_back(i * kMomentBlock, j * kMomentBlock);
  }
  ParallelFor(static_cast<int64_t>(tiles.size()), [&](int64_t task) {
    const auto [i, j] = tiles[static_cast<size_t>(task)];
    const int64_t rows = std::min(kMomentBlock, k - i), columns = std::min(kMomentBlock, k - j);
    Matrix tile = values.middleCols(i, rows).transpose() * values.middleCols(j, columns);
    sum->block(i, j, rows, columns) += tile;
    if (i != j) sum->block(j, i, columns, rows) = sum->block(i, j, rows, columns).transpose();
  });
}

double BestActivationStep(const Matrix &samples, const Matrix &weight, double reach) {
  if (reach == 0) return 1.0 / 127;
  std::vector<double> errors(kClipCandidates);
  std::vector<double> steps(kClipCandidates);
  for (int i = 0; i < kClipCandidates; ++i) steps[static_cast<size_t>(i)] = reach / 127 * std::pow(kClipRatio, i);
  // Where the weight is wider than deep its Gram matrix is the cheaper way to the same sums.
  const bool use_gram = weight.rows() > weight.cols();
  Matrix gram;
  if (use_gram) AddSecondMoments(&gram, weight);
  const auto output_energy = [&](const Matrix &x) -> Eigen::VectorXf {
    if (use_gram) return (x * gram).cwiseProduct(x).rowwise().sum();
    return (x * weight.transpose()).rowwise().squaredNorm();
  };
  // Each token counts by its relative error: no massive one decides for all.
  const Eigen::VectorXf energy = output_energy(samples);
  std::vector<float> sorted(energy.data(), energy.data() + energy.size());
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2), sorted.end());
  const float floor = 2.0f * sorted[sorted.size() / 2] + 1e-20f;
  const Eigen::VectorXf importance = (energy.array() + floor).inverse().matrix();
  ParallelFor(kClipCandidates, [&](int64_t i) {
    Matrix difference = samples;
    for (int64_t r = 0; r < difference.rows(); ++r) {
      RoundRow(difference.data() + r * difference.cols(), difference.cols(), static_cast<float>(steps[static_cast<size_t>(i)]),
               127);
    }
    difference -= samples;
    errors[static_cast<size_t>(i)] = static_cast<double>(output_energy(difference).dot(importance));
  });
  return steps[static_cast<size_t>(std::min_element(errors.begin(), errors.end()) - errors.begin())];
}

}  // namespace acorn::compiler
