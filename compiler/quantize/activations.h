// What calibration sees and does on a layer's activation edges: ranges, samples, second moments, rounding to static grids.
#pragma once

#include <cstdint>
#include <vector>

#include "base/matrix.h"
#include "graph/float_model.h"
#include "import/source_model.h"

namespace acorn::compiler {

/// The inputs of the four weights of a layer; of a state-space layer kQkv is that of gate, conv_in and step, kO that of out.
enum class LinearInput : uint8_t { kQkv = 0, kO = 1, kGateUp = 2, kDown = 3 };
inline constexpr int kLinearInputs = 4;

/// The largest power of two that divides head_dim: the block of the Hadamard transform of rotated heads.
int64_t HeadBlock(int64_t head_dim);

/// The largest power of two up to 128 that divides the width of a state-space layer's out: the block of the transform before it.
int64_t StateBlock(const ModelConfig &config);

/// What the routed experts of a sparse layer have seen: largest magnitudes of each token and expert.
struct ExpertRanges {
  std::vector<float> gate, up, glu, down_in, down_out;  // down_in: after the transform; down_out: of the shared expert too
  std::vector<Matrix> samples;                          // of down's input, for each expert; a few rows
  /// As RangeObserver::Reach.
  static double Reach(const std::vector<float> &magnitudes);
};

/// Ranges of one layer, from a run that changes nothing but the Hadamard transforms before down and a state-space layer's out, and
/// of rotated heads.
class RangeObserver : public LayerObserver {
 public:
  /// Keeps about `sample_rows` rows of each linear input and of queries, keys and values, evenly spread over `tokens`.
  RangeObserver(const ModelConfig &config, int64_t hadamard_block, int64_t head_block, int64_t tokens, int64_t sample_rows);

  bool Wants(Edge edge) const override;
  void OnEdge(Edge edge, int64_t layer, int64_t first_token, MatrixRef values) override;
  void OnExpertEdge(Edge edge, int64_t layer, int64_t expert, const std::vector<int64_t> &tokens, MatrixRef values) override;
  /// Of a state-space layer whose channels stand in another order than [heads, head_dim].
  void ExpectOrder(const LayerOrder &order);
  /// Of a sparse layer: the block of the transform before an expert's down. hadamard_block is then the shared expert's.
  void ExpectExperts(int64_t count, int64_t block);
  const ExpertRanges &experts() const { return experts_; }

  /// Largest magnitude on an edge; kGlu: before the transform.
  double Largest(Edge edge) const;
  double LargestDownInput() const;
  /// Range that a static scale should reach: the largest magnitude, unless a few tokens in a thousand stand far above
  /// all others (massive activations), which then saturate.
  double Reach(Edge edge) const;
  double ReachOfDownInput() const;
  /// Largest magnitude of each head; kQRotated and kKRotated (both after the transform) and kV only.
  const std::vector<double> &LargestOfHeads(Edge edge) const { return heads_[static_cast<size_t>(edge)]; }
  /// Of a state-space layer: the input of out, after the transform. kSsmNormed is before it.
  double LargestOutInput() const;
  double ReachOfOutInput() const;
  /// Largest magnitude of each column; kSsmConvIn, kSsmConvOut, kSsmStep and kSsmState only.
  const RowVector &ColumnLargest(Edge edge) const { return edge_columns_[static_cast<size_t>(edge)]; }
  /// Largest magnitude of x * dt in each head of a state-space layer.
  const RowVector &ScanInputLargest() const { return scan_input_; }
  /// Largest magnitude of each column of a linear input.
  const RowVector &ColumnLargest(LinearInput input) const { return columns_[static_cast<size_t>(input)]; }
  /// Largest magnitude and sum of squares of each column; kQRotated and kKRotated only, before the transform.
  const RowVector &RotatedLargest(Edge edge) const { return rotated_largest_[edge == Edge::kQRotated ? 0 : 1]; }
  const RowVector &RotatedEnergy(Edge edge) const { return rotated_energy_[edge == Edge::kQRotated ? 0 : 1]; }
  const Matrix &Samples(LinearInput input) const { return samples_[static_cast<size_t>(input)]; }
  /// kQRotated and kKRotated (both after the transform) and kV only.
  const Matrix &HeadSamples(Edge edge) const { return head_samples_[static_cast<size_t>(edge)]; }

 private:
  void Sample(LinearInput input, int64_t first_token, ConstMatrixRef values);
  void Keep(Matrix *kept, int64_t first_token, ConstMatrixRef values) const;

  int64_t head_dim_;
  int64_t block_, head_block_;
  int64_t stride_;
  std::vector<float> magnitudes_[kEdges];  // of each token, its largest
  std::vector<float> down_input_, out_input_;
  StateSpaceConfig ssm_;
  int64_t piece_;  // neighbouring channels of a state-space head: x is [head_dim / piece_, heads, piece_]
  int64_t state_block_;
  RowVector edge_columns_[kEdges];
  Matrix scan_x_;  // of the tokens at hand: largest of x in each head
  RowVector scan_input_;
  std::vector<double> heads_[kEdges];
  RowVector columns_[kLinearInputs];
  ExpertRanges experts_;
  int64_t expert_block_ = 1;
  RowVector rotated_largest_[2], rotated_energy_[2];  // q, k
  Matrix samples_[kLinearInputs];
  Matrix head_samples_[kEdges];
};

/// Steps and limits of the static grids that a layer's s8 (or s15) edges are rounded to.
struct ActivationGrid {
  double attn_in = 0, attn_out = 0, ffn_in = 0, down_in = 0;
  double attn_in_limit = 127, ffn_in_limit = 127, down_in_limit = 127;  // EdgeLimit() of their types
  std::vector<double> q, k, v;  // of each head
  double kv_limit = 127;        // 7 in a cache of 4 bits
  int64_t head_block = 1;       // of the Hadamard transform of rotated heads; 1: none
  double expert_down_in = 0;    // of a sparse layer
  int64_t expert_block = 1;
};

/// Rounds the edges of a run to their grids and, if asked, sums the second moments of the rounded linear inputs.
class GridObserver : public LayerObserver {
 public:
  GridObserver(const ModelConfig &config, const ActivationGrid &grid, int64_t hadamard_block);

  /// From now on, moments are summed.
  void CollectMoments();
  const Matrix &Moments(LinearInput input) const { return moments_[static_cast<size_t>(input)]; }

  bool Wants(Edge edge) const override;
  void OnEdge(Edge edge, int64_t layer, int64_t first_token, MatrixRef values) override;
  void OnExpertEdge(Edge edge, int64_t layer, int64_t expert, const std::vector<int64_t> &tokens, MatrixRef values) override;
  /// Second moments of each routed expert's own tokens; empty where it had none.
  const std::vector<Matrix> &expert_inputs() const { return expert_inputs_; }
  const std::vector<Matrix> &expert_down_inputs() const { return expert_down_inputs_; }

 private:
  void AddMoments(LinearInput input, ConstMatrixRef values);

  const ActivationGrid &grid_;
  int64_t head_dim_;
  int64_t block_, state_block_;
  Matrix moments_[kLinearInputs];
  bool collect_ = false;
  Matrix ffn_in_;  // of the tokens at hand, from ffn_in_first_ on
  int64_t ffn_in_first_ = 0;
  std::vector<Matrix> expert_inputs_, expert_down_inputs_;
};

/// values = step * clamp(round(values / step), -limit, limit), on all threads.
void RoundToStep(MatrixRef values, double step, double limit);
/// The same with one step for each `head_dim` columns.
void RoundHeads(MatrixRef values, int64_t head_dim, const std::vector<double> &steps, double limit);

/// sum += values^T * values, upper triangle and its mirror.
void AddSecondMoments(Matrix *sum, ConstMatrixRef values);

/// The step of an s8 edge for which the output of `weight` [n, k] changes least, relative to its size for each of the
/// samples [t, k]; among reach / 127 and smaller ones.
double BestActivationStep(const Matrix &samples, const Matrix &weight, double reach);

}  // namespace acorn::compiler
