// Tape: runs steps of a LiveGraph on a window of tokens with the device's own operators, and takes gradients back through
// them. Forward, every tensor holds the integers that the device would hold. Backward, rounding counts as the identity and
// saturation as a constant (straight-through estimation); the size of a rounded edge's unit gets the gradient of learned step
// sizes (Esser et al., LSQ, ICLR 2020, section 2.1), its zero point that of the values it keeps out.
//
// Gradients are taken by real values: an edge's gradient is that of the real numbers that its integers stand for.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <vector>

#include "ops/op.h"
#include "train/live_graph.h"

namespace acorn::compiler {

/// What a step's real numbers get. Undefined: none. Sums over everything since they were last cleared.
struct StepGradients {
  torch::Tensor out_scale;  // by the logarithm of the unit of the output; [1] or [heads]
  torch::Tensor key_scale;  // Append to 4 bits: [kv_heads], by the logarithm of the keys' units, where keys saturate
  torch::Tensor out_zero;   // [1], by the zero point
  torch::Tensor gain;       // RmsNorm: [width of a group] or [width], LayerNorm: [width]
  torch::Tensor rows;       // Linear: [n], by the logarithm of the weight's channel scales
  torch::Tensor bias;       // Linear: [n], norms: as gain
  torch::Tensor weight;     // Linear, on demand: [n, k], by the real weight
  torch::Tensor prefix_k, prefix_v;  // Append: [prefix rows, kv_heads, head_dim], by the real constant prefix
  torch::Tensor decay, skip;         // Scan: [heads]
};

/// What the units of a layer's rotated queries [heads], cached keys and cached values [kv_heads] get from all steps that round to
/// them; by their logarithms.
struct HeadUnitGradients {
  torch::Tensor q8, k8, v8;
};
HeadUnitGradients GradientsOfHeadUnits(const LiveStep *steps, const StepGradients *gradients, size_t count);

/// The memory of one machine: scratch, cache, state and rotary tables for windows of up to `rows` tokens. One layer's keys and
/// values, and one step's state, at a time: layers follow each other, and a window is one chunk behind the constant prefix.
class Machine {
 public:
  Machine(int64_t rows, int64_t prefix_rows);

  /// Sizes everything for the graph as it is described now.
  void Load(LiveGraph *graph);
  int64_t prefix_rows() const { return prefix_rows_; }
  LiveGraph &graph() const { return *graph_; }
  const Graph &view() const { return *view_; }

  /// Runs one step. buffers: of each value, the one that holds it now; the step's output gets a new one.
  void Run(const LiveStep &step, std::vector<torch::Tensor> *buffers, const std::vector<int32_t> &tokens);

  /// [rows, pairs] of a rope, in float, for the gradient of rotations.
  const torch::Tensor &cosine(uint32_t rope) const { return ropes_[rope].real_cosine; }
  const torch::Tensor &sine(uint32_t rope) const { return ropes_[rope].real_sine; }

 private:
  struct Rotary {
    std::vector<int16_t> cosine, sine;
    torch::Tensor real_cosine, real_sine;
  };
  void CopyPrefix(const AppendOp &op);
  /// To what the constant prefix leaves there, or to zeros.
  void StartState(uint32_t index);

  int64_t rows_, prefix_rows_;
  kv_cache::Extent extent_;
  LiveGraph *graph_ = nullptr;
  const Graph *view_ = nullptr;
  KernelSet kernels_;
  Parallel parallel_;
  torch::Tensor step_scratch_, thread_scratch_, k_cache_, v_cache_, state_;
  uint64_t thread_bytes_ = 0;
  std::vector<CachePlace> caches_;
  std::vector<uint8_t *> states_;
  std::vector<Rotary> ropes_;
  std::vector<RopePlace> rope_places_;
  std::vector<Place> places_;
};

class Tape {
 public:
  Tape(Machine *machine, const std::vector<int32_t> &tokens) : machine_(machine), tokens_(tokens) {}

  /// The buffer of `port`'s value from now on.
  void SetBuffer(const Port &port, torch::Tensor buffer);
  const torch::Tensor &buffer(const Port &port) const { return buffers_[port.value]; }
  /// Runs steps; with `record`, Backward() can go through them.
  void Run(const LiveStep *begin, const LiveStep *end, bool record);

  /// The gradient of `port`'s columns, which nothing has read yet.
  void SetGradient(const Port &port, torch::Tensor gradient);
  torch::Tensor TakeGradient(const Port &port);
  /// Back through all recorded steps, which are forgotten. gradients: of the first recorded step, the next, ... added to.
  void Backward(StepGradients *gradients, bool weights);

  /// Real numbers of `port`'s columns in a buffer: float [tokens, width].
  static torch::Tensor Real(const torch::Tensor &buffer, const Port &port);

 private:
  struct Record {
    const LiveStep *live;
    torch::Tensor in, other, out;
    torch::Tensor c, time_step;  // of Scan
  };
  void AddGradient(const Port &port, torch::Tensor gradient);
  void BackNorm(const Record &record, StepGradients *to);
  void BackLinear(const Record &record, StepGradients *to, bool weights);
  /// Rotate, and the values of Append: heads that are rounded to units of their own.
  void BackHeads(const torch::Tensor &buffer, const Port &in, const LiveStep &live, const torch::Tensor &g, StepGradients *to);
  void BackAppend(const Record &record, StepGradients *to);
  void BackAttention(const Record &record, StepGradients *to);
  void BackGlu(const Record &record);
  void BackHadamard(const Record &record, StepGradients *to);
  void BackConv(const Record &record);
  void BackScan(const Record &record, StepGradients *to);

  Machine *machine_;
  const std::vector<int32_t> &tokens_;
  std::vector<torch::Tensor> buffers_;    // by value
  std::vector<torch::Tensor> gradients_;  // by value
  std::vector<Record> records_;
  const Record *append_ = nullptr;  // of the layer whose attention is being gone through
  std::vector<const std::vector<double> *> head_scales_;  // by value: units of the heads that attention reads
  torch::Tensor key_gradient_, value_gradient_;  // [prefix rows + tokens, kv_heads, head_dim], from Attention for Append
};

}  // namespace acorn::compiler
