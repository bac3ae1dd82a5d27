// What the passes of elastic pruning know of a layer: second moments of its inner channels over the calibration tokens, taken
// in one run of the float reference.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/float_model.h"

namespace acorn::compiler {

/// Watches one layer in its source's own order. Sums over tokens; a part that the layer lacks stays empty.
class LayerMoments final : public LayerObserver {
 public:
  /// window: tokens of a window, which all have this length. weights: of the layer; outlive this.
  LayerMoments(const ModelConfig &config, const LayerWeights &weights, int64_t window);

  bool Wants(Edge edge) const override;
  void OnEdge(Edge edge, int64_t layer, int64_t first_token, MatrixRef values) override;
  void OnExpertEdge(Edge edge, int64_t layer, int64_t expert, const std::vector<int64_t> &tokens, MatrixRef values) override;

  /// Of the input of down: [ffn, ffn] of a dense layer, [experts][expert_ffn, expert_ffn] of a sparse one.
  const Matrix &glu() const { return glu_; }
  const std::vector<Matrix> &expert_glu() const { return expert_glu_; }
  const std::vector<int64_t> &expert_tokens() const { return expert_tokens_; }
  /// Squares behind the rotation: [heads * head_dim], and [kv_heads * head_dim] from the mean of each window's keys, since what
  /// all keys share moves no softmax.
  const RowVector &queries() const { return queries_; }
  const RowVector &keys() const { return keys_; }
  /// Values without their bias, [kv_heads][head_dim, head_dim].
  const std::vector<Matrix> &values() const { return values_; }
  /// Of a state-space layer: squares of B times each head's time step and of C, [groups * state].
  const RowVector &inputs_b() const { return inputs_b_; }
  const RowVector &outputs_c() const { return outputs_c_; }
  /// Channels of each head's state at the ends of chunks: [heads][head_dim, head_dim].
  const std::vector<Matrix> &states() const { return states_; }
  /// Mean over the tokens of 1 - cos(input of the layer, its output).
  double influence() const { return turned_ / static_cast<double>(tokens_); }

 private:
  void AddKeys(MatrixRef keys);
  void AddValues(MatrixRef values);
  void AddStates(MatrixRef steps);

  const ModelConfig &config_;
  const LayerWeights &weights_;
  int64_t window_;
  int64_t tokens_ = 0;
  double turned_ = 0;
  Matrix in_, convolved_;  // of the group of windows at hand
  Matrix glu_;
  std::vector<Matrix> expert_glu_;
  std::vector<int64_t> expert_tokens_;
  RowVector queries_, keys_;
  std::vector<Matrix> values_;
  RowVector inputs_b_, outputs_c_;
  std::vector<Matrix> states_;
};

}  // namespace acorn::compiler
