// LiveGraph: the GraphBuilder whose graph runs here. Its steps are the device's own (runtime/ops), with the same integer
// constants that a file would hold, and beside each step stand the real numbers that the constants were made from, which is
// what its gradient is taken by.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "model/graph.h"
#include "pack/quantized_matrix.h"
#include "write/graph_builder.h"

namespace acorn::compiler {

/// A weight packed for the kernels, with its sums.
struct LiveWeight {
  const QuantizedMatrix *matrix = nullptr;
  WeightInfo info;              // sums; the scales are those of the last description
  std::vector<uint8_t> bytes;   // packed, with room to align
  const uint8_t *data = nullptr;  // in bytes, aligned
  Layout layout = Layout::kX16C8;
  int64_t k_panel = 0;
  uint64_t size = 0;
};

/// Conv and Scan: the real numbers that their integers were made from, and the integers.
struct LiveConv {
  ConvSpec real;
  ConvIntegers integers;
};
struct LiveScan {
  Port c, time_step;
  ScanSpec real;
  ScanIntegers integers;
};

struct LiveStep {
  Step step;       // as the runtime takes it; its constants lie in the vectors below
  Port in, other;  // other: up of Glu, v of Append, b of Add, B of Scan
  Port out;        // Append has none
  std::vector<double> scales;        // Linear: of the output columns; Rotate: of the heads; Append: of the cached values;
                                     // Attention: of a head's scores; Hadamard: what heads count in, empty: 1
  std::vector<double> value_scales;  // Attention: of the values that a head reads
  std::vector<double> gain;          // RmsNorm, LayerNorm
  std::vector<double> bias;          // Linear and LayerNorm, empty: none
  std::vector<double> factor;        // Glu
  double eps = 0;
  std::vector<int32_t> multipliers, more_multipliers, integer_bias;
  std::vector<int16_t> constants;
  std::unique_ptr<LiveConv> conv;  // Conv
  std::unique_ptr<LiveScan> scan;  // Scan
};

/// Its caches have no windows: training sees no more tokens at once than a window does (WriterOptions::sink_queries).
class LiveGraph : public GraphBuilder {
 public:
  LiveGraph() = default;
  LiveGraph(const LiveGraph &) = delete;
  LiveGraph &operator=(const LiveGraph &) = delete;

  /// Forgets everything but the packed weights: the next description adds the same weights in the same order.
  void Restart();
  /// These weights hold other integers since they were packed.
  void Repack(const std::vector<uint32_t> &indices);

  const Graph &graph();
  const std::vector<LiveStep> &embedding() const { return embedding_; }  // one step
  const std::vector<LiveStep> &body() const { return body_; }
  const std::vector<LiveStep> &head() const { return head_; }
  const LiveWeight &weight(uint32_t index) const { return *weights_[index]; }

  Port NewValue(EdgeType type, int64_t width) override;
  void BeginWeightSegment() override {}
  WeightInfo AddWeight(const QuantizedMatrix &matrix, Layout layout, EdgeType input, int64_t k_panel) override;
  uint16_t AddRope(const std::vector<double> &turns, uint32_t limit) override;
  uint16_t AddCache(int64_t kv_heads, int64_t head_dim, int bits, const std::vector<int8_t> &prefix_k,
                    const std::vector<int8_t> &prefix_v, int64_t window) override;
  uint16_t AddState(uint32_t rows, uint32_t columns, const std::vector<int16_t> &prefix) override;
  uint16_t AddState(uint32_t rows, uint32_t columns, const std::vector<int32_t> &prefix) override;
  void BeginHead(const Port &) override { in_head_ = true; }
  void SelectProfile(size_t) override {}  // only rate 0 is trained
  void Embedding(const Port &out, const WeightInfo &weight) override;
  void RmsNorm(const Port &in, const Port &out, int64_t groups, const std::vector<double> &gamma, double eps) override;
  void LayerNorm(const Port &in, const Port &out, const std::vector<double> &gain, const std::vector<double> &bias,
                 double eps) override;
  void Linear(const Port &in, const Port &out, const WeightInfo &weight, const std::vector<double> &bias,
              const std::vector<double> &out_scales) override;
  void Rotate(const Port &in, const Port &out, uint16_t rope, const std::vector<double> &out_scales,
              const std::vector<uint8_t> &pairs) override;
  void Append(const Port &k, const Port &v, uint16_t cache, const std::vector<double> &v_scales) override;
  void Attention(const Port &q, const Port *sink_q, const Port &out, uint16_t cache, const std::vector<double> &score_scales,
                 const std::vector<double> &v_scales, const ValueOrder &order) override;
  void Glu(const Port &gate, const Port &up, const Port &out, const std::vector<double> &factor) override;
  void Hadamard(const Port &in, const Port &out, uint32_t block, const std::vector<double> &head_units) override;
  void Add(const Port &a, const Port &b, const Port &out) override;
  void Conv(const Port &in, const Port &out, const ConvSpec &spec) override;
  void Scan(const Port &x, const Port &b, const Port &c, const Port &step, const Port &out, const ScanSpec &spec) override;
  // Models with experts are refused before a graph is made.
  uint16_t BeginExperts(const ExpertSetSpec &) override { std::abort(); }
  void AddExpert(const ExpertMatrices &) override { std::abort(); }
  void Experts(const Port &, const Port &, uint16_t, const RoutingSpec &, const Port *, const Port *) override { std::abort(); }

 private:
  LiveStep &NewStep(OpKind kind, const Port &in, const Port &out);
  uint16_t NewState(DType type, uint32_t rows, uint32_t columns, const uint8_t *prefix, size_t bytes);

  std::vector<Value> values_;
  std::vector<std::unique_ptr<LiveWeight>> weights_;
  size_t described_weights_ = 0;
  std::vector<Weight> views_;
  std::vector<std::vector<uint64_t>> frequencies_;
  std::vector<Rope> ropes_;
  struct Prefix {
    std::vector<int8_t> k, v;
  };
  std::vector<std::unique_ptr<Prefix>> prefixes_;
  std::vector<std::vector<uint8_t>> state_prefixes_;
  std::vector<Cache> caches_;
  std::vector<State> states_;
  std::vector<LiveStep> embedding_, body_, head_;
  bool in_head_ = false;
  Graph graph_ = {};
};

}  // namespace acorn::compiler
